package pglog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/pglog/tunnel"
)

// database is the database of this side as a backend.Database: what this package knows of PostgreSQL, in the words that
// all backends share.
type database struct {
	cfg    Config // with ThroughPartner, PeerDSN leads to the tunnel
	env    backend.Env
	tunnel *tunnel.Entrance // nil: the other side's server is reached by itself
	server *Server
	peer   *peer
}

var (
	_ backend.Database = (*database)(nil)
	_ backend.Sampler  = (*database)(nil)
)

func (d *database) Peer() backend.Peer { return d.peer }

func (d *database) Close() {
	d.peer.close()
	d.server.Close()
	d.closeTunnel()
}

func (d *database) Ping(ctx context.Context) (backend.Health, error) {
	h, err := d.server.Ping(ctx)
	return backend.Health{Started: h.CheckpointerStart, End: h.Flushed}, err
}

func (d *database) Identity(ctx context.Context) (backend.Identity, error) {
	id, err := d.server.Identity(ctx)
	return id.neutral(), err
}

// neutral leaves out what does not tell databases apart: the timeline rises while a database stays what it is.
func (i Identity) neutral() backend.Identity {
	if i == (Identity{}) {
		return backend.Identity{}
	}
	return backend.Identity{
		ID:   fmt.Sprintf("%d/%d", i.SystemID, i.OID),
		Name: fmt.Sprintf("database %s (OID %d) of the server with system identifier %d", i.Database, i.OID, i.SystemID),
	}
}

func (d *database) Gate(ctx context.Context) (mirror.Gate, error) {
	proof, err := d.server.Gate(ctx)
	return proof.Gate, err
}

func (d *database) SetGate(ctx context.Context, gate mirror.Gate, grace time.Duration) error {
	_, err := d.server.SetGate(ctx, gate, grace)
	return err
}

func (d *database) Waiting(ctx context.Context) (backend.Waiting, error) {
	w, err := d.server.Waiting(ctx)
	return backend.Waiting{Name: w.Name, Blocked: w.Blocked, RestartWaits: w.RestartWaits, Reloaded: w.Reloaded, Foreign: w.Foreign,
		InForce: w.InForce}, err
}

func (d *database) WaitMirror(ctx context.Context, name string) (mirror.LSN, error) {
	return d.server.WaitMirror(ctx, name)
}

func (d *database) WaitNone(ctx context.Context) error  { return d.server.WaitNone(ctx, true) }
func (d *database) WaitBlock(ctx context.Context) error { return d.server.WaitBlock(ctx) }

func (d *database) WaitRemove(ctx context.Context) error {
	if err := d.server.WaitRemove(ctx); err != nil {
		return fmt.Errorf("take the session's names out of synchronous_standby_names: %w", err)
	}
	return nil
}

func (d *database) Heartbeat(ctx context.Context, name string) (backend.Beat, error) {
	return d.server.Heartbeat(ctx, name)
}

func (d *database) WriteBarrier(ctx context.Context) (backend.Barrier, error) {
	return d.server.WriteBarrier(ctx, d.env.Session)
}

func (d *database) LatestBarrier(ctx context.Context) (mirror.LSN, error) {
	return d.server.LatestBarrier(ctx, d.env.Session)
}

// Keeps: a prepared transaction may yet commit anything.
func (d *database) Keeps(ctx context.Context, own backend.Reign, fork mirror.LSN) (bool, error) {
	id, err := d.server.Identity(ctx)
	if err != nil {
		return false, err
	}
	health, err := d.server.Ping(ctx)
	if err != nil {
		return false, err
	}
	prepared := 0
	err = d.server.pool.QueryRow(ctx, "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()").Scan(&prepared)
	return err == nil && id.SystemID == own.Origin && health.Flushed >= fork && prepared == 0, err
}

func (d *database) SaveTail(ctx context.Context, own backend.Reign, fork mirror.LSN, w io.Writer) (backend.TailSummary, error) {
	if err := d.server.FreeSlot(ctx, own.Log); err != nil {
		return backend.TailSummary{}, err
	}
	tail, err := d.server.Tail(ctx, own.Log, fork, w)
	if errors.Is(err, ErrNoSlot) {
		err = fmt.Errorf("%w: %w", backend.ErrTailGone, err)
	}
	return backend.TailSummary{Transactions: tail.Transactions, Changes: tail.Changes, Tables: tail.Tables}, err
}

func (d *database) Progress(ctx context.Context) (at mirror.Position, err error) {
	err = d.server.Admin(ctx, func(conn *pgx.Conn) error {
		if err := EnsureProgress(ctx, conn); err != nil {
			return err
		}
		at, err = ReadProgress(ctx, conn, d.env.Session)
		return err
	})
	return at, err
}

func (d *database) SetProgress(ctx context.Context, at mirror.Position) error {
	return d.server.Admin(ctx, func(conn *pgx.Conn) error {
		if err := EnsureProgress(ctx, conn); err != nil {
			return err
		}
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return SetProgress(ctx, tx, d.env.Session, at) })
	})
}

func (d *database) Sums(ctx context.Context) (sums map[string]backend.TableSum, err error) {
	err = d.server.Admin(ctx, func(conn *pgx.Conn) error {
		sums, err = SumTables(ctx, conn)
		return err
	})
	return sums, err
}
