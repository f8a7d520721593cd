package endpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Headers. In plaintext both sides claim their identity by them; with TLS the reply's shows that an endpoint answers.
const (
	headerFrom = "Dbmirror-From"
	headerTo   = "Dbmirror-To"
)

// refusal is the answer to a message that is not accepted.
type refusal struct {
	status int
	result Result // ResultSuccess: the Handler refused, the endpoint has nothing to count or log
	text   string
	last   bool // the connection is closed
}

func refuse(status int, result Result, format string, args ...any) *refusal {
	return &refusal{status: status, result: result, text: oneLine(fmt.Sprintf(format, args...))}
}

// ServeHTTP receives one message, or serves one stream to its end. It authenticates the sender by the TLS state of the request, whoever listens.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, kind, ok := parsePath(r.URL.Path)
	found := s.session(id)
	var no *refusal
	var reply []byte
	switch {
	case !ok:
		no = refuse(http.StatusNotFound, ResultMessageFormatError, "%q is not the path of a message or stream", r.URL.Path)
	case found == nil:
		no = refuse(http.StatusNotFound, ResultNegotiateFailure, "session %s is not served here", id)
	case r.Header.Get("Upgrade") != "":
		if no = s.serveStream(w, r, found, kind); no == nil {
			return
		}
	default:
		w.Header().Set(headerFrom, found.self.String())
		reply, no = s.receive(w, r, found, kind)
	}
	if no != nil {
		s.answer(w, r, found, no)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	found.counters.sent(len(reply))
	_, _ = w.Write(reply) // a sender that is gone hears nothing; messages may be lost
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, found *session, no *refusal) {
	if no.result != ResultSuccess {
		s.refused(found, no.result, r.RemoteAddr, no.text)
	}
	if no.last {
		w.Header().Set("Connection", "close")
	}
	http.Error(w, no.text, no.status)
}

func (s *Server) receive(w http.ResponseWriter, r *http.Request, found *session, kind Kind) ([]byte, *refusal) {
	if r.Method != http.MethodPost || r.Header.Get("Content-Encoding") != "" {
		return nil, refuse(http.StatusMethodNotAllowed, ResultMessageFormatError, "a message is a POST without encoding")
	}
	from, no := s.sender(r, found)
	if no != nil {
		no.last = true
		return nil, no
	}
	if !found.allow[from.Role][kind] {
		return nil, refuse(http.StatusForbidden, ResultAuthorizationFailure,
			"%s may not send %q to %s", from.Role, kind, found.self.Role)
	}
	p := found.peers[from.Role]
	defer p.inFlight.Add(-1)
	if p.inFlight.Add(1) > int64(s.limits.MaxPerPeer) || !p.rate.take(s.limits.Rate, s.limits.Burst) {
		return nil, refuse(http.StatusTooManyRequests, ResultProtocolError,
			"%s sends too much: the limits are %d messages at a time and %d per second",
			from.Role, s.limits.MaxPerPeer, s.limits.Rate)
	}
	body, no := s.body(w, r)
	if no != nil {
		no.last = true
		return nil, no
	}
	found.counters.received(len(body))
	return s.handle(r.Context(), found, from, kind, body)
}

// sender says who sent a request.
func (s *Server) sender(r *http.Request, found *session) (Identity, *refusal) {
	if s.plaintext {
		return s.claimed(r, found)
	}
	if r.TLS == nil {
		return Identity{}, refuse(http.StatusForbidden, ResultNegotiateFailure, "plaintext is refused here; use TLS")
	}
	from, err := found.verifier.verify(r.TLS.PeerCertificates)
	var bad *CertificateError
	if errors.As(err, &bad) {
		return Identity{}, refuse(http.StatusForbidden, bad.result(), "your %v", bad)
	}
	return from, nil
}

// claimed takes the identity from the header, if nobody outside this machine can have sent it.
func (s *Server) claimed(r *http.Request, found *session) (Identity, *refusal) {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	_, tcp := local.(*net.TCPAddr)
	if r.TLS != nil || !isLocal(local) || tcp && !isLoopback(r.RemoteAddr) {
		return Identity{}, refuse(http.StatusForbidden, ResultNegotiateFailure,
			"plaintext is for loopback only; give both servers certificates")
	}
	from, err := parseIdentity(r.Header.Get(headerFrom))
	if err != nil {
		return Identity{}, refuse(http.StatusForbidden, ResultAuthenticationFailure, "header %s: %v", headerFrom, err)
	}
	if to := r.Header.Get(headerTo); from.Session != found.self.Session || to != found.self.String() {
		return Identity{}, refuse(http.StatusForbidden, ResultAuthorizationFailure,
			"a message of %s to %s, this is %s; check the address", from, oneLine(to), found.self)
	}
	return from, nil
}

// body reads the body within its limits of size and time, whatever those of the http.Server are.
func (s *Server) body(w http.ResponseWriter, r *http.Request) ([]byte, *refusal) {
	// The http package takes the deadline away when the body has been read. A writer that knows no deadlines leaves the
	// time to the service that listens.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.limits.Handshake))
	if r.ContentLength > MaxBody {
		return nil, refuse(http.StatusRequestEntityTooLarge, ResultMessageFormatError,
			"a body of %d bytes, the limit is %d", r.ContentLength, MaxBody)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, refuse(http.StatusRequestEntityTooLarge, ResultMessageFormatError, "the limit of a body is %d bytes", MaxBody)
	case err != nil:
		return nil, refuse(http.StatusRequestTimeout, ResultProtocolError, "the body did not arrive: %v", err)
	}
	return body, nil
}

func (s *Server) handle(ctx context.Context, found *session, from Identity, kind Kind, body []byte) ([]byte, *refusal) {
	ctx, cancel := context.WithTimeout(ctx, s.limits.Handler)
	defer cancel()
	reply, err := found.handler(ctx, from, kind, body)
	if err == nil && len(reply) > MaxBody {
		err = fmt.Errorf("the reply has %d bytes, the limit is %d", len(reply), MaxBody)
	}
	var denied *DeniedError
	switch {
	case err == nil:
		return reply, nil
	case errors.As(err, &denied):
		return nil, refuse(http.StatusForbidden, ResultSuccess, "%s", denied.Text)
	default:
		s.logger.Error("message not handled", "session", found.self.Session, "role", string(found.self.Role),
			"peer", string(from.Role), "kind", string(kind), "reason", strings.TrimSpace(err.Error()))
		return nil, refuse(http.StatusInternalServerError, ResultSuccess,
			"%s could not handle %q; its log says why", found.self.Role, kind)
	}
}
