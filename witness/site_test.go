package witness_test

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint/certs"
	"github.com/f19126b3/dbmirror/mirror/host/loopback"
	"github.com/f19126b3/dbmirror/mirror/host/statefile"
	"github.com/f19126b3/dbmirror/witness"
)

// eventually waits until something is so. There is no event for it: what is waited for happens on another server. The limit
// only ends a test that hangs.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	const limit = 90 * time.Second
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-deadline.C:
			require.Fail(t, "after "+limit.String()+": not "+what)
		}
	}
}

// site is one session: its authority, the addresses of its servers and its two partners.
type site struct {
	id        string
	authority *certs.Authority
	addr      map[mirror.Server]string
	log       *history
	partners  map[mirror.Server]*partner
}

func newSite(t *testing.T) *site {
	t.Helper()
	var id host.SessionID
	rand.Read(id[:])
	authority, err := certs.NewAuthority("session "+id.String(), time.Hour)
	require.NoError(t, err)
	return &site{id: id.String(), authority: authority, log: &history{}, partners: map[mirror.Server]*partner{},
		addr: map[mirror.Server]string{mirror.PartnerA: loopback.Addr(t), mirror.PartnerB: loopback.Addr(t), mirror.Witness: loopback.Addr(t)}}
}

func (s *site) identity(server mirror.Server) endpoint.Identity {
	return endpoint.Identity{Session: s.id, Role: host.Role(server)}
}

func (s *site) credentials(t *testing.T, server mirror.Server) endpoint.Credentials {
	t.Helper()
	certificate, err := s.authority.Issue(s.identity(server).URI(endpoint.DefaultDomain), time.Hour)
	require.NoError(t, err)
	return endpoint.Credentials{Certificate: certificate, Authorities: s.authority.Pool()}
}

func (s *site) session(t *testing.T) witness.Session {
	return witness.Session{ID: s.id, PartnerA: s.addr[mirror.PartnerA], PartnerB: s.addr[mirror.PartnerB],
		Credentials: s.credentials(t, mirror.Witness)}
}

// runWitness runs a witness until the returned function stops it, in order.
func runWitness(t *testing.T, cfg witness.Config) (*witness.Witness, func()) {
	t.Helper()
	cfg.Timing = host.Fast()
	w, err := witness.New(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(stop)
	return w, stop
}

// history is the principal's log as the two databases of a site see it: a length.
type history struct {
	sync.Mutex
	end  mirror.LSN
	dead map[mirror.Server]bool
}

func (h *history) now(of mirror.Server) (end mirror.LSN, alive bool) {
	h.Lock()
	defer h.Unlock()
	return h.end, !h.dead[of]
}

func (h *history) write(n mirror.LSN) {
	h.Lock()
	defer h.Unlock()
	h.end += n
}

func (h *history) kill(s mirror.Server) {
	h.Lock()
	defer h.Unlock()
	if h.dead == nil {
		h.dead = map[mirror.Server]bool{}
	}
	h.dead[s] = true
}

// partner is a real host with a real endpoint, and a data path that does its duties on a history.
type partner struct {
	self    mirror.Server
	log     *history
	host    *host.Host
	network *network
	stop    context.CancelFunc // in order
	done    chan struct{}
	err     error // after done

	mu struct {
		sync.Mutex
		duty     mirror.Duty
		hardened mirror.Position
	}
}

func (s *site) start(t *testing.T, self mirror.Server) *partner {
	t.Helper()
	p := &partner{self: self, log: s.log, network: &network{}, done: make(chan struct{})}
	peers := map[mirror.Server]*endpoint.Client{}
	for _, peer := range []mirror.Server{self.Other(), mirror.Witness} {
		client, err := endpoint.NewClient(endpoint.ClientConfig{Self: s.identity(self), Peer: s.identity(peer),
			Addr: s.addr[peer], Credentials: s.credentials(t, self), Timeout: time.Second, Dial: p.network.dial})
		require.NoError(t, err)
		peers[peer] = client
	}
	id, err := host.ParseSessionID(s.id)
	require.NoError(t, err)
	state, err := statefile.Open(filepath.Join(t.TempDir(), "state"), id)
	require.NoError(t, err)
	p.host, err = host.New(host.Config{Session: id, Self: self, Store: state, Timing: host.Fast(), Peers: peers,
		Data: host.DataPath{Halt: p.halt, Duty: p.want}})
	require.NoError(t, err)
	server, err := endpoint.NewServer(endpoint.ServerConfig{})
	require.NoError(t, err)
	require.NoError(t, server.Register(endpoint.SessionConfig{Self: s.identity(self), Credentials: s.credentials(t, self),
		Allow: host.Allow(self), Handler: p.host.Receive}))
	listener, err := net.Listen("tcp", s.addr[self])
	require.NoError(t, err)
	p.run(server, listener, state)
	t.Cleanup(func() { p.stop(); <-p.done; require.NoError(t, p.err) })
	s.partners[self] = p
	return p
}

// run runs endpoint, host and data path until the partner is stopped or killed.
func (p *partner) run(server *endpoint.Server, listener net.Listener, state *statefile.File) {
	ctx, stop := context.WithCancel(context.Background())
	serving, stopServing := context.WithCancel(context.Background())
	p.stop = stop
	p.network.onCut(stopServing)
	var all sync.WaitGroup
	var served error
	all.Go(func() { served = server.Serve(serving, listener) })
	all.Go(func() { p.work(ctx) })
	go func() {
		defer close(p.done)
		err := p.host.Run(ctx)
		stopServing()
		all.Wait()
		p.err = errors.Join(err, served, state.Close())
	}()
}

// kill is the loss of the machine: nothing of it is heard any more, a good-bye least of all.
func (p *partner) kill() {
	p.log.kill(p.self)
	p.network.cut()
	p.stop()
	<-p.done
}

func (p *partner) want(d mirror.Duty, _ uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.duty = d
}

func (p *partner) halt() mirror.Position {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.duty.Ship = false
	return p.mu.hardened
}

// work does what the duty asks for, again and again: evidence may be lost.
func (p *partner) work(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.once()
		}
	}
}

func (p *partner) once() {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.mu.duty
	end, alive := p.log.now(d.Principal)
	tell := func(kind mirror.EventKind) { p.host.Tell(mirror.Event{Kind: kind, Seq: d.Seq, LSN: end}) }
	switch {
	case d.Role == mirror.RolePrincipal && alive:
		tell(mirror.EventEnded)
		if d.Prove {
			tell(mirror.EventWaiting)
		}
		if d.Work == mirror.WorkPromote {
			tell(mirror.EventWhole)
		}
		if d.Work == mirror.WorkDrain {
			tell(mirror.EventDrained)
		}
	case d.Role == mirror.RoleMirror && !alive:
		tell(mirror.EventStreamLost)
	case d.Role == mirror.RoleMirror && d.Ship:
		tell(mirror.EventStreamed)
		if !p.host.Status().Aligned {
			tell(mirror.EventAligned)
		}
		p.mu.hardened = mirror.Position{Seq: d.Seq, LSN: end}
		tell(mirror.EventHardened)
		tell(mirror.EventRedone)
	}
}

// network is how a partner reaches others until it is cut.
type network struct {
	sync.Mutex
	down  bool
	conns []net.Conn
	also  func()
}

func (n *network) dial(ctx context.Context, addr string) (net.Conn, error) {
	n.Lock()
	defer n.Unlock()
	if n.down {
		return nil, net.ErrClosed
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err == nil {
		n.conns = append(n.conns, conn)
	}
	return conn, err
}

func (n *network) onCut(also func()) { n.also = also }

func (n *network) cut() {
	n.Lock()
	defer n.Unlock()
	n.down = true
	for _, c := range n.conns {
		_ = c.Close() // it may be closed already
	}
	n.also()
}
