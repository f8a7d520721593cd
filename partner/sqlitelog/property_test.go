package sqlitelog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
	"zombiezen.com/go/sqlite"

	"github.com/f19126b3/dbmirror/partner/backend"
)

// world draws what clients do. It knows the tables, since an ill-formed statement teaches nothing.
type world struct {
	tables []string
	made   int
}

// shapes are what tables can be, with two columns a and b beside their key k.
func shapes() []string {
	return []string{
		"(k INTEGER PRIMARY KEY, a UNIQUE, b)",
		"(k INTEGER PRIMARY KEY AUTOINCREMENT, a, b)",
		"(k TEXT PRIMARY KEY, a, b UNIQUE)",
		"(k, a, b)",
		"(k PRIMARY KEY, a, b) WITHOUT ROWID",
		"(k TEXT COLLATE NOCASE PRIMARY KEY, a UNIQUE COLLATE NOCASE, b) WITHOUT ROWID",
		"(a, k INT PRIMARY KEY DESC, b, c AS (k || a) STORED, d AS (length(b)))",
		"(k INTEGER PRIMARY KEY, a UNIQUE ON CONFLICT REPLACE, b UNIQUE ON CONFLICT IGNORE)",
		"(b REAL, k NUMERIC, a, PRIMARY KEY (a, k)) WITHOUT ROWID",
		"(k INTEGER PRIMARY KEY, a REFERENCES root (k) ON DELETE CASCADE ON UPDATE CASCADE, b)",
		"(k INTEGER PRIMARY KEY, a REFERENCES t1 (k) ON DELETE CASCADE, b REFERENCES t2 ON DELETE SET NULL)",
	}
}

func (w *world) value(t *rapid.T) string {
	switch rapid.IntRange(0, 9).Draw(t, "class") {
	case 0, 1, 2, 3:
		return fmt.Sprint(rapid.IntRange(1, 6).Draw(t, "small"))
	case 4:
		return fmt.Sprint(rapid.SampledFrom([]int64{math.MaxInt64, math.MinInt64 + 1, -1, 0, 1 << 53}).Draw(t, "int"))
	case 5:
		return rapid.SampledFrom([]string{"1.0", "2.5", "-0.0", "1e999", "-1e999", "1e-300", "9007199254740993.0"}).Draw(t, "real")
	case 6:
		return "NULL"
	case 7:
		return fmt.Sprintf("x'%x'", rapid.SliceOfN(rapid.Byte(), 0, 6).Draw(t, "blob"))
	case 8:
		return "CAST(x'" + fmt.Sprintf("%x", rapid.SliceOfN(rapid.Byte(), 0, 6).Draw(t, "bytes")) + "' AS TEXT)"
	}
	return "'" + rapid.SampledFrom([]string{"a", "A", "b", "B", "ä", "1", "1.0", "", "long " + strings.Repeat("x", 300)}).Draw(t, "text") + "'"
}

func (w *world) table(t *rapid.T) string { return rapid.SampledFrom(w.tables).Draw(t, "table") }

// statement draws one. It may fail.
func (w *world) statement(t *rapid.T) string {
	v := func() string { return w.value(t) }
	column := func() string { return rapid.SampledFrom([]string{"k", "a", "b"}).Draw(t, "column") }
	or := func() string {
		return rapid.SampledFrom([]string{"", "", " OR REPLACE", " OR IGNORE", " OR FAIL", " OR ABORT"}).Draw(t, "or")
	}
	switch rapid.IntRange(0, 11).Draw(t, "statement") {
	case 0, 1, 2, 3:
		return fmt.Sprintf("INSERT%s INTO %s (k, a, b) VALUES (%s, %s, %s), (%s, %s, %s)", or(), w.table(t), v(), v(), v(), v(), v(), v())
	case 4, 5, 6:
		return fmt.Sprintf("UPDATE%s %s SET %s = %s, b = %s WHERE %s >= %s", or(), w.table(t), column(), v(), v(), column(), v())
	case 7:
		return fmt.Sprintf("UPDATE%s %s SET k = k + 1", or(), w.table(t))
	case 8:
		return fmt.Sprintf("DELETE FROM %s WHERE %s = %s", w.table(t), column(), v())
	case 9:
		return fmt.Sprintf("INSERT INTO %s (k, a, b) VALUES (%s, %s, %s) ON CONFLICT DO UPDATE SET b = excluded.b, a = %s", w.table(t), v(), v(), v(), v())
	case 10:
		return fmt.Sprintf("PRAGMA user_version = %d", rapid.IntRange(0, 99).Draw(t, "version"))
	}
	return fmt.Sprintf("DELETE FROM %s", w.table(t))
}

// definition draws a change of the schema.
func (w *world) definition(t *rapid.T) string {
	w.made++
	n := w.made
	switch rapid.IntRange(0, 11).Draw(t, "definition") {
	case 11:
		w.tables = append(w.tables, fmt.Sprintf("f%d", n))
		return fmt.Sprintf("CREATE VIRTUAL TABLE f%d USING fts5(k, a, b)", n)
	case 10:
		return rapid.SampledFrom([]string{"CREATE TABLE IF NOT EXISTS root (x)", "CREATE TEMP TABLE IF NOT EXISTS x (id INTEGER PRIMARY KEY AUTOINCREMENT)"}).Draw(t, "nothing")
	case 0:
		at := rapid.IntRange(0, len(w.tables)-1).Draw(t, "drop")
		if w.tables[at] == "root" {
			break
		}
		name := w.tables[at]
		w.tables = append(w.tables[:at:at], w.tables[at+1:]...)
		return "DROP TABLE " + name
	case 1:
		at := rapid.IntRange(0, len(w.tables)-1).Draw(t, "rename")
		if w.tables[at] == "root" {
			break
		}
		former := w.tables[at]
		w.tables[at] = fmt.Sprintf("renamed%d", n)
		return "ALTER TABLE " + former + " RENAME TO " + w.tables[at]
	case 2:
		return fmt.Sprintf("ALTER TABLE %s ADD COLUMN n%d DEFAULT 'd%d'", w.table(t), n, n)
	case 3:
		return fmt.Sprintf("CREATE INDEX i%d ON %s (a, b)", n, w.table(t))
	case 4:
		of := w.table(t)
		// Bounded: triggers that insert for each update and update for each deletion would never come to an end.
		return fmt.Sprintf("CREATE TRIGGER g%d AFTER UPDATE ON %s WHEN (SELECT count(*) FROM root) < 50 "+
			"BEGIN INSERT OR IGNORE INTO root (a) VALUES (random() %% 9); END", n, of)
	case 5:
		return fmt.Sprintf("CREATE TRIGGER g%d AFTER DELETE ON %s BEGIN UPDATE OR IGNORE root SET b = b || OLD.k; END", n, w.table(t))
	}
	w.tables = append(w.tables, fmt.Sprintf("t%d", n))
	return fmt.Sprintf("CREATE TABLE t%d %s", n, rapid.SampledFrom(shapes()).Draw(t, "shape"))
}

// write runs one Write. Statements in it may fail, as in a program that goes on after an error, and parts of it may be
// rolled back. It returns whether it has committed.
func (w *world) write(t *rapid.T, db *DB, define bool) bool {
	before := append([]string(nil), w.tables...)
	err := db.Write(context.Background(), func(conn *sqlite.Conn) error {
		for range rapid.IntRange(1, 5).Draw(t, "statements") {
			switch what := rapid.IntRange(0, 9).Draw(t, "what"); {
			case what == 0 && define:
				names := append([]string(nil), w.tables...)
				if sql := w.definition(t); runOnce(conn, sql) != nil {
					w.tables = names
				}
			case what == 1 && !define:
				w.savepoint(t, conn)
			default:
				_ = runOnce(conn, w.statement(t)) // what a failed statement has done is undone by SQLite
			}
		}
		if rapid.IntRange(0, 9).Draw(t, "fail") == 0 {
			return errors.New("the client changed its mind")
		}
		return nil
	})
	if err != nil {
		w.tables = before
	}
	return err == nil
}

func (w *world) savepoint(t *rapid.T, conn *sqlite.Conn) {
	require.NoError(t, runOnce(conn, "SAVEPOINT s"))
	for range rapid.IntRange(1, 3).Draw(t, "inside") {
		_ = runOnce(conn, w.statement(t)) // see write
	}
	if rapid.Bool().Draw(t, "back") {
		require.NoError(t, runOnce(conn, "ROLLBACK TO s"))
	}
	require.NoError(t, runOnce(conn, "RELEASE s"))
}

// Whatever clients do, the mirror is the same after each transaction, and undoing a tail brings back what was.
func TestMirrorIsEqualWhateverHappens(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		p := rapidPair(t, filepath.Join(dir, fmt.Sprint(n)), rapid.Bool().Draw(t, "foreign keys"))
		w := &world{tables: []string{"root"}}
		must(t, p.a, "CREATE TABLE root (k INTEGER PRIMARY KEY, a, b)")
		for range rapid.IntRange(1, 12).Draw(t, "writes") {
			w.write(t, p.a, true)
			if rapid.IntRange(0, 3).Draw(t, "follow") > 0 {
				p.equal(t)
			}
		}
		p.equal(t)
		fork := p.a.End()
		for range rapid.IntRange(0, 5).Draw(t, "tail") {
			w.write(t, p.a, false)
		}
		var tail bytes.Buffer
		sum, err := p.a.Tail(context.Background(), fork, &tail)
		require.NoError(t, err)
		requireLines(t, &tail, sum)
		require.NoError(t, p.a.Undo(context.Background(), fork))
		requireEqual(t, p.a, p.b)
		sum, err = p.a.Tail(context.Background(), fork, &tail)
		require.NoError(t, err)
		require.Zero(t, sum.Transactions, "nothing is left to undo")
		requireSound(t, p.b)
	})
}

func requireLines(t fataler, tail *bytes.Buffer, sum backend.TailSummary) {
	begins, commits := int64(0), int64(0)
	for decoder := json.NewDecoder(tail); decoder.More(); {
		var line struct{ Kind string }
		require.NoError(t, decoder.Decode(&line))
		switch line.Kind {
		case "begin":
			begins++
		case "commit":
			commits++
		}
	}
	require.Equal(t, []int64{sum.Transactions, sum.Transactions}, []int64{begins, commits})
}

func requireSound(t fataler, db *DB) {
	require.NoError(t, db.inspect(context.Background(), checkFile))
}

func rapidPair(t *rapid.T, dir string, foreignKeys bool) *pair {
	require.NoError(t, os.Mkdir(dir, 0o700))
	p := &pair{}
	for name, db := range map[string]**DB{"a": &p.a, "b": &p.b} {
		var err error
		*db, err = Open(Config{Path: filepath.Join(dir, name), ForeignKeys: foreignKeys})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, (*db).Close()) })
	}
	_, err := p.a.createSlot(context.Background(), session, "slot")
	require.NoError(t, err)
	p.at = p.a.End()
	return p
}

// What was drawn for the property is compared by sums; that sums tell databases apart is shown here.
func TestSumsTellDatabasesApart(t *testing.T) {
	for _, change := range []string{
		"UPDATE t SET a = 2.0 WHERE k = 2", "UPDATE t SET a = x'61' WHERE k = 1", "INSERT INTO t VALUES (3, NULL)", "DELETE FROM t WHERE k = 1",
		"UPDATE t SET k = 9 WHERE k = 1", "PRAGMA user_version = 3", "CREATE INDEX i ON t (a)", "DROP TABLE u", "UPDATE u SET rowid = 7",
		"UPDATE sqlite_sequence SET seq = 5", "UPDATE u SET x = 2 WHERE x = 1 AND rowid = 1",
	} {
		a, b := open(t, Config{}), open(t, Config{})
		for _, db := range []*DB{a, b} {
			must(t, db, `CREATE TABLE t (k INTEGER PRIMARY KEY AUTOINCREMENT, a); INSERT INTO t VALUES (1, 'a'), (2, 2);
				CREATE TABLE u (x); INSERT INTO u VALUES (1)`)
		}
		requireEqual(t, a, b)
		must(t, b, change)
		left, err := a.Sums(context.Background())
		require.NoError(t, err)
		right, err := b.Sums(context.Background())
		require.NoError(t, err)
		require.False(t, backend.Compare(left, right).Equal(), change)
	}
}
