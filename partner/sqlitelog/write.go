package sqlitelog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"zombiezen.com/go/sqlite"

	"github.com/f19126b3/dbmirror/mirror"
)

// errDisplaced is returned when the client's function has taken the place of what records its changes.
var errDisplaced = &RefusedError{"the function has made a session, or another hook, on the connection", "do that on a database of its own"}

// errEnded is returned when SQLite has rolled the transaction back within the client's function.
var errEnded = errors.New("the transaction was rolled back by SQLite within the function: nothing of it was committed")

// Write runs f in a transaction and commits it, with the record of what it has changed. One Write runs at a time. When
// commits wait for the mirror, it returns after the mirror has hardened the transaction; the next Write need not wait
// for that. An error of f rolls everything back and is returned as it is.
//
// f must not keep the connection. It may change rows and the schema as it likes; what cannot be mirrored ends in a
// *RefusedError. It returns *NotServingError where this is not the principal, *UnconfirmedError when the transaction
// is committed here and nothing more is known, *ForeignWriterError, *FileError, or the cause of ctx. A *FileError from a
// disk that failed (SQLITE_IOERR) leaves the outcome open, too: nothing is written any more, and after a restart the
// transaction may be there.
func (db *DB) Write(ctx context.Context, f func(*sqlite.Conn) error) error {
	ctx, c, err := db.enter(ctx, true)
	if err != nil {
		return err
	}
	defer func() { _ = db.leave(c, nil) }() // when f panics; otherwise it has left
	at, committed, err := db.commitAs(ctx, c, f)
	if at > 0 {
		// What f has seen may be of commits that the mirror has not confirmed, so its error waits for them, too.
		if settled := db.settled(ctx, at); err == nil {
			err = settled
		}
	}
	if err = db.leave(c, err); err != nil && committed {
		return &UnconfirmedError{at, err}
	}
	return err
}

// commitAs returns the end of the log that f has seen, its own transaction included.
func (db *DB) commitAs(ctx context.Context, c *call, f func(*sqlite.Conn) error) (at mirror.LSN, committed bool, err error) {
	if _, err := db.take(ctx); err != nil {
		return 0, false, err
	}
	defer db.give()
	if err := db.faulty(); err != nil {
		return 0, false, err
	}
	w, err := db.switchTo(false)
	if err != nil {
		return 0, false, db.broken(err)
	}
	if err := w.guard.own(w.start); err != nil {
		return 0, false, db.broken(err)
	}
	at = db.End()
	defer w.lock() // also when f panics
	if err := w.client(ctx, f); err != nil {
		return at, false, fileError(db.cfg.Path, err)
	}
	end, err := db.finish(w, c)
	if err != nil {
		return at, false, db.broken(err)
	}
	return max(at, end), end > at, nil
}

// client runs the client's function.
func (w *writer) client(ctx context.Context, f func(*sqlite.Conn) error) error {
	w.capture.begin(now())
	w.guard.refused = nil
	w.conn.SetInterrupt(ctx.Done())
	err := f(w.conn)
	w.conn.SetInterrupt(nil)
	if err == nil {
		err = w.capture.err
	}
	if err != nil && w.guard.refused != nil && sqlite.ErrCode(err).ToPrimary() == sqlite.ResultAuth {
		return w.guard.refused
	}
	if err != nil && ctx.Err() != nil && sqlite.ErrCode(err).ToPrimary() == sqlite.ResultInterrupt {
		return context.Cause(ctx)
	}
	if err == nil && w.conn.AutocommitEnabled() {
		err = errEnded
	}
	return err
}

// lock ends what is left of a transaction, and lets nobody use the connection until the next.
func (w *writer) lock() {
	w.conn.SetInterrupt(nil)
	_ = w.guard.own(w.undo) // SQLite has rolled back itself, or the next one cannot begin and says why
	w.capture.touched, w.capture.order, w.capture.out = nil, nil, nil
	if w.capture.altered {
		w.capture.tables = map[string]*table{}
	}
	w.shut()
}

// finish records what the client has changed and commits it. It returns zero when there is nothing.
func (db *DB) finish(w *writer, c *call) (end mirror.LSN, err error) {
	err = w.guard.own(func() error {
		after, err := w.record()
		if err == nil && !w.capture.wrote {
			err = w.proveHook()
		}
		if err != nil || !w.capture.wrote {
			return err
		}
		end, err = db.commitRecord(w, c)
		if err == nil {
			w.before = after
		}
		return err
	})
	return end, err
}

// record reads what the client has changed.
func (w *writer) record() (after sampled, err error) {
	k := w.capture
	// Full text indexes keep changes in memory until a savepoint is made.
	if err := errors.Join(run(w.conn, "SAVEPOINT dbmirror"), run(w.conn, "RELEASE dbmirror")); err != nil {
		return after, err
	}
	k.state = capturing
	if err := k.collect(); err != nil {
		return after, err
	}
	if k.err != nil {
		return after, k.err
	}
	if after, err = w.sample(); err != nil {
		return after, err
	}
	if after.schema != w.before.schema && !k.altered {
		return after, &RefusedError{"the schema was changed in a way that cannot be mirrored", "change it by CREATE, ALTER and DROP"}
	}
	w.compare(after)
	if k.altered {
		if err := reservedNames(w.conn); err != nil {
			return after, err
		}
		hash, err := schemaHash(w.conn)
		if err != nil {
			return after, err
		}
		k.out.note(opSchema, hash, Value{}, Value{})
	}
	if int64(len(k.out.body)) > k.limit {
		return after, k.tooLarge()
	}
	return after, nil
}

// proveHook makes sure, where nothing was recorded, that something would have been.
func (w *writer) proveHook() error {
	w.capture.state = captureOwn
	err := run(w.conn, "UPDATE main.dbmirror_log SET last = last WHERE lsn = (SELECT max(lsn) FROM main.dbmirror_log)")
	if err == nil {
		err = w.proven()
	}
	return err
}

// proven returns an error unless the hook was seen to be called. The next transaction begins with it in its place.
func (w *writer) proven() error {
	if w.capture.err != nil {
		return w.capture.err
	}
	if !w.capture.proof {
		w.h.install()
		return errDisplaced
	}
	return nil
}

// compare records what SQLite does not tell of.
func (w *writer) compare(after sampled) {
	k := w.capture
	for _, name := range mirroredPragmas() {
		if was, is := w.before.pragmas[name], after.pragmas[name]; was != is {
			k.out.note(opPragma, name, intValue(was), intValue(is))
			k.wrote = true
		}
	}
	names := map[string]struct{}{}
	for name := range w.before.sequences {
		names[name] = struct{}{}
	}
	for name := range after.sequences {
		names[name] = struct{}{}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		was, is := Value{Kind: Null}, Value{Kind: Null}
		if v, ok := w.before.sequences[name]; ok {
			was = v
		}
		if v, ok := after.sequences[name]; ok {
			is = v
		}
		if !was.equal(is) {
			k.out.note(opSequence, name, was, is)
			k.wrote = true
		}
	}
}

// commitRecord writes the record into the log and commits both.
func (db *DB) commitRecord(w *writer, c *call) (mirror.LSN, error) {
	k := w.capture
	k.state = captureOwn
	end, trimmed, err := db.appendLog(w.conn, k.out.body)
	if err == nil {
		err = w.proven()
	}
	if err != nil {
		return 0, err
	}
	if err := db.point(c); err != nil {
		return 0, err
	}
	if err := w.control(w.commit); err != nil {
		return 0, fmt.Errorf("commit: %w", err)
	}
	db.advanced(end, trimmed)
	return end, nil
}

// advanced tells everybody that the log has grown.
func (db *DB) advanced(end, trimmed mirror.LSN) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.mu.end, db.mu.trimmed = end, trimmed
	close(db.mu.grown)
	db.mu.grown = make(chan struct{})
}
