package witness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
	"github.com/f19126b3/dbmirror/mirror/host/statefile"
)

// session is one session in this process.
type session struct {
	id      host.SessionID
	logger  *slog.Logger
	clients map[mirror.Server]*endpoint.Client
	state   *statefile.File
	host    *host.Host // nil when the state could not be read
	failed  atomic.Pointer[error]
}

const (
	// sendTimeout bounds one message to a partner: longer would delay the next one beyond a partner's patience.
	sendTimeout = 2 * time.Second
	// idleTime is how long a connection to a partner is kept. A partner that pings has its answer as the reply,
	// so connections are made for a vote now and then, and thousands of sessions must not keep theirs.
	idleTime = 5 * time.Second
)

// newSession opens a session and registers it at the endpoint. An error is about the configuration; damage leaves the
// session out and is kept.
func newSession(cfg Config, s Session, server *endpoint.Server) (*session, error) {
	id, err := host.ParseSessionID(s.ID)
	if err != nil {
		return nil, err
	}
	n := &session{id: id, logger: cfg.Logger, clients: map[mirror.Server]*endpoint.Client{}}
	if err := server.Register(endpoint.SessionConfig{
		Self: n.identity(mirror.Witness), Credentials: s.Credentials, Allow: host.Allow(mirror.Witness), Handler: n.receive,
	}); err != nil {
		return nil, err
	}
	for peer, addr := range map[mirror.Server]string{mirror.PartnerA: s.PartnerA, mirror.PartnerB: s.PartnerB} {
		n.clients[peer], err = server.NewClient(endpoint.ClientConfig{
			Self: n.identity(mirror.Witness), Peer: n.identity(peer), Addr: addr, Timeout: sendTimeout, Idle: idleTime, Logger: cfg.Logger,
		})
		if err != nil {
			return nil, errors.Join(err, n.close())
		}
	}
	if s.Timing == (host.Timing{}) {
		s.Timing = cfg.Timing
	}
	if err := n.open(filepath.Join(cfg.Dir, id.String()+".state"), s.Timing); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

// open reads the state and makes the host.
func (s *session) open(path string, timing host.Timing) error {
	var err error
	if s.state, err = statefile.Open(path, s.id); err != nil {
		s.leaveOut(err)
		return nil
	}
	store := &store{File: s.state}
	h, err := host.New(host.Config{
		Session: s.id, Self: mirror.Witness, Store: store, Timing: timing, Peers: s.clients,
		Logger: s.logger,
	})
	switch {
	case err == nil:
		s.host = h
	case !store.asked:
		return err
	default:
		s.leaveOut(err)
	}
	return nil
}

// store tells errors about the configuration from errors about the state: a host looks at its configuration first.
type store struct {
	*statefile.File
	asked bool
}

func (s *store) Load() ([]byte, bool, error) {
	s.asked = true
	return s.File.Load()
}

// leaveOut keeps why the session is not served, the first time.
func (s *session) leaveOut(err error) {
	err = fmt.Errorf("session %s is left out: %w", s.id, err)
	if s.failed.CompareAndSwap(nil, &err) {
		s.logger.Error("session left out", "session", s.id.String()[:8], "error", err)
	}
}

func (s *session) err() error {
	if err := s.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// receive refuses what comes for a session that is left out, so that its partners show why they have no witness.
func (s *session) receive(ctx context.Context, from endpoint.Identity, kind endpoint.Kind, body []byte) ([]byte, error) {
	if err := s.err(); err != nil {
		return nil, endpoint.Deny("witness: %v", err)
	}
	return s.host.Receive(ctx, from, kind, body)
}

func (s *session) run(ctx context.Context) {
	if err := s.host.Run(ctx); err != nil {
		s.leaveOut(err)
	}
}

func (s *session) identity(server mirror.Server) endpoint.Identity {
	return endpoint.Identity{Session: s.id.String(), Role: host.Role(server)}
}

func (s *session) close() error {
	for _, c := range s.clients {
		if c != nil {
			c.Close()
		}
	}
	if s.state == nil {
		return nil
	}
	return s.state.Close()
}
