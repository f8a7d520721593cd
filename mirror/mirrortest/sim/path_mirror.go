package sim

import (
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// mirror brings a mirror's database to its duty. Each call takes at most one step.
func (d *path) mirror(duty mirror.Duty) {
	d.have.reign, d.have.drained, d.have.wait = reign{}, 0, 0
	st := &d.p.status
	if st.Record.Seq != duty.Seq {
		return
	}
	if duty.Gate == mirror.GateClosed && (d.fence() || d.removeNames()) {
		return
	}
	if st.Failed != mirror.ReasonNone || st.Record.Suspended && !st.Aligned {
		d.stopStream()
		return
	}
	if !st.Aligned {
		d.align(duty)
		return
	}
	if d.setGate(duty.Gate) || d.leavePrincipal() {
		return
	}
	d.mayRedo = true
	d.redo()
	if !duty.Ship {
		d.stopStream()
		return
	}
	d.follow(duty)
}

// leavePrincipal takes back what a principal keeps on its server: its names and its slots.
func (d *path) leavePrincipal() bool {
	if d.removeNames() {
		return true
	}
	if d.have.cleaned {
		return false
	}
	d.do(d.quick(), func() { d.p.db.slots = nil }, func() { d.have.cleaned, d.p.barrier = true, barrier{} })
	return true
}

// reach finds the principal's server; nil when it cannot be asked.
func (d *path) reach() *database {
	if o := d.p.other().db; o.up && d.net.both(d.p.self, o.self) {
		return o
	}
	return nil
}

// follow reads the principal's log, if it is not read already.
func (d *path) follow(duty mirror.Duty) {
	if d.stream != nil || d.now < d.retryAt {
		return
	}
	principal := d.reach()
	if principal == nil {
		d.breakOff(mirror.ReasonNone)
		return
	}
	found, ok := principal.reignOf(duty.Seq)
	if !ok {
		return
	}
	if d.p.queue.failed {
		d.breakOff(mirror.ReasonLogDamaged)
		return
	}
	d.do(d.quick()+d.plan.delay, nil, func() {
		if d.wish != duty || d.stream != nil || !principal.up {
			return
		}
		if d.p.queue.end.Seq != duty.Seq {
			d.p.queue.rebase(duty.Seq)
		}
		if !d.continues(principal, found) {
			d.meet(logGap)
			d.breakOff(mirror.ReasonLogGap)
			return
		}
		name := waitFor{waitMirror, duty.Seq, d.p.status.Record.Members[d.p.self]}
		d.stream = &stream{sim: d.sim, to: d, from: principal, seq: duty.Seq, slot: found.slot, name: name, sent: d.p.queue.end.LSN}
		d.fenced = false
		d.stream.begin()
	})
}

// continues says whether the server still has all log from the end of the hardened log on.
func (d *path) continues(principal *database, found reign) bool {
	start := d.p.queue.end.LSN
	s := principal.slotOf(found.slot)
	return s != nil && start <= principal.end() && s.confirmed <= start
}

// align makes this database continue the log of the present principal. A former principal that has nothing beyond the
// fork just goes on from where the new reign begins; everybody else is copied anew.
func (d *path) align(duty mirror.Duty) {
	d.stopStream()
	principal := d.reach()
	if principal == nil || !duty.Ship {
		return
	}
	found, ok := principal.reignOf(duty.Seq)
	if !ok {
		return // the principal is not whole yet
	}
	if !d.p.status.Dirty && d.formerPrincipal(duty) {
		if d.setGate(mirror.GateClosed) {
			return
		}
		if d.undivided(duty) {
			d.meet(rejoinedWithoutTail)
			d.aligned(duty, found.start)
			return
		}
	}
	d.seed(duty, found)
}

// formerPrincipal says whether this server was principal when the history branched off.
func (d *path) formerPrincipal(duty mirror.Duty) bool {
	aligned := d.p.hard().Aligned
	_, ok := d.p.db.reignOf(aligned)
	return ok && aligned > 0 && duty.Fork.Seq >= aligned
}

// undivided says whether this server has committed nothing that the present principal lacks.
func (d *path) undivided(duty mirror.Duty) bool {
	db := d.p.db
	own, _ := db.reignOf(d.p.hard().Aligned)
	followed, fork := duty.Fork.LSN != 0, duty.Fork.LSN
	if !followed {
		fork = own.start // the principal branched off earlier: all of this reign is beyond the fork
	}
	if db.end() < fork {
		d.meet(formerPrincipalOlder)
		return false
	}
	s := db.slotOf(own.slot)
	if s == nil || s.confirmed > fork {
		d.meet(tailUnknown)
		return false
	}
	if d.keepsTail {
		return true
	}
	for _, r := range db.log {
		if r.client && r.end > fork {
			d.meet(tailSaved)
			return false
		}
	}
	return followed // else the principal has what it committed before it branched off, which this one may lack
}

// aligned begins the hardened log at the start of the principal's reign and tells the session: the row of progress first,
// so that what is left of the old log is passed over.
func (d *path) aligned(duty mirror.Duty, start mirror.LSN) {
	db, base := d.p.db, mirror.Position{Seq: duty.Seq, LSN: start}
	d.stopRedo()
	row := 0
	d.do(d.quick(), func() {
		row = db.append(walRecord{pos: base}, 80)
		db.flush(row)
	}, func() {
		d.p.queue.reset(base)
		d.askAligned(duty, start)
	})
}

// askAligned tells the session and waits for the answer.
func (d *path) askAligned(duty mirror.Duty, start mirror.LSN) {
	d.busy, d.apply = true, nil
	step := d.step
	d.p.ask(mirror.Event{Kind: mirror.EventAligned, Seq: duty.Seq, LSN: start}, func(error) {
		if d.step == step && !d.p.dead {
			d.busy = false
			d.look()
		}
	})
}

// seed copies the principal's database. From the first moment on the session knows that this one is of no use until the
// copy is whole.
func (d *path) seed(duty mirror.Duty, found reign) {
	if d.now < d.copyAfter {
		return
	}
	d.busy, d.apply = true, nil
	d.step++
	step := d.step
	d.p.ask(mirror.Event{Kind: mirror.EventSeeding}, func(err error) {
		if d.p.dead || d.step != step {
			return
		}
		d.busy = false
		d.copyAfter = d.now + 300*time.Millisecond
		if err == nil {
			d.meet(seeding)
			d.stopRedo()
			d.clear(duty, found)
		}
	})
}

// clear empties the database, and then copies.
func (d *path) clear(duty mirror.Duty, found reign) {
	db := d.p.db
	d.do(d.moving(), func() {
		db.setGate(mirror.GateClosed)
		db.wait(waitFor{}, waitFor{})
		db.slots = nil
		d.p.barrier = barrier{}
		db.partial = true
	}, func() {
		d.have.gate, d.have.removed, d.have.cleaned = mirror.GateClosed, true, true
		d.copy(duty, found)
	})
}

// copy makes the slot anew with a snapshot and copies under it: whatever is committed later comes by the slot.
func (d *path) copy(duty mirror.Duty, found reign) {
	principal := d.reach()
	if principal == nil || d.busy {
		return
	}
	life, db := principal.life, d.p.db
	found.start = principal.createSlot(found.slot)
	principal.writeReign(found)
	snapshot := &database{machine: &machine{}}
	snapshot.copyFrom(principal, found.start)
	d.copyAfter = d.now + 3*time.Second // if it fails
	d.do(d.between(d.plan.copying/2, d.plan.copying*3/2), nil, func() {
		if o := d.reach(); o == nil || o.life != life {
			d.meet(copyFailed)
			return
		}
		db.copyFrom(snapshot, 0)
		db.next += 100000
		db.partial = false
		d.meet(copied)
		d.aligned(duty, found.start)
	})
}

// redo brings what is hardened into the database, one transaction after the other, each with its position (I9).
func (d *path) redo() {
	if d.redoing || !d.mayRedo || d.p.dead || d.p.paused || !d.p.db.up {
		return
	}
	db, q := d.p.db, d.p.queue
	e, more := q.next(db.redone)
	if !more {
		return
	}
	if q.trimmed.Compare(db.redone) > 0 {
		d.meet(logTrimmed)
		d.stopRedo()
		d.failed(mirror.ReasonLogGap)
		return
	}
	if e.poison && !d.schemaMended {
		d.meet(poisoned)
		d.stopRedo()
		d.failed(mirror.ReasonRedoError)
		return
	}
	d.redoing = true
	turn := d.redoTurn
	takes := d.between(time.Millisecond, 5*time.Millisecond) + time.Duration(e.size)*200*time.Nanosecond
	life := db.life
	d.after(takes, func() {
		if d.redoTurn != turn {
			return
		}
		d.redoing = false
		if d.p.dead || db.life != life {
			return
		}
		d.checkRedone(e)
		record := db.append(walRecord{id: e.id, pos: e.at}, 100)
		d.after(db.latency(d.plan.flush), func() {
			if db.life == life && db.up {
				db.flush(min(record, len(db.log)-1))
				d.redoneTo(q)
			}
		})
		d.redo()
	})
}

// stopRedo ends redo; what is under way is rolled back.
func (d *path) stopRedo() {
	d.mayRedo, d.redoing = false, false
	d.redoTurn++
}

// redoneTo reports what is redone and on disk, and forgets the log before it.
func (d *path) redoneTo(q *queue) {
	at := d.p.db.progress()
	if !d.p.dead && at.LSN > 0 {
		d.p.tell(mirror.Event{Kind: mirror.EventRedone, Seq: at.Seq, LSN: at.LSN})
	}
	if len(q.entries) > 64 {
		q.trim(at)
	}
}
