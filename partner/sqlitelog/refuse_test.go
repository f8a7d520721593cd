package sqlitelog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

const smallTable = "CREATE TABLE t (k INTEGER PRIMARY KEY, a); INSERT INTO t VALUES (1, 1)"

// Each of these ends in one clear error, and leaves nothing behind.
func TestRefused(t *testing.T) {
	for _, c := range []struct{ sql, what string }{
		{"COMMIT", "COMMIT inside of Write"},
		{"BEGIN", "BEGIN inside of Write"},
		{"ROLLBACK", "ROLLBACK inside of Write"},
		{"ATTACH ':memory:' AS other", "ATTACH"},
		{"PRAGMA journal_mode = DELETE", "PRAGMA journal_mode"},
		{"PRAGMA synchronous = OFF", "PRAGMA synchronous"},
		{"PRAGMA foreign_keys = ON", "PRAGMA foreign_keys"},
		{"PRAGMA writable_schema = ON", "PRAGMA writable_schema"},
		{"PRAGMA wal_checkpoint", "PRAGMA wal_checkpoint"},
		{"DELETE FROM dbmirror_log", "table dbmirror_log"},
		{"UPDATE DBMirror_meta SET value = 1", "table"},
		{"DROP TABLE dbmirror_slot", "table dbmirror_slot"},
		{"CREATE TABLE dbmirror_x (a)", "table dbmirror_x"},
		{"ALTER TABLE t RENAME TO dbmirror_y", "a name that begins with dbmirror_"},
		{"UPDATE sqlite_dbpage SET data = zeroblob(4096) WHERE pgno = 2", ""},
		{"CREATE VIRTUAL TABLE v USING dbstat", "dbstat"},
		{"UPDATE t SET a = 5; SAVEPOINT s; CREATE TABLE u (a); ROLLBACK TO s; RELEASE s", "rolled back to a savepoint"},
		{"CREATE TEMP TRIGGER g AFTER INSERT ON dbmirror_log BEGIN SELECT 1; END", "table dbmirror_log"},
		{"DELETE FROM sqlite_stat1", "table sqlite_stat1"},
		{"CREATE TABLE w (rowid, _rowid_, oid); INSERT INTO w VALUES (1, 2, 3)", "columns named rowid"},
		{"INSERT INTO t VALUES (50, zeroblob(70000))", "changes more than 65536 bytes"},
	} {
		p := newPair(t, Config{MaxTransaction: 64 << 10})
		must(t, p.a, smallTable+"; ANALYZE")
		end := p.a.End()
		err := p.a.Write(context.Background(), func(conn *sqlite.Conn) error {
			if err := runOnce(conn, "INSERT INTO t (a) VALUES (7)"); err != nil {
				return err
			}
			for sql := range strings.SplitSeq(c.sql, "; ") {
				if err := runOnce(conn, sql); err != nil {
					return err
				}
			}
			return nil
		})
		require.Error(t, err, c.sql)
		if c.what != "" {
			refused, ok := errors.AsType[*RefusedError](err)
			require.True(t, ok, "%s: %v", c.sql, err)
			require.Contains(t, refused.What, c.what)
			require.NotEmpty(t, refused.Mend)
		}
		require.Equal(t, end, p.a.End())
		require.Equal(t, []string{"1 1"}, rows(t, p.a, "SELECT * FROM t"), c.sql)
		must(t, p.a, "INSERT INTO t VALUES (3, 3)")
		p.equal(t)
	}
}

// A connection that a function has kept is of no use, and one that rolls the transaction back cannot go on behind it.
func TestNothingIsWrittenOutsideOfWrite(t *testing.T) {
	p := newPair(t, Config{})
	must(t, p.a, smallTable+"; CREATE TABLE u (a UNIQUE); INSERT INTO u VALUES (1)")
	var kept *sqlite.Conn
	var stmt *sqlite.Stmt
	require.NoError(t, p.a.Write(context.Background(), func(conn *sqlite.Conn) (err error) {
		kept = conn
		stmt, err = conn.Prepare("UPDATE t SET a = a + 1")
		return err
	}))
	_, err := stmt.Step()
	require.Error(t, err)
	require.Error(t, sqlitex.Execute(kept, "DELETE FROM t", nil))
	kept.SetInterrupt(nil) // even so
	_, err = stmt.Step()
	require.Error(t, err)
	kept.SetInterrupt(nil)
	require.Error(t, sqlitex.ExecuteScript(kept, "DELETE FROM t", nil))

	err = p.a.Write(context.Background(), func(conn *sqlite.Conn) error {
		require.NoError(t, runOnce(conn, "UPDATE t SET a = 50"))
		require.Error(t, runOnce(conn, "INSERT OR ROLLBACK INTO u VALUES (1)"))
		require.True(t, conn.AutocommitEnabled(), "SQLite has ended the transaction")
		require.Error(t, runOnce(conn, "UPDATE t SET a = 60"), "would commit by itself")
		return nil
	})
	require.ErrorIs(t, err, errEnded)
	require.Equal(t, []string{"1 1"}, rows(t, p.a, "SELECT * FROM t"))
	p.equal(t)

	// A savepoint begins another transaction then: nothing of the one that was rolled back may come with it.
	err = p.a.Write(context.Background(), func(conn *sqlite.Conn) error {
		require.NoError(t, runOnce(conn, "INSERT INTO t VALUES (50, 50)"))
		require.NoError(t, runOnce(conn, "ANALYZE"))
		require.Error(t, runOnce(conn, "INSERT OR ROLLBACK INTO u VALUES (1)"))
		require.NoError(t, runOnce(conn, "SAVEPOINT s"))
		return runOnce(conn, "INSERT INTO t VALUES (60, 60)")
	})
	require.ErrorIs(t, err, errEnded)
	require.Equal(t, []string{"1 1"}, rows(t, p.a, "SELECT * FROM t"))
	must(t, p.a, "INSERT INTO t VALUES (70, 70)")
	p.equal(t)
}

// A blob is written without a statement.
func TestBlobsAreWrittenPieceByPiece(t *testing.T) {
	p := newPair(t, Config{})
	must(t, p.a, "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b); INSERT INTO t VALUES (1, 1, zeroblob(10000))")
	p.equal(t)
	var kept *sqlite.Blob
	write := func(keep bool) error {
		return p.a.Write(context.Background(), func(conn *sqlite.Conn) error {
			blob, err := conn.OpenBlob("main", "t", "b", 1, true)
			require.NoError(t, err)
			_, err = blob.WriteString("hello")
			require.NoError(t, err)
			if kept = blob; keep {
				return nil
			}
			return blob.Close()
		})
	}
	require.NoError(t, write(false))
	p.equal(t)
	require.Equal(t, []string{`"hello"`}, rows(t, p.b, "SELECT CAST(substr(b, 1, 5) AS TEXT) FROM t"))

	require.Error(t, write(true))
	_, err := kept.WriteString("behind the back")
	require.Error(t, err)
	_ = kept.Close() // it has ended with the transaction
	must(t, p.a, "UPDATE t SET a = 2")
	p.equal(t)
}

// Whoever takes the place of the hook that records changes is found out.
func TestSessionOfTheClientIsFound(t *testing.T) {
	p := newPair(t, Config{})
	must(t, p.a, smallTable)
	var left *sqlite.Session
	for _, leave := range []bool{false, true} {
		err := p.a.Write(context.Background(), func(conn *sqlite.Conn) error {
			s, err := conn.CreateSession("")
			require.NoError(t, err)
			require.NoError(t, s.Attach(""))
			require.NoError(t, runOnce(conn, "UPDATE t SET a = 2"))
			if leave {
				left = s
				return nil
			}
			s.Delete()
			return nil
		})
		require.ErrorIs(t, err, errDisplaced)
		require.Equal(t, []string{"1 1"}, rows(t, p.a, "SELECT * FROM t"))
	}
	must(t, p.a, "UPDATE t SET a = 3")
	left.Delete() // takes the hook away once more
	require.ErrorIs(t, exec(p.a, "UPDATE t SET a = 4"), errDisplaced)
	must(t, p.a, "UPDATE t SET a = 5")
	p.equal(t)
}

// A Write whose time is over in the middle of a statement says so, also where that was noticed while a change was recorded.
func TestWriteWhoseContextEnds(t *testing.T) {
	over := errors.New("its time is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	db := open(t, Config{Prepare: func(conn *sqlite.Conn) error {
		return conn.CreateFunction("stop", &sqlite.FunctionImpl{Scalar: func(sqlite.Context, []sqlite.Value) (sqlite.Value, error) {
			cancel(over)
			return sqlite.IntegerValue(1), nil
		}})
	}})
	must(t, db, "CREATE TABLE t (k INTEGER PRIMARY KEY, a)")
	err := db.Write(ctx, func(conn *sqlite.Conn) error { return runOnce(conn, "INSERT INTO t VALUES (1, stop())") })
	require.Equal(t, over, err)
	require.Empty(t, rows(t, db, "SELECT * FROM t"))
}

func TestReadCannotWrite(t *testing.T) {
	db := open(t, Config{})
	must(t, db, smallTable)
	ctx := context.Background()
	for _, sql := range []string{"DELETE FROM t", "CREATE TABLE u (a)", "PRAGMA query_only = OFF", "PRAGMA user_version = 5", "COMMIT", "ATTACH 'x' AS y"} {
		require.Error(t, db.Read(ctx, func(conn *sqlite.Conn) error { return runOnce(conn, sql) }), sql)
	}
	require.NoError(t, db.Read(ctx, func(conn *sqlite.Conn) error {
		before, err := number(conn, "SELECT a FROM t")
		require.NoError(t, err)
		must(t, db, "UPDATE t SET a = a + 1")
		after, err := number(conn, "SELECT a FROM t")
		require.NoError(t, err)
		require.Equal(t, before, after, "one state")
		return nil
	}))
}

func TestErrorsAndPanicsRollBack(t *testing.T) {
	db := open(t, Config{})
	must(t, db, smallTable)
	why := errors.New("no")
	require.ErrorIs(t, db.Write(context.Background(), func(conn *sqlite.Conn) error {
		require.NoError(t, runOnce(conn, "DELETE FROM t"))
		return why
	}), why)
	require.Panics(t, func() {
		_ = db.Write(context.Background(), func(conn *sqlite.Conn) error { // it panics
			require.NoError(t, runOnce(conn, "DELETE FROM t"))
			panic("client")
		})
	})
	require.Panics(t, func() {
		_ = db.Read(context.Background(), func(*sqlite.Conn) error { panic("client") }) // it panics
	})
	require.Empty(t, db.mu.calls, "a gate that closes would wait for them")
	// Also where a statement before it cannot be rolled back to.
	require.ErrorContains(t, exec(db, "CREATE TABLE u (a); INSERT INTO missing VALUES (1)"), "no such table: missing")
	ctx, cancel := context.WithCancelCause(context.Background())
	require.ErrorIs(t, db.Write(ctx, func(conn *sqlite.Conn) error {
		require.NoError(t, runOnce(conn, "DELETE FROM t"))
		cancel(why)
		return runOnce(conn, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) INSERT INTO t (a) SELECT i FROM n")
	}), why)
	require.Equal(t, []string{"1 1"}, rows(t, db, "SELECT * FROM t"))
	must(t, db, "INSERT INTO t VALUES (2, 2)")
}

// Whoever is refused is told where the principal is, without the program's doing anything.
func TestRefusedClientsAreSentToThePrincipal(t *testing.T) {
	for url, want := range map[string]string{"": "db-b:7000", "https://b.example.org/app": "https://b.example.org/app"} {
		db := open(t, Config{PeerURL: url})
		ask := func() string {
			t.Helper()
			var not *NotServingError
			require.ErrorAs(t, exec(db, "CREATE TABLE u (a)"), &not)
			return not.Ask
		}
		principal := ""
		session, err := db.Backend().Open(t.Context(), backend.Env{Principal: func() string { return principal }})
		require.NoError(t, err)
		require.NoError(t, session.SetGate(t.Context(), mirror.GateReadOnly, 0))
		require.Empty(t, ask(), "nobody is known, or it was here until now")
		principal = "db-b:7000"
		require.Equal(t, want, ask())
		require.NoError(t, session.SetGate(t.Context(), mirror.GateClosed, 0))
		require.Equal(t, want, ask())
		principal = ""
		require.Empty(t, ask())
		principal = "db-b:7000"
		session.Close()
		require.Empty(t, ask(), "nobody knows any more")
	}
}

func TestTheGate(t *testing.T) {
	ctx := context.Background()
	db := open(t, Config{})
	require.Equal(t, mirror.GateOpen, db.Gate(), "no session yet")
	must(t, db, smallTable)
	read := func() error {
		return db.Read(ctx, func(conn *sqlite.Conn) error { return runOnce(conn, "SELECT * FROM t") })
	}
	require.NoError(t, db.SetGate(ctx, mirror.GateReadOnly, 0))
	var not *NotServingError
	require.ErrorAs(t, exec(db, "DELETE FROM t"), &not)
	require.Contains(t, not.Error(), "read-only here, this is the mirror: no principal is known")
	require.NoError(t, read())
	require.NoError(t, db.SetGate(ctx, mirror.GateClosed, 0))
	require.ErrorAs(t, read(), &not)
	require.Equal(t, mirror.GateClosed, not.Gate)

	// Who is inside when it is closed does not commit.
	require.NoError(t, db.SetGate(ctx, mirror.GateOpen, 0))
	inside, closed := make(chan struct{}), make(chan struct{})
	done := make(chan error)
	go func() {
		done <- db.Write(ctx, func(conn *sqlite.Conn) error {
			close(inside)
			<-closed
			return nil
		})
	}()
	<-inside
	require.NoError(t, db.SetGate(ctx, mirror.GateClosed, 0))
	close(closed)
	require.ErrorIs(t, <-done, errGateMoved)

	// With grace it does.
	require.NoError(t, db.SetGate(ctx, mirror.GateOpen, 0))
	inside = make(chan struct{})
	go func() {
		done <- db.Write(ctx, func(conn *sqlite.Conn) error {
			close(inside)
			return runOnce(conn, "INSERT INTO t VALUES (2, 2)")
		})
	}()
	<-inside
	require.NoError(t, db.SetGate(ctx, mirror.GateClosed, time.Minute))
	require.NoError(t, <-done)

	require.NoError(t, db.Close())
	again := open(t, Config{Path: db.cfg.Path})
	require.Equal(t, mirror.GateClosed, again.Gate(), "until its partner says otherwise")
	require.Equal(t, []string{"1 1", "2 2"}, rows(t, again, "SELECT * FROM t"))
	require.ErrorIs(t, read(), ErrClosed)
}

// No commit returns, and nothing is shown to anybody, before the mirror has it.
func TestCommitsWaitForTheMirror(t *testing.T) {
	ctx := context.Background()
	db := open(t, Config{})
	must(t, db, smallTable)
	_, err := db.createSlot(ctx, session, "slot")
	require.NoError(t, err)
	end, err := db.WaitMirror(ctx, "m")
	require.NoError(t, err)
	require.Equal(t, db.End(), end)
	report := func(name string, at mirror.LSN) {
		db.mu.Lock()
		s := db.mu.slots["slot"]
		db.mu.Unlock()
		db.confirmed(name, s, at)
	}
	report("m", end)

	wrote, read := make(chan error, 1), make(chan error, 1)
	go func() { wrote <- exec(db, "INSERT INTO t VALUES (2, 2)") }()
	for db.End() == end {
		db.mu.Lock()
		grown := db.mu.grown
		db.mu.Unlock()
		if db.End() == end {
			<-grown
		}
	}
	seen := make(chan struct{})
	go func() {
		read <- db.Read(ctx, func(conn *sqlite.Conn) error {
			n, err := number(conn, "SELECT count(*) FROM t")
			if err == nil && n != 2 {
				err = errors.New("not seen")
			}
			close(seen)
			return err
		})
	}()
	<-seen
	report("other", db.End()) // another mirror's report is none
	report("m", db.End()-1)   // neither is one of a part of it
	pause, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	select {
	case err := <-wrote:
		t.Fatalf("returned without the mirror: %v", err)
	case err := <-read:
		t.Fatalf("showed what the mirror does not have: %v", err)
	case <-pause.Done():
	}
	// A second commit need not wait for the first.
	second := make(chan error, 1)
	before := db.End()
	go func() { second <- exec(db, "INSERT INTO t VALUES (3, 3)") }()
	for db.End() == before {
		db.mu.Lock()
		grown := db.mu.grown
		db.mu.Unlock()
		if db.End() == before {
			<-grown
		}
	}
	report("m", before)
	require.NoError(t, <-wrote)
	require.NoError(t, <-read)
	report("m", db.End())
	require.NoError(t, <-second)

	// A context that ends leaves the outcome open, and says so.
	err = db.Write(untilGrown(t, db), func(conn *sqlite.Conn) error { return runOnce(conn, "INSERT INTO t VALUES (4, 4)") })
	var unconfirmed *UnconfirmedError
	require.ErrorAs(t, err, &unconfirmed)
	require.ErrorIs(t, err, errGrown)

	// So does a gate that is closed meanwhile, also when nobody is waited for any more before the Write has noticed.
	for i := range 20 {
		waiting := make(chan error, 1)
		before = db.End()
		go func() { waiting <- exec(db, fmt.Sprintf("INSERT INTO t VALUES (%d, 5)", 100+i)) }()
		for db.End() == before {
			db.mu.Lock()
			grown := db.mu.grown
			db.mu.Unlock()
			if db.End() == before {
				<-grown
			}
		}
		require.NoError(t, db.SetGate(ctx, mirror.GateClosed, 0))
		require.NoError(t, db.WaitRemove(ctx))
		require.ErrorAs(t, <-waiting, &unconfirmed)
		_, err = db.WaitMirror(ctx, "m")
		require.NoError(t, err)
		require.NoError(t, db.SetGate(ctx, mirror.GateOpen, 0))
	}

	// What is in force outlives a restart; letting commits go on alone does not.
	require.NoError(t, db.Close())
	db = open(t, Config{Path: db.cfg.Path})
	require.Equal(t, "m", db.mu.commits.name)
	require.NoError(t, db.SetGate(ctx, mirror.GateOpen, 0))
	require.NoError(t, db.WaitNone(ctx))
	must(t, db, "INSERT INTO t VALUES (6, 6)")
	require.NoError(t, db.Close())
	db = open(t, Config{Path: db.cfg.Path})
	require.NoError(t, db.SetGate(ctx, mirror.GateOpen, 0))
	err = db.Write(untilGrown(t, db), func(conn *sqlite.Conn) error { return runOnce(conn, "INSERT INTO t VALUES (7, 7)") })
	require.ErrorAs(t, err, &unconfirmed)
	require.NoError(t, db.WaitRemove(ctx))
	must(t, db, "INSERT INTO t VALUES (8, 8)")
}

// However a statement begins that SQLite takes for a rollback to a savepoint, it is taken for one here: what was written
// into the record before the schema changed is not undone otherwise, and the mirror would have what the principal has not.
func TestRollbackAfterWhateverIsBlank(t *testing.T) {
	for _, blank := range []string{"", ";", " \v", "\t\r\n\f ", "-- a\n", "/* a */", "/*/ a */", "/***/;", "\ufeff", "/**/-- a\n \v;"} {
		p := newPair(t, Config{})
		must(t, p.a, smallTable)
		err := p.a.Write(context.Background(), func(conn *sqlite.Conn) error {
			for _, sql := range []string{"SAVEPOINT s", "INSERT INTO t VALUES (2, 2)", "CREATE INDEX i ON t (a)", "DROP INDEX i"} {
				if err := runOnce(conn, sql); err != nil {
					return err
				}
			}
			stmt, rest, err := conn.PrepareTransient(blank + "ROLLBACK TO s")
			if err != nil {
				return err
			}
			require.Zero(t, rest, "%q", blank)
			_, err = stmt.Step()
			return errors.Join(err, stmt.Finalize())
		})
		var refused *RefusedError
		require.ErrorAs(t, err, &refused, "%q", blank)
		require.Contains(t, refused.What, "rolled back to a savepoint", "%q", blank)
		p.equal(t)
	}
}
