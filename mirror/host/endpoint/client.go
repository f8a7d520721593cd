package endpoint

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// ClientConfig says who sends to whom.
type ClientConfig struct {
	Self, Peer  Identity // of one session
	Domain      string   // trust domain of both; DefaultDomain
	Addr        string   // of the peer, host:port
	Credentials Credentials
	Timeout     time.Duration // of one Send, connecting included; 5 s
	Idle        time.Duration // how long a connection without messages is kept; 60 s
	Logger      *slog.Logger  // nil: nothing is logged
	// Dial connects, where another way than TCP is wanted: a Unix socket, a simulated network. Its context ends with
	// the connecting.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
}

const (
	// connectTime bounds connecting and logging in, for when Timeout is longer.
	connectTime = 5 * time.Second
	// idleTime, the default, is shorter than a server's, so that a message rarely meets a connection that is just being
	// closed.
	idleTime = 60 * time.Second
	// maxConnections to one server. A message that waits for a slow answer must not hold up the next ping.
	maxConnections = 4
)

// Client sends messages to one server, and opens streams to it. It keeps connections open and makes new ones as needed. It is safe for
// concurrent use; the order in which concurrent messages arrive is not defined.
type Client struct {
	cfg       ClientConfig
	own       *source   // nil in plaintext
	verifier  *verifier // nil in plaintext
	transport *http.Transport
	counters  counters
	opening   chan struct{} // a place for each stream that is being opened

	refused, timeouts, denied atomic.Uint64

	mu struct {
		sync.Mutex
		used *material // by the connections that are open
	}
}

// NewClient makes a Client; it does not connect. It refuses credentials that are not those of cfg.Self.
func NewClient(cfg ClientConfig) (*Client, error) { return makeClient(cfg, nil) }

// NewClient makes a Client of a session that is registered: cfg.Self is that session's, and its credentials, which both
// then hold once, are used instead of those of cfg.
func (s *Server) NewClient(cfg ClientConfig) (*Client, error) {
	found := s.session(cfg.Self.Session)
	if found == nil || found.self != cfg.Self {
		return nil, fmt.Errorf("endpoint: client of %s: %s is not registered", cfg.Peer, cfg.Self)
	}
	cfg.Domain, cfg.Credentials = s.domain, Credentials{Plaintext: s.plaintext}
	if found.own != nil {
		cfg.Credentials = found.own.credentials
	}
	return makeClient(cfg, found.own)
}

func makeClient(cfg ClientConfig, own *source) (*Client, error) {
	c, err := newClient(cfg, own)
	if err != nil {
		return nil, fmt.Errorf("endpoint: %s as client of %s: %w", cfg.Self, cfg.Peer.Role, err)
	}
	return c, nil
}

// newClient makes a client that shares own, or has credentials for itself where that is nil.
func newClient(cfg ClientConfig, own *source) (*Client, error) {
	domain, err := domainOrDefault(cfg.Domain)
	cfg.Domain = domain
	cfg.Timeout, cfg.Idle = cmp.Or(cfg.Timeout, 5*time.Second), cmp.Or(cfg.Idle, idleTime)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	if err := errors.Join(err, cfg.validate()); err != nil {
		return nil, err
	}
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
	}
	c := &Client{cfg: cfg, own: own, opening: make(chan struct{}, maxOpening)}
	if cfg.Credentials.Plaintext {
		cfg.Logger.Warn("connections without TLS: identities are unauthenticated",
			"session", cfg.Self.Session, "role", string(cfg.Self.Role), "peer", string(cfg.Peer.Role))
	} else {
		if own == nil {
			if c.own, err = newSource(cfg.Credentials, cfg.Self, domain, cfg.Logger); err != nil {
				return nil, err
			}
		}
		c.verifier = newVerifier(c.own, domain, x509.ExtKeyUsageServerAuth, cfg.Peer)
		c.mu.used = c.own.material()
	}
	c.transport = c.newTransport()
	return c, nil
}

func (cfg ClientConfig) validate() error {
	err := errors.Join(cfg.Self.validate(), cfg.Peer.validate(), cfg.Credentials.validate())
	_, _, addrErr := net.SplitHostPort(cfg.Addr)
	switch {
	case err != nil:
		return err
	case cfg.Self.Session != cfg.Peer.Session || cfg.Self.Role == cfg.Peer.Role:
		return fmt.Errorf("%s and %s are not two servers of one session", cfg.Self, cfg.Peer)
	case cfg.Timeout < 0 || cfg.Idle < 0:
		return errors.New("Timeout or Idle is negative")
	case addrErr != nil:
		return fmt.Errorf("Addr is not host:port: %w", addrErr)
	case cfg.Credentials.Plaintext && cfg.Dial == nil && !isLoopback(cfg.Addr):
		return fmt.Errorf("plaintext is for loopback only, not for %s; use 127.0.0.1, or give the servers certificates", cfg.Addr)
	}
	return nil
}

func (c *Client) newTransport() *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		DialContext:            c.dialPlain,
		DialTLSContext:         c.dialTLS,
		DisableCompression:     true,
		MaxConnsPerHost:        maxConnections,
		MaxIdleConnsPerHost:    maxConnections,
		IdleConnTimeout:        c.cfg.Idle,
		MaxResponseHeaderBytes: 8 << 10,
		Protocols:              protocols,
	}
}

// Send sends one message and returns the reply, which is empty where the other side has none. The error is a
// [*RefusedError], [*TimeoutError], [*DeniedError] or [*CertificateError], or wraps that of ctx or of what else failed.
// Whatever the error, the message may have arrived; and it may arrive twice.
func (c *Client) Send(ctx context.Context, kind Kind, body []byte) (reply []byte, err error) {
	if !kind.valid() || len(body) > MaxBody {
		return nil, fmt.Errorf("send %q to %s: kind or body (%d bytes, the limit is %d) is not valid", kind, c.cfg.Peer, len(body), MaxBody)
	}
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	c.renew()
	reply, err = c.roundTrip(limited, kind, body)
	if err != nil {
		return nil, fmt.Errorf("send %s: %w", kind, c.classify(ctx, err, time.Since(began)))
	}
	return reply, nil
}

// Stats returns a snapshot.
func (c *Client) Stats() ClientStats {
	return ClientStats{
		Stats:   c.counters.snapshot(c.own),
		Refused: c.refused.Load(), Timeouts: c.timeouts.Load(), Denied: c.denied.Load(),
	}
}

// Close closes the connections that no message uses. A later Send opens one again. Streams stay open.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// renew gives connections up that were made with credentials which have been replaced.
func (c *Client) renew() {
	if c.own == nil {
		return
	}
	present := c.own.material()
	c.mu.Lock()
	changed := c.mu.used != present
	c.mu.used = present
	c.mu.Unlock()
	if changed {
		c.transport.CloseIdleConnections()
	}
}

func (c *Client) roundTrip(ctx context.Context, kind Kind, body []byte) ([]byte, error) {
	fresh := false
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { fresh = !info.Reused },
	})
	request, err := c.newRequest(ctx, http.MethodPost, kind, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/octet-stream")
	// Messages may be doubled. This, which is not sent, lets the transport send one again that met a connection the
	// other side had closed.
	request.Header["Idempotency-Key"] = nil
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	c.counters.sent(len(body))
	if fresh && response.StatusCode == http.StatusOK {
		c.counters.logins[ResultSuccess].Add(1)
	}
	reply, err := io.ReadAll(io.LimitReader(response.Body, MaxBody+1))
	err = errors.Join(err, response.Body.Close())
	if err == nil {
		err = c.check(response, reply)
	}
	if err != nil {
		return nil, err
	}
	c.counters.received(len(reply))
	return reply, nil
}

func (c *Client) newRequest(ctx context.Context, method string, kind Kind, body io.Reader) (*http.Request, error) {
	scheme := "https"
	if c.own == nil {
		scheme = "http"
	}
	target := scheme + "://" + c.cfg.Addr + pathOf(c.cfg.Peer.Session, kind)
	request, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", "dbmirror")
	if c.own == nil {
		request.Header.Set(headerFrom, c.cfg.Self.String())
		request.Header.Set(headerTo, c.cfg.Peer.String())
	}
	return request, nil
}

// check looks at who answered, and what.
func (c *Client) check(response *http.Response, reply []byte) error {
	if c.verifier != nil {
		// The certificate was good when the connection was made; it may have expired, or lost its authority, since.
		if _, err := c.verifier.verify(response.TLS.PeerCertificates); err != nil {
			c.transport.CloseIdleConnections()
			return err
		}
	}
	from := response.Header.Get(headerFrom)
	switch {
	case response.StatusCode == http.StatusOK && from != c.cfg.Peer.String():
		return fmt.Errorf("it was answered by %q; check the address, and that the endpoint is mounted at %s",
			oneLine(from), PathPrefix)
	case response.StatusCode != http.StatusOK:
		return &DeniedError{Peer: c.cfg.Peer, Addr: c.cfg.Addr, Status: response.StatusCode, Text: oneLine(string(reply))}
	case len(reply) > MaxBody:
		return fmt.Errorf("the reply has more than %d bytes", MaxBody)
	}
	return nil
}

func (c *Client) dialPlain(ctx context.Context, _, _ string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	raw, err := c.cfg.Dial(ctx, c.cfg.Addr)
	if err != nil {
		return nil, err
	}
	if c.own == nil && !isLocal(raw.RemoteAddr()) {
		return nil, errors.Join(fmt.Errorf("%s is at %s: plaintext is for loopback only; give the servers certificates",
			c.cfg.Addr, raw.RemoteAddr()), raw.Close())
	}
	c.counters.connections.Add(1)
	return &clientConn{Conn: raw, open: &c.counters.connections}, nil
}

func (c *Client) dialTLS(ctx context.Context, network, addr string) (net.Conn, error) {
	present := c.own.newest()
	if leaf := present.certificate.Leaf; time.Now().After(leaf.NotAfter) {
		return nil, fmt.Errorf("our own certificate for %s expired at %s; issue a new one, it is picked up without a restart",
			c.cfg.Self, leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	raw, err := c.dialPlain(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, c.tlsConfig(present))
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return conn, nil
}

func (c *Client) tlsConfig(present *material) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{*present.certificate},
		ServerName:   serverName(c.cfg.Peer.Session, c.cfg.Domain),
		NextProtos:   []string{protocol},
		// The standard verification compares DNS names, which mean nothing here. VerifyConnection verifies the chain
		// against the session's authority, and the URI.
		InsecureSkipVerify: true,
		VerifyConnection:   c.verifier.verifyConnection,
	}
}

// clientConn counts open connections.
type clientConn struct {
	net.Conn
	open   *atomic.Int64
	closed atomic.Bool
}

// Close closes the connection.
func (c *clientConn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.open.Add(-1)
	}
	return c.Conn.Close()
}

// CloseWrite tells the other side that nothing more comes, where the connection can.
func (c *clientConn) CloseWrite() error { return closeWrite(c.Conn) }
