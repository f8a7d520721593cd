package partner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
	"github.com/f19126b3/dbmirror/partner/pglog"
)

// align makes this database continue the log of the present principal. A former principal that has nothing beyond the
// fork just goes on from where the new reign begins; one that has is saved to a file and copied anew, as is everybody
// else (protocol-and-reliability 1.6.9).
func (d *dataPath) align(ctx context.Context, duty mirror.Duty, st mirror.Status) error {
	d.follow.stopStream()
	crashpoint.Hit(crashpoint.ForkUnread)
	reign, err := d.peerReign(ctx, duty.Seq)
	if errors.Is(err, pglog.ErrNoReign) {
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
	own, err := d.server.Reign(ctx, d.p.id.String(), hard.Aligned)
	if errors.Is(err, pglog.ErrNoReign) || hard.Aligned == 0 || duty.Fork.Seq < hard.Aligned {
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
	if kept, err := d.keeps(ctx, own, fork); err != nil || !kept {
		return false, err
	}
	if err := d.server.FreeSlot(ctx, own.Slot); err != nil {
		return false, err
	}
	none, err := d.saveTail(ctx, own.Slot, fork, duty)
	return none && followed, err
}

// keeps says whether this server still has all of its own log up to the fork. One that was put back to an older state has
// no tail either, and lacks what the principal took for granted. A prepared transaction may yet commit anything.
func (d *dataPath) keeps(ctx context.Context, own pglog.Reign, fork mirror.LSN) (bool, error) {
	id, err := d.server.Identity(ctx)
	if err != nil {
		return false, err
	}
	health, err := d.server.Ping(ctx)
	if err != nil {
		return false, err
	}
	prepared := 0
	err = d.server.Admin(ctx, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()").Scan(&prepared)
	})
	return err == nil && id.SystemID == own.SystemID && health.Flushed >= fork && prepared == 0, err
}

// saveTail writes what this server committed after the fork to a file, and says whether there was nothing. The file has
// its name when all of it is on disk.
func (d *dataPath) saveTail(ctx context.Context, slot string, fork mirror.LSN, duty mirror.Duty) (bool, error) {
	path := filepath.Join(d.p.cfg.Dir, fmt.Sprintf("lost-transactions-%d-%s.jsonl", duty.Seq, time.Now().UTC().Format("20060102T150405")))
	unfinished := path + ".unfinished"
	f, err := os.OpenFile(unfinished, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return false, fmt.Errorf("make the file of lost transactions: %w", err)
	}
	crashpoint.Hit(crashpoint.TailUnread)
	tail, err := d.server.Tail(ctx, slot, fork, f)
	err = crashpoint.After(crashpoint.TailRead, err)
	if err == nil && tail.Transactions > 0 {
		crashpoint.Hit(crashpoint.LostUnsynced)
		err = crashpoint.After(crashpoint.LostSynced, f.Sync())
	}
	err = errors.Join(err, f.Close())
	if errors.Is(err, pglog.ErrNoSlot) || errors.Is(err, pglog.ErrTailGone) {
		d.p.journal.note(line{Kind: "tail", RoleSeq: uint64(duty.Seq), Reason: "unknown", Note: err.Error()})
		return false, os.Remove(unfinished)
	}
	if err != nil {
		return false, errors.Join(fmt.Errorf("save the tail after the fork: %w", err), os.Remove(unfinished))
	}
	if tail.Transactions == 0 {
		return true, os.Remove(unfinished)
	}
	if err := errors.Join(os.Rename(unfinished, path), syncDir(d.p.cfg.Dir)); err != nil {
		return false, fmt.Errorf("save the tail after the fork: %w", err)
	}
	crashpoint.Hit(crashpoint.LostNamed)
	note := fmt.Sprintf("%d transactions with %d changes of %v after %s are not at the principal; saved to %s",
		tail.Transactions, tail.Changes, tail.Tables, fork, filepath.Base(path))
	d.p.journal.note(line{Kind: "lost transactions", RoleSeq: uint64(duty.Seq), Reason: mirror.ReasonDiverged.String(), LSN: fork.String(), Note: note})
	d.p.cfg.Logger.Warn("transactions that the principal never had were saved", "count", tail.Transactions, "file", path)
	return false, nil
}

// aligned begins the hardened log at the start of the principal's reign and tells the session.
func (d *dataPath) aligned(ctx context.Context, reign pglog.Reign, duty mirror.Duty) error {
	base := mirror.Position{Seq: duty.Seq, LSN: reign.Start}
	d.follow.stopRedo()
	// The row first: until the log begins anew, what is left of the old one lies below the row and is passed over.
	crashpoint.Hit(crashpoint.ProgressUnset)
	if err := d.setProgress(ctx, base); err != nil {
		return err
	}
	crashpoint.Hit(crashpoint.ProgressSet)
	if err := d.p.queue.Reset(base); err != nil {
		return d.ofLog(fmt.Errorf("begin the hardened log: %w", err))
	}
	crashpoint.Hit(crashpoint.LogBegun)
	return crashpoint.After(crashpoint.AlignedTold, d.p.host.Ask(ctx, mirror.Event{Kind: mirror.EventAligned, Seq: duty.Seq, LSN: reign.Start}))
}

// setProgress says in the database that everything up to base is in it.
func (d *dataPath) setProgress(ctx context.Context, base mirror.Position) error {
	return d.server.Admin(ctx, func(conn *pgx.Conn) error {
		if err := pglog.EnsureProgress(ctx, conn); err != nil {
			return err
		}
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			return pglog.SetProgress(ctx, tx, d.p.id.String(), base)
		})
	})
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
func (d *dataPath) seed(ctx context.Context, reign pglog.Reign, duty mirror.Duty, st mirror.Status) error {
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
	if err := d.server.EnsureSchema(ctx); err != nil {
		return err
	}
	start, err := d.copy(ctx, reign, replace)
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
	reign.Start = start
	return d.aligned(ctx, reign, duty)
}

// mayReplace says whether what is in the database may go: it was a copy already, or the user said so.
func (d *dataPath) mayReplace(ctx context.Context, st mirror.Status) (bool, error) {
	if d.p.cfg.Limits.Replace || st.Dirty || d.p.host.Hard().Aligned > 0 || d.p.queue.Hardened() != (mirror.Position{}) {
		return true, nil
	}
	incomplete := false
	err := d.server.Admin(ctx, func(conn *pgx.Conn) (err error) {
		incomplete, err = pglog.BaselineIncomplete(ctx, conn)
		return err
	})
	return incomplete, err
}

// copy makes the slot anew with a snapshot and copies under it: whatever is committed later comes by the slot.
func (d *dataPath) copy(ctx context.Context, reign pglog.Reign, replace bool) (mirror.LSN, error) {
	principal, err := d.peer(ctx)
	if err != nil {
		return 0, err
	}
	if err := principal.DropSlot(ctx, reign.Slot); err != nil {
		return 0, err
	}
	crashpoint.Hit(crashpoint.SnapshotUnmade)
	snapshot, err := principal.CreateSlotWithSnapshot(ctx, reign.Slot)
	if err != nil {
		return 0, err
	}
	crashpoint.Hit(crashpoint.SnapshotMade)
	defer snapshot.Close()
	reign.Start = snapshot.Start
	if err := principal.WriteReign(ctx, reign); err != nil {
		return 0, err
	}
	result, err := pglog.Baseline(ctx, pglog.BaselineConfig{
		Principal: d.p.cfg.PeerDSN, Mirror: d.p.cfg.DSN, Snapshot: snapshot.Name, Replace: replace, Workers: d.p.cfg.Limits.CopyWorkers,
	})
	if err != nil {
		return 0, err
	}
	d.p.cfg.Logger.Info("database copied", "tables", result.Tables, "rows", result.Rows, "bytes", result.Bytes, "duration", result.Duration)
	d.setFindings(result.Findings)
	return snapshot.Start, nil
}

// syncDir puts the names in a directory on disk.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
