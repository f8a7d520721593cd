package pglog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
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

// Heartbeat commits something that carries no data, waits as a client's commit waits, and says how that was. name is the
// one that commits wait for. It is how an idle session finds out what a commit would feel, and it moves an idle slot on.
func (s *Server) Heartbeat(ctx context.Context, name string) (backend.Beat, error) {
	var ended atomic.Bool // the wait was cancelled, which says nothing of others'
	conn, err := s.connectWaiting(ctx, "heartbeat", nil, &ended)
	if err != nil {
		return backend.Beat{}, fmt.Errorf("heartbeat: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	const bearers = "SELECT coalesce(string_agg(pid::text, ' ' ORDER BY pid), '') FROM pg_stat_replication WHERE application_name = $1"
	var before string
	if err := conn.QueryRow(ctx, bearers, name).Scan(&before); err != nil {
		return backend.Beat{}, fmt.Errorf("heartbeat: %w", err)
	}
	start := time.Now()
	// One message, so that what is looked at next is as it was when the commit returned.
	results, err := conn.PgConn().Exec(ctx, `BEGIN; SELECT pg_logical_emit_message(true, 'dbmirror', 'heartbeat') - '0/0'; COMMIT;
		SELECT coalesce(string_agg(pid::text, ' ' ORDER BY pid), ''), coalesce(min(flush_lsn) - '0/0', 0) FROM pg_stat_replication
		WHERE application_name = `+quoteLiteral(name)).ReadAll()
	if err != nil {
		return backend.Beat{}, fmt.Errorf("heartbeat: %w", err)
	}
	beat := backend.Beat{Took: time.Since(start)}
	after := results[len(results)-1].Rows[0]
	written, err := strconv.ParseUint(string(results[1].Rows[0][0]), 10, 64)
	if err != nil {
		return backend.Beat{}, fmt.Errorf("heartbeat: %w", err)
	}
	confirmed, err := strconv.ParseUint(string(after[1]), 10, 64)
	if err != nil {
		return backend.Beat{}, fmt.Errorf("heartbeat: %w", err)
	}
	// Unwaited: somebody else let it go, by a report beyond the end of log for example, after which no commit of the server
	// waits any more. A walsender that came or went meanwhile proves nothing.
	beat.Unwaited = before != "" && before == string(after[0]) && confirmed < written && !ended.Load()
	return beat, nil
}
