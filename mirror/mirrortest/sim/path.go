package sim

import (
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// path is a partner's data path: it brings the database and the stream to where the session wants them, step by step,
// as package partner does, and reports what it has proven. A step takes time. One that is broken off, because the wish
// has changed or the program has died, may have been carried out or not.
type path struct {
	*sim
	p       *program
	wish    mirror.Duty
	number  uint64 // of the wish
	working uint64 // of the wish that is worked on
	have    proven

	busy  bool
	step  uint64 // numbers the steps
	apply func() // of the step under way

	stream    *stream
	retryAt   time.Duration
	redoing   bool // a transaction is being redone
	mayRedo   bool
	redoTurn  uint64
	copyAfter time.Duration
	beats     int
	looked    int        // life of the database in which it was compared with what was handed over
	toldUp    bool       // as it was last told
	toldEnd   mirror.LSN // likewise
	fenced    bool       // the principal is silent and its server closed: that it streams is no service
}

// proven is what the database was last shown to be. It is void when the server has started anew.
type proven struct {
	life    int
	gate    mirror.Gate
	wait    mirror.Wait
	waitSeq mirror.RoleSeq
	removed bool   // nothing of ours is in the setting
	drained uint64 // number of the wish under which it was drained
	reign   reign
	cleaned bool // as mirror: slots of our own former reigns are gone
	looked  time.Duration
}

func newPath(p *program) *path { return &path{sim: p.sim, p: p} }

// barrier is the last commit of a principal that hands over.
type barrier struct {
	seq    mirror.RoleSeq
	number uint64
}

// checkLog finds a hardened log that is an older copy of itself: the database has redone more.
func (d *path) checkLog() {
	st := d.p.status
	if st.Role != mirror.RoleMirror || !st.Aligned || st.Dirty {
		d.p.logBack = false
		return
	}
	if d.p.db.redone.Compare(d.p.queue.end) > 0 {
		d.meet(logOlder)
		d.p.ask(mirror.Event{Kind: mirror.EventLogLost}, func(error) { d.p.logBack = false })
	}
	if end := d.p.queue.end; d.p.hard().Aligned > 0 {
		d.p.tell(mirror.Event{Kind: mirror.EventHardened, Seq: end.Seq, LSN: end.LSN})
	}
}

// checkHandover says whether a database that is up may be used: it gives up the candidacy of a former principal whose
// database was put back to an older state, and closes that of one that is elected already.
func (d *path) checkHandover() bool {
	own, hard, st := d.p.barrier, d.p.hard(), &d.p.status
	candidate := st.Role == mirror.RoleMirror && !hard.Dirty && hard.Aligned == own.seq
	elected := st.Role == mirror.RolePrincipal && st.Record.Fork.Seq >= own.seq
	if d.looked == d.p.db.life || own.seq == 0 || !candidate && !elected || d.p.db.has(own) {
		d.looked = d.p.db.life
		return true
	}
	d.meet(handedOverPutBack)
	if elected {
		d.meet(cannotBecomeWhole)
		return false
	}
	if d.p.tell(mirror.Event{Kind: mirror.EventLogLost}) {
		d.looked = d.p.db.life
	}
	return d.looked == d.p.db.life
}

// want takes the session's wish. A step under way is broken off.
func (d *path) want(wish mirror.Duty, number uint64) {
	d.number = number
	if wish == d.wish {
		return
	}
	d.wish = wish
	d.breakStep()
	d.after(time.Millisecond, d.look)
}

// breakStep ends the step under way; whether it has had its effect nobody knows.
func (d *path) breakStep() {
	if !d.busy {
		return
	}
	d.busy = false
	d.step++
	if apply := d.apply; apply != nil && d.p.db.up && d.have.life == d.p.db.life && d.chance(0.5) {
		d.meet(stepBrokenOff)
		apply()
	}
}

// do takes one step: apply is its effect on the database, done what is known when it has succeeded.
func (d *path) do(takes time.Duration, apply, done func()) {
	d.busy, d.apply = true, apply
	d.step++
	step := d.step
	var finish func()
	finish = func() {
		switch {
		case d.p.dead || d.step != step:
			return
		case d.p.paused:
			d.after(50*time.Millisecond, finish)
			return
		}
		d.busy = false
		if !d.p.db.up || d.have.life != d.p.db.life {
			return // the next look sees
		}
		if apply != nil {
			apply()
		}
		if done != nil {
			done()
		}
		d.look()
	}
	d.after(takes, finish)
}

// quick is how long an ordinary statement takes.
func (d *path) quick() time.Duration {
	return min(d.about(3*time.Millisecond)+d.p.slowDisk, 60*time.Millisecond)
}

// moving is how long it takes to move the gate: never longer than the fence time that is configured.
func (d *path) moving() time.Duration {
	return min(d.about(d.plan.gate)+d.p.slowDisk, d.plan.fence-d.plan.look-200*time.Millisecond)
}

// stop is the end of the program.
func (d *path) stop() {
	d.breakStep()
	d.stopStream()
	d.stopRedo()
	d.step++
}

// halt stops hardening and returns what is hardened. Until the session wishes otherwise nothing is hardened again.
func (d *path) halt() mirror.Position {
	d.wish.Ship = false
	d.stopStream()
	end := d.p.queue.end
	end.Seq = max(end.Seq, d.p.hard().Aligned)
	return end
}

func (d *path) stopStream() {
	if t := d.stream; t != nil {
		if t.syncing {
			d.meet(haltedUnsynced)
		}
		t.stop()
		d.stream = nil
	}
}

// breakOff is the end of a stream: what trying again cannot mend suspends the session.
func (d *path) breakOff(why mirror.Reason) {
	d.stopStream()
	d.retryAt = d.now + 300*time.Millisecond
	if why != mirror.ReasonNone {
		d.failed(why)
		return
	}
	d.p.tell(mirror.Event{Kind: mirror.EventStreamLost})
}

func (d *path) failed(why mirror.Reason) {
	d.say("%s: cannot go on: %s", d.p.name(), why)
	d.p.tell(mirror.Event{Kind: mirror.EventFailed, Reason: why})
}

// beat looks at the database though nothing has changed.
func (d *path) beat() {
	if d.p.dead {
		return
	}
	d.after(d.plan.look, d.beat)
	if d.p.paused {
		return
	}
	d.sample()
	d.tellDatabase()
	d.look()
}

// tellDatabase lets the session know how the database is. A host does with each look; here what is old is told again
// only now and then.
func (d *path) tellDatabase() {
	d.beats++
	up, end := d.p.db.up && d.checkHandover(), d.p.db.end()
	if up == d.toldUp && end == d.toldEnd && d.beats%8 > 0 {
		return
	}
	d.toldUp, d.toldEnd = up, end
	if !up {
		d.p.tell(mirror.Event{Kind: mirror.EventDatabaseDown})
		return
	}
	d.p.tell(mirror.Event{Kind: mirror.EventDatabaseUp})
	d.p.tell(mirror.Event{Kind: mirror.EventEnded, LSN: end})
}

// look takes the database one step further towards the wish.
func (d *path) look() {
	if d.busy || d.p.dead || d.p.paused || !d.p.db.up {
		return
	}
	db := d.p.db
	if d.have.life != db.life {
		d.have = proven{life: db.life}
	}
	if !d.checkHandover() {
		d.fence()
		return
	}
	wish := d.wish
	d.working = d.number
	if wish.Role == mirror.RolePrincipal && wish.Gate != mirror.GateClosed && d.p.overdue() {
		d.meet(overdueClosed)
		wish.Gate = mirror.GateClosed
	}
	switch {
	case wish.Role == mirror.RolePrincipal:
		d.principal(wish)
	case wish.Role == mirror.RoleMirror:
		d.mirror(wish)
	case wish.Gate == mirror.GateClosed:
		d.leave()
	}
}

// prove reports what was proven for the wish that is worked on: it counts only if that is still the wish.
func (d *path) prove(ev mirror.Event) bool { return d.p.tellUnder(d.working, ev) }

// setGate takes the step to a position; false: it is there.
func (d *path) setGate(g mirror.Gate) bool {
	if g == mirror.GateKeep || d.have.gate == g {
		return false
	}
	d.have.gate = 0
	d.do(d.moving(), func() { d.p.db.setGate(g) }, func() { d.have.gate = g })
	return true
}

// fence closes a database that may not serve: commits are blocked first, so that those that wait are acknowledged by
// nobody.
func (d *path) fence() bool {
	db := d.p.db
	if d.have.gate != mirror.GateClosed && db.gate == mirror.GateOpen && db.inForce.kind == waitNobody {
		blocked := waitFor{kind: waitBlocked}
		d.do(min(d.quick(), 200*time.Millisecond), func() { db.wait(blocked, blocked) }, nil)
		return true
	}
	return d.setGate(mirror.GateClosed)
}

// leave is the end of a server whose session went on without it, or broke down.
func (d *path) leave() {
	d.stopStream()
	d.stopRedo()
	if d.fence() {
		return
	}
	if d.p.broken {
		d.p.end()
		return
	}
	if d.p.status.Removed {
		d.removeNames()
	}
}

// removeNames lets commits of this server go on without the session.
func (d *path) removeNames() bool {
	if d.have.removed || d.have.gate != mirror.GateClosed && d.have.gate != mirror.GateReadOnly {
		return false
	}
	d.do(d.quick(), func() { d.p.db.wait(waitFor{}, waitFor{}) }, func() { d.have.removed = true })
	return true
}

// sample looks, once a second, how far the principal's sequence is, and whether a principal that is silent still serves.
func (d *path) sample() {
	if d.stream == nil || d.now-d.p.sampled.at < time.Second || !d.stream.linked() || !d.stream.from.up {
		return
	}
	d.p.sampled = sequenceSample{d.stream.from.sequence, d.now}
	st := d.p.status
	if st.Peers[st.Record.Principal].Connected {
		d.fenced = false
		return
	}
	if d.fenced = d.stream.from.gate == mirror.GateClosed; d.fenced {
		d.meet(principalFencedStreams)
		d.p.tell(mirror.Event{Kind: mirror.EventStreamLost})
	}
}
