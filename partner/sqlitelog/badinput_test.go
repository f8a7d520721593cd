package sqlitelog

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"zombiezen.com/go/sqlite"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// foreign opens a connection as a program without this library does.
func foreign(t *testing.T, path string) *sqlite.Conn {
	conn, err := sqlite.OpenConn(path, sqlite.OpenReadWrite)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() }) // what it did was looked at before
	conn.SetBusyTimeout(time.Second)
	return conn
}

func requireFileError(t *testing.T, err error, what string) {
	t.Helper()
	var file *FileError
	require.ErrorAs(t, err, &file)
	require.Contains(t, file.What, what)
	require.NotEmpty(t, file.Mend)
	require.Contains(t, err.Error(), file.Path)
}

func TestFilesThatAreNoDatabase(t *testing.T) {
	dir := t.TempDir()
	_, err := Open(Config{Path: dir})
	requireFileError(t, err, "it is a directory")
	_, err = Open(Config{Path: filepath.Join(dir, "missing", "database")})
	requireFileError(t, err, "cannot be opened")
	text := filepath.Join(dir, "text")
	require.NoError(t, os.WriteFile(text, []byte(fmt.Sprintf("%4096s", "no database")), 0o600))
	_, err = Open(Config{Path: text})
	requireFileError(t, err, "it is no SQLite database")
	for _, bad := range []Config{{}, {Path: "x", Readers: 65}, {Path: "x", MaxTransaction: 1}, {Path: "x", BusyTimeout: time.Hour}} {
		_, err = Open(bad)
		require.ErrorContains(t, err, "config: ")
	}

	utf16, err := sqlite.OpenConn(filepath.Join(dir, "utf16"), sqlite.OpenReadWrite|sqlite.OpenCreate)
	require.NoError(t, err)
	require.NoError(t, runOnce(utf16, "PRAGMA encoding = 'UTF-16le'"))
	require.NoError(t, runOnce(utf16, "CREATE TABLE t (a)"))
	require.NoError(t, utf16.Close())
	_, err = Open(Config{Path: filepath.Join(dir, "utf16")})
	require.ErrorContains(t, err, "the database is in UTF-16le")
}

func TestNewerFormatIsRefused(t *testing.T) {
	db := open(t, Config{})
	require.NoError(t, db.own(context.Background(), func(conn *sqlite.Conn) error { return setMeta(conn, "format", intValue(format+1)) }))
	require.NoError(t, db.Close())
	_, err := Open(Config{Path: db.cfg.Path})
	requireFileError(t, err, "has format 2, this program knows 1")
}

func TestLockedByAnotherProcess(t *testing.T) {
	db := open(t, Config{BusyTimeout: 20 * time.Millisecond})
	must(t, db, smallTable)
	other := foreign(t, db.cfg.Path)
	require.NoError(t, runOnce(other, "BEGIN IMMEDIATE"))
	requireFileError(t, exec(db, "DELETE FROM t"), "another process has locked it")
	_, err := Open(Config{Path: db.cfg.Path, BusyTimeout: 20 * time.Millisecond})
	requireFileError(t, err, "another process has locked it")
	require.NoError(t, runOnce(other, "ROLLBACK"))
	must(t, db, "UPDATE t SET a = 2")
}

// A writer that does not use this library is found by the next transaction, and nothing is written any more.
func TestForeignWriter(t *testing.T) {
	p := newPair(t, Config{})
	must(t, p.a, smallTable)
	p.equal(t)
	require.NoError(t, runOnce(foreign(t, p.a.cfg.Path), "UPDATE t SET a = 99"))
	end := p.a.End()
	for range 2 {
		err := exec(p.a, "INSERT INTO t VALUES (2, 2)")
		var found *ForeignWriterError
		require.ErrorAs(t, err, &found)
		require.Equal(t, mirror.ReasonLogGap, backend.ReasonOf(err))
		require.Equal(t, end, p.a.End())
	}
	require.Error(t, p.a.Ping(context.Background()))
	// Nobody goes on with the log after a restart: it does not tell of that.
	require.NoError(t, p.a.Close())
	again := open(t, Config{Path: p.a.cfg.Path})
	require.Equal(t, []string{"1 99"}, rows(t, again, "SELECT * FROM t"))
	require.Greater(t, again.End(), end)
	require.Empty(t, again.mu.slots)
	_, err := again.Tail(context.Background(), end, io.Discard)
	require.ErrorIs(t, err, backend.ErrTailGone)
	must(t, again, "UPDATE t SET a = 2")

	// It is found on a mirror, too, and also when the connection changes meanwhile.
	require.NoError(t, runOnce(foreign(t, p.b.cfg.Path), "UPDATE t SET a = 98"))
	var found *ForeignWriterError
	require.ErrorAs(t, exec(p.b, "INSERT INTO t VALUES (2, 2)"), &found)
}

// A mirror into which something else has written redoes nothing any more, also after a restart.
func TestForeignWriterOfAMirror(t *testing.T) {
	ctx := context.Background()
	db := open(t, Config{})
	must(t, db, smallTable)
	require.NoError(t, db.own(ctx, func(conn *sqlite.Conn) error { return setProgress(conn, session, mirror.Position{Seq: 1, LSN: 16}) }))
	transact := func() error { return db.redoing(ctx, func(*writer) error { return nil }) }
	require.NoError(t, transact())
	require.NoError(t, runOnce(foreign(t, db.cfg.Path), "UPDATE t SET a = 98"))
	var found *ForeignWriterError
	require.ErrorAs(t, transact(), &found)
	require.NoError(t, db.Close())
	queue, err := redo.Open(redo.Config{Dir: filepath.Join(t.TempDir(), "log")})
	require.NoError(t, err)
	defer queue.Close()
	require.NoError(t, queue.Reset(mirror.Position{Seq: 1, LSN: 16}))
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err = newRedo(open(t, Config{Path: db.cfg.Path}), session).Run(ctx, queue)
	require.Equal(t, mirror.ReasonLogGap, backend.ReasonOf(err))
}

func TestFullDatabase(t *testing.T) {
	full := Config{Prepare: func(conn *sqlite.Conn) error { return runOnce(conn, "PRAGMA max_page_count = 60") }}
	db := open(t, full)
	must(t, db, smallTable)
	var err error
	written := 1
	for err == nil {
		if err = exec(db, "INSERT INTO t (a) VALUES (randomblob(20000))"); err == nil {
			written++
		}
	}
	requireFileError(t, err, "there is no room")
	require.Equal(t, []string{fmt.Sprint(written)}, rows(t, db, "SELECT count(*) FROM t"))
	requireSound(t, db)
	must(t, db, "DELETE FROM t WHERE k > 1")
}

// A copy that is broken off anywhere leaves the former database, or the copy, and nothing of both.
func TestReplacingIsFinishedByOpen(t *testing.T) {
	db, copied := open(t, Config{}), open(t, Config{})
	must(t, db, smallTable)
	must(t, copied, "CREATE TABLE other (a)")
	require.NoError(t, copied.Close())
	require.NoFileExists(t, copied.cfg.Path+"-wal", "closing leaves one file")
	require.NoError(t, db.Close())
	require.NoError(t, os.Rename(copied.cfg.Path, copyPath(db.cfg.Path)))
	require.NoError(t, os.WriteFile(db.cfg.Path+"-wal", []byte("of the former file"), 0o600))
	again := open(t, Config{Path: db.cfg.Path})
	require.Equal(t, []string{`"other"`}, rows(t, again, "SELECT name FROM sqlite_schema WHERE name NOT LIKE 'dbmirror%'"))
	require.NoFileExists(t, copyPath(db.cfg.Path))
}
