package endpoint

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"
)

// classify makes the error of a Send one that a host can tell apart, and counts it.
func (c *Client) classify(ctx context.Context, err error, after time.Duration) error {
	var denied *DeniedError
	var bad *CertificateError
	var plain tls.RecordHeaderError
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("given up by the caller: %w", context.Cause(ctx))
	case errors.As(err, &denied):
		c.denied.Add(1)
		return denied
	case errors.As(err, &bad):
		c.counters.logins[bad.result()].Add(1)
		return fmt.Errorf("%s at %s: its %w", c.cfg.Peer, c.cfg.Addr, bad)
	case isTimeout(err):
		c.timeouts.Add(1)
		return &TimeoutError{Peer: c.cfg.Peer, Addr: c.cfg.Addr, After: after, Err: err}
	case isAlert(err):
		c.denied.Add(1)
		result, text := c.explainAlert(err)
		c.counters.logins[result].Add(1)
		return &DeniedError{Peer: c.cfg.Peer, Addr: c.cfg.Addr, Text: text}
	case isHard(err):
		c.refused.Add(1)
		return &RefusedError{Peer: c.cfg.Peer, Addr: c.cfg.Addr, Err: err}
	case errors.As(err, &plain):
		c.counters.logins[ResultNegotiateFailure].Add(1)
		return fmt.Errorf("%s at %s does not speak TLS: is another program there, or is it set to plaintext?", c.cfg.Peer, c.cfg.Addr)
	default:
		return fmt.Errorf("%s at %s: %w", c.cfg.Peer, c.cfg.Addr, err)
	}
}

func isTimeout(err error) bool {
	var network net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &network) && network.Timeout()
}

// isHard reports whether the system said that nobody is there.
func isHard(err error) bool {
	for _, hard := range []error{
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE, syscall.ENOENT,
		syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN,
		io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe,
	} {
		if errors.Is(err, hard) {
			return true
		}
	}
	// The standard library does not export this one.
	return strings.HasSuffix(err.Error(), "http: server closed idle connection")
}

// isAlert reports whether the other side ended TLS with an alert.
func isAlert(err error) bool {
	var network *net.OpError
	return errors.As(err, &network) && network.Op == "remote error"
}

// The alerts of TLS (RFC 8446, section 6) that have a known cause.
const (
	alertBadCertificate     = "tls: bad certificate"
	alertExpired            = "tls: expired certificate"
	alertUnknownCA          = "tls: unknown certificate authority"
	alertCertificateNeeded  = "tls: certificate required"
	alertUnrecognizedName   = "tls: unrecognized name"
	alertHandshakeFailure   = "tls: handshake failure"
	alertCertificateUnknown = "tls: unknown certificate"
)

// explainAlert says what an alert means here. TLS carries no more than its number, so we add what we presented.
func (c *Client) explainAlert(err error) (Result, string) {
	var network *net.OpError
	errors.As(err, &network)
	alert := network.Err.Error()
	leaf := c.own.material().certificate.Leaf
	ours := fmt.Sprintf("%s (we are %s, our certificate is valid from %s to %s)", alert, c.cfg.Self.URI(c.cfg.Domain),
		leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339))
	switch alert {
	case alertBadCertificate:
		return ResultAuthorizationFailure, ours + ": our certificate is not one that is expected there; its log says which are"
	case alertExpired:
		return ResultAuthenticationFailure, ours + ": our certificate, or its authority, is not valid by the clock there; " +
			"issue a new one, or compare the clocks"
	case alertUnknownCA, alertCertificateNeeded, alertCertificateUnknown:
		return ResultAuthenticationFailure, ours + ": our certificate is of another authority than the one known there; " +
			"give both servers of the session the same authority (CAFile)"
	case alertUnrecognizedName, alertHandshakeFailure:
		return ResultNegotiateFailure, fmt.Sprintf("%s: session %s of domain %s is not served there; "+
			"check the address, and that the session is registered", alert, c.cfg.Peer.Session, c.cfg.Domain)
	default:
		return ResultNegotiateFailure, ours
	}
}
