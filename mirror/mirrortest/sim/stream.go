package sim

import (
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// stream is a mirror's program reading the log of the principal's server: it appends, syncs, and reports to the server
// what is on disk. It needs no program at the principal, only its server and the link in both directions.
type stream struct {
	*sim
	to   *path
	from *database
	seq  mirror.RoleSeq
	slot mirror.RoleSeq
	name waitFor // that it bears
	sent mirror.LSN

	dead    bool
	gone    bool // the server has ended it, which is seen when the link is there
	kicked  bool // something is on its way
	syncing bool
	heard   time.Duration
	told    mirror.Position
}

func (t *stream) linked() bool { return t.net.both(t.to.p.self, t.from.self) }

// begin starts it at the end of what is hardened.
func (t *stream) begin() {
	if old := t.from.reader; old != nil {
		old.drop()
	}
	t.from.reader = t
	t.heard = t.now
	t.say("%s: reads the log of %s in role sequence %d from %s", t.to.p.name(), t.from.name(), t.seq, t.sent)
	t.kick()
	t.pulse()
}

// kick sends what is new on the server's disk.
func (t *stream) kick() {
	if t.dead || t.kicked || t.gone || t.from.end() <= t.sent {
		return
	}
	t.kicked = true
	upTo := t.from.end()
	t.after(t.between(t.plan.delay/2, t.plan.delay*3/2), func() { t.arrive(upTo) })
}

// arrive appends what the server had flushed when it was sent. A link that is cut holds it back until it is mended or
// the silence too long; so does a program that stands still.
func (t *stream) arrive(upTo mirror.LSN) {
	if t.dead || t.notice() {
		return
	}
	if !t.linked() || t.to.p.paused || t.gone {
		t.after(200*time.Millisecond, func() { t.arrive(upTo) })
		return
	}
	t.heard = t.now
	q := t.to.p.queue
	if t.to.p.fullDisk {
		t.to.breakOff(mirror.ReasonDiskFull)
		return
	}
	log := t.from.log
	first := len(log)
	for first > 0 && log[first-1].end > t.sent {
		first--
	}
	for _, r := range log[first:] {
		if r.end <= upTo {
			q.append(logEntry{at: mirror.Position{Seq: t.seq, LSN: r.end}, id: r.id, size: r.size, poison: r.poison})
		}
	}
	t.sent = upTo
	q.tail = mirror.Position{Seq: t.seq, LSN: upTo}
	t.kicked = false
	t.sync()
	t.kick()
}

// sync puts on disk what has been appended, and reports it; what arrives meanwhile waits for the next one.
func (t *stream) sync() {
	q := t.to.p.queue
	if t.syncing || q.end.Compare(q.tail) >= 0 {
		return
	}
	t.syncing = true
	end := q.tail
	t.after(t.to.p.latency(t.plan.sync), func() {
		if t.dead {
			return
		}
		t.syncing = false
		if t.chance(t.syncFails[t.to.p.self]) {
			t.meet(logSyncFailed)
			q.failed = true
			t.to.breakOff(mirror.ReasonLogDamaged)
			return
		}
		t.checkDeaf(end.Seq)
		q.harden(end)
		t.tell()
		t.report()
		t.sync()
	})
}

// tell lets the session know how far the log is hardened.
func (t *stream) tell() {
	end := t.to.p.queue.end
	if end != t.told && t.to.p.tell(mirror.Event{Kind: mirror.EventHardened, Seq: end.Seq, LSN: end.LSN}) {
		t.told = end
	}
	t.to.redo()
}

// report lets the server know, which releases commits.
func (t *stream) report() {
	end := t.to.p.queue.end.LSN
	t.after(t.between(t.plan.delay/2, t.plan.delay*3/2), func() {
		if !t.dead && t.linked() && t.from.reader == t {
			t.from.report(t.name, t.slot, end)
		}
	})
}

// pulse is what goes back and forth when nothing is committed: it is a sign of life of the principal's server, and shows
// that the link is dead.
func (t *stream) pulse() {
	if t.dead {
		return
	}
	t.after(500*time.Millisecond, t.pulse)
	if t.to.p.paused {
		return
	}
	if t.notice() {
		return
	}
	if t.linked() && t.from.up && !t.gone {
		t.heard = t.now
	}
	if t.now-t.heard >= t.plan.timeout() {
		t.to.breakOff(mirror.ReasonNone)
		return
	}
	if t.heard == t.now && !t.to.fenced {
		t.to.p.tell(mirror.Event{Kind: mirror.EventStreamed})
	}
	t.tell()
	t.report()
	t.kick()
}

// drop is the end that the server makes: the reader sees it at once when the link is there.
func (t *stream) drop() {
	if t.dead {
		return
	}
	if t.from.reader == t {
		t.from.reader = nil
	}
	t.gone = true
	t.notice()
}

// notice sees that the server has ended the stream.
func (t *stream) notice() bool {
	if t.gone && t.linked() && !t.to.p.paused {
		t.to.breakOff(mirror.ReasonNone)
		return true
	}
	return false
}

// stop ends it here. Nothing is hardened afterwards.
func (t *stream) stop() {
	if t == nil || t.dead {
		return
	}
	t.dead = true
	if t.from.reader == t {
		t.from.reader = nil // the server finds out when it sends
	}
}
