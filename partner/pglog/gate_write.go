package pglog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
)

const (
	// lockPatience is how long somebody else may hold a lock that a change of the gate needs.
	lockPatience = 300 * time.Millisecond
	// pushTimeoutSQL bounds the wait for each lock: more than it takes to end who holds it.
	pushTimeoutSQL = "SET LOCAL lock_timeout = '1s'"
)

// errPrepared is why a change cannot be pushed through: nobody is there who could be ended.
var errPrepared = errors.New("a prepared transaction holds a lock that this needs: see pg_prepared_xacts, " +
	"and end it with COMMIT PREPARED or ROLLBACK PREPARED in its database")

// writeGate changes the settings of the database. What others hold or change meanwhile only delays it. As long as a
// closed gate cannot be written, the sessions of clients are ended all the same, though they may come back: until the
// deadline those that do nothing, then all.
func (s *Server) writeGate(ctx context.Context, g mirror.Gate, deadline time.Time) error {
	var failure error
	err := poll(ctx, func() (bool, error) {
		failure = s.tryGate(ctx, g)
		if failure == nil {
			return true, nil
		}
		again := raced(failure) || lockedOut(failure)
		if g == mirror.GateClosed {
			failure = errors.Join(failure, s.endClients(ctx, deadline))
		}
		if !again {
			return false, failure
		}
		return false, nil
	})
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", context.Cause(ctx), failure)
	}
	return err
}

// lockedOut tells whether a statement gave way to another session's lock.
func lockedOut(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pg.Code == "55P03" || pg.Code == "40P01" || pg.Code == "40001")
}

func (s *Server) endClients(ctx context.Context, deadline time.Time) error {
	list, err := s.sessions(ctx)
	if err != nil {
		return err
	}
	return s.endSessions(ctx, list, time.Now().Before(deadline))
}

func (s *Server) tryGate(ctx context.Context, g mirror.Gate) error {
	limit, err := s.keepConnLimit(ctx)
	if g == mirror.GateClosed {
		// A limit that could not be kept is no reason to stay open: the operator can set it again.
		limit, err = 0, nil
	}
	if err != nil {
		return err
	}
	database := "ALTER DATABASE " + quoteIdent(s.database)
	readOnly := " SET default_transaction_read_only = on"
	if g == mirror.GateOpen {
		readOnly = " RESET default_transaction_read_only"
	}
	// In one transaction, so that no session can start between the two.
	crashpoint.Hit(crashpoint.GateUnwritten)
	err = s.push(ctx, func(tx pgx.Tx) error {
		if g == mirror.GateOpen {
			_, err := tx.Exec(ctx, `INSERT INTO dbmirror.settings (name, value)
				SELECT $1::text, 'yes' FROM pg_db_role_setting x JOIN pg_database d ON d.oid = x.setdatabase AND x.setrole = 0
				WHERE d.datname = current_database() AND 'default_transaction_read_only=on' = ANY (x.setconfig)
				ON CONFLICT (name) DO NOTHING`, settingWasReadOnly)
			if err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, database+readOnly); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, fmt.Sprintf("%s CONNECTION LIMIT %d", database, limit))
		return err
	})
	return crashpoint.After(crashpoint.GateWritten, err)
}

// keepConnLimit stores the limit of an open database and returns the one to give back. A limit of zero that nobody has
// stored cannot be what the database served with: it gives back none.
func (s *Server) keepConnLimit(ctx context.Context) (limit int, err error) {
	if err := s.ensureTables(ctx); err != nil {
		return 0, err
	}
	err = s.push(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			INSERT INTO dbmirror.settings (name, value)
			SELECT $1::text, datconnlimit::text FROM pg_database WHERE datname = current_database() AND datconnlimit <> 0
			ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE settings.value <> excluded.value`, settingConnLimit)
		if err != nil {
			return fmt.Errorf("store connection limit: %w", err)
		}
		err = tx.QueryRow(ctx, "SELECT value::int FROM dbmirror.settings WHERE name = $1", settingConnLimit).Scan(&limit)
		if errors.Is(err, pgx.ErrNoRows) {
			limit = -1
			return nil
		}
		if err != nil {
			return fmt.Errorf("read connection limit: %w", err)
		}
		return nil
	})
	return limit, err
}

// push runs a transaction that must get through: whoever for lockPatience holds a lock that it waits for is ended.
func (s *Server) push(ctx context.Context, change func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, pushTimeoutSQL); err != nil {
			return err
		}
		watch, stop := context.WithCancel(ctx)
		defer stop()
		var watcher sync.WaitGroup
		var hindrance error
		pid := tx.Conn().PgConn().PID()
		watcher.Go(func() { hindrance = s.endBlockers(watch, pid) })
		err := change(tx)
		stop()
		watcher.Wait()
		if err != nil {
			return errors.Join(err, hindrance)
		}
		return nil
	})
}

// endBlockers ends the sessions that a backend waits for, from lockPatience on until the context ends. It returns
// errPrepared if there was one that is no session.
func (s *Server) endBlockers(ctx context.Context, pid uint32) error {
	patience := time.NewTimer(lockPatience)
	defer patience.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-patience.C:
	}
	var hindrance error
	err := poll(ctx, func() (bool, error) {
		var prepared bool
		err := s.pool.QueryRow(ctx, `
			SELECT coalesce(bool_or(b = 0), false) FROM unnest(pg_blocking_pids($1)) b
			WHERE CASE WHEN b = 0 THEN true ELSE pg_terminate_backend(b) END`, int32(pid)).Scan(&prepared)
		if prepared {
			hindrance = errPrepared
		}
		return false, err
	})
	if ctx.Err() != nil {
		return hindrance
	}
	return fmt.Errorf("end sessions that hold a lock: %w", err)
}
