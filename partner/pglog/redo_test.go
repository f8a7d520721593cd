package pglog

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// TestRedoTypes redoes values that are easily changed on the way, each through insert, update, delete and COPY, in one
// batch and one by one.
func TestRedoTypes(t *testing.T) {
	p := newRedoPair(t, 0)
	p.both(`CREATE SCHEMA other`,
		`CREATE TYPE other."Mood ü" AS ENUM ('so, so', 'a"b', 'c\d', '', 'NULL')`,
		`CREATE TYPE other.pair AS (a int, b text)`,
		`CREATE DOMAIN other.short AS varchar(5) CHECK (value <> 'bad')`,
		`CREATE DOMAIN other.shorts AS other.short[]`)
	columns := []struct{ kind, values string }{
		{"bool", "true|false|NULL"}, {"int2", "-32768|32767|NULL"}, {"int4", "-2147483648|2147483647|0"},
		{"int8", "-9223372036854775808|9223372036854775807|NULL"},
		{"numeric", "'NaN'|'Infinity'|'-Infinity'|1.0|1.00|-0.000|1e-300|123456789012345678901234567890.123456789"},
		{"numeric(10,3)", "1.1|NULL|-9999999.999"},
		{"float8", "'NaN'|'Infinity'|'-Infinity'|'-0'|1.7976931348623157e308|5e-324|0.1"}, {"float4", "0.1|1e-45|3.4028235e38|'-0'"},
		{"text", `''|'NULL'|NULL|E'a\tb\nc\\d\re\b\f\v'|E'"{}(),;\'\x01'|'$1 ''; DROP TABLE x; --'|repeat('ü',40)|'\N'|'\.'|E'\\.\n'`},
		{"varchar(7)", "'a  '|''|NULL"}, {"char(5)", "'a'|''|'ab  '|NULL"}, {`"char"`, "'a'|''|'\"'|NULL"}, {"name", "'x'|'ü'|NULL"},
		{"bytea", `'\x00ff5c22'|''|NULL|'\x'`},
		{"json", `'{"a": [1, "\"x\\"]}'|'null'|NULL|' [ ] '`}, {"jsonb", `'{"b":1,"a":"\\"}'|'null'|NULL`},
		{"xml", `'<a>b &amp; "c"</a>'|'text'|NULL`},
		{"timestamptz", "'infinity'|'-infinity'|'0044-03-15 12:00:00 BC'|'2024-02-29 23:59:59.999999+05:45'|NULL"},
		{"timestamp", "'infinity'|'294276-12-31 23:59:59.999999'|NULL"}, {"date", "'infinity'|'0001-01-01 BC'|NULL"},
		{"time", "'24:00'|'00:00:00.000001'"}, {"timetz", "'12:00-15:59'|NULL"},
		{"interval", "'1 year -2 mons 3 days -04:05:06.7'|'-178000000 years'|'0'"},
		{"int[]", "'{}'|'{1,NULL,-3}'|'{{1,2},{3,4}}'|'[2:3]={7,8}'|NULL"},
		{"text[]", `'{}'|ARRAY['a"b','c\d','NULL',NULL,'','x,y','{}']|ARRAY[['a'],['']]|NULL`},
		{`other."Mood ü"`, `'so, so'|'a"b'|'c\d'|''|'NULL'|NULL`}, {`other."Mood ü"[]`, `'{"so, so","",NULL}'|NULL`},
		{"other.pair", `ROW(1,'a"b\,()')|ROW(NULL,NULL)|ROW(1,'')|NULL`}, {"other.pair[]", `ARRAY[ROW(1,'x,"y'),NULL]::other.pair[]|NULL`},
		{"other.short", "'a'|''|NULL"}, {"other.shorts", `'{a,"",NULL}'|NULL`},
		{"uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'|NULL"}, {"inet", "'10.0.0.1'|'::1/64'|NULL"}, {"cidr", "'10.0.0.0/8'"}, {"macaddr", "'08:00:2b:01:02:03'"},
		{"point", "'(1,2)'|'(-0,1e300)'|NULL"}, {"box", "'(1,2),(3,4)'|NULL"}, {"polygon", "'((0,0),(1,1),(2,0))'"},
		{"bit(5)", "B'10101'|NULL"}, {"varbit", "B''|B'1'|NULL"}, {"money", "'-1234.56'|'0'|NULL"},
		{"tsvector", `'a:1 ''it''''s'':2'|''|NULL`}, {"int4range", "'[1,5)'|'empty'|'(,)'|NULL"}, {"int4multirange", "'{[1,2),[5,6)}'|'{}'"},
		{"regclass", "'pg_class'|0::regclass|NULL"}, {"oid", "4294967295|0"}, {"pg_lsn", "'FFFFFFFF/FFFFFFFF'"}, {"xid8", "'18446744073709551615'"},
	}
	for _, identity := range []string{"keyed", "whole"} {
		var tables []string
		for i, c := range columns {
			table := fmt.Sprintf("%s_%d", identity, i)
			ddl := fmt.Sprintf("CREATE TABLE %s (id int PRIMARY KEY, a %s, b %s)", table, c.kind, c.kind)
			if identity == "whole" {
				ddl = fmt.Sprintf("CREATE TABLE %s (id int, a %s, b %s); ALTER TABLE %s REPLICA IDENTITY FULL", table, c.kind, c.kind, table)
			}
			p.both(ddl)
			tables = append(tables, table)
			for n, value := range strings.Split(c.values, "|") {
				p.run(p.source, fmt.Sprintf("INSERT INTO %s VALUES (%d, %s, %s)", table, n, value, value))
			}
		}
		p.redo(p.config())
		for _, cfg := range []RedoConfig{p.config(), {DSN: p.config().DSN, Session: redoSessionName, BatchTransactions: 1}} {
			for _, table := range tables {
				p.run(p.source, fmt.Sprintf("UPDATE %s SET b = NULL WHERE id = 0", table), fmt.Sprintf("UPDATE %s SET b = a, a = b", table),
					fmt.Sprintf("INSERT INTO %s SELECT id + 1000 * g, a, b FROM %s, generate_series(1, 150) g WHERE id < 1000", table, table),
					fmt.Sprintf("DELETE FROM %s WHERE id %% 3 = 1 OR id >= 1000", table))
			}
			got := p.redo(cfg)
			require.Equal(t, cfg.BatchTransactions == 1, got.Batches == got.Transactions, "%+v", got)
			require.NotZero(t, got.Batches)
		}
	}
}

// TestRedoIdentities redoes every kind of change on tables that are found in every way.
func TestRedoIdentities(t *testing.T) {
	p := newRedoPair(t, 0)
	long := "(SELECT string_agg(md5((g * %s)::text), '') FROM generate_series(1, 200) g)"
	tables := []struct{ name, ddl string }{
		{"pk", "CREATE TABLE pk (id int PRIMARY KEY, v text, long text, u int UNIQUE)"},
		{"two", "CREATE TABLE two (v text, id int, long text, u int, PRIMARY KEY (u, id))"},
		{"full_pk", "CREATE TABLE full_pk (id int PRIMARY KEY, v text, long text, u int); ALTER TABLE full_pk REPLICA IDENTITY FULL"},
		{"full_none", "CREATE TABLE full_none (id int, v text, long text, u int); ALTER TABLE full_none REPLICA IDENTITY FULL"},
		{"full_index", "CREATE TABLE full_index (id int NOT NULL, v text, long text, u int); CREATE INDEX ON full_index (id); ALTER TABLE full_index REPLICA IDENTITY FULL"},
		{"deferred", "CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text, long text, u int); ALTER TABLE deferred REPLICA IDENTITY FULL"},
		{"by_index", "CREATE TABLE by_index (id int NOT NULL, v text, long text, u int); CREATE UNIQUE INDEX i ON by_index (id) INCLUDE (v); ALTER TABLE by_index REPLICA IDENTITY USING INDEX i"},
		{"long_key", "CREATE TABLE long_key (id int, v text, long text, u int, k text, PRIMARY KEY (id, k)); ALTER TABLE long_key ALTER k SET STORAGE EXTERNAL"},
		{"generated", "CREATE TABLE generated (g int GENERATED ALWAYS AS (u * 2) STORED, id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text, long text, u int)"},
	}
	for _, table := range tables {
		p.both(table.ddl)
		overriding, key, keyValue := "", "", ""
		if table.name == "generated" {
			overriding = "OVERRIDING SYSTEM VALUE"
		}
		if table.name == "long_key" {
			key, keyValue = ", k", ", repeat('k', 2500)"
		}
		p.run(p.source,
			fmt.Sprintf("INSERT INTO %s (id, v, long, u%s) %s SELECT n, 'v' || n, %s, n%s FROM generate_series(1, 40) n", table.name, key, overriding, fmt.Sprintf(long, "n"), keyValue),
			fmt.Sprintf("UPDATE %s SET v = 'changed' WHERE id %% 2 = 0", table.name),
			fmt.Sprintf("UPDATE %s SET long = v WHERE id = 4; UPDATE %s SET v = NULL WHERE id IN (4, 5)", table.name, table.name),
			fmt.Sprintf("DELETE FROM %s WHERE id IN (7, 8)", table.name),
			fmt.Sprintf("INSERT INTO %s (id, v, u%s) %s SELECT 8, 'again', 8%s", table.name, key, overriding, keyValue),
		)
	}
	p.redo(p.config())
	for _, table := range tables {
		if table.name != "generated" {
			p.run(p.source, fmt.Sprintf("UPDATE %s SET id = id + 1000 WHERE id > 20", table.name), // long values unchanged
				fmt.Sprintf("UPDATE %s SET id = id + 2000, long = 'short' WHERE id < 10", table.name),
				fmt.Sprintf("UPDATE %s SET v = 'after' WHERE id > 2000", table.name))
		}
		p.run(p.source, fmt.Sprintf("UPDATE %s SET v = v || '!', u = u WHERE id = 12; DELETE FROM %s WHERE id = 12", table.name, table.name))
	}
	p.run(p.source, "UPDATE deferred SET id = id + 1", "UPDATE pk SET u = NULL WHERE u = 1; UPDATE pk SET u = 1 WHERE u = 2; UPDATE pk SET u = 2 WHERE u IS NULL")
	p.redo(p.config())
}

// TestAbuseS9RedoHostileNames redoes tables and columns whose names try to be SQL.
func TestAbuseS9RedoHostileNames(t *testing.T) {
	p := newRedoPair(t, 0)
	for i, name := range []string{`x"; DROP TABLE y; --`, `$1`, `select`, `a.b`, `ünïcödé "quoted" ` + strings.Repeat("ä", 20), strings.Repeat("é", 31) + "x", `s`, `t`, `c0`, `back\slash 'single'`, " "} {
		quoted := `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
		schema := fmt.Sprintf(`"schema %d "" ; --"`, i)
		table := schema + "." + quoted
		p.both("CREATE SCHEMA "+schema,
			fmt.Sprintf("CREATE TABLE %s (%s int PRIMARY KEY, \"x\"\"; --\" text, \"$2\" int[])", table, quoted),
			fmt.Sprintf("CREATE TABLE %s.whole (%s text, \"%%s\" json); ALTER TABLE %s.whole REPLICA IDENTITY FULL", schema, quoted, schema))
		p.run(p.source,
			fmt.Sprintf("INSERT INTO %s SELECT g, 'v', ARRAY[g] FROM generate_series(1, 300) g", table),
			fmt.Sprintf("INSERT INTO %s VALUES (1000, 'w', NULL)", table),
			fmt.Sprintf("UPDATE %s SET \"x\"\"; --\" = 'u'", table), fmt.Sprintf("DELETE FROM %s WHERE %s < 100", table, quoted),
			fmt.Sprintf("INSERT INTO %s.whole VALUES ('a', '1'), ('b', '2'); DELETE FROM %s.whole WHERE %s = 'a'; UPDATE %s.whole SET \"%%s\" = '3'", schema, schema, quoted, schema))
	}
	got := p.redo(p.config())
	require.NotZero(t, got.Batches)
	p.run(p.source, `TRUNCATE "schema 0 "" ; --"."x""; DROP TABLE y; --"`)
	p.redo(p.config())
}

// TestRedoTruncate redoes truncations between other changes, over several tables, and never beyond them.
func TestRedoTruncate(t *testing.T) {
	p := newRedoPair(t, 0)
	p.both("CREATE TABLE a (id serial PRIMARY KEY, v int)", "CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a)",
		"CREATE TABLE c (id int PRIMARY KEY)")
	p.run(p.source, "INSERT INTO a (v) SELECT g FROM generate_series(1, 9) g", "INSERT INTO b SELECT g, g FROM generate_series(1, 9) g",
		"TRUNCATE a RESTART IDENTITY CASCADE", "INSERT INTO a (v) VALUES (7)", "INSERT INTO b VALUES (1, 1)",
		"INSERT INTO c VALUES (1); TRUNCATE c; INSERT INTO c VALUES (1); UPDATE c SET id = 2")
	p.run(p.target, "SELECT setval('a_id_seq', 70)", "INSERT INTO dbmirror.relation VALUES ('other', 1, 1, 'kept')")
	p.redo(p.config())
	var last int64
	require.NoError(t, p.target.QueryRow(t.Context(), "SELECT last_value FROM a_id_seq").Scan(&last))
	require.Equal(t, int64(1), last)
}

// TestRedoDoesNotFire checks that neither triggers nor foreign keys nor rules act on what redo writes, and that what
// clients are limited by does not limit it.
func TestRedoDoesNotFire(t *testing.T) {
	p := newRedoPair(t, 0)
	p.both("CREATE TABLE parent (id int PRIMARY KEY)", "CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE, n int)",
		"CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN new.n = new.n + 1; RETURN new; END'",
		"CREATE TRIGGER t BEFORE INSERT OR UPDATE ON child FOR EACH ROW EXECUTE FUNCTION f()",
		"CREATE RULE r AS ON DELETE TO parent DO ALSO INSERT INTO child VALUES (99)",
		"ALTER TABLE child ENABLE ROW LEVEL SECURITY")
	p.run(p.target, "ALTER DATABASE target SET default_transaction_read_only = on", "ALTER DATABASE target SET statement_timeout = '1ms'",
		"ALTER DATABASE target SET search_path = nowhere", "ALTER DATABASE target SET datestyle = 'German'", "ALTER DATABASE target SET array_nulls = off")
	p.run(p.source, "INSERT INTO parent VALUES (1), (2)", "INSERT INTO child VALUES (1, 1, 1), (2, 2, 1)", "UPDATE child SET n = 10", "DELETE FROM parent WHERE id = 1")
	p.redo(p.config())
}

// TestRedoColumns redoes into tables that have more columns, and in another order.
func TestRedoColumns(t *testing.T) {
	p := newRedoPair(t, 0)
	p.run(p.source, "CREATE TABLE t (id int PRIMARY KEY, a text, b int)")
	p.run(p.target, "CREATE TABLE t (own text DEFAULT 'own', b int, gone int, id int PRIMARY KEY, null_too int, a text, g int GENERATED ALWAYS AS (b + 1) STORED); ALTER TABLE t DROP gone")
	p.run(p.source, "INSERT INTO t SELECT g, 'a' || g, g FROM generate_series(1, 5) g")
	end := p.ship()
	r := p.begin(p.config())
	require.NoError(t, r.Drain(t.Context(), end))
	p.run(p.target, "UPDATE t SET own = 'kept' WHERE id = 2")
	p.run(p.source, "UPDATE t SET id = id + 10, b = 0")
	require.NoError(t, r.Drain(t.Context(), p.ship()))
	require.NoError(t, r.stop())
	var got string
	require.NoError(t, p.target.QueryRow(t.Context(), "SELECT string_agg(concat_ws(' ', id, a, b, own, g), ', ' ORDER BY id) FROM t").Scan(&got))
	require.Equal(t, "11 a1 0 own 1, 12 a2 0 kept 1, 13 a3 0 own 1, 14 a4 0 own 1, 15 a5 0 own 1", got)
}

// TestRedoSchemaChange redoes rows from before and after a change of a table in one batch.
func TestRedoSchemaChange(t *testing.T) {
	p := newRedoPair(t, 0)
	p.both("CREATE TABLE t (id int PRIMARY KEY, v int)")
	p.run(p.source, "INSERT INTO t VALUES (1, 1), (2, 2)", "ALTER TABLE t ADD w text DEFAULT 'w'", "UPDATE t SET w = 'new' WHERE id = 1",
		"INSERT INTO t VALUES (3, 3, 'three')", "ALTER TABLE t DROP v", "UPDATE t SET w = 'last' WHERE id = 3", "INSERT INTO t VALUES (4, 'four')")
	p.run(p.target, "ALTER TABLE t ADD w text DEFAULT 'w'")
	r := p.begin(p.config())
	require.NoError(t, r.Drain(t.Context(), p.ship()))
	p.run(p.target, "ALTER TABLE t DROP v") // while redo has statements prepared for it
	p.run(p.source, "UPDATE t SET w = w || '.'", "DELETE FROM t WHERE id = 4")
	require.NoError(t, r.Drain(t.Context(), p.ship()))
	require.NoError(t, r.stop())
	p.equal()

	// One by one, the rows from before the change are read by the description from before it.
	p.both("CREATE TABLE u (id int PRIMARY KEY, n int UNIQUE)")
	p.run(p.source, "INSERT INTO u VALUES (1, 1)", "INSERT INTO u VALUES (2, 2)", "UPDATE u SET n = n + 5", "ALTER TABLE u ADD w text", "UPDATE u SET n = -n; UPDATE u SET n = n + 13, w = 'w'")
	p.run(p.target, "ALTER TABLE u ADD w text")
	cfg := p.config()
	cfg.BatchTransactions = 2
	got := p.redo(cfg)
	require.Equal(t, []uint64{4, 1}, []uint64{got.Transactions, got.Batches})
}

// TestRedoFromTrimmedLog begins again when the part of the log that described the tables is gone.
func TestRedoFromTrimmedLog(t *testing.T) {
	p := newRedoPair(t, 4096)
	p.both("CREATE TABLE t (id int PRIMARY KEY, v text)")
	p.run(p.source, "INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 300) g")
	p.redo(p.config())
	require.Less(t, p.queue.Bytes(), int64(1024))
	p.run(p.source, "UPDATE t SET v = 'second'")
	messages := p.messages()
	undescribed := messages[:0]
	for _, m := range messages {
		if m[0] != TypeRelation {
			undescribed = append(undescribed, m)
		}
	}
	end := p.append(undescribed...)
	r := p.begin(p.config())
	require.NoError(t, r.Drain(t.Context(), end))
	require.NoError(t, r.stop())
	p.equal()

	// Another principal numbers its tables otherwise: what the one before described must not be used.
	p.baseline(mirror.Position{Seq: 2, LSN: end.LSN})
	require.NoError(t, p.queue.Rebase(mirror.Position{Seq: 2, LSN: end.LSN}))
	p.seq = 2
	p.run(p.source, "DELETE FROM t")
	messages = p.messages()
	undescribed = messages[:0]
	for _, m := range messages {
		if m[0] != TypeRelation {
			undescribed = append(undescribed, m)
		}
	}
	p.append(undescribed...)
	r = p.begin(p.config())
	var failure *RedoError
	require.ErrorAs(t, r.Drain(t.Context(), p.queue.Hardened()), &failure)
	require.ErrorContains(t, failure, "no description of table")
}

// TestRedoRefusesAHole puts the mirror's database back to before what the log still has: what is between would be missing
// and nobody would see it.
func TestRedoRefusesAHole(t *testing.T) {
	p := newRedoPair(t, 4096)
	p.both("CREATE TABLE t (id int PRIMARY KEY, v text)")
	base := p.redoneAt()
	first := func() mirror.Position {
		at, err := p.queue.First()
		require.NoError(t, err)
		return at
	}
	refused := func() *GapError {
		r := p.begin(p.config())
		var hole *GapError
		require.ErrorAs(t, r.Drain(t.Context(), p.queue.Hardened()), &hole)
		require.Equal(t, GapTrimmed, hole.Why)
		require.Zero(t, r.Progress().Transactions)
		return hole
	}
	p.run(p.source, "INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 100) g")
	p.redo(p.config())
	for i := range 3 {
		p.run(p.source, fmt.Sprintf("UPDATE t SET v = md5(v || %d)", i))
		p.redo(p.config())
	}
	require.Positive(t, first().Compare(base), "log was given back")
	p.run(p.source, "INSERT INTO t VALUES (1000, 'after')")
	p.ship()
	reached := p.redoneAt()
	p.baseline(base)
	require.ErrorContains(t, refused(), "redo the hardened log: log begins after the redone position")
	require.Equal(t, base, p.redoneAt())

	// The kept log begins within the last transaction that is redone: of use only to who has that one.
	require.Negative(t, first().Compare(reached))
	p.baseline(first())
	require.ErrorContains(t, refused(), "not its beginning")
	p.baseline(reached)
	p.redo(p.config())

	// Beyond the log's end nothing is missing, and neither where it begins anew.
	p.baseline(mirror.Position{Seq: 1, LSN: p.queue.Hardened().LSN + 1})
	r := p.begin(p.config())
	require.NoError(t, r.Drain(t.Context(), p.queue.Hardened()))
	require.NoError(t, r.stop())
	anew := mirror.Position{Seq: 2, LSN: 1}
	require.NoError(t, p.queue.Reset(anew))
	require.Equal(t, anew, first())
	refused()
	p.baseline(anew)
	r = p.begin(p.config())
	require.NoError(t, r.Drain(t.Context(), anew))
	require.NoError(t, r.stop())
}

// TestRedoMarks moves on by marks, where nothing was committed, and over a change of role that loses nothing.
func TestRedoMarks(t *testing.T) {
	p := newRedoPair(t, 0)
	p.both("CREATE TABLE t (id int PRIMARY KEY)")
	r := p.begin(p.config())
	p.run(p.source, "INSERT INTO t VALUES (1)")
	end := p.ship()
	mark := mirror.Position{Seq: 1, LSN: end.LSN + 1000}
	require.NoError(t, p.queue.Append(redo.Record{Kind: redo.KindMark, Seq: 1, LSN: mark.LSN}))
	_, err := p.queue.Harden()
	require.NoError(t, err)
	require.NoError(t, r.Drain(t.Context(), mark))
	require.Equal(t, mark, r.Progress().Flushed)
	require.Equal(t, mark, p.redoneAt())

	next := mirror.Position{Seq: 2, LSN: mark.LSN + 1000}
	require.NoError(t, p.queue.Rebase(next))
	require.NoError(t, r.Drain(t.Context(), next))
	require.Equal(t, next, p.redoneAt())
	require.NoError(t, r.Drain(t.Context(), mark), "what was reached before")
	require.NoError(t, r.stop())
	p.equal()
}

// TestRedoSetKeepsOrder hands a unique value from one row to another: as a set this works in the order of the log, and in
// the order of the keys it would not.
func TestRedoSetKeepsOrder(t *testing.T) {
	p := newRedoPair(t, 0)
	p.both("CREATE TABLE t (id int PRIMARY KEY, n int UNIQUE)", "CREATE TABLE u (id int PRIMARY KEY, n int)")
	p.run(p.source, "INSERT INTO t VALUES (1, 1), (2, 2)", "INSERT INTO u SELECT g, g FROM generate_series(1, 200) g")
	p.redo(p.config())
	p.run(p.source, "UPDATE t SET n = 3 WHERE id = 2", "UPDATE t SET n = 2 WHERE id = 1", "UPDATE u SET n = -n WHERE id % 3 = 0", "DELETE FROM u WHERE id > 90")
	got := p.redo(p.config())
	require.Equal(t, uint64(4), got.Transactions)
	require.Equal(t, uint64(1), got.Batches) // none one by one
}
