package sqlitelog

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"zombiezen.com/go/sqlite"

	"github.com/f19126b3/dbmirror/mirror"
)

// What is kept in the database, beside the clients' tables, in tables of its own.
const (
	logTable = prefix + "log"
	// format is raised when a former program could not read what a newer one has written.
	format = 1
	// firstLSN is where the log of a new database begins. Zero is no position.
	firstLSN = 16
)

// keptStatements make the tables. A row of the log is a part of a transaction, and lsn its end: the bytes of the log
// from the beginning, which only rise. The newest row always stays, since it says where the log ends.
func keptStatements() []string {
	return []string{
		"CREATE TABLE dbmirror_meta (name TEXT NOT NULL PRIMARY KEY, value) WITHOUT ROWID",
		"CREATE TABLE dbmirror_log (lsn INTEGER PRIMARY KEY, last INTEGER NOT NULL, data BLOB NOT NULL)",
		"CREATE TABLE dbmirror_slot (name TEXT NOT NULL PRIMARY KEY, session TEXT NOT NULL, confirmed INTEGER NOT NULL) WITHOUT ROWID",
		`CREATE TABLE dbmirror_reign (session TEXT NOT NULL, role_seq INTEGER NOT NULL, log TEXT NOT NULL, start INTEGER NOT NULL,
			origin BLOB NOT NULL, fork_seq INTEGER NOT NULL, fork_lsn INTEGER NOT NULL, opened_at INTEGER NOT NULL,
			PRIMARY KEY (session, role_seq)) WITHOUT ROWID`,
		"CREATE TABLE dbmirror_progress (session TEXT NOT NULL PRIMARY KEY, role_seq INTEGER NOT NULL, lsn INTEGER NOT NULL) WITHOUT ROWID",
	}
}

// reservedNames makes sure that nothing else has a name of ours, under which it would not be mirrored.
func reservedNames(conn *sqlite.Conn) error {
	n, err := number(conn, `SELECT count(*) FROM main.sqlite_schema WHERE name LIKE 'dbmirror\_%' ESCAPE '\' OR tbl_name LIKE 'dbmirror\_%' ESCAPE '\'`)
	if err == nil && n != int64(len(keptStatements())) {
		err = &RefusedError{"something was given a name that begins with " + prefix, "choose another name"}
	}
	return err
}

// kept is what a database says of itself when it is opened.
type kept struct {
	id           uint64
	end, trimmed mirror.LSN
	slots        map[string]*slot
	wait         string // as commits.persisted wrote it
	gated        bool   // a partner has moved the gate: it is closed until it says otherwise
}

// prepareFile makes the tables where they are missing, and reads them.
func (w *writer) prepareFile() (k kept, err error) {
	made := false
	err = w.guard.own(func() error {
		n, err := number(w.conn, "SELECT count(*) FROM main.sqlite_schema WHERE name = 'dbmirror_meta'")
		made = n > 0
		return err
	})
	if err != nil {
		return k, err
	}
	if !made {
		if err := w.transact(captureOwn, func() error { return makeKept(w.conn) }); err != nil {
			return k, fmt.Errorf("prepare the database: %w", err)
		}
	}
	err = w.transact(captureOwn, func() (err error) {
		// SQLite opens what it cannot write, and says so no earlier than when it is to write.
		if err := run(w.conn, "UPDATE main.dbmirror_meta SET value = value WHERE name = 'format'"); err != nil {
			return err
		}
		if k, err = readKept(w.conn, w.path); err != nil {
			return err
		}
		w.before = sampled{schema: -1}
		w.before, err = w.sample()
		return err
	})
	return k, err
}

func makeKept(conn *sqlite.Conn) error {
	encoding := ""
	err := query(conn, "PRAGMA encoding", func(stmt *sqlite.Stmt) error {
		encoding = stmt.ColumnText(0)
		return nil
	})
	if err == nil && encoding != "UTF-8" {
		return &RefusedError{"the database is in " + encoding, "make a new one in UTF-8 and copy the rows"}
	}
	for _, statement := range keptStatements() {
		if err == nil {
			err = runOnce(conn, statement)
		}
	}
	if err == nil {
		err = setMeta(conn, "format", intValue(format))
	}
	if err == nil {
		err = newIdentity(conn)
	}
	if err == nil {
		err = run(conn, "INSERT INTO main.dbmirror_log (lsn, last, data) VALUES (?, 1, x'')", intValue(firstLSN))
	}
	return err
}

// newIdentity makes it another database than it was.
func newIdentity(conn *sqlite.Conn) error {
	id := make([]byte, 8)
	_, _ = rand.Read(id) // it does not fail
	return setMeta(conn, "id", blobValue(id))
}

func readKept(conn *sqlite.Conn, path string) (k kept, err error) {
	version, err := number(conn, "SELECT value FROM main.dbmirror_meta WHERE name = 'format'")
	if err != nil {
		return k, err
	}
	if version != format {
		return k, &FileError{path, fmt.Sprintf("what this library keeps in it has format %d, this program knows %d", version, format),
			"use the version of the library that wrote it", nil}
	}
	id, err := meta(conn, "id")
	if err == nil && len(id.Bytes) != 8 {
		err = &FileError{path, "it has lost its identity", "restore it, or reseed it from the other partner", nil}
	}
	if err != nil {
		return k, err
	}
	k.id = binary.BigEndian.Uint64(id.Bytes)
	wait, err := meta(conn, "wait")
	if err != nil {
		return k, err
	}
	k.wait = string(wait.Bytes)
	gate, err := meta(conn, "gate")
	if err != nil {
		return k, err
	}
	k.gated = gate.Kind != Null
	if k.end, k.trimmed, err = readLogBounds(conn); err != nil {
		return k, err
	}
	k.slots, err = readSlots(conn)
	return k, err
}

// readLogBounds returns where the log ends, and beyond where it is complete.
func readLogBounds(conn *sqlite.Conn) (end, trimmed mirror.LSN, err error) {
	first, err := number(conn, "SELECT min(lsn) FROM main.dbmirror_log")
	if err != nil {
		return 0, 0, err
	}
	last, err := number(conn, "SELECT max(lsn) FROM main.dbmirror_log")
	if err == nil && (first <= 0 || last < first) {
		err = errors.New("table dbmirror_log is empty: restore the database, or reseed it from the other partner")
	}
	return mirror.LSN(last), mirror.LSN(first), err
}

// meta reads a value, Null where there is none.
func meta(conn *sqlite.Conn, name string) (v Value, err error) {
	v.Kind = Null
	err = query(conn, "SELECT value FROM main.dbmirror_meta WHERE name = ?", func(stmt *sqlite.Stmt) error {
		v = columnValue(stmt, 0)
		return nil
	}, textValue(name))
	return v, err
}

func setMeta(conn *sqlite.Conn, name string, v Value) error {
	return run(conn, "INSERT INTO main.dbmirror_meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", textValue(name), v)
}

// ID is the identity of this database: random, made with it, and kept for its whole life.
func (db *DB) ID() uint64 {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.mu.id
}

// End is the end of the log on disk: that of the newest transaction.
func (db *DB) End() mirror.LSN {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.mu.end
}

// Ping returns why the database cannot be used, nil while it can.
func (db *DB) Ping(ctx context.Context) error {
	if err := db.faulty(); err != nil {
		return err
	}
	return ctx.Err()
}
