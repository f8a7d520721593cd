package sim

import (
	"slices"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// database is a model of a database server: a log in positions of its own, commits that wait, slots, a gate. It goes on
// by itself when the program beside it dies.
type database struct {
	*machine
	up   bool
	life int // counts starts: what was proven in an earlier one is void

	next    mirror.LSN // end of the log
	log     []walRecord
	flushed int // records on disk
	holds   set // commits in the database, whether on disk or not
	base    set // those before log begins
	basePos mirror.Position
	redone  mirror.Position // the row of progress
	partial bool            // a copy is half done

	gate     mirror.Gate
	inForce  waitFor
	filed    waitFor    // in force after the next start
	reported mirror.LSN // the highest position that a mirror in force has ever reported since the start
	reader   *stream    // the walsender's other end
	slots    []slot
	reigns   []reign

	sequence uint64 // the next value
	logged   uint64 // the next value after a crash
	strange  bool   // a stranger has changed whom commits wait for
}

// walRecord is what the log says: a client's commit, a redone one, or a row of progress.
type walRecord struct {
	end    mirror.LSN
	id     uint32
	client bool
	pos    mirror.Position // of progress, when it is set
	drain  uint64          // a barrier's number
	size   uint32
	poison bool
}

// waitFor is whom commits wait for: nobody, the mirror of that name, or a name that nobody bears.
type waitFor struct {
	kind   waitKind
	seq    mirror.RoleSeq
	mirror mirror.Incarnation
}

type waitKind uint8

const (
	waitNobody waitKind = iota
	waitMirror
	waitBlocked
)

// slot keeps the log from a position on.
type slot struct {
	seq              mirror.RoleSeq // in its name
	confirmed, saved mirror.LSN     // saved is what it steps back to in a crash
}

// reign is a row that says where a role sequence begins on the principal's server.
type reign struct {
	seq   mirror.RoleSeq
	fork  mirror.Position
	slot  mirror.RoleSeq
	start mirror.LSN
}

func newDatabase(m *machine) *database {
	return &database{
		machine: m, up: true, life: 1, next: mirror.LSN(m.rng.Uint64N(1 << 40)), gate: mirror.GateOpen,
		sequence: 1, logged: 33,
	}
}

// append writes a record to the log and returns its number in it.
func (d *database) append(r walRecord, size mirror.LSN) int {
	d.next += size
	r.end = d.next
	d.log = append(d.log, r)
	if r.id > 0 {
		d.holds.add(r.id)
	}
	if r.pos.Seq > 0 {
		d.redone = r.pos
	}
	return len(d.log) - 1
}

// flush puts the log on disk up to a record, and lets it be read.
func (d *database) flush(record int) {
	if record >= d.flushed {
		d.flushed = min(record+1, len(d.log))
	}
	if d.reader != nil {
		d.reader.kick()
	}
}

// end is the end of the log on disk.
func (d *database) end() mirror.LSN {
	if d.flushed == len(d.log) {
		return d.next
	}
	if d.flushed == 0 {
		return d.log[0].end - 1
	}
	return d.log[d.flushed-1].end
}

// progress is how far redo is on disk.
func (d *database) progress() mirror.Position {
	for i := d.flushed - 1; i >= 0; i-- {
		if d.log[i].pos.Seq > 0 {
			return d.log[i].pos
		}
	}
	return d.basePos
}

// has says whether a barrier, or a later one, is in the database and on disk.
func (d *database) has(b barrier) bool {
	return slices.ContainsFunc(d.log[:d.flushed], func(r walRecord) bool { return r.drain >= b.number })
}

// rebuild computes the content from the log that is left.
func (d *database) rebuild(keep int) {
	d.log = d.log[:keep]
	d.flushed = keep
	d.holds, d.redone = d.base.clone(), d.basePos
	for _, r := range d.log {
		if r.id > 0 {
			d.holds.add(r.id)
		}
		if r.pos.Seq > 0 {
			d.redone = r.pos
		}
	}
}

// crash ends the server. Of the log that was not synced some is lost. Commits that waited are there, acknowledged to
// nobody.
func (d *database) crash(machine bool) {
	if !d.up {
		return
	}
	d.say("%s: its server goes down", d.name())
	d.up = false
	d.life++
	for _, r := range d.log[d.flushed:] {
		if r.client && machine {
			d.meet(commitTorn)
		}
	}
	d.rebuild(d.flushed + d.rng.IntN(len(d.log)-d.flushed+1))
	d.endClients()
	if d.reader != nil {
		d.reader.drop()
	}
	for i := range d.slots {
		if d.slots[i].confirmed > d.slots[i].saved {
			d.meet(slotSteppedBack)
		}
		d.slots[i].confirmed = d.slots[i].saved
	}
	d.sequence = d.logged
	d.checkCandidates("after a crash of a server")
}

func (d *database) startLater() {
	life := d.life
	d.after(d.between(300*time.Millisecond, 4*time.Second), func() {
		if d.life == life {
			d.start()
		}
	})
}

// start brings the server up as its files say: nothing that was proven before holds any more.
func (d *database) start() {
	if d.up || !d.machine.up || d.held {
		return
	}
	d.say("%s: its server is up, gate=%s", d.name(), d.gate)
	d.up, d.inForce, d.reported = true, d.filed, 0
	d.unwatched = d.now
	if d.gate == mirror.GateOpen {
		d.meet(serverStartsOpen)
		d.checkService()
	}
}

// slotOf finds a slot.
func (d *database) slotOf(seq mirror.RoleSeq) *slot {
	for i := range d.slots {
		if d.slots[i].seq == seq {
			return &d.slots[i]
		}
	}
	return nil
}

func (d *database) dropSlot(seq mirror.RoleSeq) {
	d.slots = slices.DeleteFunc(d.slots, func(s slot) bool { return s.seq == seq })
	if d.reader != nil && d.reader.slot == seq {
		d.reader.drop()
	}
}

// createSlot makes a slot at the end of the log.
func (d *database) createSlot(seq mirror.RoleSeq) mirror.LSN {
	d.dropSlot(seq)
	d.slots = append(d.slots, slot{seq, d.end(), d.end()})
	return d.end()
}

// reignOf finds where a role sequence begins here.
func (d *database) reignOf(seq mirror.RoleSeq) (reign, bool) {
	for _, r := range d.reigns {
		if r.seq == seq {
			return r, true
		}
	}
	return reign{}, false
}

// latestReign is the newest one before seq.
func (d *database) latestReign(seq mirror.RoleSeq) (latest reign, ok bool) {
	for _, r := range d.reigns {
		if r.seq <= seq && r.seq > latest.seq {
			latest, ok = r, true
		}
	}
	return latest, ok
}

func (d *database) writeReign(r reign) {
	d.reigns = slices.DeleteFunc(d.reigns, func(o reign) bool { return o.seq == r.seq })
	d.reigns = append(d.reigns, r)
}

// setGate moves the gate. Who is in the way is ended.
func (d *database) setGate(g mirror.Gate) {
	if d.gate == g {
		return
	}
	d.say("%s: gate %s", d.name(), g)
	d.mix(uint64(d.self), uint64(g), uint64(d.now))
	was := d.gate
	d.gate, d.leftOpen = g, false
	if was == mirror.GateOpen {
		d.endClients()
		d.meet(closedAfterService)
	}
	if g == mirror.GateOpen {
		d.checkOpen()
		d.checkService()
	}
}

// wait changes whom commits wait for, now and after a start. Those that wait for nobody any more return.
func (d *database) wait(inForce, filed waitFor) {
	d.say("%s: commits wait for %v, after a start for %v", d.name(), inForce, filed)
	d.inForce, d.filed, d.strange = inForce, filed, false
	if inForce.kind == waitNobody {
		d.release(d.next)
	}
}

// report is what a mirror says that it has hardened. It counts only under the name that is in force.
func (d *database) report(name waitFor, from mirror.RoleSeq, to mirror.LSN) {
	if !d.up {
		return
	}
	if to > d.next {
		d.fail("I8: %s was told that %s is hardened, its log ends at %s", d.name(), to, d.next)
	}
	if s := d.slotOf(from); s != nil && to > s.confirmed {
		s.confirmed = to
		if d.chance(0.1) {
			s.saved = to
		}
	}
	if d.inForce == name && to > d.reported {
		d.reported = to
		d.release(to)
	}
}

// release lets commits return that end there or before.
func (d *database) release(to mirror.LSN) {
	for _, c := range slices.Clone(d.clients) {
		if c.waits && c.end <= to {
			c.acknowledged()
		}
	}
}

// endClients ends every session. Commits under way are there or not: nobody is told.
func (d *database) endClients() {
	for _, c := range slices.Clone(d.clients) {
		c.unknown()
	}
}

// copyFrom makes this database what another one holds at a position of its log.
func (d *database) copyFrom(o *database, upTo mirror.LSN) {
	d.base = o.base.clone()
	for _, r := range o.log {
		if r.end <= upTo && r.id > 0 {
			d.base.add(r.id)
		}
	}
	d.log, d.flushed, d.basePos, d.redone = nil, 0, mirror.Position{}, mirror.Position{}
	d.holds = d.base.clone()
	d.restored = false
}
