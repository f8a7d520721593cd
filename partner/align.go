package partner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// align makes this database continue the log of the present principal. A former principal that has nothing beyond the
// fork just goes on from where the new reign begins; one that has is saved to a file and copied anew, as is everybody
// else.
func (d *dataPath) align(ctx context.Context, duty mirror.Duty, st mirror.Status) error {
	d.follow.stopStream()
	crashpoint.Hit(crashpoint.ForkUnread)
	reign, err := d.database.Peer().Reign(ctx, duty.Seq)
	if errors.Is(err, backend.ErrNoReign) {
		return nil // the principal is not whole yet
	}
	if err != nil {
		return fmt.Errorf("ask the principal's server where its reign begins: %w", err)
	}
	crashpoint.Hit(crashpoint.ForkRead)
	if duty.Ship && !st.Dirty {
		clean, err := d.undivided(ctx, duty)
		if err != nil {
			return err
		}
		if clean {
			return d.aligned(ctx, reign, duty)
		}
	}
	if !duty.Ship {
		return nil
	}
	return d.seed(ctx, reign, duty, st)
}

// undivided says whether this server was principal before, and it and the present one have the same up to the fork, and
// this one nothing beyond it. What it has beyond is saved.
func (d *dataPath) undivided(ctx context.Context, duty mirror.Duty) (bool, error) {
	hard := d.p.host.Hard()
	own, err := d.database.Reign(ctx, hard.Aligned)
	if errors.Is(err, backend.ErrNoReign) || hard.Aligned == 0 || duty.Fork.Seq < hard.Aligned {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	// A principal that never followed this one branched off in an earlier role sequence: all of this reign is beyond the
	// fork, and what the principal committed before it, and lacks here, nobody can know.
	followed, fork := duty.Fork.LSN != 0, duty.Fork.LSN
	if !followed {
		fork = own.Start
	}
	// Everything the server still does for clients must be over before its tail is read.
	if err := d.gate(ctx, mirror.GateClosed, 0); err != nil {
		return false, err
	}
	// One that was put back to an older state has no tail either, and lacks what the principal took for granted.
	if kept, err := d.database.Keeps(ctx, own, fork); err != nil || !kept {
		return false, err
	}
	tail, err := d.saveTail(ctx, own, fork, duty)
	if err != nil || !followed || tail == tailUnknown {
		return false, err
	}
	if tail == tailSaved {
		return d.undo(ctx, own, fork)
	}
	return true, nil
}

// undo takes back the tail that was saved, if the database can do that, and says whether it did.
func (d *dataPath) undo(ctx context.Context, own backend.Reign, fork mirror.LSN) (bool, error) {
	undoer, can := d.database.(backend.Undoer)
	if !can {
		return false, nil
	}
	err := undoer.Undo(ctx, own, fork)
	if errors.Is(err, backend.ErrCannotUndo) {
		d.p.cfg.Logger.Warn("the database is copied anew", "cause", err)
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("undo the tail after the fork: %w", err)
	}
	d.p.cfg.Logger.Info("the transactions that the principal never had were undone", "fork", fork)
	return true, nil
}

// What saveTail found this server to have committed after the fork.
type tailFate int

const (
	tailUnknown tailFate = iota // nobody can tell
	tailEmpty
	tailSaved
)

// lostTail is a tail that was saved. It is saved again, in the place of the first, for as long as what follows it fails:
// another file each time would fill the disk.
type lostTail struct {
	own, seq              mirror.RoleSeq // the reign that it is of, and that of the principal which lacks it
	fork                  mirror.LSN
	path                  string
	transactions, changes int64
}

// sameTail returns what was saved of the tail before, or where it is to be saved for the first time.
func (d *dataPath) sameTail(own backend.Reign, fork mirror.LSN, duty mirror.Duty) lostTail {
	if d.saved.own == own.Seq && d.saved.seq == duty.Seq && d.saved.fork == fork {
		return d.saved
	}
	name := fmt.Sprintf("lost-transactions-%d-%s.jsonl", duty.Seq, time.Now().UTC().Format("20060102T150405"))
	return lostTail{own: own.Seq, seq: duty.Seq, fork: fork, path: filepath.Join(d.p.cfg.Dir, name)}
}

const unfinishedTail = ".unfinished"

// removeUnfinished removes what a program that was killed while it saved a tail has left: it holds row data, may be large,
// and another would be left each time.
func (d *dataPath) removeUnfinished() error {
	names, err := os.ReadDir(d.p.cfg.Dir)
	for _, name := range names {
		if strings.HasPrefix(name.Name(), "lost-transactions-") && strings.HasSuffix(name.Name(), unfinishedTail) {
			err = errors.Join(err, os.Remove(filepath.Join(d.p.cfg.Dir, name.Name())))
		}
	}
	if err != nil {
		return fmt.Errorf("remove an unfinished file of lost transactions: %w", err)
	}
	return nil
}

// saveTail writes what this server committed after the fork to a file. The file has its name when all of it is on disk.
func (d *dataPath) saveTail(ctx context.Context, own backend.Reign, fork mirror.LSN, duty mirror.Duty) (tailFate, error) {
	saved := d.sameTail(own, fork, duty)
	path := saved.path
	unfinished := path + unfinishedTail
	if err := d.removeUnfinished(); err != nil {
		return tailUnknown, err
	}
	f, err := os.OpenFile(unfinished, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return tailUnknown, fmt.Errorf("make the file of lost transactions: %w", err)
	}
	crashpoint.Hit(crashpoint.TailUnread)
	tail, err := d.database.SaveTail(ctx, own, fork, f)
	err = crashpoint.After(crashpoint.TailRead, err)
	if err == nil && tail.Transactions > 0 {
		crashpoint.Hit(crashpoint.LostUnsynced)
		err = crashpoint.After(crashpoint.LostSynced, f.Sync())
	}
	err = errors.Join(err, f.Close())
	if errors.Is(err, backend.ErrTailGone) {
		d.p.journal.note(line{Kind: "tail", RoleSeq: uint64(duty.Seq), Reason: "unknown", Note: err.Error()})
		return tailUnknown, os.Remove(unfinished)
	}
	if err != nil {
		return tailUnknown, errors.Join(fmt.Errorf("save the tail after the fork: %w", err), os.Remove(unfinished))
	}
	if tail.Transactions == 0 {
		return tailEmpty, os.Remove(unfinished)
	}
	if err := errors.Join(os.Rename(unfinished, path), syncDir(d.p.cfg.Dir)); err != nil {
		return tailUnknown, fmt.Errorf("save the tail after the fork: %w", err)
	}
	crashpoint.Hit(crashpoint.LostNamed)
	known := saved.transactions == tail.Transactions && saved.changes == tail.Changes
	saved.transactions, saved.changes = tail.Transactions, tail.Changes
	d.saved = saved
	if known {
		return tailSaved, nil
	}
	note := fmt.Sprintf("%d transactions with %d changes of %v after %s are not at the principal; saved to %s",
		tail.Transactions, tail.Changes, tail.Tables, fork, filepath.Base(path))
	d.p.journal.note(line{Kind: "lost transactions", RoleSeq: uint64(duty.Seq), Reason: mirror.ReasonDiverged.String(), LSN: fork.String(), Note: note})
	d.p.cfg.Logger.Warn("transactions that the principal never had were saved", "count", tail.Transactions, "file", path)
	return tailSaved, nil
}

// aligned begins the hardened log at the start of the principal's reign and tells the session.
func (d *dataPath) aligned(ctx context.Context, reign backend.Reign, duty mirror.Duty) error {
	base := mirror.Position{Seq: duty.Seq, LSN: reign.Start}
	d.follow.stopRedo()
	// The row first: until the log begins anew, what is left of the old one lies below the row and is passed over.
	crashpoint.Hit(crashpoint.ProgressUnset)
	if err := d.database.SetProgress(ctx, base); err != nil {
		return err
	}
	crashpoint.Hit(crashpoint.ProgressSet)
	if err := d.p.queue.Reset(base); err != nil {
		return d.ofLog(fmt.Errorf("begin the hardened log: %w", err))
	}
	crashpoint.Hit(crashpoint.LogBegun)
	// What the session is told changes its wish, which ends ctx: the answer is waited for all the same.
	return crashpoint.After(crashpoint.AlignedTold,
		d.p.host.Ask(context.WithoutCancel(ctx), mirror.Event{Kind: mirror.EventAligned, Seq: duty.Seq, LSN: reign.Start}))
}

// failure is what is not tried again for a while.
type failure struct {
	err   error
	until time.Time
}

// copyPause is between two copies when the first has failed for no reason that suspends the session.
const copyPause = 3 * time.Second

// seed copies the principal's database. From the first moment on the session knows that this one is of no use until the
// copy is whole.
func (d *dataPath) seed(ctx context.Context, reign backend.Reign, duty mirror.Duty, st mirror.Status) error {
	if time.Now().Before(d.copied.until) {
		return d.copied.err
	}
	replace, err := d.mayReplace(ctx, st)
	if err != nil {
		return err
	}
	if err := d.preflightPair(ctx, st); err != nil {
		if reasonOf(err) == mirror.ReasonNone {
			return err
		}
		d.failed(err)
		return nil
	}
	crashpoint.Hit(crashpoint.SeedingUntold)
	if err := d.p.host.Ask(ctx, mirror.Event{Kind: mirror.EventSeeding}); err != nil {
		return err
	}
	crashpoint.Hit(crashpoint.SeedingTold)
	d.follow.stopRedo()
	if err := d.gate(ctx, mirror.GateClosed, 0); err != nil {
		return err
	}
	if err := d.leavePrincipal(ctx); err != nil {
		return err
	}
	if err := d.database.Prepare(ctx); err != nil {
		return err
	}
	copied, err := d.database.Seed(ctx, reign, replace)
	if err != nil {
		if reasonOf(err) != mirror.ReasonNone {
			d.failed(err)
			return nil
		}
		err = fmt.Errorf("copy the principal's database: %w", err)
		if ctx.Err() == nil {
			d.copied = failure{err, time.Now().Add(copyPause)}
		}
		return err
	}
	d.p.cfg.Logger.Info("database copied", "tables", copied.Tables, "rows", copied.Rows, "bytes", copied.Bytes, "duration", copied.Duration)
	d.setFindings(copied.Findings)
	reign.Start = copied.Start
	return d.aligned(ctx, reign, duty)
}

// mayReplace says whether what is in the database may go: it was a copy already, or the user said so.
func (d *dataPath) mayReplace(ctx context.Context, st mirror.Status) (bool, error) {
	if d.p.cfg.Limits.Replace || st.Dirty || d.p.host.Hard().Aligned > 0 || d.p.queue.Hardened() != (mirror.Position{}) {
		return true, nil
	}
	return d.database.Incomplete(ctx)
}

// syncDir puts the names in a directory on disk.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
