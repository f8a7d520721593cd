package sqlitelog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// TailLine is one line that Tail writes: the begin of a transaction, a change in it, or its commit. Values are as JSON has
// them; {"blob": hex} is a blob.
type TailLine struct {
	Kind      string           `json:"kind"` // begin, insert, update, delete, statement, sequence, pragma, commit
	End       string           `json:"end,omitempty"`
	Time      *time.Time       `json:"time,omitempty"`
	Table     string           `json:"table,omitempty"`
	Rowid     *int64           `json:"rowid,omitempty"`
	Old       map[string]Value `json:"old,omitempty"`
	New       map[string]Value `json:"new,omitempty"`
	Statement string           `json:"statement,omitempty"`
}

// logged is a transaction of the log with its end.
type logged struct {
	end  mirror.Position // without a role sequence in a log of one's own
	body []byte
}

// logAfter returns the end of the log. It returns backend.ErrTailGone where the log does not go back to a position.
func logAfter(conn *sqlite.Conn, after mirror.LSN) (end mirror.LSN, err error) {
	end, trimmed, err := readLogBounds(conn)
	if err == nil && after < trimmed {
		err = fmt.Errorf("log after %s: %w: it begins at %s", after, backend.ErrTailGone, trimmed)
	}
	return end, err
}

// transactions reads what ends after a position, in order.
func (db *DB) transactions(conn *sqlite.Conn, after mirror.LSN, each func(logged) error) error {
	if _, err := logAfter(conn, after); err != nil {
		return err
	}
	var body []byte
	for {
		parts, err := readParts(conn, after, 4*partBytes)
		if err != nil || len(parts) == 0 {
			return err
		}
		for _, p := range parts {
			body = append(body, p.data...)
			after = p.end
			if !p.last {
				continue
			}
			if len(body) > 0 { // else it was not kept for anybody
				if err := each(logged{mirror.Position{LSN: p.end}, body}); err != nil {
					return err
				}
			}
			body = nil
		}
	}
}

// backwards reads what ends after a position, the latest first. One transaction is in memory at a time: all of them may be
// as large as the log.
func (db *DB) backwards(conn *sqlite.Conn, after mirror.LSN, each func(logged) error) error {
	end, err := logAfter(conn, after)
	for err == nil && end > after {
		begin := after
		err = query(conn, "SELECT lsn FROM main.dbmirror_log WHERE lsn > ? AND lsn < ? AND last = 1 ORDER BY lsn DESC LIMIT 1", func(stmt *sqlite.Stmt) error {
			begin = mirror.LSN(stmt.ColumnInt64(0))
			return nil
		}, intValue(int64(after)), intValue(int64(end)))
		var body []byte
		if err == nil {
			err = query(conn, "SELECT data FROM main.dbmirror_log WHERE lsn > ? AND lsn <= ? ORDER BY lsn", func(stmt *sqlite.Stmt) error {
				body = append(body, columnBytes(stmt, 0)...)
				return nil
			}, intValue(int64(begin)), intValue(int64(end)))
		}
		if err == nil && len(body) > 0 { // else it was not kept for anybody
			err = each(logged{mirror.Position{LSN: end}, body})
		}
		end = begin
	}
	return err
}

// Tail writes to w what was committed here after a position of the log, one TailLine of JSON a line. It changes nothing.
// What it wrote is on disk only when the caller has synced it. It returns backend.ErrTailGone when the log does not reach back.
func (db *DB) Tail(ctx context.Context, after mirror.LSN, w io.Writer) (backend.TailSummary, error) {
	var sum backend.TailSummary
	out := json.NewEncoder(w)
	touched := map[string]bool{}
	err := db.inspect(ctx, func(conn *sqlite.Conn) error {
		return db.transactions(conn, after, func(t logged) error {
			at, changes, err := parse(t.body)
			if err != nil {
				return err
			}
			sum.Transactions++
			if err := out.Encode(TailLine{Kind: "begin", Time: &at}); err != nil {
				return err
			}
			for _, c := range changes {
				if c.table != nil {
					sum.Changes++
					touched[c.table.name] = true
				}
				if c.op == opSchema {
					continue
				}
				if err := out.Encode(c.line()); err != nil {
					return err
				}
			}
			return out.Encode(TailLine{Kind: "commit", End: t.end.LSN.String()})
		})
	})
	if err != nil {
		return backend.TailSummary{}, fmt.Errorf("read tail: %w", err)
	}
	sum.Tables = slices.Sorted(maps.Keys(touched))
	return sum, nil
}

func (c *change) line() TailLine {
	l := TailLine{Kind: c.op.String()}
	if c.table == nil {
		l.Statement = c.text
		if len(c.old) > 0 {
			l.Old, l.New = map[string]Value{"value": c.old[0]}, map[string]Value{"value": c.new[0]}
		}
		return l
	}
	l.Table = c.table.name
	if c.table.rowid != "" {
		l.Rowid = &c.rowid
	}
	name := func(row []Value) map[string]Value {
		named := map[string]Value{}
		for i, v := range row {
			if v.Kind != Unchanged {
				named[c.table.columns[i]] = v
			}
		}
		return named
	}
	l.Old, l.New = name(c.old), name(c.new)
	if c.key != nil {
		for _, k := range c.table.key {
			l.Old[c.table.columns[k]] = c.key[k]
		}
	}
	return l
}

// Undo takes back everything that was committed here after a position of the log, in one transaction, and lets the log end
// there. Clients must be held off. It returns backend.ErrTailGone, and backend.ErrCannotUndo for a tail that has changed the
// schema, or whose rows are not here any more as it left them: nothing has been changed then, and a copy is needed. What is
// taken back should have been saved by Tail.
func (db *DB) Undo(ctx context.Context, fork mirror.LSN) error {
	err := db.redoing(ctx, func(w *writer) error {
		r := newRedoer(w.conn)
		err := db.backwards(w.conn, fork, func(t logged) error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return r.undo(t)
		})
		if err != nil {
			return err
		}
		return endLogAt(w.conn, fork)
	})
	if err != nil {
		return fmt.Errorf("undo what was committed after %s: %w", fork, err)
	}
	return db.reloadBounds(ctx)
}

// undo makes the inverse of a transaction. Its rows were net within one part, so all of them can be taken back together.
func (r *redoer) undo(t logged) error {
	_, changes, err := parse(t.body)
	if err != nil {
		return err
	}
	var back []change
	for _, c := range changes {
		switch c.op {
		case opStatement, opSchema:
			return fmt.Errorf("%w: the schema was changed at %s: %.80q", backend.ErrCannotUndo, t.end.LSN, c.text)
		}
		back = append(back, c.inverse())
	}
	if err := r.redo(back); err != nil {
		err = redoError(err, t.end)
		if _, diverged := errors.AsType[*RedoError](err); diverged {
			err = fmt.Errorf("%w: %w", backend.ErrCannotUndo, err)
		}
		return err
	}
	return nil
}

// endLogAt makes a position the end of the log, without moving positions back: the next transaction ends beyond
// everything that was ever there.
func endLogAt(conn *sqlite.Conn, fork mirror.LSN) error {
	end, _, err := readLogBounds(conn)
	if err != nil || end <= fork {
		return err
	}
	if err := run(conn, "DELETE FROM main.dbmirror_log WHERE lsn > ?", intValue(int64(fork))); err != nil {
		return err
	}
	return run(conn, "INSERT INTO main.dbmirror_log (lsn, last, data) VALUES (?, 1, x'')", intValue(int64(end)))
}

// redoError says which transaction could not be redone, and at what. What is the fault of the disk stays as it is.
func redoError(err error, at mirror.Position) error {
	var f *failure
	if !errors.As(err, &f) {
		return err
	}
	switch sqlite.ErrCode(f.err).ToPrimary() {
	case sqlite.ResultFull, sqlite.ResultIOErr, sqlite.ResultReadOnly, sqlite.ResultBusy, sqlite.ResultLocked, sqlite.ResultNoMem,
		sqlite.ResultInterrupt, sqlite.ResultCantOpen:
		return f.err
	}
	e := &RedoError{Action: f.change.op.String(), Position: at, Key: f.change.describeKey(), Err: f.err}
	if f.change.table != nil {
		e.Table = f.change.table.name
	}
	return e
}
