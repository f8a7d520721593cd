package partner

import (
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// cable is a link between two servers that can be cut: while it is, connections stay open and nothing passes, as when a
// network is lost, and new ones are accepted and lead nowhere.
type cable struct {
	listener net.Listener
	to       string

	mu     sync.Mutex
	joined chan struct{} // closed while the cable is whole
	cut    bool
	conns  map[net.Conn]bool
	closed bool
}

func newCable(t *testing.T, to string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &cable{listener: l, to: to, joined: make(chan struct{}), conns: map[net.Conn]bool{}}
	close(c.joined)
	go c.accept()
	t.Cleanup(c.close)
	return c
}

func (c *cable) addr() string { return c.listener.Addr().String() }

func (c *cable) accept() {
	for {
		in, err := c.listener.Accept()
		if err != nil {
			return
		}
		go c.join(in)
	}
}

func (c *cable) join(in net.Conn) {
	if !c.keep(in) || !c.pass() {
		in.Close()
		return
	}
	out, err := net.Dial("tcp", c.to)
	if err != nil || !c.keep(out) {
		in.Close()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { c.copy(out, in) })
	both.Go(func() { c.copy(in, out) })
	both.Wait()
	c.drop(in)
	c.drop(out)
}

// copy passes bytes on as long as the cable is whole; what arrives while it is cut waits.
func (c *cable) copy(to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && c.pass() {
			if _, err := to.Write(buf[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	if c.pass() { // an end passes no cut either
		if t, ok := to.(interface{ CloseWrite() error }); ok {
			_ = t.CloseWrite()
		}
	}
}

// pass waits until the cable is whole; false: it is gone for good.
func (c *cable) pass() bool {
	c.mu.Lock()
	joined := c.joined
	c.mu.Unlock()
	<-joined
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.closed
}

func (c *cable) keep(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.conns[conn] = true
	}
	return !c.closed
}

func (c *cable) drop(conn net.Conn) {
	conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, conn)
}

// sever cuts the cable.
func (c *cable) sever() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.cut {
		c.cut, c.joined = true, make(chan struct{})
	}
}

// mend makes it whole again. What was open and silent for so long is reset, as routers do.
func (c *cable) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		c.cut = false
		for conn := range c.conns {
			conn.Close()
		}
		close(c.joined)
	}
}

func (c *cable) close() {
	c.listener.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for conn := range c.conns {
		conn.Close()
	}
	if c.cut {
		c.cut = false
		close(c.joined)
	}
}
