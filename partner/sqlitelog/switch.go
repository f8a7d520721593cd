package sqlitelog

import (
	"context"
	"errors"

	"zombiezen.com/go/sqlite"

	"github.com/f19126b3/dbmirror/mirror"
)

// redoing runs f in a transaction of the connection that redoes.
func (db *DB) redoing(ctx context.Context, f func(*writer) error) error {
	if _, err := db.take(ctx); err != nil {
		return err
	}
	defer db.give()
	if err := db.faulty(); err != nil {
		return err
	}
	w, err := db.switchTo(true)
	if err != nil {
		return db.broken(err)
	}
	return db.broken(w.transact(captureRedo, func() error { return f(w) }))
}

// switchTo makes the writer one for clients or one for redo; the caller has the turn. It is another connection: a full
// text index, for one, keeps in memory what redo changes below it. Nobody can write between the two unseen: the new one
// begins to look before the old one gives up its lock.
func (db *DB) switchTo(redoes bool) (*writer, error) {
	former := db.writer
	if former.redoes == redoes {
		return former, nil
	}
	var next *writer
	err := former.transact(captureOwn, func() (err error) {
		if next, err = openWriter(db.cfg, redoes); err != nil {
			return err
		}
		return next.guard.own(func() error {
			if next.version, err = number(next.conn, "PRAGMA data_version"); err != nil {
				return err
			}
			next.before = sampled{schema: -1}
			next.before, err = next.sample()
			return err
		})
	})
	if err != nil {
		if next != nil {
			err = errors.Join(err, next.close())
		}
		return nil, err
	}
	db.writer = next
	return next, former.close()
}

// inspect runs f on one state of the database, whoever may come in.
func (db *DB) inspect(ctx context.Context, f func(*sqlite.Conn) error) (err error) {
	if err := db.faulty(); err != nil {
		return err
	}
	db.files.RLock()
	defer db.files.RUnlock()
	r, err := openReader(db.cfg)
	if err != nil {
		return fileError(db.cfg.Path, err)
	}
	defer func() { err = errors.Join(err, r.close()) }()
	_, err = r.run(ctx, func(conn *sqlite.Conn) error {
		return r.guard.own(func() error { return f(conn) })
	})
	return fileError(db.cfg.Path, err)
}

// reloadBounds takes over what the log is after it was changed from outside of Write.
func (db *DB) reloadBounds(ctx context.Context) error {
	w, err := db.take(ctx)
	if err != nil {
		return err
	}
	defer db.give()
	var end, trimmed mirror.LSN
	err = w.transact(captureOwn, func() (err error) {
		end, trimmed, err = readLogBounds(w.conn)
		return err
	})
	if err == nil {
		db.advanced(end, trimmed)
	}
	return db.broken(err)
}
