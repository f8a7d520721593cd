package loopback_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror/host/loopback"
)

// TestAddrIsKept: who holds the address can listen there, again and again, and connect to it; nobody is given it who asks
// for any port, however many ask.
func TestAddrIsKept(t *testing.T) {
	addr := loopback.Addr(t)
	_, err := net.Dial("tcp", addr)
	require.Error(t, err, "nobody listens")
	for range 2 {
		l, err := net.Listen("tcp", addr)
		require.NoError(t, err)
		conn, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		require.NoError(t, l.Close())
	}
	for range 500 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer l.Close()
		require.NotEqual(t, addr, l.Addr().String())
	}
}
