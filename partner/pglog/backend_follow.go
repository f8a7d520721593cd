package pglog

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
	"github.com/f19126b3/dbmirror/partner/backend"
)

func (d *database) Follow(from backend.Source) (backend.Stream, error) {
	s, err := NewStream(StreamConfig{
		DSN: d.cfg.PeerDSN, Slot: from.Reign.Log, Publication: Publication, SystemID: from.Reign.Origin, Seq: from.Reign.Seq,
		ApplicationName: from.Name, Silence: from.Silence, Waited: from.Waited,
	})
	if err != nil {
		return nil, err
	}
	return stream{s}, nil
}

func (d *database) NewRedo() (backend.Redo, error) {
	return NewRedo(RedoConfig{DSN: d.cfg.DSN, Session: d.env.Session})
}

// stream gives its errors a reason where the server's own have none.
type stream struct{ *Stream }

func (s stream) Run(ctx context.Context, log backend.Log) error {
	return withReason(s.Stream.Run(ctx, log))
}

// withReason gives the error of a server whose disk is full its reason, unless it has one.
func withReason(err error) error {
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == codeDiskFull && backend.ReasonOf(err) == mirror.ReasonNone {
		return backend.Because(mirror.ReasonDiskFull, err)
	}
	return err
}

const codeDiskFull = "53100"

func (d *database) Incomplete(ctx context.Context) (incomplete bool, err error) {
	err = d.server.Admin(ctx, func(conn *pgx.Conn) error {
		incomplete, err = BaselineIncomplete(ctx, conn)
		return err
	})
	return incomplete, err
}

// Seed makes the slot anew with a snapshot and copies under it: whatever is committed later comes by the slot.
func (d *database) Seed(ctx context.Context, from backend.Reign, replace bool) (backend.Seeded, error) {
	principal, err := d.peer.connect(ctx)
	if err != nil {
		return backend.Seeded{}, err
	}
	if err := principal.DropSlot(ctx, from.Log); err != nil {
		return backend.Seeded{}, withReason(err)
	}
	crashpoint.Hit(crashpoint.SnapshotUnmade)
	snapshot, err := principal.CreateSlotWithSnapshot(ctx, from.Log)
	if err != nil {
		return backend.Seeded{}, withReason(err)
	}
	crashpoint.Hit(crashpoint.SnapshotMade)
	defer snapshot.Close()
	from.Start = snapshot.Start
	if err := principal.WriteReign(ctx, d.row(from)); err != nil {
		return backend.Seeded{}, withReason(err)
	}
	result, err := Baseline(ctx, BaselineConfig{
		Principal: d.cfg.PeerDSN, Mirror: d.cfg.DSN, Snapshot: snapshot.Name, Replace: replace, Workers: d.env.CopyWorkers,
	})
	if err != nil {
		return backend.Seeded{}, withReason(err)
	}
	return backend.Seeded{Start: snapshot.Start, Tables: result.Tables, Rows: result.Rows, Bytes: result.Bytes,
		Duration: result.Duration, Findings: result.Findings}, nil
}
