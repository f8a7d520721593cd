package endpoint

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// caller is a connection that has logged in and has said nothing yet that only package net/http understands. What a
// Client sends, again and again, is answered without it: thousands of connections that are silent most of the time then
// hold no buffers and no deep stacks. The first request in any other form, or in pieces, makes over the connection, with
// what was read of it, to the http.Server for good.
type caller struct {
	conn  *tls.Conn
	raw   *counted
	chain []*x509.Certificate
	over  chan bool // the answer of the worker: whether the connection is not the caller's any more

	due      time.Time // when it is closed if no message comes until then
	armed    time.Time // the deadline for reading that is set: due, or earlier
	writable time.Time // the deadline for writing that is set
	pieces   bool      // a part of what TLS sends as one has come
}

// callers serves the callers of a gate. Each has a goroutine that only waits until something comes, on the smallest of
// stacks; the work is done by as many workers as are busy at a time.
type callers struct {
	gate *gate
	base context.Context // of all handlers
	work chan *caller

	mu struct {
		sync.Mutex
		open  map[*caller]struct{}
		empty chan struct{} // closed when open is; nil until the gate has ended
		idle  int           // workers
	}
}

const (
	// maxIdle is how many workers stay when there is nothing to do.
	maxIdle = 4
	// roomForPost is the longest message, with its headers, that a worker reads. A Client sends more than this in pieces.
	roomForPost = 4 << 10
)

func newCallers(g *gate, base context.Context) *callers {
	s := &callers{gate: g, base: base, work: make(chan *caller)}
	s.mu.open = make(map[*caller]struct{})
	return s
}

// take serves a connection that has logged in.
func (s *callers) take(conn *tls.Conn, raw *counted, wait *readiness) error {
	raw.wait = wait
	c := &caller{
		conn: conn, raw: raw, chain: conn.ConnectionState().PeerCertificates, over: make(chan bool),
		due: time.Now().Add(s.gate.server.limits.Handshake),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.empty != nil {
		return net.ErrClosed
	}
	s.mu.open[c] = struct{}{}
	s.gate.running.Go(func() { s.attend(c) })
	return nil
}

// attend waits for what comes, and has it served, until the connection is closed or made over.
func (s *callers) attend(c *caller) {
	for over := false; !over; {
		if err := s.await(c); err == nil {
			over = s.hand(c)
		} else if over = !s.early(c, err); over {
			s.hangUp(c)
		}
	}
}

// await returns when something has come.
//
// The deadline is set only when the one that is set has passed or is too late: moving it with each message would cost
// more than all else that is done about time.
func (s *callers) await(c *caller) error {
	if !c.armed.After(time.Now()) || c.armed.After(c.due) {
		c.armed = c.due
		if err := c.raw.SetReadDeadline(c.due); err != nil {
			return err
		}
	}
	// The end of the gate is looked at after the deadline was set, for it sets another.
	if s.gate.ended() {
		return net.ErrClosed
	}
	return c.raw.wait.ready()
}

// early says whether an error is that of a deadline which was set before the connection was used last.
func (s *callers) early(c *caller, err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(c.due) && !s.gate.ended()
}

// hand gives a caller to a worker, and returns when that is done with it: whether the connection is not the caller's any
// more.
func (s *callers) hand(c *caller) (over bool) {
	select {
	case s.work <- c:
	default:
		s.gate.running.Go(func() { s.run(c) })
	}
	return <-c.over
}

// run is a worker: it serves one caller after the other.
func (s *callers) run(c *caller) {
	room := make([]byte, roomForPost)
	for c != nil {
		c.over <- s.serve(c, room)
		c = s.next()
	}
}

// next waits for a caller. It returns nil when enough other workers wait.
func (s *callers) next() *caller {
	if !s.rest(1) {
		return nil
	}
	defer s.rest(-1)
	select {
	case c := <-s.work:
		return c
	case <-s.gate.done:
		return nil
	}
}

func (s *callers) rest(delta int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.idle+delta > maxIdle {
		return false
	}
	s.mu.idle += delta
	return true
}

// serve answers what has come. It reports whether the connection is not the caller's any more.
func (s *callers) serve(c *caller, room []byte) (over bool) {
	for {
		n, err := c.conn.Read(room)
		switch {
		case n > 0:
		case errors.Is(err, errDry):
			s.inPieces(c)
			return false
		case s.early(c, err):
			return false
		default:
			s.hangUp(c)
			return true
		}
		p, ok := parsePost(room[:n])
		found := s.gate.server.session(p.session)
		if !ok || found == nil {
			s.makeOver(c, room[:n])
			return true
		}
		if s.gate.ended() || !s.inTime(c) || !s.gate.server.answerPost(s.base, c, found, p, c.conn) {
			s.hangUp(c)
			return true
		}
		c.raw.wait.some, c.pieces, c.due = false, false, time.Now().Add(s.gate.server.limits.Idle)
	}
}

// inPieces bounds the time in which the rest must come of what has come in part.
func (s *callers) inPieces(c *caller) {
	if c.pieces || !c.raw.wait.some {
		return
	}
	c.pieces = true
	if limit := time.Now().Add(s.gate.server.limits.Handshake); limit.Before(c.due) {
		c.due = limit
	}
}

// inTime bounds the time for handling and answering what has come now.
func (s *callers) inTime(c *caller) bool {
	now, limits := time.Now(), s.gate.server.limits
	need := limits.Handler + limits.Handshake
	if now.Add(need).Before(c.writable) {
		return true
	}
	c.writable = now.Add(need + limits.Handshake)
	return c.raw.SetWriteDeadline(c.writable) == nil
}

// makeOver gives the connection, with what was read of it, to the http.Server.
func (s *callers) makeOver(c *caller, read []byte) {
	c.raw.wait = nil
	if c.raw.SetDeadline(time.Time{}) != nil {
		s.hangUp(c) // it is closed already
		return
	}
	select {
	case s.gate.ready <- &begun{Conn: c.conn, read: bytes.Clone(read)}:
		s.forget(c)
	case <-s.gate.done:
		s.hangUp(c)
	}
}

// hangUp closes the connection.
func (s *callers) hangUp(c *caller) {
	_ = c.conn.Close() // there is nobody to tell
	s.forget(c)
}

func (s *callers) forget(c *caller) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.open, c)
	if s.mu.empty != nil && len(s.mu.open) == 0 {
		close(s.mu.empty)
	}
}

// finish ends all callers that wait, and returns when the others have had their answers, or the error of ctx. The gate
// has ended. It is called once.
func (s *callers) finish(ctx context.Context) error {
	empty := make(chan struct{})
	s.mu.Lock()
	s.mu.empty = empty
	if len(s.mu.open) == 0 {
		close(empty)
	}
	for c := range s.mu.open {
		_ = c.raw.SetReadDeadline(time.Unix(1, 0)) // it can only fail when closed
	}
	s.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// begun is a connection of which something has been read that is to be read again.
type begun struct {
	*tls.Conn
	read []byte
}

// Read reads first what had been read.
func (b *begun) Read(p []byte) (int, error) {
	if len(b.read) == 0 {
		return b.Conn.Read(p)
	}
	n := copy(p, b.read)
	b.read = b.read[n:]
	return n, nil
}
