package pglog

import (
	"context"
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// socketPair is a connection over the network of this machine, and its other end.
func socketPair(t *testing.T) (here, there net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	there, err = net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { there.Close() })
	here, err = listener.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { here.Close() })
	return here, there
}

// told is whether the system tells within the time, in milliseconds, that a connection can be read.
func told(t *testing.T, conn net.Conn, patience int) bool {
	t.Helper()
	raw := descriptor(conn)
	require.NotNil(t, raw)
	var ready int
	var failed error
	require.NoError(t, raw.Control(func(fd uintptr) {
		for {
			ready, failed = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, patience)
			if failed != unix.EINTR {
				return
			}
		}
	}))
	require.NoError(t, failed)
	return ready > 0
}

// TestRowsThatGatherAreNotToldOfOneByOne: while rows gather nothing is told of a few of them, and after the pause even
// one byte is, or a commit would wait.
func TestRowsThatGatherAreNotToldOfOneByOne(t *testing.T) {
	here, there := socketPair(t)
	g := newGathering(here)
	g.wakeAt(gatherBytes)
	_, err := there.Write([]byte("a row"))
	require.NoError(t, err)
	require.False(t, told(t, here, 50))
	g.wakeAt(1)
	require.True(t, told(t, here, 10_000))

	begun := time.Now()
	g.pause(t.Context())
	require.GreaterOrEqual(t, time.Since(begun), chunkPause)
	require.True(t, told(t, here, 10_000), "after a pause")
	got := make([]byte, 10)
	n, err := here.Read(got)
	require.NoError(t, err)
	require.Equal(t, "a row", string(got[:n]))
	_, err = there.Write([]byte("c"))
	require.NoError(t, err)
	require.True(t, told(t, here, 10_000), "what comes after a pause")
}

// TestGatheringEndsWhenItIsFull: a server that sends more than gathers in a pause is not kept waiting by the mark.
func TestGatheringEndsWhenItIsFull(t *testing.T) {
	here, there := socketPair(t)
	newGathering(here).wakeAt(gatherBytes)
	go there.Write(make([]byte, 4*gatherBytes))
	require.True(t, told(t, here, 10_000))
}

func TestPauseEndsWithItsContext(t *testing.T) {
	here, _ := socketPair(t)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	g := newGathering(here)
	g.pause(ctx)
	g.pause(t.Context()) // the timer of the one before does not count for it
}

func TestDescriptorBelowTLS(t *testing.T) {
	here, _ := socketPair(t)
	require.NotNil(t, descriptor(tls.Client(here, &tls.Config{ServerName: "x"})))
	left, right := net.Pipe()
	defer left.Close()
	defer right.Close()
	require.Nil(t, descriptor(left))
	newGathering(left).wakeAt(gatherBytes)
}
