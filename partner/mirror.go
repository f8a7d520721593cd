package partner

import (
	"context"
	"errors"
	"fmt"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// mirror brings a mirror's database to its duty.
func (d *dataPath) mirror(ctx context.Context, duty mirror.Duty) error {
	d.have.reign, d.have.drained, d.have.wait = backend.Reign{}, 0, 0
	st := d.p.host.Status()
	if st.Record.Seq != duty.Seq {
		return nil
	}
	if duty.Gate == mirror.GateClosed {
		if err := d.fence(ctx); err != nil {
			return fmt.Errorf("close the database: %w", err)
		}
		if err := d.removeNames(ctx); err != nil {
			return err
		}
	}
	d.forgive(st)
	if st.Failed != mirror.ReasonNone || st.Record.Suspended && !st.Aligned {
		d.follow.stopStream()
		return nil
	}
	if !st.Aligned {
		return d.align(ctx, duty, st)
	}
	if err := d.gate(ctx, duty.Gate, 0); err != nil {
		return fmt.Errorf("open the database to readers: %w", err)
	}
	if err := d.leavePrincipal(ctx); err != nil {
		return err
	}
	d.follow.tellHardened(st)
	if err := d.follow.startRedo(); err != nil {
		return err
	}
	if !duty.Ship {
		d.follow.stopStream()
		return nil
	}
	return d.follow.startStream(ctx, duty, st)
}

// leavePrincipal takes back what a principal keeps on its server: its names, so that commits of other databases do not
// wait for nobody, its log, which would be kept for ever, and what it would be elected for.
func (d *dataPath) leavePrincipal(ctx context.Context) error {
	if err := d.removeNames(ctx); err != nil {
		return err
	}
	if d.have.cleaned {
		return nil
	}
	if err := d.database.DropLogs(ctx); err != nil {
		return err
	}
	d.showRetained(0)
	if err := d.p.forgetHandover(); err != nil {
		return err
	}
	d.have.cleaned = true
	return nil
}

// removeNames lets commits of this server go on without the session. The mirrored database must be closed or read-only:
// what a client still waited for here would be acknowledged though no mirror has it.
func (d *dataPath) removeNames(ctx context.Context) error {
	if d.have.removed || d.have.gate != mirror.GateClosed && d.have.gate != mirror.GateReadOnly {
		return nil
	}
	removing, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	if err := d.database.WaitRemove(removing); err != nil {
		return err
	}
	d.have.removed = true
	d.showWaiting("")
	return nil
}

// forgive takes the failure out of the status when the session has: it was resumed, or the role changed.
func (d *dataPath) forgive(st mirror.Status) {
	if d.blamed && st.Failed == mirror.ReasonNone {
		d.trouble(tryMirroring, nil)
	}
	d.blamed = st.Failed != mirror.ReasonNone
}

// failed tells the session that the data path cannot go on, and why.
func (d *dataPath) failed(err error) {
	reason := reasonOf(err)
	if d.trouble(tryMirroring, err) {
		d.p.journal.note(line{Kind: "failed", Reason: reason.String(), Note: err.Error()})
	}
	d.report(mirror.Event{Kind: mirror.EventFailed, Reason: reason})
}

// ofLog sorts an error of the hardened log: one that trying again cannot mend suspends the session, and no database is
// copied over and over for a log that takes nothing.
func (d *dataPath) ofLog(err error) error {
	if reasonOf(err) == mirror.ReasonNone {
		return err
	}
	d.failed(err)
	return nil
}

// reasonOf maps an error of the data path to the session's closed list; ReasonNone: it may be tried again.
func reasonOf(err error) mirror.Reason {
	var damage *redo.CorruptError
	var sync *redo.SyncError
	switch reason := backend.ReasonOf(err); {
	case reason != mirror.ReasonNone:
		return reason
	case errors.As(err, &damage), errors.As(err, &sync):
		return mirror.ReasonLogDamaged
	case errors.Is(err, errOtherDatabase):
		return mirror.ReasonIdentity
	case errors.Is(err, redo.ErrNoSpace):
		return mirror.ReasonDiskFull
	}
	return mirror.ReasonNone
}
