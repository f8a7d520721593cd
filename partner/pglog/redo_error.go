package pglog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

var (
	// ErrRowMissing is the cause of a RedoError when an update or delete met no row, or more than one. In a mirror that is
	// divergence, never a conflict: something else has written here.
	ErrRowMissing = errors.New("the row to change is not here exactly once: this database has diverged, verify or resynchronize it")

	// ErrRedoneElsewhere is returned by Run when the redone position changed under it: another process redoes the same
	// session, or a baseline was set. Only one may run.
	ErrRedoneElsewhere = errors.New("the redone position was changed by someone else: stop the other process that redoes this session")

	// ErrNoProgress is that of all backends.
	ErrNoProgress = backend.ErrNoProgress

	// ErrNotPoison is that of all backends.
	ErrNotPoison = backend.ErrNotPoison
)

// RedoError is returned when a transaction cannot be redone and trying again cannot mend that. The transaction was
// rolled back whole; everything before it is redone. Its text names no row data. Err may: a *pgconn.PgError carries
// the server's message and detail.
type RedoError struct {
	Relation string          // schema.table, empty when the error is not about one
	Key      string          // of the row, as column=value, ...: row data, not part of the text
	Position mirror.Position // end of the transaction in the log, for Skip
	Action   string          // what was tried: insert, update, delete, truncate, look up table, commit
	SQLState string          // of the server's error, empty when it did not come from there
	Err      error
}

// Error names the action, the table, the position and the cause, without row data.
func (e *RedoError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "redo %s", e.Action)
	if e.Relation != "" {
		fmt.Fprintf(&b, " of %s", e.Relation)
	}
	fmt.Fprintf(&b, " at %s: ", e.Position)
	var pg *pgconn.PgError
	if !errors.As(e.Err, &pg) {
		fmt.Fprintf(&b, "%v", e.Err)
		return b.String()
	}
	fmt.Fprintf(&b, "SQLSTATE %s", pg.Code)
	for _, part := range [...]struct{ word, name string }{{"constraint", pg.ConstraintName}, {"column", pg.ColumnName}, {"type", pg.DataTypeName}} {
		if part.name != "" {
			fmt.Fprintf(&b, ", %s %s", part.word, part.name)
		}
	}
	b.WriteString(": mend the cause in this database and resume, or skip the transaction")
	return b.String()
}

// Reason is mirror.ReasonRedoError.
func (e *RedoError) Reason() mirror.Reason { return mirror.ReasonRedoError }

// Unwrap returns the cause.
func (e *RedoError) Unwrap() error { return e.Err }

// redoErrorOf makes the error of a transaction out of what failed in it. What is wrong with the log or the queue itself
// is not the transaction's fault and stays as it is.
func redoErrorOf(err error, position mirror.Position) error {
	var redo *RedoError
	if errors.As(err, &redo) {
		redo.Position = position
		return redo
	}
	e := &RedoError{Position: position, Action: "commit", Err: err}
	var pipe *pipeError
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pipe):
		e.Err = pipe.err
		if c := pipe.item.change; c != nil {
			e.Relation, e.Action, e.Key = c.table.name, actionName(c.kind), c.keyText()
		}
	case !errors.As(err, &pg):
		return err
	}
	if errors.As(e.Err, &pg) {
		e.SQLState = pg.Code
	}
	var count *countError
	if errors.As(e.Err, &count) {
		e.Err = ErrRowMissing
	}
	return e
}

func actionName(kind byte) string {
	switch kind {
	case TypeInsert:
		return "insert"
	case TypeUpdate:
		return "update"
	case TypeDelete:
		return "delete"
	case TypeTruncate:
		return "truncate"
	}
	return "read"
}

// keyText writes the columns that find the row.
func (c *rowChange) keyText() string {
	row := c.old
	if row == nil {
		row = c.new
	}
	if row == nil {
		return "" // a truncation
	}
	var parts []string
	for _, k := range c.table.finder() {
		value := "NULL"
		if row[k].Kind != 'n' {
			value = string(row[k].Data)
		}
		parts = append(parts, c.table.columns[k].name+"="+value)
	}
	return strings.Join(parts, ", ")
}

// transient tells whether the same work may succeed on a new connection: the connection was lost, the server is starting
// or stopping, lacks something that may come back, or gave way to another session.
func transient(err error) bool {
	var redo *RedoError
	var log *logError
	if errors.As(err, &redo) || errors.As(err, &log) {
		return false
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code[:min(2, len(pg.Code))] {
		case "08", "40", "53", "57":
			return true
		}
		return pg.Code == "55P03" // lock not available
	}
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, errConnLost) ||
		errors.Is(err, context.DeadlineExceeded)
}

// errConnLost stands for the errors of a connection that has closed; the driver has no one error for it.
var errConnLost = errors.New("connection lost")

// logError marks what is wrong with the log: the same on any connection.
type logError struct{ err error }

func (e *logError) Error() string { return e.err.Error() }
func (e *logError) Unwrap() error { return e.err }
