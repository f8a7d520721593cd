package sqlitelog

import (
	"errors"
	"fmt"
	"strings"

	"zombiezen.com/go/sqlite"

	"github.com/f19126b3/dbmirror/mirror"
)

var (
	// ErrClosed is returned by everything after DB.Close.
	ErrClosed = errors.New("the database is closed: this DB was given up by Close")

	// ErrRedoneElsewhere is returned by redo when the redone position changed under it.
	ErrRedoneElsewhere = errors.New("the redone position was changed by someone else: stop the other process that redoes this session")

	errNoTable = errors.New("no such table")
)

// NotServingError is returned by Write and Read where the gate does not let them through. Nothing was done.
type NotServingError struct {
	Gate mirror.Gate
	// Ask is where the principal is, as far as the partner here knows: Config.PeerURL, or the address of the other partner's
	// endpoint. It is empty when the partner knows of none, or does not run.
	Ask string
}

func (e *NotServingError) Error() string {
	what := "the database is closed here"
	if e.Gate == mirror.GateReadOnly {
		what = "the database is read-only here, this is the mirror"
	}
	if e.Ask == "" {
		return what + ": no principal is known, try again in a moment"
	}
	return what + ": ask " + e.Ask
}

// UnconfirmedError is returned by Write when its transaction is committed here, but it is not known whether the mirror
// has hardened it: after a failover it may be there or not. Ask the principal before doing it again.
type UnconfirmedError struct {
	End mirror.LSN // of the transaction
	Err error      // what ended the wait
}

func (e *UnconfirmedError) Error() string {
	return fmt.Sprintf("committed here at %s and not confirmed by the mirror: %v: look whether it is there before doing it again", e.End, e.Err)
}

// Unwrap returns what ended the wait.
func (e *UnconfirmedError) Unwrap() error { return e.Err }

// RefusedError is returned by Write for what cannot be mirrored. The transaction was rolled back whole.
type RefusedError struct {
	What string // the cause
	Mend string
}

func (e *RefusedError) Error() string { return e.What + ": " + e.Mend }

// ForeignWriterError is returned from the moment on that something else was found to have written to the file: what it
// wrote is not in the log. The session has to copy this database to the mirror anew.
type ForeignWriterError struct{ Path string }

func (e *ForeignWriterError) Error() string {
	return "something that does not use this library has written to " + e.Path + ": what it wrote is not in the log; stop it, restart this program and reseed the mirror"
}

// Reason is mirror.ReasonLogGap.
func (*ForeignWriterError) Reason() mirror.Reason { return mirror.ReasonLogGap }

// GapError is returned when log would be missing: trying again does not help.
type GapError struct {
	What   string
	reason mirror.Reason
}

func (e *GapError) Error() string { return e.What + ": copy the database to the mirror anew" }

// Reason is mirror.ReasonLogGap, or mirror.ReasonIdentity where another database has answered.
func (e *GapError) Reason() mirror.Reason { return e.reason }

func gap(format string, args ...any) error {
	return &GapError{fmt.Sprintf(format, args...), mirror.ReasonLogGap}
}

// RedoError is returned when a transaction of the principal cannot be redone here and trying again cannot mend that. The
// transaction was rolled back whole; everything before it is redone. Its text shows no row data, Key does.
type RedoError struct {
	Table    string
	Key      string          // of the row, as column=value
	Action   string          // insert, update, delete, statement, schema, read
	Position mirror.Position // end of the transaction in the principal's log
	Err      error
}

func (e *RedoError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "redo %s", e.Action)
	if e.Table != "" {
		fmt.Fprintf(&b, " of %s", e.Table)
	}
	fmt.Fprintf(&b, " at %s: %v; reseed this database, or skip the transaction", e.Position, e.Err)
	return b.String()
}

// Unwrap returns the cause.
func (e *RedoError) Unwrap() error { return e.Err }

// Reason is mirror.ReasonRedoError.
func (*RedoError) Reason() mirror.Reason { return mirror.ReasonRedoError }

// ErrDiverged is the cause of a RedoError when a row is not here as the principal had it. In a mirror that is divergence,
// never a conflict: something else has written here.
var ErrDiverged = errors.New("this database is not what the principal's was: verify, and copy it anew")

// FileError is returned when the file of the database cannot be used as it is.
type FileError struct {
	Path string
	What string // the cause
	Mend string
	Err  error
}

func (e *FileError) Error() string {
	text := "database " + e.Path + ": " + e.What
	if e.Err != nil {
		text += " (" + e.Err.Error() + ")"
	}
	return text + ": " + e.Mend
}

// Unwrap returns SQLite's error, if it said something.
func (e *FileError) Unwrap() error { return e.Err }

// fileError says in words what is wrong with the file, where SQLite's error tells of that. Other errors stay.
func fileError(path string, err error) error {
	if err == nil {
		return nil
	}
	what, mend := "", ""
	switch sqlite.ErrCode(err).ToPrimary() {
	case sqlite.ResultBusy, sqlite.ResultLocked:
		what, mend = "another process has locked it", "end that process, a backup or a shell perhaps"
	case sqlite.ResultReadOnly:
		what, mend = "it cannot be written", "let this user write the file and its directory, on media that can be written"
	case sqlite.ResultFull:
		what, mend = "there is no room", "make room on its disk, or raise PRAGMA max_page_count"
	case sqlite.ResultNotADB:
		what, mend = "it is no SQLite database", "correct Path, or move the file away"
	case sqlite.ResultCorrupt:
		what, mend = "it is damaged", "restore it, or reseed it from the other partner"
	case sqlite.ResultCantOpen:
		what, mend = "it cannot be opened", "make its directory, and let this user read and write there"
	case sqlite.ResultIOErr:
		what, mend = "the system could not read or write it", "look at its disk"
	default:
		return err
	}
	var known *FileError
	if errors.As(err, &known) {
		return err
	}
	return &FileError{path, what, mend, err}
}
