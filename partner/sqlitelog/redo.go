package sqlitelog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/redo"
)

const (
	// batchTransactions and batchBytes bound how many transactions of the principal become one here.
	batchTransactions, batchBytes = 1000, 4 << 20
	// retryRedo is how long redo waits before it tries again what may mend itself, such as a full disk.
	retryRedo = time.Second
)

// Redo redoes the hardened log in this database: each transaction of the principal exactly once, in order, many of them
// in one transaction here, which moves the redone position, too. Triggers do not fire, and foreign keys and checks are
// not looked at: the principal has done that. Run runs once at a time; the other methods may be called from any
// goroutine.
type Redo struct {
	db      *DB
	session string
	skip    string // the position of the transaction to leave out, as it is kept; of Run's goroutine

	mu struct {
		sync.Mutex
		progress backend.Progress
		running  bool
		err      error         // that ended Run
		changed  chan struct{} // closed when any of it changes
	}
}

func newRedo(db *DB, session string) *Redo {
	r := &Redo{db: db, session: session}
	r.mu.changed = make(chan struct{})
	return r
}

// Progress returns how far redo is.
func (r *Redo) Progress() backend.Progress {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.progress
}

func (r *Redo) update(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	close(r.mu.changed)
	r.mu.changed = make(chan struct{})
}

// Drain waits until everything up to a position is redone and on disk.
func (r *Redo) Drain(ctx context.Context, to mirror.Position) error {
	for {
		r.mu.Lock()
		done, err, changed := r.mu.progress.Redone.Compare(to) >= 0, r.mu.err, r.mu.changed
		r.mu.Unlock()
		if done || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("redo up to %s: %w", to, context.Cause(ctx))
		}
	}
}

// Run redoes until ctx ends or trying again cannot help.
func (r *Redo) Run(ctx context.Context, queue backend.Queue) error {
	r.update(func() { r.mu.err, r.mu.progress.Poison = nil, mirror.Position{} })
	for {
		err := r.follow(ctx, queue)
		if ctx.Err() == nil && transient(err) {
			r.update(func() { r.mu.progress.Trouble = err })
			pause := time.NewTimer(retryRedo)
			select {
			case <-ctx.Done():
			case <-pause.C:
				continue
			}
			pause.Stop()
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		r.update(func() {
			r.mu.err = err
			if poison, stopped := errors.AsType[*RedoError](err); stopped {
				r.mu.progress.Poison = poison.Position
			}
		})
		return err
	}
}

// transient says whether the same may succeed later.
func transient(err error) bool {
	switch sqlite.ErrCode(err).ToPrimary() {
	case sqlite.ResultBusy, sqlite.ResultLocked, sqlite.ResultFull, sqlite.ResultReadOnly, sqlite.ResultNoMem:
		return true
	}
	return false
}

// batch is what is redone together.
type batch struct {
	transactions []logged
	bytes        int
	from, to     mirror.Position // the redone position before and after it
	after        redo.Offset     // in the hardened log, after it
}

// follow redoes from the redone position on.
func (r *Redo) follow(ctx context.Context, queue backend.Queue) error {
	redone, err := r.db.progress(ctx, r.session)
	if err != nil {
		return err
	}
	skipped, err := r.orders(ctx)
	if err != nil {
		return err
	}
	first, err := queue.First()
	if err != nil {
		return fmt.Errorf("read where the log begins: %w", err)
	}
	if redone.Compare(first) < 0 {
		return gap("the hardened log goes back to %s, the database ends at %s: it was restored, or is another one", first, redone)
	}
	r.update(func() {
		p := &r.mu.progress
		p.Redone, p.Flushed, p.Skipped = redone, redone, skipped
	})
	reader := queue.NewReader(0)
	defer reader.Close() // it only reads: what Close says changes nothing
	a := assembler{batch: batch{from: redone, to: redone}}
	for {
		if a.full() || a.to != a.from && !reader.Ready() {
			if err := r.redo(ctx, queue, &a.batch); err != nil {
				return err
			}
		}
		if err := a.giveBack(queue); err != nil {
			return err
		}
		record, after, err := reader.Next(ctx)
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		if err := a.take(record, after); err != nil {
			return err
		}
	}
}

// assembler puts the records of the log together.
type assembler struct {
	batch
	body   []byte
	length mirror.LSN  // of the parts of the transaction that were read
	whole  bool        // the log was read from the beginning of the transaction on
	read   redo.Offset // after the last record
}

// giveBack trims when nothing is to be redone. Beginnings of transactions whose stream broke off would fill the log
// otherwise: nothing is appended to a full one, and so nothing would ever be redone that trims it.
func (a *assembler) giveBack(queue backend.Queue) error {
	if a.to != a.from || a.after == 0 {
		return nil
	}
	if err := queue.Trim(a.after); err != nil {
		return fmt.Errorf("trim log that came to nothing: %w", err)
	}
	a.after = 0
	return nil
}

// next begins another transaction, which is known to begin here.
func (a *assembler) next() { a.body, a.length, a.whole = nil, 0, true }

func (a *assembler) full() bool {
	return len(a.transactions) >= batchTransactions || a.bytes >= batchBytes
}

func (a *assembler) take(record redo.Record, after redo.Offset) error {
	at := mirror.Position{Seq: record.Seq, LSN: record.LSN}
	begun := a.read
	a.read = after
	switch record.Kind {
	case redo.KindAttach:
		a.next()
		a.after = begun // what is before it is in the batch, or void
	case redo.KindData:
		a.body = append(a.body, record.Data...)
		a.length += mirror.LSN(len(record.Data) + partOverhead)
	case redo.KindMark:
		// Nothing more up to there: the position moves with the next transaction. A newer role sequence goes on from here.
		if at.Compare(a.to) > 0 {
			a.to, a.after = at, after
		}
	case redo.KindCommit:
		body := append(a.body, record.Data...)
		length := a.length + mirror.LSN(len(record.Data)+partOverhead)
		// The log may have been trimmed up to the very beginning of it.
		whole := a.whole || at.Seq == a.to.Seq && at.LSN == a.to.LSN+length
		a.next()
		if at.Compare(a.to) <= 0 { // redone before
			if a.to == a.from {
				a.after = after
			}
			return nil
		}
		if !whole {
			return gap("the hardened log has the end of the transaction at %s and not its beginning, the database ends at %s", at, a.to)
		}
		a.transactions = append(a.transactions, logged{at, body})
		a.bytes += len(body)
		a.to, a.after = at, after
	}
	return nil
}

// redo makes a batch part of the database, on disk, and gives its log back.
func (r *Redo) redo(ctx context.Context, queue backend.Queue, b *batch) error {
	crashpoint.Hit(crashpoint.RedoUnbegun)
	var done tally
	err := r.db.redoing(ctx, func(w *writer) (err error) {
		if err := moveProgress(w.conn, r.session, b.from, b.to); err != nil {
			return err
		}
		crashpoint.Hit(crashpoint.RedoBegun)
		done, err = r.redoAll(w.conn, b.transactions)
		crashpoint.Hit(crashpoint.RedoRows)
		return err
	})
	var poison *RedoError
	if errors.As(err, &poison) && len(b.transactions) > 1 {
		// Everything before the one that cannot be redone is redone.
		return r.redoOneByOne(ctx, queue, b)
	}
	if err != nil {
		return err
	}
	crashpoint.Hit(crashpoint.RedoCommitted)
	r.update(func() {
		p := &r.mu.progress
		p.Redone, p.Flushed, p.Trouble = b.to, b.to, nil
		p.Transactions += uint64(len(b.transactions)) - done.skipped
		p.Bytes += uint64(b.bytes)
		p.Rows += done.rows
		p.Skipped += done.skipped
		p.Batches++
	})
	crashpoint.Hit(crashpoint.RedoFlushed)
	if b.after > 0 {
		if err := queue.Trim(b.after); err != nil {
			return fmt.Errorf("trim redone log: %w", err)
		}
	}
	crashpoint.Hit(crashpoint.RedoTrimmed)
	*b = batch{from: b.to, to: b.to}
	return nil
}

// tally counts what became part of the database, and what was left out.
type tally struct{ rows, skipped uint64 }

// redoAll redoes transactions of the principal in the one here that is under way.
func (r *Redo) redoAll(conn *sqlite.Conn, transactions []logged) (done tally, err error) {
	rd := newRedoer(conn)
	for _, t := range transactions {
		if t.end.String() == r.skip {
			done.skipped++
			if err := leaveOut(conn, r.session); err != nil {
				return done, err
			}
			continue
		}
		_, changes, err := parse(t.body)
		if err != nil {
			return done, &RedoError{Action: "read", Position: t.end, Err: err}
		}
		if err := rd.redo(changes); err != nil {
			return done, redoError(err, t.end)
		}
		done.rows += uint64(len(changes))
	}
	return done, nil
}

// redoOneByOne redoes up to the transaction that cannot be redone, and returns its error.
func (r *Redo) redoOneByOne(ctx context.Context, queue backend.Queue, b *batch) error {
	from := b.from
	for _, t := range b.transactions {
		if err := r.redo(ctx, queue, &batch{transactions: []logged{t}, bytes: len(t.body), from: from, to: t.end}); err != nil {
			return err
		}
		from = t.end
	}
	*b = batch{from: from, to: from}
	return nil
}

// moveProgress moves the redone position in the transaction that redoes.
func moveProgress(conn *sqlite.Conn, session string, from, to mirror.Position) error {
	err := run(conn, "UPDATE main.dbmirror_progress SET role_seq = ?, lsn = ? WHERE session = ? AND role_seq = ? AND lsn = ?",
		intValue(int64(to.Seq)), intValue(int64(to.LSN)), textValue(session), intValue(int64(from.Seq)), intValue(int64(from.LSN)))
	if err == nil && conn.Changes() != 1 {
		return ErrRedoneElsewhere
	}
	return err
}

// progress reads the redone position of a session.
func (db *DB) progress(ctx context.Context, session string) (at mirror.Position, err error) {
	err = db.inspect(ctx, func(conn *sqlite.Conn) (err error) {
		at, err = readProgress(conn, session)
		return err
	})
	return at, err
}

func readProgress(conn *sqlite.Conn, session string) (at mirror.Position, err error) {
	found := false
	err = query(conn, "SELECT role_seq, lsn FROM main.dbmirror_progress WHERE session = ?", func(stmt *sqlite.Stmt) error {
		at, found = mirror.Position{Seq: mirror.RoleSeq(stmt.ColumnInt64(0)), LSN: mirror.LSN(stmt.ColumnInt64(1))}, true
		return nil
	}, textValue(session))
	if err == nil && !found {
		err = backend.ErrNoProgress
	}
	return at, err
}

// setProgress says that everything up to a position is in the database.
func setProgress(conn *sqlite.Conn, session string, at mirror.Position) error {
	if err := setMeta(conn, skipName(session), textValue("")); err != nil {
		return err
	}
	return run(conn, `INSERT INTO main.dbmirror_progress (session, role_seq, lsn) VALUES (?, ?, ?)
		ON CONFLICT (session) DO UPDATE SET role_seq = excluded.role_seq, lsn = excluded.lsn`,
		textValue(session), intValue(int64(at.Seq)), intValue(int64(at.LSN)))
}
