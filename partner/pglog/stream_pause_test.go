package pglog

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// countingConn counts how often it is read from.
type countingConn struct {
	net.Conn
	reads *atomic.Int64
}

func (c countingConn) Read(b []byte) (int, error) {
	c.reads.Add(1)
	return c.Conn.Read(b)
}

// TestServerChunkIsReadInLargePieces: the server sends each row of a large transaction by itself, and they are not taken
// one by one.
func TestServerChunkIsReadInLargePieces(t *testing.T) {
	s := newSource(t, nil)
	var reads atomic.Int64
	cfg := s.config()
	cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		return countingConn{conn, &reads}, err
	}
	r := s.run(cfg)
	s.waitForMirror()
	before, began := reads.Load(), time.Now()
	s.exec("INSERT INTO t SELECT i, repeat('x', 10) FROM generate_series(1, 100000) i")
	s.reach(r)
	took, got := time.Since(began), reads.Load()-before
	r.end(t)
	chunks := kindCount(records(t, s.log.Queue))[TypeStreamStart]
	t.Logf("%d reads for %d chunks in %v", got, chunks, took)
	require.Greater(t, chunks, 1)
	// Besides those that follow a pause: where a chunk begins, reports, and what comes between transactions.
	require.LessOrEqual(t, got, int64(took/chunkPause)+int64(took/r.cfg.StatusEvery)+int64(4*chunks)+100)
}
