package pglog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/mirror"
)

// Admin lends an administrative connection to the mirrored database for the length of a call.
func (s *Server) Admin(ctx context.Context, use func(*pgx.Conn) error) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("get an administrative connection: %w", err)
	}
	defer conn.Release()
	return use(conn.Conn())
}

// Identity reads which server and database this is.
func (s *Server) Identity(ctx context.Context) (id Identity, err error) {
	err = s.Admin(ctx, func(conn *pgx.Conn) error {
		id, err = ReadIdentity(ctx, conn.PgConn())
		return err
	})
	return id, err
}

// LatestReign reads the newest role sequence below before that is recorded on this server. It returns ErrNoReign when
// there is none.
func (s *Server) LatestReign(ctx context.Context, session string, before mirror.RoleSeq) (Reign, error) {
	if before > math.MaxInt64 {
		return Reign{}, fmt.Errorf("read reign: role sequence %d is out of range", before)
	}
	var seq *int64
	err := s.pool.QueryRow(ctx, "SELECT max(role_seq)::int8 FROM dbmirror.reign WHERE session = $1 AND role_seq < $2",
		session, int64(before)).Scan(&seq)
	switch {
	case err != nil:
		return Reign{}, fmt.Errorf("read latest reign: %w", err)
	case seq == nil:
		return Reign{}, fmt.Errorf("read latest reign: %w", ErrNoReign)
	}
	return s.Reign(ctx, session, mirror.RoleSeq(*seq))
}

// Barrier commits something that carries no data and returns the end of this server's log then: whoever has hardened
// that has hardened everything that was committed before the call.
func (s *Server) Barrier(ctx context.Context) (end mirror.LSN, err error) {
	err = s.Admin(ctx, func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, "SELECT pg_logical_emit_message(true, 'dbmirror', 'barrier')"); err != nil {
			return err
		}
		return conn.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text").Scan(lsnColumn{&end})
	})
	if err != nil {
		return 0, fmt.Errorf("write a barrier: %w", err)
	}
	return end, nil
}

// DropSessionSlots drops every slot of the session on this server, as a server does that is no principal any more.
func (s *Server) DropSessionSlots(ctx context.Context) error {
	rows, err := s.pool.Query(ctx, "SELECT slot_name FROM pg_replication_slots WHERE starts_with(slot_name::text, $1)", s.WaitPrefix())
	if err != nil {
		return fmt.Errorf("list slots: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("list slots: %w", err)
	}
	var failures []error
	for _, name := range names {
		failures = append(failures, s.DropSlot(ctx, name))
	}
	return errors.Join(failures...)
}

// Heartbeat commits something that carries no data, waits as a client's commit waits, and returns how long that took.
// It is how an idle session finds out what a commit would feel, and it moves an idle slot on.
func (s *Server) Heartbeat(ctx context.Context) (time.Duration, error) {
	conn, err := pgx.ConnectConfig(ctx, s.connConfig(s.database, "heartbeat", map[string]string{"synchronous_commit": "on"}))
	if err != nil {
		return 0, fmt.Errorf("heartbeat: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	start := time.Now()
	if _, err := conn.Exec(ctx, "SELECT pg_logical_emit_message(true, 'dbmirror', 'heartbeat')"); err != nil {
		return 0, fmt.Errorf("heartbeat: %w", err)
	}
	return time.Since(start), nil
}
