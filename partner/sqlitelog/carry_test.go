package sqlitelog

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What a transaction can do to a database, and what has to be on the mirror afterwards. Each step is one Write.
func TestEverythingIsCarried(t *testing.T) {
	for _, c := range carried() {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t, Config{ForeignKeys: true})
			for _, step := range c.steps {
				must(t, p.a, step)
				p.equal(t)
			}
			if c.query != "" {
				require.Equal(t, c.want, rows(t, p.b, c.query))
			}
		})
	}
}

type carriedCase struct {
	name  string
	steps []string
	query string
	want  []string
}

func carried() []carriedCase {
	return []carriedCase{
		{"rows", []string{
			"CREATE TABLE t (id INTEGER PRIMARY KEY, a, b TEXT)",
			"INSERT INTO t VALUES (1, 1, 'x'), (2, 2.5, 'y'), (3, NULL, NULL), (4, x'00ff', ''), (5, 9223372036854775807, 'ü\u0001')",
			"UPDATE t SET a = 7, b = 'z' WHERE id = 2; DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (9, 1e999, -1e999)",
			"UPDATE t SET id = 20 WHERE id = 2",
			"DELETE FROM t",
		}, "", nil},
		{"text with a zero byte", []string{
			"CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)",
			"INSERT INTO t VALUES (1, 'a' || char(0) || 'b'), (2, CAST(x'ff00fe' AS TEXT)), (3, x''), (4, zeroblob(10))",
			"UPDATE t SET a = a || char(0) || 'c'",
		}, "SELECT hex(a) FROM t", []string{`"6100620063"`, `"FF00FE0063"`, `"0063"`, `"000000000000000000000063"`}},
		{"no key", []string{
			"CREATE TABLE t (a, b)",
			"INSERT INTO t VALUES (1, 1), (1, 1), (NULL, NULL)",
			"DELETE FROM t WHERE rowid = 2; UPDATE t SET b = 5 WHERE rowid = 1",
		}, "SELECT rowid, a, b FROM t", []string{"1 1 5", "3 null null"}},
		{"key with NULL", []string{
			"CREATE TABLE t (k TEXT PRIMARY KEY, v)",
			"INSERT INTO t VALUES (NULL, 1), (NULL, 2), ('a', 3)",
			"UPDATE t SET k = NULL WHERE k = 'a'; UPDATE t SET v = v + 1 WHERE k IS NULL",
		}, "SELECT k, v FROM t", []string{"null 2", "null 3", "null 4"}},
		{"key without regard to case", []string{
			"CREATE TABLE t (k TEXT PRIMARY KEY COLLATE NOCASE, v); CREATE TABLE w (k TEXT PRIMARY KEY COLLATE NOCASE, v) WITHOUT ROWID",
			"INSERT INTO t VALUES ('a', 1); INSERT INTO w VALUES ('a', 1)",
			"UPDATE t SET k = 'A'; UPDATE w SET k = 'A'",
			"DELETE FROM w; INSERT INTO w VALUES ('a', 2)",
			"REPLACE INTO w VALUES ('A', 3); REPLACE INTO t VALUES ('a', 3)",
		}, "SELECT k, v FROM w", []string{`"A" 3`}},
		{"without rowid", []string{
			"CREATE TABLE w (a, b, v, PRIMARY KEY (b, a)) WITHOUT ROWID",
			"INSERT INTO w VALUES (1, 2, 'x'), ('1', x'02', 'y'), (1.5, 2, NULL)",
			"UPDATE w SET v = 'z' WHERE a = 1; UPDATE w SET a = a + 1 WHERE b = 2",
			"DELETE FROM w WHERE v = 'z'",
		}, "", nil},
		{"one and 1.0 as keys", []string{
			"CREATE TABLE w (k PRIMARY KEY, v) WITHOUT ROWID",
			"INSERT INTO w VALUES (1, 'x')",
			"UPDATE w SET k = 1.0",
		}, "SELECT typeof(k) FROM w", []string{`"real"`}},
		{"exchanged unique values", []string{
			"CREATE TABLE t (id INTEGER PRIMARY KEY, u UNIQUE, v)",
			"INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3)",
			"UPDATE t SET u = 'x' WHERE id = 1; UPDATE t SET u = 'a' WHERE id = 2; UPDATE t SET u = 'b' WHERE id = 3; UPDATE t SET u = 'c' WHERE id = 1",
		}, "SELECT u FROM t ORDER BY id", []string{`"c"`, `"a"`, `"b"`}},
		{"replace", []string{
			"CREATE TABLE t (id INTEGER PRIMARY KEY, u UNIQUE, v UNIQUE)",
			"INSERT INTO t VALUES (1, 'a', 'x'), (2, 'b', 'y'), (3, 'c', 'z')",
			"INSERT OR REPLACE INTO t VALUES (4, 'a', 'y')",
			"INSERT INTO t VALUES (9, 'c', 'q') ON CONFLICT (u) DO UPDATE SET v = excluded.v",
			"UPDATE OR REPLACE t SET u = 'c' WHERE id = 4",
		}, "SELECT * FROM t", []string{`4 "c" "y"`}},
		{"conflict clauses of the schema", []string{
			"CREATE TABLE t (id INTEGER PRIMARY KEY, u UNIQUE ON CONFLICT IGNORE, v UNIQUE ON CONFLICT REPLACE)",
			"INSERT INTO t VALUES (5, 'a', 'x'), (2, 'b', 'y')",
			"DELETE FROM t WHERE id = 5; INSERT INTO t VALUES (1, 'a', 'x')",
			"DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (8, 'b', 'x')",
		}, "SELECT * FROM t", []string{`8 "b" "x"`}},
		{"autoincrement", []string{
			"CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a)",
			"INSERT INTO t (a) VALUES (1), (2), (3)",
			"DELETE FROM t WHERE id = 3",
			"INSERT INTO t (a) VALUES (4); DELETE FROM t WHERE a = 4",
			"UPDATE sqlite_sequence SET seq = 100",
			"CREATE TABLE u (id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO u VALUES (7)",
			"DELETE FROM sqlite_sequence WHERE name = 'u'",
			"ALTER TABLE t RENAME TO v",
		}, "SELECT name, seq FROM sqlite_sequence", []string{`"v" 100`}},
		{"autoincrement beside that of a temporary table", []string{
			"CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a); INSERT INTO t (a) VALUES (1), (2)",
			"CREATE TEMP TABLE x (id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO x VALUES (500)",
			"INSERT INTO t (a) VALUES (3); DELETE FROM t",
		}, "SELECT name, seq FROM sqlite_sequence", []string{`"t" 3`}},
		{"a temporary table of our name", []string{
			"CREATE TABLE t (a); CREATE TEMP TABLE dbmirror_log (lsn INTEGER PRIMARY KEY, last, data)",
			"INSERT INTO t VALUES (1)",
		}, "SELECT * FROM t", []string{"1"}},
		{"triggers", []string{
			"CREATE TABLE t (id INTEGER PRIMARY KEY, a); CREATE TABLE log (at INTEGER PRIMARY KEY AUTOINCREMENT, what, r)",
			"CREATE TRIGGER ti AFTER INSERT ON t BEGIN INSERT INTO log (what, r) VALUES ('i' || NEW.id, random()); UPDATE t SET a = a + 1 WHERE id = NEW.id; END",
			"CREATE TRIGGER td BEFORE DELETE ON t BEGIN INSERT INTO log (what) VALUES ('d' || OLD.id); END",
			"INSERT INTO t VALUES (1, 1), (2, 2)",
			"DELETE FROM t WHERE id = 1",
			"CREATE VIEW v AS SELECT id FROM t; CREATE TRIGGER vi INSTEAD OF INSERT ON v BEGIN INSERT INTO t VALUES (NEW.id, 0); END",
			"INSERT INTO v VALUES (50)",
		}, "SELECT what FROM log", []string{`"i1"`, `"i2"`, `"d1"`, `"i50"`}},
		{"foreign keys", []string{
			"CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (id INTEGER PRIMARY KEY, p REFERENCES p ON DELETE CASCADE ON UPDATE SET NULL)",
			"INSERT INTO p VALUES (1), (2), (3); INSERT INTO c VALUES (1, 1), (2, 1), (3, 2), (4, 3)",
			"DELETE FROM p WHERE id = 1",
			"UPDATE p SET id = 20 WHERE id = 2",
			"PRAGMA defer_foreign_keys = ON; INSERT INTO c VALUES (9, 99); INSERT INTO p VALUES (99)",
		}, "SELECT * FROM c", []string{"3 null", "4 3", "9 99"}},
		{"rows that DROP TABLE deletes by foreign keys", []string{
			"CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (id INTEGER PRIMARY KEY, p REFERENCES p ON DELETE CASCADE, v); CREATE TABLE d (id INTEGER PRIMARY KEY, p REFERENCES p ON DELETE SET NULL, v)",
			"INSERT INTO p VALUES (1), (2); INSERT INTO c VALUES (1, 1, 0), (2, 2, 0), (3, NULL, 0); INSERT INTO d VALUES (1, 1, 0)",
			"UPDATE d SET v = 1; UPDATE c SET v = 2; DROP TABLE p; CREATE TABLE p (id INTEGER PRIMARY KEY); UPDATE d SET v = 3; INSERT INTO c VALUES (1, NULL, 9)",
			"DROP TABLE p",
		}, "SELECT * FROM c", []string{"1 null 9", "3 null 2"}},
		{"generated columns and checks", []string{
			"CREATE TABLE t (v AS (a * 2), a INT CHECK (a < 100), s AS (a + 1) STORED, b)",
			"INSERT INTO t (a, b) VALUES (1, 'x'), (2, 'y')",
			"UPDATE t SET a = 50 WHERE b = 'x'; DELETE FROM t WHERE b = 'y'",
		}, "SELECT v, a, s, b FROM t", []string{`100 50 51 "x"`}},
		{"savepoints and failures", []string{
			"CREATE TABLE t (id INTEGER PRIMARY KEY, u UNIQUE); INSERT INTO t VALUES (1, 'a')",
			"SAVEPOINT s; INSERT INTO t VALUES (2, 'b'); UPDATE t SET u = 'x' WHERE id = 1; ROLLBACK TO s; INSERT INTO t VALUES (3, 'c'); RELEASE s",
			"INSERT OR IGNORE INTO t VALUES (4, 'd'), (5, 'a'), (6, 'e')",
		}, "SELECT * FROM t", []string{`1 "a"`, `3 "c"`, `4 "d"`, `6 "e"`}},
		{"pragmas", []string{
			"PRAGMA user_version = 7",
			"PRAGMA user_version = 8; PRAGMA application_id = 99; CREATE TABLE t (a)",
		}, "PRAGMA user_version", []string{"8"}},
		{"blobs", []string{
			"CREATE TABLE t (id INTEGER PRIMARY KEY, b)",
			"INSERT INTO t VALUES (1, randomblob(1000000)), (2, randomblob(300000)), (3, zeroblob(0))",
			"UPDATE t SET b = randomblob(700000) WHERE id = 2",
		}, "SELECT id, length(b) FROM t", []string{"1 1000000", "2 700000", "3 0"}},
		{"awkward names", []string{
			`CREATE TABLE "a ""b"" c" ("sel ect" TEXT, rowid, "x'y")`,
			`INSERT INTO "a ""b"" c" VALUES ('a', 2, 3)`,
			`UPDATE "a ""b"" c" SET rowid = 5, "x'y" = 7; CREATE TABLE q (ROWID, oid)`,
			`INSERT INTO q VALUES (1, 2)`,
		}, `SELECT _rowid_, * FROM "a ""b"" c"`, []string{`1 "a" 5 7`}},
		{"key in descending order", []string{
			"CREATE TABLE t (id INTEGER PRIMARY KEY DESC, a)",
			"INSERT INTO t VALUES (5, 1), (3, 2), (NULL, 3)",
			"UPDATE t SET id = 4 WHERE id = 5",
		}, "SELECT rowid, id FROM t", []string{"1 4", "2 3", "3 null"}},
		{"strict tables", []string{
			"CREATE TABLE t (id INTEGER PRIMARY KEY, a ANY, r REAL) STRICT; INSERT INTO t VALUES (1, '5', 3), (2, 5, 4.5)",
			"UPDATE t SET a = 5.0 WHERE id = 1",
		}, "SELECT typeof(a), r FROM t", []string{`"real" 3.0`, `"integer" 4.5`}},
	}
}

func TestTheSchemaIsCarried(t *testing.T) {
	for _, c := range carriedSchema() {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t, Config{})
			for _, step := range c.steps {
				must(t, p.a, step)
				p.equal(t)
			}
			if c.query != "" {
				require.Equal(t, c.want, rows(t, p.b, c.query))
			}
		})
	}
}

func carriedSchema() []carriedCase {
	return []carriedCase{
		{"alter", []string{
			"CREATE TABLE t (id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES (1, 1)",
			"ALTER TABLE t ADD COLUMN b DEFAULT 'new'",
			"UPDATE t SET a = 2; INSERT INTO t VALUES (2, 2, 2)",
			"ALTER TABLE t RENAME COLUMN b TO c; UPDATE t SET c = 3 WHERE id = 1",
			"ALTER TABLE t DROP COLUMN a",
			"ALTER TABLE t RENAME TO u; INSERT INTO u VALUES (9, 9)",
		}, "SELECT * FROM u", []string{"1 3", "2 2", "9 9"}},
		{"rows before, between and after in one transaction", []string{
			"CREATE TABLE t (id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES (1, 1), (2, 2)",
			`UPDATE t SET a = 10; ALTER TABLE t RENAME TO old; CREATE TABLE t (id INTEGER PRIMARY KEY, a, b NOT NULL);
				INSERT INTO t SELECT id, a, 'x' FROM old; DELETE FROM old WHERE id = 1; DROP TABLE old; INSERT INTO t VALUES (3, 3, 'y'); UPDATE t SET a = 0 WHERE id = 1`,
		}, "SELECT * FROM t", []string{`1 0 "x"`, `2 10 "x"`, `3 3 "y"`}},
		{"dropped and made again, the same", []string{
			"CREATE TABLE t (id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES (1, 1), (2, 2)",
			"DROP TABLE t; CREATE TABLE t (id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES (2, 5)",
		}, "SELECT * FROM t", []string{"2 5"}},
		{"nothing to define", []string{
			"CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE); INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')",
			"INSERT INTO t VALUES (4, 'd'); CREATE TABLE IF NOT EXISTS t (x); UPDATE t SET a = 'e' WHERE id = 4",
			"INSERT INTO t VALUES (5, 'f'); CREATE TEMP TABLE x (a); DELETE FROM t WHERE id = 5; DROP TABLE IF EXISTS missing",
			"UPDATE t SET a = 'x' WHERE id = 1; CREATE INDEX IF NOT EXISTS i ON t (a); UPDATE t SET a = 'a' WHERE id = 2; UPDATE t SET a = 'b' WHERE id = 1",
			"SAVEPOINT s; INSERT INTO t VALUES (7, 7); CREATE TABLE IF NOT EXISTS t (x); ROLLBACK TO s; INSERT INTO t VALUES (8, 8); RELEASE s",
			"DELETE FROM t WHERE id < 4; CREATE TABLE u (a); INSERT INTO t VALUES (1, 1); CREATE TABLE IF NOT EXISTS u (b); UPDATE t SET a = 2 WHERE id = 1; INSERT INTO u VALUES (1)",
		}, "SELECT * FROM t", []string{"1 2", `4 "e"`, "8 8"}},
		{"what a full text index has not written down yet", []string{
			"CREATE VIRTUAL TABLE f USING fts5(x); CREATE TABLE t (id INTEGER PRIMARY KEY, a)",
			"INSERT INTO f VALUES ('one'); CREATE TABLE u AS SELECT * FROM t; INSERT INTO t VALUES (1, 1)",
			"INSERT INTO f VALUES ('two'); ALTER TABLE t ADD COLUMN b DEFAULT 7; INSERT INTO f VALUES ('three'); DROP TABLE u; CREATE INDEX i ON t (a)",
			"INSERT INTO f VALUES ('four'); CREATE TABLE IF NOT EXISTS t (a); UPDATE f SET x = 'five' WHERE rowid = 1",
			"INSERT INTO f VALUES ('six'); CREATE TEMP TABLE y AS SELECT * FROM t; CREATE TABLE z AS SELECT * FROM f; ANALYZE",
		}, "SELECT rowid FROM f WHERE f MATCH 'two OR five OR six'", []string{"1", "2", "5"}},
		{"as select", []string{
			"CREATE TABLE t (id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES (1, 1), (2, 2)",
			"CREATE TABLE u AS SELECT *, random() AS r FROM t; INSERT INTO u VALUES (7, 7, 7); DELETE FROM u WHERE id = 1",
			"CREATE TABLE IF NOT EXISTS u AS SELECT 1; CREATE TEMP TABLE x AS SELECT * FROM u; CREATE TABLE temp.y (a); INSERT INTO x VALUES (1, 2, 3)",
		}, "SELECT id, a FROM u", []string{"2 2", "7 7"}},
		{"indexes, views, triggers", []string{
			"CREATE TABLE t (id INTEGER PRIMARY KEY, a, b); CREATE UNIQUE INDEX i ON t (a) WHERE b > 0; CREATE INDEX e ON t (lower(a))",
			"INSERT INTO t VALUES (1, 'A', 1), (2, 'A', 0); CREATE VIEW v AS SELECT a FROM t; /* c */ -- d\n  CREATE TRIGGER g AFTER UPDATE ON t BEGIN SELECT 1; END",
			"DROP INDEX i; DROP VIEW v; REINDEX; DROP TRIGGER g; UPDATE t SET b = 7",
			"ANALYZE",
		}, "SELECT name FROM sqlite_schema WHERE name NOT LIKE 'dbmirror%' AND name NOT LIKE 'sqlite%'", []string{`"t"`, `"e"`}},
		{"full text", []string{
			"CREATE VIRTUAL TABLE f USING fts5(x, y); INSERT INTO f VALUES ('hello world', 'one'), ('good bye', 'two')",
			"UPDATE f SET x = 'hello again' WHERE rowid = 2; DELETE FROM f WHERE rowid = 1; INSERT INTO f(f) VALUES ('optimize')",
			"CREATE VIRTUAL TABLE g USING fts5(z, content='', contentless_delete=1); INSERT INTO g VALUES ('some words'); INSERT INTO f VALUES ('hello', 'three')",
			"CREATE VIRTUAL TABLE r USING rtree(id, x0, x1); INSERT INTO r VALUES (1, 0, 5), (2, 3, 9)",
			"DROP TABLE g; DELETE FROM r WHERE id = 1",
		}, "SELECT y FROM f WHERE f MATCH 'hello' ORDER BY rowid", []string{`"two"`, `"three"`}},
	}
}
