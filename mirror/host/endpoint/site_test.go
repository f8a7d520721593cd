package endpoint

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	sessionOne = "11111111111111111111111111111111"
	sessionTwo = "22222222222222222222222222222222"
)

var allowed = Table{
	PartnerB: {"ping": true, "log": true},
	Witness:  {"ping": true, "vote": true},
}

var allowedStreams = Table{PartnerB: {"bytes": true}}

func id(role Role) Identity { return Identity{Session: sessionOne, Role: role} }

// ca signs what the certs package would not.
type ca struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCA(t testing.TB) *ca {
	t.Helper()
	a := &ca{}
	template := &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	pair := a.issue(t, template)
	a.cert, a.key = pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)
	return a
}

// issue signs a template; what it leaves out has a good value. An empty ca signs with the certificate's own key.
func (a *ca) issue(t testing.TB, template *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.Subject = pkix.Name{CommonName: "CN means nothing"}
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	if template.ExtKeyUsage == nil && !template.IsCA {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(raw)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key, Leaf: leaf}
}

func (a *ca) of(t testing.TB, identities ...Identity) tls.Certificate {
	t.Helper()
	return a.issue(t, &x509.Certificate{URIs: uris(identities...)})
}

func uris(identities ...Identity) (all []*url.URL) {
	for _, i := range identities {
		all = append(all, i.URI(DefaultDomain))
	}
	return all
}

func (a *ca) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func (a *ca) credentials(t testing.TB, i Identity) Credentials {
	t.Helper()
	return Credentials{Certificate: a.of(t, i), Authorities: a.pool()}
}

// logBuffer keeps what was logged, at every level.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// site is partner-a of sessionOne, listening.
type site struct {
	ca      *ca
	server  *Server
	addr    string
	dial    func(context.Context, string) (net.Conn, error)
	log     logBuffer
	handled atomic.Int64
	stop    func() // ends Serve and waits for it

	onStream atomic.Pointer[StreamHandler] // nil: what comes is sent back
	streamed atomic.Int64                  // handlers that have begun
	returned atomic.Int64                  // handlers that have returned
}

func (s *site) stream(ctx context.Context, from Identity, name Kind, conn net.Conn) {
	s.streamed.Add(1)
	defer s.returned.Add(1)
	if h := s.onStream.Load(); h != nil {
		(*h)(ctx, from, name, conn)
		return
	}
	if _, err := io.Copy(onlyWriter{conn}, conn); err == nil {
		_ = conn.(interface{ CloseWrite() error }).CloseWrite()
	}
}

// onlyWriter hides what io.Copy would take a short cut by.
type onlyWriter struct{ io.Writer }

func (s *site) serveStreams(h StreamHandler) { s.onStream.Store(&h) }

// echo answers with who said what.
func (s *site) echo(_ context.Context, from Identity, kind Kind, body []byte) ([]byte, error) {
	s.handled.Add(1)
	return []byte(string(from.Role) + " says " + string(kind) + ": " + string(body)), nil
}

func newSite(t testing.TB, listener net.Listener, limits Limits, handler func(*site) Handler) *site {
	t.Helper()
	s := &site{ca: newCA(t), addr: listener.Addr().String()}
	var err error
	s.server, err = NewServer(ServerConfig{Limits: limits, Logger: s.log.logger()})
	require.NoError(t, err)
	require.NoError(t, s.server.Register(SessionConfig{
		Self: id(PartnerA), Credentials: s.ca.credentials(t, id(PartnerA)), Allow: allowed, Handler: handler(s),
		Streams: allowedStreams, Stream: s.stream,
	}))
	s.serve(t, listener)
	return s
}

func (s *site) serve(t testing.TB, listener net.Listener) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.server.Serve(ctx, listener) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(s.stop)
}

func echoing(s *site) Handler { return s.echo }

// tcpSite listens on loopback.
func tcpSite(t testing.TB, limits Limits) *site {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return newSite(t, listener, limits, echoing)
}

// lasting listens where one can listen again later: below the ports that systems give to whoever asks for any, which is
// taken by then otherwise, once in a long while.
func lasting(t testing.TB) (listener net.Listener) {
	t.Helper()
	err := errors.New("no port was tried")
	for tries := 0; err != nil && tries < 100; tries++ {
		listener, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+mathrand.IntN(12000)))
	}
	require.NoError(t, err)
	return listener
}

// pipeSite listens inside the process, for tests in a bubble of synthetic time.
func pipeSite(t testing.TB, limits Limits, handler func(*site) Handler) *site {
	t.Helper()
	l := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
	s := newSite(t, l, limits, handler)
	s.dial = l.dial
	return s
}

func (s *site) client(t testing.TB, role Role) *Client {
	t.Helper()
	c, err := NewClient(ClientConfig{
		Self: id(role), Peer: id(PartnerA), Addr: s.addr, Credentials: s.ca.credentials(t, id(role)), Dial: s.dial,
	})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe:1" }

func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// halfPipe takes the end of writing for granted. The real thing is tested over TCP.
type halfPipe struct{ net.Conn }

func (halfPipe) CloseWrite() error { return nil }

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return halfPipe{c}, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) dial(ctx context.Context, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.done:
		return nil, &net.OpError{Op: "dial", Err: errRefusedByPipe}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func count(s, substring string) int { return strings.Count(s, substring) }
