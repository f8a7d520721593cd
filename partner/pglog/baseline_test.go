package pglog

import (
	"context"
	"os/exec"
	"regexp"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/partner/backend"
)

// dial opens a connection that ends with the test.
func dial(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	require.NoError(t, err)
	t.Cleanup(func() { hangUp(conn) })
	return conn
}

// script runs statements one by one.
func script(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	statements, err := splitScript([]byte(sql + ";"))
	require.NoError(t, err)
	for _, statement := range statements {
		require.NoError(t, conn.PgConn().Exec(t.Context(), statement).Close(), statement)
	}
}

// slotSnapshot makes a logical slot and exports its snapshot, which lives until the test ends.
func slotSnapshot(t *testing.T, dsn, slot string) string {
	t.Helper()
	cfg, err := pgconn.ParseConfig(dsn)
	require.NoError(t, err)
	cfg.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close(context.Background())) })
	results, err := conn.Exec(t.Context(), "CREATE_REPLICATION_SLOT "+slot+" LOGICAL pgoutput (SNAPSHOT 'export')").ReadAll()
	require.NoError(t, err)
	return string(results[0].Rows[0][2])
}

// sumsAt sums the tables as a snapshot has them.
func sumsAt(t *testing.T, dsn, snapshot string) map[string]backend.TableSum {
	t.Helper()
	tx, err := dial(t, dsn).BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	require.NoError(t, err)
	script(t, tx.Conn(), "SET TRANSACTION SNAPSHOT '"+snapshot+"'; SET LOCAL search_path = pg_catalog, pg_temp")
	sums := map[string]backend.TableSum{}
	require.NoError(t, sumTables(t.Context(), tx, sums))
	return sums
}

// schemaDump is what pg_dump says of a database, without what is ours: owners, rights and comments included.
func schemaDump(t *testing.T, dsn string) string {
	t.Helper()
	programs := pgDumpPlaces()
	require.NotEmpty(t, programs)
	cmd := exec.CommandContext(t.Context(), programs[0], "--schema-only", "--exclude-schema=dbmirror", "--no-publications",
		"--dbname="+dsn)
	out, err := cmd.Output()
	require.NoError(t, err)
	// The random words of \\restrict, and our event trigger, which only the copied database lacks.
	out = regexp.MustCompile(`(?m)^\\(un)?restrict .*$`).ReplaceAll(out, nil)
	out = regexp.MustCompile(`(?s)\n--\n-- Name: (ours|kept); Type: EVENT TRIGGER.*?;\n(\n*ALTER EVENT TRIGGER (ours|kept) [^;]*;\n)*`).ReplaceAll(out, nil)
	return string(out)
}

// testBaseline copies a schema that holds what a copy can get wrong, while the principal goes on writing.
func testBaseline(t *testing.T, p *testPair) {
	ctx := t.Context()
	d := p.fresh(t)
	a, b := d.a, d.b
	script(t, a, everything(t))
	script(t, a, `CREATE SCHEMA dbmirror; CREATE FUNCTION dbmirror.f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
		CREATE EVENT TRIGGER ours ON ddl_command_end EXECUTE FUNCTION dbmirror.f(); ALTER EVENT TRIGGER ours ENABLE ALWAYS`)
	script(t, b, ownerRole)

	snapshot := slotSnapshot(t, d.principal, "baseline_"+d.name)
	before := sumsAt(t, d.principal, snapshot)
	// What comes after the snapshot must not be in the copy, wherever in the copy it comes.
	script(t, a, "INSERT INTO parent VALUES (4, 'late'); UPDATE big SET filler = 'late' WHERE id < 900; DELETE FROM tree WHERE id = 3")
	rowsCopied, lastPart := int64(0), BaselineProgress{}
	result, err := Baseline(ctx, BaselineConfig{
		Principal: Secret(d.principal), Mirror: Secret(d.mirror), Snapshot: snapshot, SplitBytes: 256 << 10,
		Progress: func(p BaselineProgress) {
			rowsCopied += p.Rows
			lastPart = p
			_, err := a.Exec(ctx, "UPDATE big SET filler = filler || 'x' WHERE id % 100 = 1")
			require.NoError(t, err)
		},
	})
	require.NoError(t, err)

	after, err := SumTables(ctx, b)
	require.NoError(t, err)
	comparison := backend.Compare(before, after)
	require.True(t, comparison.Equal(), comparison.String())
	require.Equal(t, comparison.Rows, result.Rows)
	require.Equal(t, result.Rows, rowsCopied)
	require.Equal(t, comparison.Tables, result.Tables)
	require.Greater(t, lastPart.PartsTotal, result.Tables, "the big table was copied in parts")
	require.Equal(t, lastPart.PartsTotal, lastPart.Parts)
	require.Empty(t, result.Findings)
	drift, err := Drift(ctx, a, b)
	require.NoError(t, err)
	require.Empty(t, drift)
	require.Equal(t, schemaDump(t, d.principal), schemaDump(t, d.mirror))
	var next [2]int64
	for i, conn := range []*pgx.Conn{dial(t, d.principal), dial(t, d.mirror)} {
		require.NoError(t, conn.QueryRow(ctx, `SELECT nextval('"odd seq"') + nextval('every_type_id_seq')`).Scan(&next[i]))
	}
	require.Equal(t, next[0], next[1])
	var views int64
	require.NoError(t, b.QueryRow(ctx, "SELECT (SELECT n FROM mv) * 10 + (SELECT n FROM mv_of_mv)").Scan(&views))
	require.Equal(t, int64(34), views, "materialized views are filled, the one that depends after the other")
	require.Positive(t, result.Bytes)
	require.Positive(t, result.Duration)
}

// testTypeFormats: text is slower and binary may hold OIDs of the other server.
func testTypeFormats(t *testing.T, p *testPair) {
	d := p.fresh(t)
	script(t, d.a, everything(t))
	script(t, d.a, `CREATE TABLE plain_types (a integer, b text[], c int4range, d mood, e "select".positive, f span, g jsonb,
			h int4multirange, i oid, j oidvector, k numeric(5, 2)[]);
		CREATE TYPE unlike AS RANGE (subtype = citext);
		CREATE TABLE t_composite (a pair); CREATE TABLE t_array (a pair[]); CREATE TABLE t_enums (a mood[]); CREATE TABLE t_domain (a moods);
		CREATE TABLE t_reg (a regclass); CREATE TABLE t_regs (a regtype[]); CREATE TABLE t_ext (a citext); CREATE TABLE t_range (a unlike);
		CREATE TABLE t_row (a parent); CREATE TABLE t_acl (a aclitem)`)
	conn, err := openBaseline(t.Context(), Secret(d.principal), nil)
	require.NoError(t, err)
	defer hangUp(conn)
	tables, err := readTables(t.Context(), conn)
	require.NoError(t, err)
	binary := map[string]bool{}
	for _, table := range tables {
		binary[table.name] = table.binary
	}
	for name, want := range map[string]bool{"plain_types": true, "big": true, "no_columns": true, "every_type": false,
		"t_composite": false, "t_array": false, "t_enums": false, "t_domain": false, "t_reg": false, "t_regs": false,
		"t_ext": false, "t_range": false, "t_row": false, "t_acl": false} {
		is, has := binary["public."+name]
		require.True(t, has, name)
		require.Equal(t, want, is, name)
	}
}
