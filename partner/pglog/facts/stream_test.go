package facts

import (
	"context"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

// A commit without published rows is released by the answer to a keepalive that asks for none.
func keepaliveReleases(b *bench) {
	slot, start := b.slot("s")
	b.hold("mir")
	r := b.receive(slot, "mir", start)
	r.reportAll(start)
	began := len(r.keepalives())
	c := b.commit("CREATE TABLE nothing_published ()").mustWait()
	end := b.lsn("SELECT pg_current_wal_flush_lsn()")
	var told keepalive
	b.eventually("a keepalive tells of it", func() bool {
		for _, k := range r.keepalives()[began:] {
			if k.end >= end {
				told = k
				return true
			}
		}
		return false
	})
	require.False(b.t, told.asks)
	require.Empty(b.t, r.letters())
	require.True(b.t, c.waits())
	r.reportAll(told.end)
	c.returns()
}

// The log holds rows of published tables and messages, and nothing else.
func onlyRowsAreCarried(b *bench) {
	b.exec("CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY)", "CREATE SEQUENCE q")
	slot, start := b.slot("s")
	r := b.receive(slot, "mir", start)
	b.exec("CREATE TABLE made (id int PRIMARY KEY)", "ALTER TABLE made ADD v text", "COMMENT ON TABLE made IS 'x'",
		"INSERT INTO unlogged VALUES (1)", "SELECT lo_from_bytea(0, 'x')", "SELECT nextval('q') FROM generate_series(1, 100)",
		"SELECT setval('q', 5000)", "CREATE MATERIALIZED VIEW filled AS SELECT 1 AS one", "REFRESH MATERIALIZED VIEW filled",
		"CREATE TEMP TABLE gone (id int)", "INSERT INTO gone VALUES (1)")
	r.drained()
	require.Empty(b.t, r.letters())
	b.exec("BEGIN; INSERT INTO t (v) VALUES ('p'); PREPARE TRANSACTION 'p'")
	r.drained()
	require.Empty(b.t, r.letters(), "what is prepared")
	b.exec("COMMIT PREPARED 'p'")
	r.transactions(1)
	require.Equal(b.t, "BRIC", r.letters())
}

// A table that is published without an identity cannot be updated by anybody.
func noIdentityNoUpdate(b *bench) {
	b.exec("CREATE TABLE keyless (v text)", "INSERT INTO keyless VALUES ('x')")
	for _, statement := range []string{"UPDATE keyless SET v = 'y'", "DELETE FROM keyless"} {
		_, err := b.admin.Exec(b.t.Context(), statement)
		require.Equal(b.t, "55000", pgError(err), statement)
		require.ErrorContains(b.t, err, "replica identity")
	}
	b.exec("ALTER TABLE keyless REPLICA IDENTITY FULL", "UPDATE keyless SET v = 'y'")
}

// Decoders see a commit before it is acknowledged.
func decodedBeforeAcknowledged(b *bench) {
	slot, start := b.slot("s")
	b.hold("mir")
	c := b.commit(insert).mustWait()
	r := b.receive(slot, "mir", start)
	r.transactions(1)
	require.True(b.t, c.waits())
	require.Zero(b.t, b.rows())
}

// Values of a batch that is logged already are handed out without waiting.
func sequenceDoesNotWaitWithinABatch(b *bench) {
	b.exec("CREATE SEQUENCE q", "SELECT nextval('q')")
	b.hold("mir")
	for range 32 {
		b.commit("SELECT nextval('q')").returns()
	}
	b.commit("SELECT nextval('q')").mustWait()
}

// The helper of the pglogrepl module reports what was received as hardened, unless it is told otherwise.
func pglogreplFillsIn(b *bench) {
	slot, start := b.slot("s")
	conn, err := pgconn.Connect(b.t.Context(), withParams(b.t, b.server.DSN(b.name), "replication", "database"))
	require.NoError(b.t, err)
	defer conn.Close(context.Background())
	require.NoError(b.t, pglogrepl.StartReplication(b.t.Context(), conn, slot, pglogrepl.LSN(start),
		pglogrepl.StartReplicationOptions{PluginArgs: []string{"proto_version '1'", "publication_names 'p'"}}))
	received := b.lsn("SELECT pg_current_wal_flush_lsn()")
	require.NoError(b.t, pglogrepl.SendStandbyStatusUpdate(b.t.Context(), conn, pglogrepl.StandbyStatusUpdate{WALWritePosition: pglogrepl.LSN(received)}))
	b.until("the report is taken", "EXISTS (SELECT FROM pg_stat_replication WHERE pid = $1 AND write_lsn IS NOT NULL)", int32(conn.PID()))
	require.Equal(b.t, received, b.lsn("SELECT flush_lsn FROM pg_stat_replication WHERE pid = $1", int32(conn.PID())))
}
