package endpoint

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// StreamHandler serves one stream that another server has opened: bytes in both directions, in order, until either side
// closes it. The stream is closed when it returns. A conn has CloseWrite, which ends one direction; but who can interrupt
// the network can make a direction end early, and it looks the same: what is carried must say itself when it is whole.
// After a Write that ran into its deadline the stream is of no more use. ctx ends with [Server.Serve], with Unregister,
// and when the stream is cut off because a certificate has ended; the stream is closed then, too. It is called
// concurrently.
type StreamHandler func(ctx context.Context, from Identity, name Kind, conn net.Conn)

const (
	// streamProtocol is what a connection is upgraded to.
	streamProtocol = "dbmirror-stream"
	// reverifyEvery is how often the certificate of the other side of an open stream is verified anew. Messages are
	// verified one by one; a stream may stay open for months.
	reverifyEvery = 5 * time.Second
)

// streamKeepAlive lets the system find out within half a minute that the other side of a silent stream is gone.
var streamKeepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

// stream is one side of a stream.
type stream struct {
	net.Conn
	verify   func() error // nil in plaintext
	counters *streamCounters
	ended    func(cause error) // told once; nil: nobody is

	cause atomic.Pointer[error] // why it was cut off

	mu struct {
		sync.Mutex
		closed bool
		timer  *time.Timer // to verify; nil in plaintext
	}
}

type streamCounters struct {
	open           atomic.Int64
	opened         atomic.Uint64
	sent, received atomic.Uint64 // bytes
}

// newStream makes a stream of a connection that has been upgraded.
func newStream(conn net.Conn, verify func() error, counters *streamCounters, ended func(cause error)) *stream {
	if tcp, ok := rawOf(conn).(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(streamKeepAlive) // without it, a stream that is dead is only found out later
	}
	s := &stream{Conn: conn, verify: verify, counters: counters, ended: ended}
	counters.open.Add(1)
	counters.opened.Add(1)
	if verify != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.mu.timer = time.AfterFunc(reverifyEvery, s.reverify)
	}
	return s
}

// underTLS is the connection that TLS is spoken on.
func underTLS(conn net.Conn) net.Conn {
	if secure, ok := conn.(*tls.Conn); ok {
		return secure.NetConn()
	}
	return conn
}

// rawOf is the connection below TLS and our own wrappers.
func rawOf(conn net.Conn) net.Conn {
	switch c := underTLS(conn).(type) {
	case *counted:
		return c.Conn
	case *clientConn:
		return c.Conn
	default:
		return c
	}
}

func (s *stream) reverify() {
	if err := s.verify(); err != nil {
		s.cut(err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mu.closed {
		s.mu.timer.Reset(reverifyEvery)
	}
}

// cut ends the stream from outside, without a farewell in TLS, which would wait for a peer that does not read.
func (s *stream) cut(cause error) {
	s.cause.CompareAndSwap(nil, &cause)
	_ = underTLS(s.Conn).Close() // it is given up; whoever uses it hears of it by the cause
	s.leave(cause)
}

// Close closes the stream.
func (s *stream) Close() error {
	err := s.Conn.Close()
	s.leave(net.ErrClosed)
	return s.explain(err)
}

// leave takes the stream off the count, once.
func (s *stream) leave(cause error) {
	s.mu.Lock()
	first := !s.mu.closed
	s.mu.closed = true
	if s.mu.timer != nil {
		s.mu.timer.Stop()
	}
	s.mu.Unlock()
	if !first {
		return
	}
	s.counters.open.Add(-1)
	if s.ended != nil {
		s.ended(cause)
	}
}

// CloseWrite tells the other side that nothing more comes. What it sends can still be read.
func (s *stream) CloseWrite() error { return s.explain(closeWrite(s.Conn)) }

// closeWrite ends one direction of a connection that can do so.
func closeWrite(conn net.Conn) error {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}

// Read reads what the other side has sent.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	s.counters.received.Add(uint64(n))
	return n, s.explain(err)
}

// Write sends to the other side.
func (s *stream) Write(p []byte) (int, error) {
	n, err := s.Conn.Write(p)
	s.counters.sent.Add(uint64(n))
	return n, s.explain(err)
}

// explain gives the cause in the place of what the system says of a connection that was cut off.
func (s *stream) explain(err error) error {
	if cause := s.cause.Load(); err != nil && cause != nil {
		return *cause
	}
	return err
}
