package endpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// streams are those that are open at one session of a Server. They may be used concurrently.
type streams struct {
	allow   Table
	handler StreamHandler
	running sync.WaitGroup

	mu struct {
		sync.Mutex
		ended bool
		open  map[*stream]struct{}
		count map[Role]int // open, or being opened
	}
}

// errUnregistered is why a stream ends that its session does not outlive.
var errUnregistered = errors.New("the session is not served here any more")

// serveStream makes a stream of the connection of a request, and returns when its handler has.
func (s *Server) serveStream(w http.ResponseWriter, r *http.Request, found *session, name Kind) *refusal {
	from, no := s.opener(r, found, name)
	if no != nil {
		no.last = true
		return no
	}
	if no := s.reserve(found, from); no != nil {
		no.last = true
		return no
	}
	defer found.streams.release(from.Role)
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return refuse(http.StatusNotImplemented, ResultNegotiateFailure,
			"the service in which %s is mounted cannot give streams: %v", found.self.Role, err)
	}
	if counted, ok := underTLS(conn).(*counted); ok {
		counted.becomesStream()
	}
	if early := buffered.Reader.Buffered(); early > 0 {
		err = fmt.Errorf("%d bytes came before the stream was open", early)
	} else {
		err = s.acceptStream(conn, found)
	}
	if err != nil {
		s.refused(found, ResultProtocolError, r.RemoteAddr, fmt.Sprintf("stream %q: %v", name, err))
		_ = conn.Close() // it is given up
		return nil
	}
	s.handleStream(r, conn, found, from, name)
	return nil
}

// opener says who may open the stream that a request asks for.
func (s *Server) opener(r *http.Request, found *session, name Kind) (Identity, *refusal) {
	if r.Method != http.MethodGet || r.Header.Get("Upgrade") != streamProtocol || r.ContentLength != 0 {
		return Identity{}, refuse(http.StatusBadRequest, ResultMessageFormatError,
			"a stream is a GET without body that upgrades to %s", streamProtocol)
	}
	from, no := s.sender(r, found)
	if no == nil && !found.streams.allow[from.Role][name] {
		no = refuse(http.StatusForbidden, ResultAuthorizationFailure,
			"%s may not open stream %q to %s", from.Role, name, found.self.Role)
	}
	return from, no
}

// reserve counts a stream that is being opened.
func (s *Server) reserve(found *session, from Identity) *refusal {
	if !found.peers[from.Role].openings.take(s.limits.Rate, s.limits.Burst) {
		return refuse(http.StatusTooManyRequests, ResultProtocolError,
			"%s opens too many streams: the limit is %d per second", from.Role, s.limits.Rate)
	}
	all := &found.streams
	all.mu.Lock()
	defer all.mu.Unlock()
	switch {
	case all.mu.ended:
		return refuse(http.StatusNotFound, ResultNegotiateFailure, "session %s is not served here", found.self.Session)
	case all.mu.count[from.Role] >= s.limits.MaxStreams:
		return refuse(http.StatusTooManyRequests, ResultProtocolError,
			"%s has too many streams open: the limit is %d", from.Role, s.limits.MaxStreams)
	}
	all.mu.count[from.Role]++
	all.running.Add(1)
	return nil
}

func (a *streams) release(role Role) {
	a.mu.Lock()
	a.mu.count[role]--
	a.mu.Unlock()
	a.running.Done()
}

// acceptStream tells the other side that its connection is now a stream.
func (s *Server) acceptStream(conn net.Conn, found *session) error {
	if err := conn.SetDeadline(time.Now().Add(s.limits.Handshake)); err != nil {
		return err
	}
	_, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+streamProtocol+
		"\r\n"+headerFrom+": "+found.self.String()+"\r\n\r\n")
	if err != nil {
		return err
	}
	return conn.SetDeadline(time.Time{})
}

func (s *Server) handleStream(r *http.Request, conn net.Conn, found *session, from Identity, name Kind) {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	var verify func() error
	if r.TLS != nil {
		chain := r.TLS.PeerCertificates
		verify = func() error {
			_, err := found.verifier.verify(chain)
			return err
		}
	}
	opened := newStream(conn, verify, &found.counters.streams, cancel)
	defer opened.Close()
	if !found.streams.enter(opened) {
		opened.cut(errUnregistered)
		return
	}
	defer found.streams.leave(opened)
	found.streams.handler(ctx, from, name, opened)
}

func (a *streams) enter(opened *stream) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.ended {
		return false
	}
	a.mu.open[opened] = struct{}{}
	return true
}

func (a *streams) leave(opened *stream) {
	a.mu.Lock()
	delete(a.mu.open, opened)
	a.mu.Unlock()
}

// end cuts off all streams, lets none in any more, and waits for the handlers.
func (a *streams) end() {
	a.mu.Lock()
	a.mu.ended = true
	open := slices.Collect(maps.Keys(a.mu.open))
	a.mu.Unlock()
	for _, opened := range open {
		opened.cut(errUnregistered)
	}
	a.running.Wait()
}
