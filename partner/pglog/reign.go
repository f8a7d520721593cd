package pglog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// ErrNoReign is that of all backends.
var ErrNoReign = backend.ErrNoReign

// Reign is the beginning of a role sequence in the log of the server that became principal with it. The row is written
// on that server before it opens, so that the mirror knows where to start reading and which log came before.
type Reign struct {
	Session  string
	Seq      mirror.RoleSeq
	Slot     string          // the mirror's slot on this server
	Start    mirror.LSN      // where that slot starts: at or before the first commit of the role sequence
	SystemID uint64          // this server's system identifier
	Fork     mirror.Position // the end, in the former principal's log, of what this server has of it
	OpenedAt time.Time       // this server's clock; set when written
}

// WriteReign records the beginning of a role sequence on this server. It is on disk when the method returns. A record of
// the same session and role sequence is replaced: a promotion that was broken off makes a new slot.
func (s *Server) WriteReign(ctx context.Context, r Reign) error {
	if r.Seq == 0 || r.Seq > math.MaxInt64 || r.Fork.Seq > math.MaxInt64 {
		return fmt.Errorf("write reign: role sequence %d or fork %s is out of range", r.Seq, r.Fork)
	}
	if err := checkSlotName(r.Slot); err != nil {
		return fmt.Errorf("write reign: %w", err)
	}
	crashpoint.Hit(crashpoint.ReignUnwritten)
	_, err := s.pool.Exec(ctx, `
		INSERT INTO dbmirror.reign (session, role_seq, slot, start_lsn, system_id, fork_seq, fork_lsn, opened_at)
		VALUES ($1, $2, $3, $4::text::pg_lsn, $5::text::numeric, $6, $7::text::pg_lsn, clock_timestamp())
		ON CONFLICT (session, role_seq) DO UPDATE SET (slot, start_lsn, system_id, fork_seq, fork_lsn, opened_at) =
			(excluded.slot, excluded.start_lsn, excluded.system_id, excluded.fork_seq, excluded.fork_lsn, excluded.opened_at)`,
		r.Session, int64(r.Seq), r.Slot, r.Start.String(), strconv.FormatUint(r.SystemID, 10), int64(r.Fork.Seq), r.Fork.LSN.String())
	if err != nil {
		return fmt.Errorf("write reign %d: %w", r.Seq, err)
	}
	crashpoint.Hit(crashpoint.ReignWritten)
	return nil
}

// Reign reads what this server has recorded of a role sequence. It returns ErrNoReign when there is nothing.
func (s *Server) Reign(ctx context.Context, session string, seq mirror.RoleSeq) (Reign, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return Reign{}, fmt.Errorf("read reign %d: %w", seq, err)
	}
	defer conn.Release()
	return ReadReign(ctx, conn.Conn(), session, seq)
}

// ReadReign reads what the server at the other end of conn has recorded of a role sequence. It returns ErrNoReign when
// there is nothing.
func ReadReign(ctx context.Context, conn *pgx.Conn, session string, seq mirror.RoleSeq) (Reign, error) {
	r := Reign{Session: session, Seq: seq}
	var system string
	var forkSeq int64
	err := conn.QueryRow(ctx, `
		SELECT slot, start_lsn::text, system_id::text, fork_seq, fork_lsn::text, opened_at
		FROM dbmirror.reign WHERE session = $1 AND role_seq = $2::text::numeric`, session, strconv.FormatUint(uint64(seq), 10)).
		Scan(&r.Slot, lsnColumn{&r.Start}, &system, &forkSeq, lsnColumn{&r.Fork.LSN}, &r.OpenedAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return Reign{}, fmt.Errorf("read reign %d: %w", seq, ErrNoReign)
	}
	if err == nil {
		r.Fork.Seq = mirror.RoleSeq(forkSeq)
		r.SystemID, err = strconv.ParseUint(system, 10, 64)
	}
	if err != nil {
		return Reign{}, fmt.Errorf("read reign %d: %w", seq, err)
	}
	return r, nil
}

// ReadReignAt does what ReadReign does on a connection of its own to the server that dsn leads to.
func ReadReignAt(ctx context.Context, dsn Secret, session string, seq mirror.RoleSeq) (Reign, error) {
	other, err := Dial(ctx, dsn, session)
	if err != nil {
		return Reign{}, fmt.Errorf("read reign %d: %w", seq, err)
	}
	defer other.Close()
	return other.Reign(ctx, session, seq)
}
