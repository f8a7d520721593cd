package endpoint

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	// How long a connection may take before it can be made to give way: silentGrace to ask for a session that is served
	// here, namedGrace to log in. Waiting for that keeps a crowd of honest peers, as after a restart, from pushing each
	// other out.
	silentGrace = 250 * time.Millisecond
	namedGrace  = time.Second
	// acceptPause is how long the gate waits when the system has no more descriptors.
	acceptPause = 100 * time.Millisecond
)

// gate is a listener that lets connections through that have logged in. It is the listener of an http.Server.
type gate struct {
	server   *Server
	listener net.Listener
	ready    chan net.Conn
	done     chan struct{}
	room     chan struct{} // a handshake has ended
	running  sync.WaitGroup

	mu struct {
		sync.Mutex
		closed  bool
		failure error     // of the listener
		pending []*waiter // oldest first
		open    map[*counted]struct{}
	}
}

// waiter is a connection that has not logged in.
type waiter struct {
	conn  *counted
	since time.Time // it has its place
	named bool      // it has asked for a session that is served here; guarded by the gate
}

// due is when a waiter can be made to give way.
func (w *waiter) due() time.Time {
	if w.named {
		return w.since.Add(namedGrace)
	}
	return w.since.Add(silentGrace)
}

func newGate(s *Server, listener net.Listener) *gate {
	g := &gate{
		server: s, listener: listener,
		ready: make(chan net.Conn), done: make(chan struct{}), room: make(chan struct{}, 1),
	}
	g.mu.open = make(map[*counted]struct{})
	g.running.Go(g.run)
	return g
}

// Accept returns the next connection that has logged in.
func (g *gate) Accept() (net.Conn, error) {
	select {
	case conn := <-g.ready:
		return conn, nil
	case <-g.done:
		g.mu.Lock()
		defer g.mu.Unlock()
		return nil, g.mu.failure
	}
}

// Addr is that of the listener.
func (g *gate) Addr() net.Addr { return g.listener.Addr() }

// Close stops listening.
func (g *gate) Close() error {
	g.end(net.ErrClosed)
	return nil
}

// wait closes the gate and every connection that came through it, and waits for the goroutines of the gate.
func (g *gate) wait() {
	g.end(net.ErrClosed)
	g.mu.Lock()
	open := slices.Collect(maps.Keys(g.mu.open))
	g.mu.Unlock()
	for _, conn := range open {
		_ = conn.Close() // without a farewell in TLS, which would wait for a peer that does not read
	}
	g.running.Wait()
}

func (g *gate) end(failure error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.closed {
		return
	}
	g.mu.closed, g.mu.failure = true, failure
	close(g.done)
	_ = g.listener.Close() // it is given up, and has nobody to tell
}

func (g *gate) run() {
	for {
		conn, err := g.listener.Accept()
		if err != nil {
			var temporary interface{ Temporary() bool }
			if !errors.As(err, &temporary) || !temporary.Temporary() {
				g.end(err)
				return
			}
			g.pause(acceptPause)
			continue
		}
		if w := g.admit(conn); w != nil {
			g.running.Go(func() { g.logIn(w) })
		}
	}
}

func (g *gate) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-g.done:
	}
}

// admit finds a place for a connection. When there is none it waits until one is free, or the oldest connection has had
// its grace and is made to give way. It returns nil when the gate is closed.
func (g *gate) admit(raw net.Conn) *waiter {
	w := &waiter{conn: &counted{Conn: raw, gate: g}}
	for {
		next, closed := g.enter(w)
		switch {
		case closed:
			_ = raw.Close() // nothing was said on it
			return nil
		case next == nil:
			return w
		}
		g.makeRoom(next)
	}
}

// enter gives a connection a place, or says which one is next to give way.
func (g *gate) enter(w *waiter) (next *waiter, closed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.closed {
		return nil, true
	}
	if len(g.mu.pending) < g.server.limits.MaxHandshakes {
		w.since = time.Now()
		g.mu.pending = append(g.mu.pending, w)
		g.mu.open[w.conn] = struct{}{}
		g.server.opened(1)
		g.server.handshaking(1)
		return nil, false
	}
	return slices.MinFunc(g.mu.pending, func(a, b *waiter) int { return a.due().Compare(b.due()) }), false
}

// named notes that a connection has asked for a session that is served here.
func (g *gate) named(w *waiter) {
	g.mu.Lock()
	w.named = true
	g.mu.Unlock()
}

// makeRoom waits until a place may be free: one has left, or next has had its grace and is closed.
func (g *gate) makeRoom(next *waiter) {
	g.mu.Lock()
	due := next.due()
	g.mu.Unlock()
	select {
	case <-g.room:
		return
	case <-g.done:
		return
	case <-time.After(time.Until(due)):
	}
	g.mu.Lock()
	due = next.due()
	g.mu.Unlock()
	if !time.Now().Before(due) && g.leave(next) {
		g.server.evicted.Add(1)
		_ = next.conn.Close()
	}
}

// forget takes a connection that has been closed off the count.
func (g *gate) forget(c *counted) {
	g.mu.Lock()
	delete(g.mu.open, c)
	g.mu.Unlock()
	g.server.opened(-1)
}

// leave takes a connection from its place. It reports whether it had one still.
func (g *gate) leave(w *waiter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.mu.pending, w)
	if i < 0 {
		return false
	}
	g.mu.pending = slices.Delete(g.mu.pending, i, i+1)
	g.server.handshaking(-1)
	select {
	case g.room <- struct{}{}:
	default:
	}
	return true
}

// logIn lets a connection log in and hands it on, or closes it.
func (g *gate) logIn(w *waiter) {
	limit := g.server.limits.Handshake
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err := w.conn.SetDeadline(time.Now().Add(limit))
	if err == nil {
		err = g.pass(ctx, w)
	}
	if err != nil {
		g.leave(w)
		_ = w.conn.Close() // why it failed is counted and logged
	}
}

func (g *gate) pass(ctx context.Context, w *waiter) error {
	conn, found, from, err := g.server.logIn(ctx, w.conn, func() { g.named(w) })
	if err != nil {
		return err
	}
	if err := w.conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	g.leave(w)
	if err := g.server.join(w.conn, found, from); err != nil {
		return err
	}
	select {
	case g.ready <- conn:
		return nil
	case <-g.done:
		return net.ErrClosed
	}
}

func (s *Server) opened(delta int) {
	s.mu.Lock()
	s.mu.open += delta
	s.mu.Unlock()
}

func (s *Server) handshaking(delta int) {
	s.mu.Lock()
	s.mu.pending += delta
	s.mu.Unlock()
}

// join counts a connection among those of its identity. The newest ones stay: old ones may be dead without our knowing.
func (s *Server) join(conn *counted, found *session, from Identity) error {
	if t := s.Totals(); t.Connections-t.Handshakes > s.limits.MaxConnections {
		s.refused(found, ResultProtocolError, remoteOf(conn), "too many connections (Limits.MaxConnections)")
		return errors.New("too many connections")
	}
	if found == nil {
		return nil
	}
	p := found.peers[from.Role]
	p.mu.Lock()
	p.mu.conns = append(p.mu.conns, conn)
	var oldest net.Conn
	if len(p.mu.conns) > s.limits.MaxPerPeer {
		oldest = p.mu.conns[0]
	}
	p.mu.Unlock()
	conn.joined(found, p)
	if oldest != nil {
		_ = oldest.Close()
	}
	s.logger.Info("logged in", "session", from.Session, "role", string(found.self.Role), "peer", string(from.Role),
		"remote", remoteOf(conn))
	return nil
}

// counted is an accepted connection. Its first Close takes it off all counts.
type counted struct {
	net.Conn
	gate *gate

	mu struct {
		sync.Mutex
		closed bool
		found  *session // nil until it is logged in
		peer   *peer
	}
}

func (c *counted) joined(found *session, p *peer) {
	c.mu.Lock()
	closed := c.mu.closed
	c.mu.found, c.mu.peer = found, p
	c.mu.Unlock()
	found.counters.connections.Add(1)
	if closed {
		c.left(found, p)
	}
}

func (c *counted) left(found *session, p *peer) {
	found.counters.connections.Add(-1)
	p.forget(c)
}

func (p *peer) forget(conn net.Conn) {
	p.mu.Lock()
	p.mu.conns = slices.DeleteFunc(p.mu.conns, func(known net.Conn) bool { return known == conn })
	p.mu.Unlock()
}

// Close closes the connection.
func (c *counted) Close() error {
	c.mu.Lock()
	first, found, p := !c.mu.closed, c.mu.found, c.mu.peer
	c.mu.closed = true
	c.mu.Unlock()
	if first {
		c.gate.forget(c)
		if found != nil {
			c.left(found, p)
		}
	}
	return c.Conn.Close()
}

// becomesStream takes the connection out of those that messages share, so that neither makes the other give way.
func (c *counted) becomesStream() {
	c.mu.Lock()
	p := c.mu.peer
	c.mu.Unlock()
	if p != nil {
		p.forget(c)
	}
}

// CloseWrite tells the other side that nothing more comes, where the connection can.
func (c *counted) CloseWrite() error { return closeWrite(c.Conn) }
