package main

import (
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
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
		before := oneNumber(t, p.conns[0], "SELECT count(*) FROM ins")
		var acknowledged atomic.Int64
		rate, err := writers(3, 100*time.Millisecond, func(writer, a int) error {
			err := write(writer, a)
			if err == nil {
				acknowledged.Add(1)
			}
			return err
		})
		require.NoError(t, err)
		require.Positive(t, rate)
		require.Equal(t, acknowledged.Load(), oneNumber(t, p.conns[0], "SELECT count(*) FROM ins")-before)
	}
}

// Goal: a rate is what was written by all in the time that it took, errors left out.
func TestRateOfWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rate, err := writers(3, 100*time.Millisecond, func(int, int) error {
			<-time.After(15 * time.Millisecond) // the last ends after 105 ms
			return nil
		})
		require.NoError(t, err)
		require.InDelta(t, 3*7/0.105, rate, 1e-9)
		full := errors.New("the disk is full")
		rate, err = writers(2, 100*time.Millisecond, func(writer, a int) error {
			<-time.After(10 * time.Millisecond)
			if writer == 1 && a == 5 {
				return full
			}
			return nil
		})
		require.ErrorIs(t, err, full)
		require.InDelta(t, (10+5)/0.1, rate, 1e-9)
	})
}

func oneNumber(t *testing.T, conn *sqlite.Conn, sql string) int64 {
	t.Helper()
	n, err := sqlitex.ResultInt64(conn.Prep(sql))
	require.NoError(t, err)
	return n
}
