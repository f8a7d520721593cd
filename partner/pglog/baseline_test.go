package pglog

import (
	"context"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/partner/pgtest"
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
func sumsAt(t *testing.T, dsn, snapshot string) map[string]TableSum {
	t.Helper()
	tx, err := dial(t, dsn).BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	require.NoError(t, err)
	script(t, tx.Conn(), "SET TRANSACTION SNAPSHOT '"+snapshot+"'; SET LOCAL search_path = pg_catalog, pg_temp")
	sums := map[string]TableSum{}
	require.NoError(t, sumTables(t.Context(), tx, sums))
	return sums
}

// TestBaseline copies a schema that holds what a copy can get wrong, while the principal goes on writing.
func TestBaseline(t *testing.T) {
	ctx := t.Context()
	principal, mirror := pgtest.New(t, nil), pgtest.New(t, nil)
	a, b := dial(t, principal.DSN("app")), dial(t, mirror.DSN("app"))
	schema, err := os.ReadFile("testdata/baseline.sql")
	require.NoError(t, err)
	script(t, a, string(schema))
	script(t, b, `CREATE ROLE "Owner ""quoted"""`)

	snapshot := slotSnapshot(t, principal.DSN("app"), "baseline")
	before := sumsAt(t, principal.DSN("app"), snapshot)
	// What comes after the snapshot must not be in the copy, wherever in the copy it comes.
	script(t, a, "INSERT INTO parent VALUES (4, 'late'); UPDATE big SET filler = 'late' WHERE id < 900; DELETE FROM tree WHERE id = 3")
	rowsCopied, lastPart := int64(0), BaselineProgress{}
	result, err := Baseline(ctx, BaselineConfig{
		Principal: Secret(principal.DSN("app")), Mirror: Secret(mirror.DSN("app")), Snapshot: snapshot, SplitBytes: 256 << 10,
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
	comparison := CompareSums(before, after)
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
}
