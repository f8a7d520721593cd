package endpoint

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// stopTime is how long Serve waits for messages that are being handled when it is to stop.
const stopTime = 2 * time.Second

// ListenAndServe listens at a TCP address and serves there.
func (s *Server) ListenAndServe(ctx context.Context, addr string) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("endpoint: %w; listen at an address of this machine that nobody else has", err)
	}
	return s.Serve(ctx, listener)
}

// Serve receives at a listener until ctx ends, and then returns nil; it closes the listener and all connections, and
// nothing of it runs on. Messages that are being handled get 2 s. In plaintext any but a local listener is refused.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	if s.plaintext && !isLocal(listener.Addr()) {
		return errors.Join(fmt.Errorf("endpoint: serve at %s: plaintext is for loopback only; "+
			"listen at 127.0.0.1, or give the servers certificates", listener.Addr()), listener.Close())
	}
	gate := newGate(s, listener)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var handling sync.WaitGroup
	server := s.httpServer(base, &handling)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		shut(server, gate, cancel)
	}()
	err := server.Serve(gate)
	stop()
	<-stopped
	gate.wait()
	cancel()
	handling.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("endpoint: serve at %s: %w", listener.Addr(), err)
}

func (s *Server) httpServer(base context.Context, handling *sync.WaitGroup) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handling.Add(1)
			defer handling.Done()
			s.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: s.limits.Handshake,
		WriteTimeout:      2*s.limits.Handshake + s.limits.Handler,
		IdleTimeout:       s.limits.Idle,
		MaxHeaderBytes:    8 << 10,
		Protocols:         protocols,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          slog.NewLogLogger(s.logger.Handler(), slog.LevelError),
	}
}

// shut ends a server in order, and by force after stopTime.
func shut(server *http.Server, gate *gate, cancel context.CancelFunc) {
	patience, done := context.WithTimeout(context.Background(), stopTime)
	defer done()
	if server.Shutdown(patience) != nil {
		cancel()
		gate.wait()
		_ = server.Close() // what it closes is given up
	}
}

// logIn does the TLS handshake of a connection and says which session and who it is for. It calls named when the
// client has asked for a session that is served here. Its error has been counted.
func (s *Server) logIn(ctx context.Context, raw net.Conn, named func()) (net.Conn, *session, Identity, error) {
	if s.plaintext {
		return raw, nil, Identity{}, nil
	}
	var found *session
	conn := tls.Server(raw, &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{protocol},
		SessionTicketsDisabled: true,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if found = s.sessionOf(hello.ServerName); found != nil {
				named()
			}
			return found.tlsConfig(), nil
		},
	})
	err := conn.HandshakeContext(ctx)
	if err == nil {
		from, err := found.verifier.verify(conn.ConnectionState().PeerCertificates)
		if err == nil {
			s.logins[ResultSuccess].Add(1)
			found.counters.logins[ResultSuccess].Add(1)
		}
		return conn, found, from, err
	}
	result, reason := classifyHandshake(found, err)
	s.refused(found, result, remoteOf(raw), reason)
	s.sayWhy(raw, result, err)
	return nil, nil, Identity{}, err
}

// classifyHandshake says which kind of failure a handshake ended with, and what to log.
func classifyHandshake(found *session, err error) (Result, string) {
	var unverified *tls.CertificateVerificationError
	var bad *CertificateError
	var plain tls.RecordHeaderError
	var network net.Error
	switch {
	case errors.As(err, &unverified) && found != nil:
		leaf := unverified.UnverifiedCertificates[0]
		return ResultAuthenticationFailure, found.verifier.refuse(leaf, explain(leaf, unverified.Err), unverified.Err).Error()
	case errors.As(err, &bad):
		return bad.result(), bad.Error()
	case errors.As(err, &plain):
		return ResultNegotiateFailure, "not TLS: " + plain.Msg
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, context.Canceled),
		errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return ResultProtocolError, fmt.Sprintf("the connection ended before it logged in: %v", err)
	case found == nil:
		return ResultNegotiateFailure, fmt.Sprintf("no session that is served here was asked for: %v", err)
	case err.Error() == "tls: client didn't provide a certificate":
		return ResultAuthenticationFailure, err.Error()
	default:
		return ResultNegotiateFailure, err.Error()
	}
}

// sayWhy lets the other side learn of its failure. A client of TLS 1.3 is done before its certificate is verified and
// sends on; if the connection were closed with that unread, the system would throw away the alert that tells it why.
func (s *Server) sayWhy(raw net.Conn, result Result, err error) {
	var plain tls.RecordHeaderError
	switch {
	case errors.As(err, &plain):
		_, _ = io.WriteString(raw, "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\n"+
			"plaintext is refused here; use TLS\n")
	case result != ResultAuthenticationFailure && result != ResultAuthorizationFailure:
		return
	}
	half, ok := raw.(interface{ CloseWrite() error })
	if ok && half.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, raw, MaxBody+8<<10) // until the other side closes, at most until the deadline
	}
}

func remoteOf(conn net.Conn) string { return conn.RemoteAddr().String() }
