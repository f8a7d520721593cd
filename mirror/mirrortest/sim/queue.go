package sim

import (
	"math/rand/v2"

	"github.com/f19126b3/dbmirror/mirror"
)

// logEntry is one transaction of the principal's log, or a position without one (id zero).
type logEntry struct {
	at     mirror.Position // its end
	id     uint32
	size   uint32
	poison bool // cannot be redone until the mirror's schema is mended
}

// queue is the hardened log on a partner's disk. It outlives the program; what was appended and not hardened outlives
// the program only.
type queue struct {
	base     mirror.Position
	entries  []logEntry
	hardened int // entries that are on disk
	tail     mirror.Position
	end      mirror.Position // hardened to
	trimmed  mirror.Position // what lies before is gone
	holds    set             // commits among the hardened entries
	failed   bool            // a sync failed: nothing is hardened until the program starts again
	damaged  bool
}

// reset begins the log anew at base.
func (q *queue) reset(base mirror.Position) {
	*q = queue{base: base, tail: base, end: base, trimmed: base}
}

// rebase goes on in a newer role sequence of the same principal: the positions stay.
func (q *queue) rebase(seq mirror.RoleSeq) {
	q.end.Seq, q.tail.Seq = seq, seq
	q.entries = q.entries[:q.hardened]
	q.tail = q.end
}

func (q *queue) append(e logEntry) {
	q.entries = append(q.entries, e)
	q.tail = e.at
}

// harden notes that everything up to a position is on disk.
func (q *queue) harden(end mirror.Position) {
	for ; q.hardened < len(q.entries) && q.entries[q.hardened].at.Compare(end) <= 0; q.hardened++ {
		if id := q.entries[q.hardened].id; id > 0 {
			q.holds.add(id)
		}
	}
	if q.end.Compare(end) < 0 {
		q.end = end
	}
}

// tear drops bytes that were not synced when the machine crashed, and says whether some were.
func (q *queue) tear(rng *rand.Rand) bool {
	unsynced := len(q.entries) - q.hardened
	if unsynced == 0 {
		return false
	}
	q.entries = q.entries[:q.hardened+rng.IntN(unsynced+1)]
	return true
}

// open reads the log at the start of a program: what is there whole is hardened. It says whether the log is lost.
func (q *queue) open() bool {
	if q.damaged || q.end == (mirror.Position{}) {
		*q = queue{}
		return true
	}
	q.failed = false
	if n := len(q.entries); n > q.hardened {
		q.harden(q.entries[n-1].at)
	}
	q.tail = q.end
	return false
}

// trim forgets entries up to a position that the database has on disk.
func (q *queue) trim(upTo mirror.Position) {
	n := 0
	for n < q.hardened && q.entries[n].at.Compare(upTo) <= 0 {
		q.holds.remove(q.entries[n].id)
		q.trimmed = q.entries[n].at
		n++
	}
	q.entries = q.entries[n:]
	q.hardened -= n
}

// next is the first hardened entry after a position.
func (q *queue) next(after mirror.Position) (logEntry, bool) {
	for _, e := range q.entries[:q.hardened] {
		if e.at.Compare(after) > 0 {
			return e, true
		}
	}
	return logEntry{}, false
}
