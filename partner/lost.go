package partner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// A hardened log that is damaged, gone, or shorter than it was cannot be made good: what it held has to be copied anew.
// Until then this server must not be promoted, whatever the record says, because commits that it reported as hardened
// may be missing (I8). So the session learns of the loss before anybody hears of this server again.

// openLog opens the state and the hardened log, and writes a loss of the log down in the state.
func (p *Partner) openLog() error {
	hard, err := p.readState()
	if err != nil {
		return err
	}
	cfg := redo.Config{Dir: filepath.Join(p.cfg.Dir, "log"), MaxBytes: p.cfg.Limits.RedoQueue,
		SegmentBytes: min(segmentBytes, p.cfg.Limits.RedoQueue/4)}
	copy(cfg.Identity[:], p.id[:])
	cfg.Identity[31] = byte(p.cfg.Self)
	p.queue, err = redo.Open(cfg)
	var damage *redo.CorruptError
	if errors.As(err, &damage) {
		// The state comes first: a crash after it finds the log damaged, or gone, once more.
		if err := p.forgetLog(hard, damage.Error()); err != nil {
			return err
		}
		if err := p.setAside(cfg.Dir); err != nil {
			return err
		}
		p.queue, err = redo.Open(cfg)
	}
	if err != nil {
		return fmt.Errorf("open hardened log: %w", err)
	}
	if p.queue.Hardened() == (mirror.Position{}) {
		return p.forgetLog(hard, "the hardened log is gone: "+cfg.Dir+" holds none")
	}
	return nil
}

// segmentBytes is the size of a file of the hardened log, unless so large a one would not fit.
const segmentBytes = 64 << 20

// readState reads what is on disk, zero where nothing is.
func (p *Partner) readState() (mirror.HardState, error) {
	raw, ok, err := p.state.Load()
	if err != nil {
		return mirror.HardState{}, fmt.Errorf("load state: %w", err)
	}
	if !ok {
		return mirror.HardState{}, nil
	}
	hard, err := mirror.DecodeHardState(raw)
	if err != nil {
		return hard, fmt.Errorf("read state: %w", err)
	}
	if hard.Self != p.cfg.Self {
		return hard, fmt.Errorf("read state: %s holds the state of %s, this is %s: give each partner a Dir of its own, and always the same",
			p.cfg.Dir, hard.Self, p.cfg.Self)
	}
	return hard, nil
}

// forgetLog writes down that a mirror's copy is of no use, if it was of any. A principal needs no log, see complete; nor
// does a former one, whose own log says where it branches off.
func (p *Partner) forgetLog(hard mirror.HardState, why string) error {
	r := hard.Record
	if !r.Established() || hard.Removed || r.Principal == hard.Self || hard.Aligned != r.Seq || hard.Dirty {
		return nil
	}
	hard.Aligned, hard.Dirty = 0, true
	crashpoint.Hit(crashpoint.LossUnwritten)
	if err := p.state.Save(hard.Append(nil)); err != nil {
		return fmt.Errorf("save that the log is lost: %w", err)
	}
	crashpoint.Hit(crashpoint.LossWritten)
	p.lost(why+": the principal's database will be copied anew", mirror.RoleMirror, r.Seq)
	return nil
}

// lost tells people that commits are missing here.
func (p *Partner) lost(why string, role mirror.Role, seq mirror.RoleSeq) {
	p.cfg.Logger.Error("log lost: commits are missing here", "cause", why)
	p.journal.note(line{Kind: "log lost", Role: role.String(), RoleSeq: uint64(seq),
		Reason: mirror.ReasonLogDamaged.String(), Note: why})
}

// setAside keeps a damaged log for those who want to know what happened.
func (p *Partner) setAside(dir string) error {
	kept := dir + "-damaged-" + time.Now().UTC().Format("20060102T150405.000")
	if err := os.Rename(dir, kept); err != nil {
		return fmt.Errorf("set damaged log aside: %w; move %s away", err, dir)
	}
	crashpoint.Hit(crashpoint.LogSetAside)
	p.cfg.Logger.Warn("damaged hardened log was set aside", "directory", kept)
	p.journal.note(line{Kind: "log set aside", Reason: mirror.ReasonLogDamaged.String(), Note: filepath.Base(kept) + " can be deleted"})
	return nil
}

// checkLog compares the hardened log with what was redone of it: a log that ends before is an older copy of itself.
func (p *Partner) checkLog(ctx context.Context) error {
	st := p.host.Status()
	if st.Role != mirror.RoleMirror || !st.Aligned || st.Dirty {
		return nil
	}
	redone, err := p.data.database.Progress(ctx)
	if errors.Is(err, backend.ErrNoProgress) {
		return nil // redo finds out too, and suspends the session
	}
	if err != nil {
		return err
	}
	end := p.queue.Hardened()
	if redone.Compare(end) <= 0 {
		return nil
	}
	p.lost(fmt.Sprintf("the hardened log ends at %s, the database at %s: the log is an older copy, and the principal's database will be copied anew", end, redone),
		mirror.RoleMirror, st.Record.Seq)
	// The first event of the session: it is saved before anything is said or answered.
	p.host.Tell(mirror.Event{Kind: mirror.EventLogLost})
	return nil
}

// complete says why the database of an elected principal lacks what the server had hardened when it was elected. It must
// not serve then.
func (d *dataPath) complete(ctx context.Context, duty mirror.Duty) error {
	if duty.Fork.LSN == 0 {
		return nil // elected for what it has as principal: see checkHandover
	}
	const mend = "stop this partner and force service on the other one, or restore this one's log directory"
	if d.p.host.Status().Dirty {
		return fmt.Errorf("become principal: this server's log was lost before it was redone: %s", mend)
	}
	redone, err := d.database.Progress(ctx)
	switch {
	case errors.Is(err, backend.ErrNoProgress) || err == nil && redone.LSN < duty.Fork.LSN:
		return fmt.Errorf("become principal: the database ends at %s, elected was one that has the log up to %s: %s", redone, duty.Fork, mend)
	}
	return err
}
