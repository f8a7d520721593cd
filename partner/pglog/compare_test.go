package pglog

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// testCompare: the order of rows and columns does not count, everything else does.
func testCompare(t *testing.T, p *testPair) {
	ctx := t.Context()
	d := p.fresh(t)
	script(t, d.b, strings.ReplaceAll(`ALTER DATABASE @ SET datestyle = german, dmy; ALTER DATABASE @ SET extra_float_digits = -5;
		ALTER DATABASE @ SET timezone = 'Asia/Tokyo'; ALTER DATABASE @ SET intervalstyle = iso_8601;
		ALTER DATABASE @ SET bytea_output = escape`, "@", d.name))
	a, b := d.a, dial(t, d.mirror)
	const rows = `INSERT INTO "T;" (v, at, f, i, y) VALUES `
	const first, second = `('a', '2024-02-03 04:05:06Z', 0.1, '1 day', '\x00')`, `(NULL, NULL, NULL, NULL, NULL)`
	script(t, a, `CREATE TABLE "T;" (v text, at timestamptz, f float8, i interval, y bytea); CREATE TABLE hollow ();
		CREATE UNLOGGED TABLE u (a integer); INSERT INTO u VALUES (1); CREATE SCHEMA dbmirror; CREATE TABLE dbmirror.x (a integer);
		`+rows+first+","+second+","+second)
	script(t, b, `CREATE TABLE "T;" (y bytea, f float8, gone integer, i interval, v text, at timestamptz); CREATE TABLE hollow ();
		ALTER TABLE "T;" DROP gone; `+rows+second+","+first+","+second)
	comparison, err := Compare(ctx, a, b)
	require.NoError(t, err)
	require.True(t, comparison.Equal(), comparison.String())
	require.Equal(t, "2 tables with 3 rows are equal", comparison.String())

	for change, undo := range map[string]string{
		`UPDATE "T;" SET v = 'b' WHERE v = 'a'`:  `UPDATE "T;" SET v = 'a' WHERE v = 'b'`,
		`UPDATE "T;" SET v = '' WHERE f IS NULL`: `UPDATE "T;" SET v = NULL WHERE v = ''`,
		`UPDATE "T;" SET f = 0.1::float8 + 1e-17 WHERE v = 'a'; UPDATE "T;" SET f = 0.10000000000000002 WHERE v = 'a'`: `UPDATE "T;" SET f = 0.1 WHERE v = 'a'`,
		`DELETE FROM "T;" WHERE v = 'a'`: rows + first,
		// Two rows of a kind must not cancel each other out, as they would with an exclusive or.
		rows + first + "," + first: `DELETE FROM "T;" WHERE v = 'a'; ` + rows + first,
	} {
		script(t, b, change)
		comparison, err = Compare(ctx, a, b)
		require.NoError(t, err)
		require.False(t, comparison.Equal(), change)
		require.Len(t, comparison.Differs, 1)
		require.Equal(t, `public."T;"`, comparison.Differs[0].Table)
		require.Contains(t, comparison.String(), `1 of 2 tables differ: public."T;": 3 rows`)
		script(t, b, undo)
		comparison, err = Compare(ctx, a, b)
		require.NoError(t, err)
		require.True(t, comparison.Equal(), undo)
	}
	script(t, b, "DROP TABLE hollow")
	comparison, err = Compare(ctx, a, b)
	require.NoError(t, err)
	require.Contains(t, comparison.String(), "public.hollow: 0 rows (0) and missing")
}

// testCompareSeesAll: differences that a sum of hashes can miss when it is made carelessly.
func testCompareSeesAll(t *testing.T, p *testPair) {
	ctx := t.Context()
	d := p.fresh(t)
	a, b := d.a, dial(t, d.mirror)
	for _, conn := range []*pgx.Conn{a, b} {
		script(t, conn, `CREATE TYPE mood AS ENUM ('fine', 'ill'); CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
			CREATE TABLE t (id int PRIMARY KEY, n int, b boolean, v text COLLATE blind, d numeric, m mood, at timestamptz, l bigint[],
				i bigint, c char(9) COLLATE blind, day date, y bytea, u uuid, w timestamp, s smallint)`)
	}
	script(t, b, `DROP TABLE t; DROP TYPE mood; CREATE TYPE other AS ENUM ('x'); CREATE TYPE mood AS ENUM ('fine', 'ill');
		CREATE TABLE t (id int PRIMARY KEY, n int, b boolean, v text COLLATE blind, d numeric, m mood, at timestamptz, l bigint[],
				i bigint, c char(9) COLLATE blind, day date, y bytea, u uuid, w timestamp, s smallint)`)
	const rows = `INSERT INTO t VALUES (1, 10, true, 'a', 1.0, 'fine', '2024-01-01Z', '{1}',
			1, 'a', '2024-01-01', '\x01', '00000000-0000-0000-0000-000000000001', '2024-01-01', 1), (2, 20, false, 'b', 2.0, 'ill', '2025-01-01Z', '{2}',
			2, 'b', '2025-01-01', '\x02', '00000000-0000-0000-0000-000000000002', '2025-01-01', 2); INSERT INTO t VALUES (3)`
	script(t, a, rows)
	script(t, b, rows)
	comparison, err := Compare(ctx, a, b)
	require.NoError(t, err)
	require.True(t, comparison.Equal(), comparison.String())
	for _, change := range []string{
		"UPDATE t SET n = 30 - n WHERE id < 3",                             // values change places between rows
		"UPDATE t SET n = CASE id WHEN 1 THEN 11 ELSE 19 END WHERE id < 3", // their sum stays
		"UPDATE t SET n = 0 WHERE id = 3",                                  // NULL is not 0
		"UPDATE t SET v = 'A' WHERE id = 1",                                // equal to what it was, says its collation
		"UPDATE t SET d = 1.00 WHERE id = 1",                               // equal, but not the same
		"UPDATE t SET b = NOT b WHERE id < 3",
		"UPDATE t SET m = 'ill' WHERE id = 1",
		"UPDATE t SET at = at + interval '1 microsecond' WHERE id = 1",
		"UPDATE t SET l = '[0:0]={1}' WHERE id = 1", // other bounds
		"UPDATE t SET i = 4294967296 WHERE id = 1",  // 1 in the upper half
		"UPDATE t SET i = n, n = i WHERE id = 1",    // values change places within a row
		"UPDATE t SET c = 'A' WHERE id = 1",
		"UPDATE t SET day = day + 1 WHERE id = 1",
		"UPDATE t SET y = '\\x0100' WHERE id = 1",
		"UPDATE t SET u = NULL WHERE id = 1",
		"UPDATE t SET w = w + interval '1 microsecond' WHERE id = 1",
		"UPDATE t SET s = -1 WHERE id = 1",
	} {
		script(t, b, change)
		comparison, err = Compare(ctx, a, b)
		require.NoError(t, err)
		require.False(t, comparison.Equal(), change)
		script(t, b, "TRUNCATE t; "+rows)
	}
}
