package pglog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/partner/backend"
)

// exported opens a transaction that exports its snapshot and lives until the test ends.
func exported(t *testing.T, dsn string) (snapshot string) {
	t.Helper()
	tx, err := dial(t, dsn).BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	require.NoError(t, err)
	require.NoError(t, tx.QueryRow(t.Context(), "SELECT pg_export_snapshot()").Scan(&snapshot))
	return snapshot
}

// requireCopy compares rows and definitions.
func requireCopy(t *testing.T, a, b *pgx.Conn) {
	t.Helper()
	comparison, err := Compare(t.Context(), a, b)
	require.NoError(t, err)
	require.True(t, comparison.Equal(), comparison.String())
	drift, err := Drift(t.Context(), a, b)
	require.NoError(t, err)
	require.Empty(t, drift)
}

// testBaselineFailsAndIsRepeated: each failure says whether the mirror was changed, and the next baseline mends it.
func testBaselineFailsAndIsRepeated(t *testing.T, p *testPair) {
	ctx := t.Context()
	d := p.fresh(t)
	a, b := d.a, d.b
	script(t, a, `CREATE ROLE missing; CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 1000);
		CREATE TABLE owned (id integer PRIMARY KEY, v text UNIQUE); ALTER TABLE owned OWNER TO missing`)
	cfg := BaselineConfig{Principal: Secret(d.principal), Mirror: Secret(d.mirror),
		Snapshot: exported(t, d.principal)}
	incomplete := func() bool {
		is, err := BaselineIncomplete(ctx, b)
		require.NoError(t, err)
		return is
	}

	var partial *IncompleteBaselineError
	gone := cfg
	gone.Snapshot = "00000003-00000001-1"
	_, err := Baseline(ctx, gone)
	require.ErrorContains(t, err, "use snapshot 00000003-00000001-1")
	require.NotErrorAs(t, err, &partial)
	require.False(t, incomplete())

	_, err = Baseline(ctx, cfg)
	require.ErrorAs(t, err, &partial)
	require.ErrorContains(t, err, "ALTER TABLE public.owned OWNER TO missing")
	require.ErrorContains(t, err, "run the baseline again, replacing what is there")
	require.True(t, incomplete())
	adopted, err := PreflightPair(ctx, a, b, MirrorAdopted)
	require.NoError(t, err)
	require.Len(t, find(adopted, CodeIncompleteBaseline, ""), 1)
	require.Len(t, find(adopted, CodeMissingRole, "missing"), 1)
	mend(t, b, find(adopted, CodeMissingRole, ""))

	_, err = Baseline(ctx, cfg)
	require.ErrorIs(t, err, ErrMirrorNotEmpty)
	require.NotErrorAs(t, err, &partial)
	cfg.Replace = true
	stopped, stop := context.WithCancel(ctx)
	cfg.Progress = func(BaselineProgress) { stop() }
	_, err = Baseline(stopped, cfg)
	require.ErrorAs(t, err, &partial)
	require.ErrorIs(t, err, context.Canceled)
	require.True(t, incomplete())

	cfg.Progress = nil
	_, err = Baseline(ctx, cfg)
	require.NoError(t, err)
	require.False(t, incomplete())
	requireCopy(t, a, b)
}

// testBaselineReplaces fills the mirror's database with whatever a database can hold, in schemas that extensions live
// in too, and lets a baseline replace it.
func testBaselineReplaces(t *testing.T, p *testPair) {
	ctx := t.Context()
	d := p.fresh(t)
	a, b := d.a, d.b
	script(t, b, everything(t))
	script(t, b, `
		CREATE SCHEMA dbmirror; CREATE TABLE dbmirror.kept (id integer PRIMARY KEY); INSERT INTO dbmirror.kept VALUES (1);
		CREATE FUNCTION dbmirror.f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
		CREATE EVENT TRIGGER kept ON sql_drop EXECUTE FUNCTION dbmirror.f();
		CREATE PUBLICATION kept FOR ALL TABLES;
		CREATE FUNCTION eq(pair, pair) RETURNS boolean LANGUAGE sql AS 'SELECT $1.a = $2.a';
		CREATE OPERATOR === (FUNCTION = eq, LEFTARG = pair, RIGHTARG = pair);
		CREATE OPERATOR @#@ (FUNCTION = int8abs, RIGHTARG = bigint);
		CREATE FUNCTION to_pair(integer) RETURNS pair LANGUAGE sql AS 'SELECT ROW($1, NULL, NULL)::pair';
		CREATE CAST (integer AS pair) WITH FUNCTION to_pair(integer);
		CREATE OPERATOR FAMILY fam USING btree;
		CREATE OPERATOR CLASS "my ops" FOR TYPE integer USING hash AS OPERATOR 1 =, FUNCTION 1 hashint4(integer);
		CREATE TEXT SEARCH CONFIGURATION cfg (COPY = simple); CREATE TEXT SEARCH DICTIONARY dict (TEMPLATE = simple);
		CREATE CONVERSION conv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
		CREATE AGGREGATE ordered(float8 ORDER BY anyelement) (sfunc = ordered_set_transition, stype = internal,
			finalfunc = percentile_disc_final, finalfunc_extra);
		CREATE LANGUAGE "lang" HANDLER plpgsql_call_handler;
		CREATE TRANSFORM FOR mood LANGUAGE lang (FROM SQL WITH FUNCTION textlike_support(internal));
		ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
		REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT CREATE ON SCHEMA public TO "Owner ""quoted""";
		ALTER SCHEMA public OWNER TO "Owner ""quoted"""`)
	script(t, a, `CREATE TABLE parent (id integer PRIMARY KEY, note text); INSERT INTO parent VALUES (9, 'new');
		CREATE FUNCTION plain() RETURNS integer LANGUAGE sql AS 'SELECT 1'; CREATE EXTENSION citext; CREATE EXTENSION pg_trgm;
		CREATE SCHEMA "select"; CREATE EXTENSION hstore WITH SCHEMA "select"`)
	cfg := BaselineConfig{Principal: Secret(d.principal), Mirror: Secret(d.mirror),
		Snapshot: exported(t, d.principal)}
	before, err := SumTables(ctx, b)
	require.NoError(t, err)
	_, err = Baseline(ctx, cfg)
	require.ErrorIs(t, err, ErrMirrorNotEmpty)
	after, err := SumTables(ctx, b)
	require.NoError(t, err)
	require.True(t, backend.Compare(before, after).Equal())

	cfg.Replace = true
	result, err := Baseline(ctx, cfg)
	require.NoError(t, err)
	require.Equal(t, int64(1), result.Rows)
	requireCopy(t, a, b)
	require.Equal(t, schemaDump(t, d.principal), schemaDump(t, d.mirror))
	var kept int
	require.NoError(t, b.QueryRow(ctx, `SELECT (SELECT count(*) FROM dbmirror.kept) + (SELECT count(*) FROM pg_event_trigger)
		+ (SELECT count(*) FROM pg_publication)`).Scan(&kept))
	require.Equal(t, 3, kept)
}

// testBaselineRefusesRewritten: a table that got a new file since the snapshot would be copied empty.
func testBaselineRefusesRewritten(t *testing.T, p *testPair) {
	d := p.fresh(t)
	a := d.a
	script(t, a, "CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (1)")
	cfg := BaselineConfig{Principal: Secret(d.principal), Mirror: Secret(d.mirror),
		Snapshot: exported(t, d.principal)}
	script(t, a, "ALTER TABLE t ALTER id TYPE bigint")
	_, err := Baseline(t.Context(), cfg)
	require.ErrorContains(t, err, "table public.t was truncated or rewritten after the snapshot was taken")
	same := cfg
	same.Mirror = same.Principal
	same.Replace, same.Snapshot = true, exported(t, d.principal)
	_, err = Baseline(t.Context(), same)
	require.ErrorContains(t, err, "both connection strings lead to the same database")
	var left int
	require.NoError(t, a.QueryRow(t.Context(), "SELECT count(*) FROM t").Scan(&left))
	require.Equal(t, 1, left)
}

// testBaselineYieldsToExclusiveLock: behind somebody who waits for an exclusive lock the copy would wait for ever,
// because he waits for the copy.
func testBaselineYieldsToExclusiveLock(t *testing.T, p *testPair) {
	ctx := t.Context()
	d := p.fresh(t)
	a, other := d.a, dial(t, d.principal)
	script(t, a, `CREATE TABLE first (id integer PRIMARY KEY); INSERT INTO first SELECT generate_series(1, 10000);
		CREATE TABLE second (id integer PRIMARY KEY)`)
	waiting := make(chan error, 1)
	cfg := BaselineConfig{Principal: Secret(d.principal), Mirror: Secret(d.mirror), Workers: 1,
		Snapshot: exported(t, d.principal)}
	cfg.Progress = func(progress BaselineProgress) {
		require.Equal(t, "public.first", progress.Table)
		go func() { waiting <- other.PgConn().Exec(ctx, "ALTER TABLE second ADD c integer").Close() }()
		require.NoError(t, poll(ctx, func() (is bool, err error) {
			err = a.QueryRow(ctx, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted").Scan(&is)
			return is, err
		}))
	}
	_, err := Baseline(ctx, cfg)
	require.ErrorContains(t, err, "copy table public.second: somebody waits for an exclusive lock")
	require.NoError(t, <-waiting, "the baseline has ended and let him through")
}

// testBaselineMatviewThatFails: rows of a materialized view are not worth failing for, but it must be said.
func testBaselineMatviewThatFails(t *testing.T, p *testPair) {
	ctx := t.Context()
	d := p.fresh(t)
	a, b := d.a, d.b
	script(t, a, fmt.Sprintf(`CREATE FUNCTION here() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN
		IF current_setting('port') <> '%d' THEN RAISE 'not here'; END IF; RETURN 1; END $$;
		CREATE MATERIALIZED VIEW mv AS SELECT public.here()`, p.principal.Port()))
	result, err := Baseline(ctx, BaselineConfig{Principal: Secret(d.principal), Mirror: Secret(d.mirror),
		Snapshot: exported(t, d.principal)})
	require.NoError(t, err)
	require.Equal(t, []Finding{{Severity: Warning, Code: CodeMatviewNotRefreshed, Server: "mirror", Object: "public.mv",
		Text: "it could not be filled: not here", SQL: "REFRESH MATERIALIZED VIEW public.mv"}}, result.Findings)
	requireCopy(t, a, b)
}

// testBaselineExtensions: what an extension brings is replaced by what the principal has, in the principal's version.
func testBaselineExtensions(t *testing.T, p *testPair) {
	ctx := t.Context()
	d := p.fresh(t)
	a, b := d.a, d.b
	script(t, a, `CREATE EXTENSION hstore VERSION '1.4'; CREATE TABLE member (id integer PRIMARY KEY);
		INSERT INTO member VALUES (1); ALTER EXTENSION hstore ADD TABLE member`)
	script(t, b, `CREATE EXTENSION hstore VERSION '1.4'; CREATE TABLE member (id integer PRIMARY KEY);
		INSERT INTO member VALUES (1), (2); ALTER EXTENSION hstore ADD TABLE member`)
	cfg := BaselineConfig{Principal: Secret(d.principal), Mirror: Secret(d.mirror),
		Snapshot: exported(t, d.principal)}
	result, err := Baseline(ctx, cfg)
	require.NoError(t, err)
	require.Equal(t, 1, result.Tables)
	requireCopy(t, a, b)
	script(t, a, "ALTER EXTENSION hstore DROP TABLE member")
	script(t, b, "DROP EXTENSION hstore CASCADE")
	cfg.Snapshot, cfg.Replace = exported(t, d.principal), true
	_, err = Baseline(ctx, cfg)
	require.NoError(t, err)
	requireCopy(t, a, b)
	var version string
	require.NoError(t, b.QueryRow(ctx, "SELECT extversion FROM pg_extension WHERE extname = 'hstore'").Scan(&version))
	require.Equal(t, "1.4", version)
}

// testBaselineShowsNoSecret: a pg_dump that tells the password does not get it into the error.
func testBaselineShowsNoSecret(t *testing.T, p *testPair) {
	ctx := t.Context()
	const canary = "CANARY-9f3c"
	dsn := strings.Replace(p.fresh(t).principal, "postgres@", "postgres:"+canary+"@", 1)
	var major int
	require.NoError(t, dial(t, dsn).QueryRow(ctx, "SELECT current_setting('server_version_num')::int / 10000").Scan(&major))
	program := filepath.Join(t.TempDir(), "pg_dump")
	cfg := BaselineConfig{Principal: Secret(dsn), Mirror: Secret(dsn), Snapshot: exported(t, dsn), PgDump: program}
	for version, says := range map[string]string{
		"14.3": fmt.Sprintf("no pg_dump of version %d or newer (%s is version 14): install the package postgresql-client-%[1]d", major, program),
		"99.4": "-data: exit status 3: args --section=p", // of whichever section fails first
		"x":    program + " is not PostgreSQL's pg_dump",
	} {
		require.NoError(t, os.WriteFile(program, []byte(`#!/bin/sh
			if [ "$1" = --version ]; then echo "pg_dump (PostgreSQL) `+version+`"; exit; fi
			echo "args $* password $PGPASSWORD user $PGUSER database $PGDATABASE sslmode $PGSSLMODE" >&2
			exit 3`), 0o700))
		_, err := Baseline(ctx, cfg)
		require.ErrorContains(t, err, says)
		require.NotContains(t, err.Error(), canary)
		if version == "99.4" {
			require.ErrorContains(t, err, "password [secret] user postgres database test_")
		}
	}
	cfg.Mirror = Secret("postgres://u:" + canary + "@h:port/")
	_, err := Baseline(ctx, cfg)
	require.ErrorContains(t, err, "the connection string (not shown) is not valid")
	require.NotContains(t, err.Error(), canary)
}

func TestBaselineConfigRefuses(t *testing.T) {
	good := BaselineConfig{Principal: "a", Mirror: "b", Snapshot: "00000003-0000001B-1"}
	for says, change := range map[string]func(*BaselineConfig){
		"Principal is empty": func(c *BaselineConfig) { c.Principal = "" },
		"Mirror is empty":    func(c *BaselineConfig) { c.Mirror = "" },
		`Snapshot "x'y"`:     func(c *BaselineConfig) { c.Snapshot = "x'y" },
		"Workers is 65":      func(c *BaselineConfig) { c.Workers = 65 },
		"SplitBytes is 1,":   func(c *BaselineConfig) { c.SplitBytes = 1 },
	} {
		cfg := good
		change(&cfg)
		_, err := Baseline(t.Context(), cfg)
		require.ErrorContains(t, err, says)
	}
}

func TestPlanParts(t *testing.T) {
	parts := planParts([]baselineTable{
		{name: "small", bytes: 10, blocks: 1}, {name: "large", bytes: 100, blocks: 7},
		{name: "toast", bytes: 90, blocks: 2}, {name: "foreign", bytes: 95}, {name: "ext", bytes: 300, blocks: 30, ofExtension: true},
	}, 40)
	var got []string
	for _, p := range parts {
		got = append(got, fmt.Sprintf("%s %d-%d %v", p.table.name, p.first, p.last, p.whole))
	}
	require.Equal(t, []string{"ext 0-0 true", "foreign 0-0 true", "toast 0-1 false", "toast 1-0 false",
		"large 0-2 false", "large 2-4 false", "large 4-0 false", "small 0-0 true"}, got)
}

// TestCopyPipe: what is written comes out, whole and in order, in whatever pieces; a failure of either half ends the other.
func TestCopyPipe(t *testing.T) {
	pipe := newCopyPipe(t.Context())
	var want strings.Builder
	go func() {
		for i := range 200_000 {
			row := strings.Repeat(fmt.Sprint(i), i%20)
			want.WriteString(row)
			if _, err := pipe.Write([]byte(row)); err != nil {
				pipe.finish(err)
				return
			}
		}
		pipe.finish(nil)
	}()
	var got strings.Builder
	buffer := make([]byte, 65531)
	var err error
	for err == nil {
		var n int
		n, err = pipe.Read(buffer)
		got.Write(buffer[:n])
	}
	require.Equal(t, "EOF", err.Error())
	require.True(t, want.String() == got.String())
	require.Equal(t, int64(want.Len()), pipe.bytes)

	broken := newCopyPipe(t.Context())
	broken.finish(errors.New("read failed"))
	_, err = broken.Read(buffer)
	require.ErrorIs(t, err, errCopySource)

	left := newCopyPipe(t.Context())
	left.abandon()
	for err = nil; err == nil; {
		_, err = left.Write(buffer)
	}
	require.ErrorIs(t, err, errCopyAbandoned)
}
