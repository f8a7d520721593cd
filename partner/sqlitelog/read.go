package sqlitelog

import (
	"context"
	"errors"
	"fmt"

	"zombiezen.com/go/sqlite"

	"github.com/f19126b3/dbmirror/mirror"
)

// reader is a connection that cannot write.
type reader struct {
	conn  *sqlite.Conn
	h     *handle
	guard *guard
}

func openReader(cfg Config) (_ *reader, err error) {
	conn, err := connect(cfg.Path, sqlite.OpenReadOnly)
	if err != nil {
		return nil, err
	}
	r := &reader{conn: conn, guard: &guard{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	conn.SetBusyTimeout(cfg.BusyTimeout)
	if r.h, err = handleOf(conn); err != nil {
		return nil, err
	}
	r.h.hooks.authorize = r.guard.authorize
	r.h.installAuthorizer()
	return r, r.guard.own(func() error {
		if cfg.Prepare != nil {
			if err := cfg.Prepare(conn); err != nil {
				return fmt.Errorf("config: Prepare: %w", err)
			}
		}
		return runOnce(conn, "PRAGMA query_only = ON")
	})
}

func (r *reader) close() error {
	if r == nil {
		return nil
	}
	r.conn.SetInterrupt(nil)
	err := disconnect(r.conn)
	if r.h != nil {
		r.h.close()
	}
	return err
}

// Read runs f on one state of the database, as it is when Read begins. The connection cannot write, and f must not keep it. When
// commits wait for the mirror, Read returns after the mirror has hardened everything that f could see. It returns
// *NotServingError where the database is closed, *FileError, or the cause of ctx.
func (db *DB) Read(ctx context.Context, f func(*sqlite.Conn) error) error {
	ctx, c, err := db.enter(ctx, false)
	if err != nil {
		return err
	}
	defer func() { _ = db.leave(c, nil) }() // when f panics; otherwise it has left
	at, err := db.snapshot(ctx, f)
	if at > 0 {
		if settled := db.settled(ctx, at); err == nil {
			err = settled
		}
	}
	return db.leave(c, err)
}

// snapshot runs f on one state, and returns the end of the log in it.
func (db *DB) snapshot(ctx context.Context, f func(*sqlite.Conn) error) (at mirror.LSN, err error) {
	var r *reader
	select {
	case r = <-db.readers:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	defer func() { db.readers <- r }()
	if r == nil {
		if r, err = openReader(db.cfg); err != nil {
			r = nil
			return 0, fileError(db.cfg.Path, err)
		}
	}
	at, err = r.run(ctx, f)
	if err != nil && ctx.Err() != nil && sqlite.ErrCode(err).ToPrimary() == sqlite.ResultInterrupt {
		err = context.Cause(ctx)
	}
	return at, fileError(db.cfg.Path, err)
}

func (r *reader) run(ctx context.Context, f func(*sqlite.Conn) error) (at mirror.LSN, err error) {
	r.conn.SetInterrupt(nil)
	defer func() {
		r.conn.SetInterrupt(nil)
		_ = r.guard.own(func() error { return runOnce(r.conn, "ROLLBACK") }) // f cannot have ended it; if SQLite has, nothing is left to do
		closed := make(chan struct{})
		close(closed)
		r.conn.SetInterrupt(closed)
	}()
	err = r.guard.own(func() error {
		if err := runOnce(r.conn, "BEGIN"); err != nil {
			return err
		}
		end, err := number(r.conn, "SELECT max(lsn) FROM main.dbmirror_log")
		at = mirror.LSN(end)
		return err
	})
	if err != nil {
		return 0, err
	}
	r.guard.refused = nil
	r.conn.SetInterrupt(ctx.Done())
	err = f(r.conn)
	if err != nil && r.guard.refused != nil && sqlite.ErrCode(err).ToPrimary() == sqlite.ResultAuth {
		err = r.guard.refused
	}
	return at, err
}
