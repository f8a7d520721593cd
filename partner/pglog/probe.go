package pglog

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
)

// probe is one commit on a connection of its own, made to see whether commits wait. It is never given a context that
// may end: a cancelled commit would be released, and tell nothing. It changes no row, so that any number of probes may
// wait at once, and ends with its connection.
type probe struct {
	pid      uint32
	conn     *pgconn.PgConn
	broken   atomic.Bool // the server said that the wait was cut short
	returned chan struct{}
	err      error // valid when returned is closed
}

func (s *Server) startProbe(ctx context.Context) (*probe, error) {
	p := &probe{returned: make(chan struct{})}
	conn, err := s.connectWaiting(ctx, "probe", map[string]string{"statement_timeout": "0"}, &p.broken)
	if err != nil {
		return nil, fmt.Errorf("connect for probe: %w", err)
	}
	p.conn, p.pid = conn.PgConn(), conn.PgConn().PID()
	go func() {
		defer close(p.returned)
		_, p.err = conn.Exec(context.Background(), "SELECT pg_logical_emit_message(true, 'dbmirror', 'probe')",
			pgx.QueryExecModeSimpleProtocol)
		hangUp(conn)
	}()
	return p, nil
}

// connectWaiting opens a connection whose commits wait as a client's do, and notes when the server says that it has cut a
// wait short.
func (s *Server) connectWaiting(ctx context.Context, purpose string, settings map[string]string, cut *atomic.Bool) (*pgx.Conn, error) {
	cfg := s.connConfig(s.database, purpose, settings)
	cfg.RuntimeParams["synchronous_commit"] = "on"
	cfg.RuntimeParams["client_min_messages"] = "warning" // or a role's own setting might keep the word from us
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if n.Code == "01000" || n.Code == "57P01" { // "canceling wait ...", or its session was ended
			cut.Store(true)
		}
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	// Whatever the server warned of before is no wait: that the system's collation has changed, for example.
	cut.Store(false)
	return conn, err
}

func (p *probe) running() bool {
	select {
	case <-p.returned:
		return false
	default:
		return true
	}
}

// result of a probe that has returned: an error unless it committed and was not cut short.
func (p *probe) result() error {
	switch {
	case p.err != nil:
		return fmt.Errorf("probe commit: %w", p.err)
	case p.broken.Load():
		return errProbeCut
	}
	return nil
}

// errProbeCut is returned when somebody cancelled the probe's wait: its return then proves nothing.
var errProbeCut = errors.New("probe commit: its wait was cut short")

// waits polls until the probe is seen waiting for a mirror or has returned. It is true when it was seen waiting.
func (p *probe) waits(ctx context.Context, pool *pgxpool.Pool) (bool, error) {
	seen := false
	err := poll(ctx, func() (bool, error) {
		if !p.running() {
			return true, nil
		}
		err := pool.QueryRow(ctx, "SELECT coalesce(bool_or(wait_event = 'SyncRep'), false) FROM pg_stat_activity WHERE pid = $1",
			int32(p.pid)).Scan(&seen)
		return seen, err
	})
	if err != nil {
		return false, fmt.Errorf("watch probe commit: %w", err)
	}
	return seen, nil
}

// end ends the probe and returns when its connection is closed. What it would have committed is only a message.
func (p *probe) end(ctx context.Context, pool *pgxpool.Pool) {
	if !p.running() {
		return
	}
	// The server must be told: a backend that waits for a mirror does not notice that its client has gone.
	_, err := pool.Exec(ctx, "SELECT pg_terminate_backend($1)", int32(p.pid))
	if err == nil {
		select {
		case <-p.returned:
			return
		case <-ctx.Done():
		}
	}
	_ = p.conn.Conn().Close() // ends the read that the probe is in; the error of the probe tells the rest
	<-p.returned
}

// ErrNotWaiting is returned when commits were seen to return although a name is set that nobody bears. Safety FULL must
// not be claimed on such a server; a report beyond the end of its log is forgotten by a restart only.
var ErrNotWaiting = errors.New("commits do not wait for a mirror")

// proveWaiting returns when a commit has been seen to wait, and leaves it waiting. It repeats the probe until then: the
// setting is in force only when the server's checkpointer has read it, at the latest after the checkpoint it is busy
// with. One commit that waits proves it for all, since they all look at the same flag.
func (s *Server) proveWaiting(ctx context.Context) error {
	crashpoint.Hit(crashpoint.WaitUnproven)
	slipped := 0
	err := poll(ctx, func() (bool, error) {
		p := s.wait.pending
		if p == nil || !p.running() {
			var err error
			if p, err = s.startProbe(ctx); err != nil {
				return false, err
			}
			s.wait.pending = p
		}
		seen, err := p.waits(ctx, s.pool)
		if err != nil || seen {
			return seen, err
		}
		slipped++
		if err := p.result(); err != nil && !errors.Is(err, errProbeCut) {
			return false, err
		}
		return false, nil
	})
	err = crashpoint.After(crashpoint.WaitProven, err)
	// A connection attempt can give up at the deadline a moment before the context itself has ended.
	if err != nil && slipped > 0 && (ctx.Err() != nil || pgconn.Timeout(err)) {
		return fmt.Errorf("%w after %d probes: a long checkpoint is running, or a standby has reported a position beyond "+
			"the end of the log: wait for the one, restart the server for the other: %w", ErrNotWaiting, slipped, err)
	}
	return err
}

// proveReturned returns when a commit has returned by itself: the one that was waiting, or a new one.
func (s *Server) proveReturned(ctx context.Context) error {
	crashpoint.Hit(crashpoint.ReleaseUnproven)
	err := poll(ctx, func() (bool, error) {
		p := s.wait.pending
		if p == nil || !p.running() {
			var err error
			if p, err = s.startProbe(ctx); err != nil {
				return false, err
			}
			s.wait.pending = p
		}
		select {
		case <-p.returned:
		case <-ctx.Done():
			return false, fmt.Errorf("commits still wait: another standby in synchronous_standby_names does not confirm: %w",
				context.Cause(ctx))
		}
		s.wait.pending = nil
		err := p.result()
		if errors.Is(err, errProbeCut) {
			return false, nil
		}
		return err == nil, err
	})
	return crashpoint.After(crashpoint.ReleaseProven, err)
}

// endProbe ends the probe that is still waiting. A new slot would wait for its transaction, and without the slot there
// is no mirror to release it. That commits wait stays proven: nothing but the setting decides that.
func (s *Server) endProbe(ctx context.Context) error {
	if err := s.wait.take(ctx); err != nil {
		return fmt.Errorf("end probe: %w", err)
	}
	defer s.wait.give()
	if p := s.wait.pending; p != nil {
		p.end(ctx, s.pool)
		s.wait.pending = nil
	}
	return nil
}

// endStaleProbes ends the probes that a program of this session left waiting when it was killed.
func (s *Server) endStaleProbes(ctx context.Context) error {
	var own uint32
	if p := s.wait.pending; p != nil && p.running() {
		own = p.pid
	}
	_, err := s.pool.Exec(ctx, `
		SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE application_name = $1 AND pid <> $2 AND usesysid = (SELECT oid FROM pg_roles WHERE rolname = session_user)`,
		s.applicationName("probe"), int32(own))
	if err != nil {
		return fmt.Errorf("end stale probes: %w", err)
	}
	return nil
}
