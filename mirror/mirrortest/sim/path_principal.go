package sim

import (
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// principal brings a principal's database to its duty: closing first, opening last. Each call takes at most one step.
func (d *path) principal(duty mirror.Duty) {
	d.stopStream()
	d.have.cleaned, d.have.removed = false, false
	if duty.Gate == mirror.GateClosed && d.setGate(mirror.GateClosed) {
		return
	}
	if d.wait(duty) || d.promote(duty) || d.drain(duty) {
		return
	}
	if duty.Gate == mirror.GateOpen && d.setGate(mirror.GateOpen) {
		return
	}
	d.watch(duty)
}

// wait makes commits wait for whom they must.
func (d *path) wait(duty mirror.Duty) bool {
	db, record := d.p.db, d.p.status.Record
	if record.Seq != duty.Seq {
		return true // the session has moved on
	}
	if duty.Wait == mirror.WaitNone {
		if d.have.wait == mirror.WaitNone {
			return false
		}
		d.have.wait = 0
		d.do(2*d.quick(), func() { db.wait(waitFor{}, waitFor{kind: waitBlocked}) }, func() {
			d.have.wait = mirror.WaitNone
			d.meet(wentAlone)
		})
		return true
	}
	name := waitFor{waitMirror, duty.Seq, record.Members[d.p.self.Other()]}
	if d.have.wait == 0 && !duty.Prove {
		// Found as it should be after a restart of the program: nothing is disturbed, and nothing is claimed anew.
		if db.inForce == name && db.filed == name {
			d.have.wait, d.have.waitSeq = mirror.WaitMirror, duty.Seq
		} else if record.InSync && db.inForce.kind == waitNobody {
			d.p.tell(mirror.Event{Kind: mirror.EventWaitLost, Seq: duty.Seq})
		}
	}
	if d.have.wait == mirror.WaitMirror && d.have.waitSeq == duty.Seq && !duty.Prove {
		return false
	}
	d.have.wait = 0
	d.do(3*d.quick(), func() {
		if r := db.reader; r != nil && r.name != name {
			r.drop()
		}
		db.wait(name, name)
	}, func() {
		d.have.wait, d.have.waitSeq = mirror.WaitMirror, duty.Seq
		d.prove(mirror.Event{Kind: mirror.EventWaiting, Seq: duty.Seq, LSN: db.end()})
	})
	return true
}

// promote makes the database whole for serving: everything hardened is redone, the mirror's slot exists before the first
// commit, and no sequence hands out a value again (I6).
func (d *path) promote(duty mirror.Duty) bool {
	if duty.Work != mirror.WorkPromote && (d.have.reign.seq == duty.Seq || !d.p.status.Whole) {
		return false
	}
	if d.have.reign.seq != duty.Seq {
		if !d.finish() || !d.complete(duty) {
			return true // looked at again when more is redone, or an operator has helped
		}
		return d.reign(duty)
	}
	if duty.Work == mirror.WorkPromote {
		d.prove(mirror.Event{Kind: mirror.EventWhole, Seq: duty.Seq})
	}
	return false
}

// finish redoes everything that is hardened, on disk.
func (d *path) finish() bool {
	q := d.p.queue
	if _, more := q.next(d.p.db.redone); more {
		d.meet(promotedWithRedo)
		d.mayRedo = true
		d.redo()
		return false
	}
	if d.redoing || d.p.db.flushed < len(d.p.db.log) {
		d.p.db.flush(len(d.p.db.log) - 1)
		return !d.redoing
	}
	d.stopRedo()
	return true
}

// complete says whether the database has what the server had hardened when it was elected.
func (d *path) complete(duty mirror.Duty) bool {
	if duty.Fork.LSN == 0 {
		return true
	}
	if d.p.status.Dirty || d.p.db.progress().LSN < duty.Fork.LSN {
		d.meet(cannotBecomeWhole)
		return false
	}
	return true
}

// reign makes sure that the beginning of this role sequence is recorded here, with a slot that the mirror can read from.
func (d *path) reign(duty mirror.Duty) bool {
	db := d.p.db
	if found, ok := db.reignOf(duty.Seq); ok {
		d.have.reign = found
		d.p.barrier = barrier{}
		return d.promote(duty)
	}
	row := reign{seq: duty.Seq, fork: duty.Fork}
	if former, ok := db.latestReign(duty.Seq); ok && former.seq > duty.Fork.Seq {
		d.meet(reignGoesOn)
		row.slot, row.start = former.slot, former.start // elected again: the log goes on
		d.do(d.quick(), func() { db.writeReign(row) }, func() { d.have.reign, d.p.barrier = row, barrier{} })
		return true
	}
	if duty.Fork.Seq > 0 && d.setGate(mirror.GateClosed) {
		return true // nobody may write before the slot exists, also when this was broken off in the middle
	}
	d.do(2*d.quick(), func() {
		row.slot, row.start = duty.Seq, db.createSlot(duty.Seq)
		d.advanceSequence(duty)
		db.writeReign(row)
	}, func() { d.have.reign, d.p.barrier = row, barrier{} })
	return true
}

// advanceSequence moves the sequence beyond what the former principal has handed out: to where it stands, when it is
// drained and can still be asked, else beyond what it can have reached since it was last asked.
func (d *path) advanceSequence(duty mirror.Duty) {
	if duty.Fork.Seq == 0 {
		return
	}
	db, former := d.p.db, d.p.other().db
	if duty.Drained && former.up && d.net.both(d.p.self, former.self) {
		d.meet(sequenceExact)
		db.sequence = max(db.sequence, former.sequence)
	} else {
		const rate = 40 // a second, of all clients
		age := (d.now - d.p.sampled.at).Seconds()
		db.sequence = max(db.sequence, d.p.sampled.value+1000+uint64(age*rate))
	}
	db.logged = db.sequence + 32
}

// drain ends everybody and reports where the log ends then (I13).
func (d *path) drain(duty mirror.Duty) bool {
	if duty.Work != mirror.WorkDrain {
		d.have.drained = 0
		return false
	}
	if d.have.drained == d.working {
		return false
	}
	db := d.p.db
	d.barriers++
	number, last := d.barriers, 0
	d.do(d.p.latency(d.plan.flush), func() { last = db.append(walRecord{drain: number}, 50) }, func() {
		db.flush(last)
		d.p.barrier = barrier{duty.Seq, number}
		d.meet(drained)
		if d.prove(mirror.Event{Kind: mirror.EventDrained, Seq: duty.Seq, LSN: db.end()}) {
			d.have.drained = d.working
		}
	})
	return true
}

// watch sees, once a second, whether the server still waits as it was told to, and whether the log kept for the mirror is
// within its budget.
func (d *path) watch(duty mirror.Duty) {
	if d.now-d.have.looked < time.Second || d.have.reign.slot == 0 {
		return
	}
	d.have.looked = d.now
	db := d.p.db
	if duty.Wait == mirror.WaitNone {
		if db.inForce.kind != waitNobody {
			d.have.wait = 0
		}
	} else if name := (waitFor{waitMirror, duty.Seq, d.p.status.Record.Members[d.p.self.Other()]}); d.have.wait == mirror.WaitMirror &&
		!duty.Prove && d.p.status.Record.Seq == duty.Seq && (db.inForce != name || db.filed != name) {
		d.have.wait = 0
		if db.inForce != name {
			d.meet(waitFoundLost)
			d.p.tell(mirror.Event{Kind: mirror.EventWaitLost, Seq: duty.Seq})
		}
	}
	if !duty.Ship {
		d.meet(slotGivenUp)
		db.dropSlot(d.have.reign.slot)
		return
	}
	if s := db.slotOf(d.have.reign.slot); s != nil && db.end()-s.confirmed > d.budget {
		d.p.tell(mirror.Event{Kind: mirror.EventFailed, Reason: mirror.ReasonLogBudget})
	}
}
