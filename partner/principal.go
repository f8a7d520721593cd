package partner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// principal brings a principal's database to its duty: closing first, opening last.
func (d *dataPath) principal(ctx context.Context, duty mirror.Duty) error {
	d.follow.stopStream()
	d.have.cleaned, d.have.removed = false, false
	if duty.Gate == mirror.GateClosed {
		grace := time.Duration(0)
		if duty.Work == mirror.WorkDrain {
			grace = d.p.cfg.Limits.Grace
		}
		if err := d.gate(ctx, mirror.GateClosed, grace); err != nil {
			// What cannot be closed must at least not acknowledge alone.
			return errors.Join(fmt.Errorf("close the database: %w", err), d.wait(ctx, duty))
		}
	}
	if err := d.wait(ctx, duty); err != nil {
		return errors.Join(err, d.watch(ctx, duty)) // log is kept for the mirror meanwhile, and fills the disk
	}
	if err := d.promote(ctx, duty); err != nil {
		return err
	}
	if err := d.drain(ctx, duty); err != nil {
		return err
	}
	if duty.Gate == mirror.GateOpen {
		if err := d.open(ctx); err != nil {
			return err
		}
	}
	return d.watch(ctx, duty)
}

// open lets clients in. Nothing is done where the gate is known to be open.
func (d *dataPath) open(ctx context.Context) error {
	if d.have.gate == mirror.GateOpen {
		return nil
	}
	crashpoint.Hit(crashpoint.Unopened)
	if err := d.gate(ctx, mirror.GateOpen, 0); err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	crashpoint.Hit(crashpoint.Opened)
	return nil
}

// mirrorName is what the mirror of a role sequence is called where commits wait for it: a mirror of another role
// sequence, or another incarnation of it, releases nothing.
func mirrorName(short string, record mirror.Record, m mirror.Server) string {
	return fmt.Sprintf("dbmirror_%s_%08x_%d", short, uint32(record.Members[m]), record.Seq)
}

// wait makes commits wait for whom they must.
func (d *dataPath) wait(ctx context.Context, duty mirror.Duty) error {
	record := d.p.host.Status().Record
	if record.Seq != duty.Seq {
		return errMovedOn
	}
	if duty.Wait == mirror.WaitNone {
		if d.have.wait == mirror.WaitNone {
			return nil
		}
		d.have.wait = 0
		releasing, cancel := context.WithTimeout(ctx, releaseTimeout)
		defer cancel()
		if err := d.database.WaitNone(releasing); err != nil {
			return fmt.Errorf("let commits go on alone: %w", err)
		}
		d.have.wait = mirror.WaitNone
		d.showWaiting("")
		return nil
	}
	name := mirrorName(d.p.short(), record, d.p.cfg.Self.Other())
	if d.have.wait == mirror.WaitMirror && d.have.waitFor != name {
		d.have.wait = 0 // it has a new name: that the former one was waited for until now is looked at first
	}
	if d.have.wait == 0 && !duty.Prove {
		// Found as it should be after a restart of this program: nothing is disturbed, and nothing is claimed anew.
		if err := d.resumeWaiting(ctx, duty, record, name); err != nil {
			return err
		}
	}
	if d.have.wait == mirror.WaitMirror && !duty.Prove {
		return nil
	}
	d.have.wait = 0
	proving, cancel := context.WithTimeout(ctx, proveTimeout)
	defer cancel()
	end, err := d.database.WaitMirror(proving, name)
	if err != nil {
		return fmt.Errorf("make commits wait for the mirror: %w", err)
	}
	d.have.wait, d.have.waitFor = mirror.WaitMirror, name
	d.showWaiting(name)
	d.prove(mirror.Event{Kind: mirror.EventWaiting, Seq: duty.Seq, LSN: end})
	return nil
}

// errMovedOn ends a look for a wish that is not of the session's record any more: the next one says what now. It is as if
// the next one had broken it off.
var errMovedOn = fmt.Errorf("the session has moved on: %w", context.Canceled)

// proveTimeout is how long commits may go on returning before that is told to people and everything else is looked at
// again. A server that is busy with a checkpoint needs more than one try.
const proveTimeout = 5 * time.Second

// releaseTimeout is the same for commits that go on waiting, as they do for a standby that is not ours. It is longer than
// what a backend needs that cannot see them wait before.
const releaseTimeout = 2 * proveTimeout

// resumeWaiting finds out whether the server waits as a former life of this program told it to.
func (d *dataPath) resumeWaiting(ctx context.Context, duty mirror.Duty, record mirror.Record, name string) error {
	found, err := d.database.Waiting(ctx)
	if err != nil {
		return err
	}
	if found.Name == name && !found.Blocked && found.RestartWaits {
		d.have.wait, d.have.waitFor = mirror.WaitMirror, name
		d.showWaiting(name)
		return nil
	}
	if !record.InSync || found.Name != "" && found.Name != name || found.Blocked {
		return nil
	}
	row, err := d.database.LatestReign(ctx, duty.Seq+1)
	switch {
	case errors.Is(err, backend.ErrNoReign), err == nil && row.Seq <= duty.Fork.Seq:
		return nil // not opened since it became principal: nothing can have been acknowledged alone
	case err == nil:
		d.waitLost(found, name) // nobody was waited for, since nobody knows when, or will be from any moment on
	}
	return err
}

// promote makes the database whole for serving: everything hardened is redone, log is kept for the mirror before the
// first commit, and nothing is handed out a second time (I6).
func (d *dataPath) promote(ctx context.Context, duty mirror.Duty) error {
	if duty.Work != mirror.WorkPromote && (d.have.reign.Seq == duty.Seq || !d.p.host.Status().Whole) {
		return nil
	}
	if d.have.reign.Seq != duty.Seq {
		crashpoint.Hit(crashpoint.RedoUndrained)
		if err := d.follow.finish(ctx); err != nil {
			return fmt.Errorf("redo what is hardened: %w", err)
		}
		crashpoint.Hit(crashpoint.RedoDrained)
		d.trouble(tryMirroring, nil)
		if err := d.complete(ctx, duty); err != nil {
			return err
		}
		if err := d.reign(ctx, duty); err != nil {
			return err
		}
		if err := d.p.forgetHandover(); err != nil {
			return err
		}
	}
	if duty.Work == mirror.WorkPromote {
		d.prove(mirror.Event{Kind: mirror.EventWhole, Seq: duty.Seq})
		crashpoint.Hit(crashpoint.WholeTold)
	}
	return nil
}

// reign makes sure that the beginning of this role sequence is recorded here, with log kept that the mirror can read.
func (d *dataPath) reign(ctx context.Context, duty mirror.Duty) error {
	if err := d.database.Prepare(ctx); err != nil {
		return fmt.Errorf("prepare the database: %w", err)
	}
	found, err := d.database.Reign(ctx, duty.Seq)
	if err == nil {
		d.have.reign = found
		return nil
	}
	if !errors.Is(err, backend.ErrNoReign) {
		return err
	}
	row, err := d.database.LatestReign(ctx, duty.Seq)
	switch {
	case err == nil && row.Seq > duty.Fork.Seq:
		row.Seq = duty.Seq // elected again: the log goes on
	case err != nil && !errors.Is(err, backend.ErrNoReign):
		return err
	default:
		if row, err = d.begin(ctx, duty); err != nil {
			return err
		}
	}
	row.Fork = duty.Fork
	if err := d.database.WriteReign(ctx, row); err != nil {
		return err
	}
	d.have.reign = row
	return nil
}

// begin makes the log of a new reign kept and moves past what was handed out, while nobody can write.
func (d *dataPath) begin(ctx context.Context, duty mirror.Duty) (backend.Reign, error) {
	if duty.Fork.Seq > 0 {
		// Also when the program was restarted in the middle of this: nobody may write before log is kept.
		if err := d.gate(ctx, mirror.GateClosed, 0); err != nil {
			return backend.Reign{}, fmt.Errorf("close the database: %w", err)
		}
	}
	row, err := d.database.BeginLog(ctx, duty.Seq)
	if err != nil || duty.Fork.Seq == 0 { // the first principal: nobody handed anything out before
		return row, err
	}
	exact := duty.Drained && d.follow.samplePrincipal(ctx) == nil
	return row, d.database.MoveOn(ctx, exact)
}

// drain ends everybody and reports where the log ends then (I13).
func (d *dataPath) drain(ctx context.Context, duty mirror.Duty) error {
	if duty.Work != mirror.WorkDrain {
		d.have.drained = 0
		return nil
	}
	if d.have.drained == d.working {
		return nil
	}
	end, err := d.drained(ctx, duty.Seq)
	if err != nil {
		return err
	}
	if d.prove(mirror.Event{Kind: mirror.EventDrained, Seq: duty.Seq, LSN: end}) {
		d.have.drained = d.working
		crashpoint.Hit(crashpoint.DrainedTold)
	}
	return nil
}

// watch looks after the log kept for the mirror, twice a second: at the budget the session is suspended, and then the
// log is given up, before it fills the disk.
func (d *dataPath) watch(ctx context.Context, duty mirror.Duty) error {
	if time.Since(d.have.looked) < watchEvery || d.have.reign.Seq == 0 {
		return nil
	}
	d.have.looked = time.Now()
	d.heartbeat(duty)
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	if err := d.guard(ctx, duty); err != nil {
		return err
	}
	if !duty.Ship {
		if err := d.database.DropLog(ctx, d.have.reign); err != nil {
			return err
		}
		d.showRetained(0)
		return nil
	}
	retained, err := d.database.Retained(ctx, d.have.reign)
	if errors.Is(err, backend.ErrNoLog) {
		d.showRetained(0)
		return nil // the mirror finds out, and says so
	}
	if err != nil {
		return err
	}
	d.showRetained(retained)
	if retained > d.p.cfg.Limits.LogBudget {
		d.report(mirror.Event{Kind: mirror.EventFailed, Reason: mirror.ReasonLogBudget})
	}
	return nil
}

// guard sees whether the server still waits as it was told to. Somebody else may change the setting, or reload it.
func (d *dataPath) guard(ctx context.Context, duty mirror.Duty) error {
	waiting, err := d.database.Waiting(ctx)
	if err != nil {
		return err
	}
	if duty.Wait == mirror.WaitNone {
		if waiting.Reloaded || waiting.Name != "" || !waiting.RestartWaits {
			// Somebody's reload brought what is meant for the next restart into force, or somebody took it out of the file.
			d.have.wait = 0
		}
		return nil
	}
	name := d.have.waitFor
	if d.have.wait != mirror.WaitMirror || d.p.host.Status().Record.Seq != duty.Seq || duty.Prove {
		return nil
	}
	if waiting.Name == name && waiting.RestartWaits && waiting.Foreign == 0 {
		return nil
	}
	// Also where it is in force still and only persisted otherwise: whoever did that may reload it before it is put right.
	d.have.wait = 0
	d.waitLost(waiting, name)
	return nil
}

// waitLost tells the session that commits may have been acknowledged without the mirror.
func (d *dataPath) waitLost(found backend.Waiting, name string) {
	d.p.cfg.Logger.Error("somebody changed whom commits wait for", "in_force", found.InForce, "expected", name, "foreign", found.Foreign)
	d.unwaited()
}

// unwaited tells the session, now or as soon as it takes the news: its goroutine may be held up by a slow disk, and once
// the setting is put right nothing else shows what happened.
func (d *dataPath) unwaited() {
	d.mu.Lock()
	d.mu.unwaited = true
	d.mu.Unlock()
	d.tellUnwaited()
}

func (d *dataPath) tellUnwaited() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.unwaited {
		d.mu.unwaited = !d.report(mirror.Event{Kind: mirror.EventWaitLost, Seq: d.p.host.Status().Record.Seq})
	}
}

// watchEvery is how often a principal looks after its server, and tries what a commit feels: often enough that one that
// does not wait is noticed within two seconds.
const watchEvery = 500 * time.Millisecond

// lookTimeout is how long a look at a server may take. One that stands still keeps its connections: without a bound nobody
// would ask again whether it answers at all.
const lookTimeout = 5 * time.Second

// heartbeatLimit is how long trying what a commit feels may take.
const heartbeatLimit = 5 * time.Second

// heartbeat measures, beside the work, how long a commit waits for the mirror, and notices when it does not.
func (d *dataPath) heartbeat(duty mirror.Duty) {
	if duty.Wait != mirror.WaitMirror || duty.Gate != mirror.GateOpen || d.beat.running() || time.Since(d.beaten) < watchEvery-look {
		return
	}
	d.beaten = time.Now()
	record := d.p.host.Status().Record
	name := mirrorName(d.p.short(), record, d.p.cfg.Self.Other())
	proven := record.Seq == duty.Seq && d.have.wait == mirror.WaitMirror && d.have.waitFor == name && !duty.Prove
	d.beat = startTask(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, heartbeatLimit)
		defer cancel()
		beat, err := d.database.Heartbeat(ctx, name)
		if err != nil {
			return
		}
		d.p.timings.CommitWaited(beat.Took)
		if now := d.p.host.Status(); proven && beat.Unwaited && now.Record == record && now.Duty == duty {
			d.p.cfg.Logger.Error("a commit returned that the mirror had not confirmed", "name", name)
			d.unwaited()
		}
	})
}
