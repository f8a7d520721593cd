package main

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// Goal: the peer is as durable as the principal, and what is counted is there.
func TestPlainSQLiteIsDurableAndCounted(t *testing.T) {
	p, err := openPlain(filepath.Join(t.TempDir(), "plain.db"), 3)
	require.NoError(t, err)
	defer func() { require.NoError(t, p.close()) }()
	for _, conn := range p.conns {
		require.EqualValues(t, 2, oneNumber(t, conn, "PRAGMA synchronous"), "FULL")
		require.EqualValues(t, 1, oneNumber(t, conn, "SELECT journal_mode = 'wal' FROM pragma_journal_mode"))
	}
	for _, write := range []func(writer, a int) error{p.oneByOne, p.each} {
		before, begun := oneNumber(t, p.conns[0], "SELECT count(*) FROM ins"), time.Now()
		rate, err := writers(3, 100*time.Millisecond, write)
		took := time.Since(begun).Seconds()
		require.NoError(t, err)
		require.InEpsilon(t, oneNumber(t, p.conns[0], "SELECT count(*) FROM ins")-before, rate*took, 0.05)
	}
}

func oneNumber(t *testing.T, conn *sqlite.Conn, sql string) int64 {
	t.Helper()
	n, err := sqlitex.ResultInt64(conn.Prep(sql))
	require.NoError(t, err)
	return n
}
