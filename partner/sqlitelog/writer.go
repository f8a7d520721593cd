package sqlitelog

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"zombiezen.com/go/sqlite"
)

// writer is the one connection that writes. It belongs to whoever has the turn. Between its transactions it refuses to
// run anything, so that nothing can be done on it outside of Write.
type writer struct {
	path    string
	conn    *sqlite.Conn
	h       *handle
	capture *capture
	guard   *guard
	redoes  bool // it redoes or undoes; clients write with another one

	begin, commit, rollback *sqlite.Stmt
	version                 int64 // PRAGMA data_version, which rises when another connection has committed

	// What SQLite does not tell of is compared before and after each transaction of a client.
	before sampled
}

// sampled is what is looked at instead of being told.
type sampled struct {
	schema    int64
	sequences map[string]Value // of AUTOINCREMENT, by table; nil where there are none
	pragmas   map[string]int64
}

// mirroredPragmas are numbers in the file's header that clients use.
func mirroredPragmas() []string { return []string{"user_version", "application_id"} }

// openWriter opens the connection for clients, or for redo: that one fires no trigger and checks no constraint that the
// principal has checked.
func openWriter(cfg Config, redoes bool) (_ *writer, err error) {
	conn, err := connect(cfg.Path, sqlite.OpenReadWrite|sqlite.OpenCreate)
	if err != nil {
		return nil, err
	}
	w := &writer{path: cfg.Path, conn: conn, guard: &guard{writes: true}, redoes: redoes}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	conn.SetBusyTimeout(cfg.BusyTimeout)
	if w.h, err = handleOf(conn); err != nil {
		return nil, err
	}
	w.capture = newCapture(conn, w.h, cfg.MaxTransaction)
	w.h.hooks.authorize = w.guard.authorize
	w.h.install()
	return w, w.guard.own(func() error {
		if cfg.Prepare != nil {
			if err := cfg.Prepare(conn); err != nil {
				return fmt.Errorf("config: Prepare: %w", err)
			}
		}
		return w.settings(cfg)
	})
}

func (w *writer) settings(cfg Config) error {
	w.capture.state = captureOwn
	defer func() { w.capture.state = captureOff }()
	foreignKeys := "OFF"
	if cfg.ForeignKeys && !w.redoes {
		foreignKeys = "ON"
	}
	mode := ""
	err := query(w.conn, "PRAGMA journal_mode = WAL", func(stmt *sqlite.Stmt) error {
		mode = stmt.ColumnText(0)
		return nil
	})
	if err == nil && mode != "wal" {
		err = &FileError{w.path, "its journal is " + mode + ", and cannot be WAL", "put it on a file system of this machine", nil}
	}
	for _, pragma := range []string{"synchronous = FULL", "foreign_keys = " + foreignKeys, "temp_store = MEMORY"} {
		if err == nil {
			err = runOnce(w.conn, "PRAGMA "+pragma)
		}
	}
	if err == nil && w.redoes {
		if err = w.h.triggersOff(); err == nil {
			err = runOnce(w.conn, "PRAGMA ignore_check_constraints = ON")
		}
	} else if err == nil {
		err = w.conn.SetDefensive(true)
	}
	for sql, stmt := range map[string]**sqlite.Stmt{"BEGIN IMMEDIATE": &w.begin, "COMMIT": &w.commit, "ROLLBACK": &w.rollback} {
		if err == nil {
			*stmt, _, err = w.conn.PrepareTransient(sql)
		}
	}
	return err
}

func (w *writer) close() error {
	var errs []error
	w.conn.SetInterrupt(nil)
	// What shut the connection would break off the checkpoint by which closing folds up the journal, until a statement runs.
	if w.commit != nil {
		errs = append(errs, w.guard.own(func() error { return runOnce(w.conn, "SELECT 1") }))
	}
	for _, stmt := range []*sqlite.Stmt{w.begin, w.commit, w.rollback} {
		if stmt != nil {
			errs = append(errs, stmt.Finalize())
		}
	}
	if w.capture != nil {
		w.capture.state = captureOff
	}
	errs = append(errs, disconnect(w.conn))
	if w.h != nil {
		w.h.close()
	}
	return errors.Join(errs...)
}

// control runs one of BEGIN, COMMIT and ROLLBACK.
func (w *writer) control(stmt *sqlite.Stmt) error {
	_, err := stmt.Step()
	_ = stmt.Reset()
	return err
}

// start begins a transaction that may write, and makes sure that nobody else has written since the last one.
func (w *writer) start() error {
	w.conn.SetInterrupt(nil)
	if err := w.control(w.begin); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	version, err := number(w.conn, "PRAGMA data_version")
	if err == nil && w.version != 0 && version != w.version {
		err = errors.Join(&ForeignWriterError{w.path}, w.breakLog())
	}
	if err != nil {
		return errors.Join(err, w.undo())
	}
	w.version = version
	return nil
}

// breakLog writes down, under the write lock, that the database has what the log does not tell: nobody can go on with the
// log, or redo here, until a copy was made, also when this program has restarted.
func (w *writer) breakLog() error {
	return w.guard.own(func() error {
		return w.capture.during(captureOwn, func() error {
			if w.redoes {
				// Where no log begins: redo says then that there is a gap.
				if err := run(w.conn, "UPDATE main.dbmirror_progress SET role_seq = 0, lsn = 0"); err != nil {
					return err
				}
				return w.control(w.commit)
			}
			end, _, err := readLogBounds(w.conn)
			if err == nil {
				err = run(w.conn, "INSERT INTO main.dbmirror_log (lsn, last, data) VALUES (?, 1, x'')", intValue(int64(end+partOverhead)))
			}
			if err == nil {
				err = run(w.conn, "DELETE FROM main.dbmirror_log WHERE lsn <= ?", intValue(int64(end)))
			}
			if err == nil {
				err = run(w.conn, "DELETE FROM main.dbmirror_slot")
			}
			if err == nil {
				err = w.control(w.commit)
			}
			return err
		})
	})
}

// undo ends a transaction without a trace. SQLite may have ended it already.
func (w *writer) undo() error {
	if w.conn.AutocommitEnabled() {
		return nil
	}
	if err := w.control(w.rollback); err != nil {
		return fmt.Errorf("roll back: %w", err)
	}
	return nil
}

// transact runs f in a transaction of this package's own.
func (w *writer) transact(s captureState, f func() error) error {
	return w.guard.own(func() error {
		w.capture.state, w.capture.err = s, nil
		defer w.shut()
		if err := w.start(); err != nil {
			return err
		}
		err := f()
		if err == nil {
			err = w.control(w.commit)
		}
		if err != nil {
			return errors.Join(err, w.undo())
		}
		return nil
	})
}

// shut lets nothing run on the connection until the next transaction.
func (w *writer) shut() {
	w.capture.state = captureOff
	closed := make(chan struct{})
	close(closed)
	w.conn.SetInterrupt(closed)
}

// sample looks at what SQLite does not tell of.
func (w *writer) sample() (s sampled, err error) {
	if s.schema, err = number(w.conn, "PRAGMA schema_version"); err != nil {
		return s, err
	}
	s.pragmas = map[string]int64{}
	for _, name := range mirroredPragmas() {
		if s.pragmas[name], err = number(w.conn, "PRAGMA "+name); err != nil {
			return s, err
		}
	}
	s.sequences = w.before.sequences
	if s.schema != w.before.schema || w.before.sequences != nil {
		s.sequences, err = sampleSequences(w.conn, s.schema != w.before.schema)
	}
	return s, err
}

// sampleSequences is nil where no table was ever made with AUTOINCREMENT. Unless told to look, it takes for granted that
// one was.
func sampleSequences(conn *sqlite.Conn, look bool) (map[string]Value, error) {
	if look {
		any, err := number(conn, "SELECT count(*) FROM main.sqlite_schema WHERE name = 'sqlite_sequence'")
		if err != nil || any == 0 {
			return nil, err
		}
	}
	sequences := map[string]Value{}
	err := query(conn, "SELECT name, seq FROM main.sqlite_sequence ORDER BY rowid", func(stmt *sqlite.Stmt) error {
		sequences[stmt.ColumnText(0)] = columnValue(stmt, 1)
		return nil
	})
	return sequences, err
}

// schemaHash is the same for two databases with the same schema, whatever happened to them before.
func schemaHash(conn *sqlite.Conn) (string, error) {
	h := sha256.New()
	err := query(conn, "SELECT type, name, tbl_name, coalesce(sql, '') FROM main.sqlite_schema WHERE name NOT LIKE 'dbmirror\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite\\_autoindex\\_dbmirror%' ESCAPE '\\' ORDER BY type, name", func(stmt *sqlite.Stmt) error {
		for i := range 4 {
			fmt.Fprintf(h, "%d:%s", stmt.ColumnLen(i), stmt.ColumnText(i))
		}
		return nil
	})
	return string(h.Sum(nil)), err
}

// now is the time that a transaction bears in the log.
func now() time.Time { return time.Now() }
