package endpoint

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// ServerConfig is what all sessions at one address have in common.
type ServerConfig struct {
	Domain    string // trust domain of all identities; DefaultDomain
	Plaintext bool   // no TLS, on loopback only; every session's credentials must say so too
	Limits    Limits
	Logger    *slog.Logger // nil: nothing is logged
}

// SessionConfig is one session at a Server.
type SessionConfig struct {
	Self        Identity
	Credentials Credentials
	Allow       Table // who may send which messages; copied
	Handler     Handler
	Streams     Table         // who may open which streams; copied
	Stream      StreamHandler // needed where Streams names any
}

// Server receives the messages, and serves the streams, of any number of sessions at one address. It is safe for concurrent use.
type Server struct {
	domain    string
	plaintext bool
	limits    Limits
	logger    *slog.Logger

	logins  loginCounters
	evicted atomic.Uint64
	lines   bucket // bounds the log lines about refusals
	quiet   atomic.Int64

	mu struct {
		sync.RWMutex
		sessions map[string]*session
		open     int // connections of all gates
		pending  int // of these, not logged in
	}
}

// session is one session at a Server.
type session struct {
	self     Identity
	allow    Table
	handler  Handler
	streams  streams
	own      *source   // nil in plaintext
	verifier *verifier // nil in plaintext
	counters counters
	peers    map[Role]*peer
}

// peer is what a Server keeps about one identity.
type peer struct {
	rate     bucket // of messages
	openings bucket // of streams
	inFlight atomic.Int64

	mu struct {
		sync.Mutex
		conns []net.Conn // logged in, oldest first
	}
}

// NewServer makes a Server without sessions.
func NewServer(cfg ServerConfig) (*Server, error) {
	domain, err := domainOrDefault(cfg.Domain)
	if err == nil {
		err = cfg.Limits.validate()
	}
	if err != nil {
		return nil, fmt.Errorf("endpoint: %w", err)
	}
	s := &Server{
		domain: domain, plaintext: cfg.Plaintext, limits: cfg.Limits.withDefaults(),
		logger: cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler)),
	}
	s.mu.sessions = make(map[string]*session)
	return s, nil
}

// Register adds a session, also while the Server serves. It refuses credentials that are not those of cfg.Self, and a
// session that is registered.
func (s *Server) Register(cfg SessionConfig) error {
	added, err := s.newSession(cfg)
	if err != nil {
		return fmt.Errorf("endpoint: register %s: %w", cfg.Self, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.sessions[cfg.Self.Session] != nil {
		return fmt.Errorf("endpoint: register %s: the session is registered already", cfg.Self)
	}
	s.mu.sessions[cfg.Self.Session] = added
	return nil
}

func (s *Server) newSession(cfg SessionConfig) (*session, error) {
	if err := cfg.validate(s.plaintext); err != nil {
		return nil, err
	}
	added := &session{
		self: cfg.Self, allow: cfg.Allow.clone(), handler: cfg.Handler, peers: make(map[Role]*peer),
		streams: streams{allow: cfg.Streams.clone(), handler: cfg.Stream},
	}
	added.streams.mu.open, added.streams.mu.count = make(map[*stream]struct{}), make(map[Role]int)
	var expected []Identity
	for role := range cfg.peers() {
		added.peers[role] = new(peer)
		expected = append(expected, Identity{Session: cfg.Self.Session, Role: role})
	}
	slices.SortFunc(expected, func(a, b Identity) int { return cmp.Compare(a.Role, b.Role) })
	if s.plaintext {
		s.logger.Warn("session without TLS: identities are unauthenticated",
			"session", cfg.Self.Session, "role", string(cfg.Self.Role))
		return added, nil
	}
	var err error
	added.own, err = newSource(cfg.Credentials, cfg.Self, s.domain, s.logger)
	if err != nil {
		return nil, err
	}
	added.verifier = newVerifier(added.own, s.domain, x509.ExtKeyUsageClientAuth, expected...)
	return added, nil
}

func (cfg SessionConfig) validate(plaintext bool) error {
	err := errors.Join(cfg.Self.validate(), cfg.Credentials.validate(), cfg.Allow.validate(), cfg.Streams.validate())
	switch {
	case err != nil:
		return err
	case cfg.Handler == nil:
		return errors.New("there is no Handler")
	case len(cfg.Streams) > 0 && cfg.Stream == nil:
		return errors.New("there is no Stream to serve Streams")
	case cfg.Credentials.Plaintext != plaintext:
		return errors.New("plaintext is set for only one of server and session")
	case cfg.peers()[cfg.Self.Role]:
		return fmt.Errorf("allow: %s would talk to itself", cfg.Self.Role)
	}
	return nil
}

// peers are the roles that may say anything at all.
func (cfg SessionConfig) peers() map[Role]bool {
	all := make(map[Role]bool)
	for _, table := range []Table{cfg.Allow, cfg.Streams} {
		for role := range table {
			all[role] = true
		}
	}
	return all
}

// Unregister takes a session away and closes its connections. Messages that are being handled are finished, but what
// is answered may be lost. It waits for the handlers of streams, so none of these may call it.
func (s *Server) Unregister(id string) {
	s.mu.Lock()
	removed := s.mu.sessions[id]
	delete(s.mu.sessions, id)
	s.mu.Unlock()
	if removed == nil {
		return
	}
	for _, p := range removed.peers {
		p.mu.Lock()
		conns := slices.Clone(p.mu.conns)
		p.mu.Unlock()
		for _, conn := range conns {
			_ = conn.Close() // it is given up; there is nobody to tell
		}
	}
	removed.streams.end()
}

func (s *Server) session(id string) *session {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.mu.sessions[id]
}

// Stats returns a snapshot of one session, and whether it is registered.
func (s *Server) Stats(id string) (Stats, bool) {
	found := s.session(id)
	if found == nil {
		return Stats{}, false
	}
	return found.counters.snapshot(found.own), true
}

// Totals returns a snapshot over all sessions.
func (s *Server) Totals() ServerStats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return ServerStats{
		Connections: s.mu.open, Handshakes: s.mu.pending,
		Evicted: s.evicted.Load(), Logins: s.logins.snapshot(),
	}
}

// ConfigForClient is the tls.Config.GetConfigForClient of a service that listens itself and in which the Server is
// mounted. It returns nil, for the service's own configuration, when the client does not ask for a session that is
// registered here.
func (s *Server) ConfigForClient(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	return s.sessionOf(hello.ServerName).tlsConfig(), nil
}

// tlsConfig is nil for no session. Without a certificate of its own, the listener then refuses the server name.
func (found *session) tlsConfig() *tls.Config {
	if found == nil || found.own == nil {
		return nil
	}
	present := found.own.newest()
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{*present.certificate},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              present.authorities,
		NextProtos:             []string{protocol},
		SessionTicketsDisabled: true,
		VerifyConnection:       found.verifier.verifyConnection,
	}
}

// sessionOf finds the session that a TLS server name asks for.
func (s *Server) sessionOf(name string) *session {
	id, ok := strings.CutSuffix(name, "."+s.domain)
	if !ok {
		return nil
	}
	return s.session(id)
}

// refused counts a refusal and logs it. Where there is a flood of them, most lines are left out and counted. found is
// nil when the session is not known.
func (s *Server) refused(found *session, result Result, remote string, reason string) {
	s.logins[result].Add(1)
	id := ""
	if found != nil {
		found.counters.logins[result].Add(1)
		id = found.self.Session
	}
	const linesPerSecond, linesAtOnce = 1, 20
	if !s.lines.take(linesPerSecond, linesAtOnce) {
		s.quiet.Add(1)
		return
	}
	s.logger.Warn("refused", "session", id, "result", result.String(), "remote", remote, "reason", oneLine(reason),
		"unlogged", s.quiet.Swap(0))
}

// isLocal reports whether nobody outside this machine can be at an address.
func isLocal(addr net.Addr) bool {
	switch addr := addr.(type) {
	case nil:
		return false
	case *net.TCPAddr:
		return addr.IP.IsLoopback()
	default:
		return addr.Network() == "unix" || addr.Network() == "pipe"
	}
}

// isLoopback reports the same of an address with a port. It resolves no names; "localhost" is taken at its word and
// checked when a connection is made.
func isLoopback(hostPort string) bool {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}
