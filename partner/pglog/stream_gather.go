package pglog

import (
	"context"
	"net"
	"syscall"
	"time"
)

// chunkPause is how long the rows of a transaction that is not committed yet may gather at the socket. The server hands
// each row to the network by itself: a reader that is awake for every one costs both sides most of their time, and a
// commit waits until all rows were sent.
const chunkPause = 2 * time.Millisecond

// gatherBytes is how much may gather in one pause before the system takes notice, in bytes. For more than half of what a
// socket holds at first the system would make it larger, and a server that is never held up works more for each row.
const gatherBytes = 64 << 10

// gathering lets what the server sends gather at the socket. It belongs to one goroutine.
type gathering struct {
	rest *time.Timer
	raw  syscall.RawConn // nil where the connection has no file descriptor
}

func newGathering(conn net.Conn) gathering {
	rest := time.NewTimer(0)
	rest.Stop()
	return gathering{rest: rest, raw: descriptor(conn)}
}

// descriptor finds the socket below a connection, if there is one.
func descriptor(conn net.Conn) syscall.RawConn {
	if above, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		conn = above.NetConn()
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// pause lets rows gather. The end of ctx ends it. That nobody reads is not enough to be left alone: the runtime listens
// to every socket all the time, and would be woken for every row.
func (g gathering) pause(ctx context.Context) {
	g.wakeAt(gatherBytes)
	defer g.wakeAt(1) // a commit is waited for by whoever reads next
	g.rest.Reset(chunkPause)
	select {
	case <-g.rest.C:
	case <-ctx.Done():
		g.rest.Stop()
	}
}

// wakeAt sets how many bytes have to be there for the system to tell of them. It is advice: where it is not taken, rows
// are told of one by one.
func (g gathering) wakeAt(bytes int) {
	if g.raw != nil {
		_ = g.raw.Control(func(fd uintptr) { _ = setLowWater(fd, bytes) })
	}
}
