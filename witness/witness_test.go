package witness_test

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
	"github.com/f19126b3/dbmirror/witness"
)

// establish starts both partners and makes the session, with partner-a as principal.
func (s *site) establish(t *testing.T) {
	t.Helper()
	a, b := s.start(t, mirror.PartnerA), s.start(t, mirror.PartnerB)
	eventually(t, "all three connected, and the session made", func() bool {
		peers := a.host.Status().Peers
		return peers[mirror.PartnerB].Connected && peers[mirror.Witness].Newcomer != 0 &&
			a.host.Ask(t.Context(), mirror.Event{Kind: mirror.EventCommanded, Command: mirror.Command{
				Kind: mirror.CommandEstablish, Safety: mirror.SafetyFull, Incarnation: peers[mirror.Witness].Newcomer,
			}}) == nil
	})
	s.log.write(1000)
	for _, p := range []*partner{a, b} {
		eventually(t, "SYNCHRONIZED", func() bool { return p.host.Status().State == mirror.StateSynchronized })
	}
}

func TestAutomaticFailoverOverTheNetwork(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	w, _ := runWitness(t, witness.Config{Dir: t.TempDir(), Listen: s.addr[mirror.Witness], Sessions: []witness.Session{s.session(t)}})
	s.establish(t)
	eventually(t, "a witness that sees SYNCHRONIZED and all three", func() bool {
		st, ok := w.Status(s.id)
		return ok && st.State == mirror.StateSynchronized && st.Quorum == mirror.QuorumFull
	})

	s.partners[mirror.PartnerA].kill()
	b := s.partners[mirror.PartnerB].host
	eventually(t, "partner-b serving", func() bool { return b.Status().Role == mirror.RolePrincipal && b.Status().Serving })

	st, ok := w.Status(s.id)
	require.True(t, ok)
	require.Equal(t, mirror.PartnerB, st.Record.Principal)
	require.Equal(t, b.Status().Record.Seq, st.Promised)
	require.EqualValues(t, 1, b.Counts().Automatic)
	report := w.Sessions()[0]
	require.NoError(t, report.Err)
	require.NotZero(t, report.Endpoint.MessagesReceived)
	require.NotZero(t, report.Tick)

	shown := w.Metrics()[0]
	require.Equal(t, s.id, shown.Session)
	require.NotZero(t, shown.Extra.LastTransition)
	require.NotZero(t, shown.Extra.LoginsTotal[endpoint.ResultSuccess])
	require.EqualValues(t, 1, shown.Extra.TransitionsTotal[mirror.StateSynchronized][mirror.StateDisconnected])
	for _, p := range []mirror.Server{mirror.PartnerA, mirror.PartnerB} {
		traffic := shown.Extra.Peers[p]
		require.NotZero(t, traffic.MessagesSent)
		require.Greater(t, traffic.BytesReceived, traffic.MessagesReceived)
	}

	require.Equal(t, mirror.RoleWitness, shown.Status.Role)
	w.LeaveOut(s.id, errors.New("the disk is full"))
	require.Equal(t, mirror.Status{Self: mirror.Witness}, w.Metrics()[0].Status, "one that is left out shows nothing of the past")
}

func TestVotesOutliveARestart(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	cfg := witness.Config{Dir: t.TempDir(), Listen: s.addr[mirror.Witness], Sessions: []witness.Session{s.session(t)}}
	w, stop := runWitness(t, cfg)
	s.establish(t)
	before, _ := w.Status(s.id)
	stop()
	a := s.partners[mirror.PartnerA].host
	eventually(t, "partner-a told of the stop", func() bool { return a.Status().Peers[mirror.Witness].Left })

	w, _ = runWitness(t, cfg)
	after, ok := w.Status(s.id)
	require.True(t, ok)
	require.NotZero(t, after.Promised)
	require.Equal(t, before.Promised, after.Promised)
	require.Equal(t, before.Record.Members, after.Record.Members)
	eventually(t, "the witness back in the session", func() bool {
		return a.Status().Quorum == mirror.QuorumFull && a.Status().Peers[mirror.Witness].Newcomer == 0
	})
}

func TestManySessionsInOneProcess(t *testing.T) {
	t.Parallel()
	first, second := newSite(t), newSite(t)
	second.addr[mirror.Witness] = first.addr[mirror.Witness]
	w, _ := runWitness(t, witness.Config{Dir: t.TempDir(), Listen: first.addr[mirror.Witness],
		Sessions: []witness.Session{first.session(t), second.session(t)}})
	first.establish(t)
	second.establish(t)
	reports := w.Sessions()
	require.Len(t, reports, 2)
	require.Equal(t, []string{first.id, second.id}, []string{reports[0].ID, reports[1].ID})
	members := func(i int) mirror.Incarnation { return reports[i].Status.Record.Members[mirror.Witness] }
	require.NotZero(t, members(0))
	require.NotEqual(t, members(0), members(1), "each session knows the witness under an identity of its own")
}

// lines are what a logger has written.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, string(b))
	return len(b), nil
}

func (l *lines) each(f func(line string)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.all {
		f(line)
	}
}

func TestDamagedSessionIsLeftOut(t *testing.T) {
	t.Parallel()
	whole, damaged := newSite(t), newSite(t)
	damaged.addr[mirror.Witness] = whole.addr[mirror.Witness]
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, damaged.id+".state"), make([]byte, 16<<10), 0o600))
	var log lines
	w, _ := runWitness(t, witness.Config{Dir: dir, Listen: whole.addr[mirror.Witness], Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Sessions: []witness.Session{damaged.session(t), whole.session(t)}})
	whole.establish(t)
	log.each(func(line string) { require.Equal(t, 1, strings.Count(line, "session="), line) })

	require.ErrorContains(t, w.Sessions()[0].Err, "damaged")
	require.ErrorContains(t, w.Sessions()[0].Err, "add it again as a new one", "the mend")
	_, served := w.Status(damaged.id)
	require.False(t, served)
	require.NoError(t, w.Sessions()[1].Err)
	require.Equal(t, mirror.RoleNone, w.Metrics()[0].Status.Role)
	require.Equal(t, mirror.RoleWitness, w.Metrics()[1].Status.Role)

	_, err := damaged.client(t, mirror.PartnerA).Send(t.Context(), "ping", nil)
	var denied *endpoint.DeniedError
	require.ErrorAs(t, err, &denied)
	require.Contains(t, denied.Text, "left out")
}

func TestRunEndsWhenNoSessionIsLeft(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, s.id+".state"), []byte("?"), 0o600))
	w, err := witness.New(witness.Config{Dir: dir, Listen: s.addr[mirror.Witness], Sessions: []witness.Session{s.session(t)}})
	require.NoError(t, err)
	err = w.Run(t.Context())
	require.ErrorContains(t, err, "no session is left")
	require.ErrorContains(t, err, "damaged")
}

func TestRunSaysThatItCanNotListen(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	taken, err := net.Listen("tcp", s.addr[mirror.Witness])
	require.NoError(t, err)
	defer taken.Close()
	w, err := witness.New(witness.Config{Dir: t.TempDir(), Listen: s.addr[mirror.Witness], Sessions: []witness.Session{s.session(t)}})
	require.NoError(t, err)
	require.ErrorContains(t, w.Run(t.Context()), "address already in use; listen at an address of this machine that nobody else has")
}

// client is a way to the witness with the certificate of one of the session's servers.
func (s *site) client(t *testing.T, self mirror.Server) *endpoint.Client {
	t.Helper()
	client, err := endpoint.NewClient(endpoint.ClientConfig{Self: s.identity(self), Peer: s.identity(mirror.Witness),
		Addr: s.addr[mirror.Witness], Credentials: s.credentials(t, self)})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

func TestWrongRolesAreRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	session := s.session(t)
	session.Credentials = s.credentials(t, mirror.PartnerA)
	_, err := witness.New(witness.Config{Dir: t.TempDir(), Sessions: []witness.Session{session}})
	require.ErrorIs(t, err, witness.ErrConfig)
	require.ErrorContains(t, err, "this is not the certificate of this server")

	w, _ := runWitness(t, witness.Config{Dir: t.TempDir(), Sessions: []witness.Session{s.session(t)}})
	listener, err := net.Listen("tcp", s.addr[mirror.Witness])
	require.NoError(t, err)
	mounted(t, w, listener)
	for _, wrong := range []func() (*endpoint.Client, endpoint.Kind){
		func() (*endpoint.Client, endpoint.Kind) { return s.administrator(t), "ping" },
		func() (*endpoint.Client, endpoint.Kind) { return s.client(t, mirror.PartnerA), "grant" },
	} {
		client, kind := wrong()
		_, err := client.Send(t.Context(), kind, nil)
		var denied *endpoint.DeniedError
		require.ErrorAs(t, err, &denied)
	}
	ping := mirror.Message{Kind: mirror.MessagePing, From: mirror.PartnerA, To: mirror.Witness, Incarnation: 7}
	_, err = s.client(t, mirror.PartnerA).Send(t.Context(), "ping", ping.Append(nil))
	require.NoError(t, err)
	_, err = s.client(t, mirror.PartnerB).Send(t.Context(), "ping", ping.Append(nil))
	require.ErrorContains(t, err, "came as ping from partner-b", "a partner can not speak for the other")
}

// administrator has a good certificate of the session, of a role that a witness does not hear.
func (s *site) administrator(t *testing.T) *endpoint.Client {
	t.Helper()
	self := endpoint.Identity{Session: s.id, Role: endpoint.Admin}
	certificate, err := s.authority.Issue(self.URI(endpoint.DefaultDomain), time.Hour)
	require.NoError(t, err)
	client, err := endpoint.NewClient(endpoint.ClientConfig{Self: self, Peer: s.identity(mirror.Witness), Addr: s.addr[mirror.Witness],
		Credentials: endpoint.Credentials{Certificate: certificate, Authorities: s.authority.Pool()}})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

// mounted serves a witness's Handler as a service of its own would.
func mounted(t *testing.T, w *witness.Witness, listener net.Listener) {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(endpoint.PathPrefix, w.Handler())
	server := &http.Server{Handler: mux, TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: w.ConfigForClient}}
	done := make(chan error, 1)
	go func() { done <- server.ServeTLS(listener, "", "") }()
	t.Cleanup(func() {
		require.NoError(t, server.Shutdown(context.Background()))
		require.ErrorIs(t, <-done, http.ErrServerClosed)
	})
}

func TestConfigErrorsNameCauseAndMend(t *testing.T) {
	t.Parallel()
	good := func() witness.Config {
		return witness.Config{Dir: t.TempDir(), Listen: "127.0.0.1:1", Sessions: []witness.Session{{
			ID: "00112233445566778899aabbccddeeff", PartnerA: "127.0.0.1:2", PartnerB: "127.0.0.1:3",
			Credentials: endpoint.Credentials{Plaintext: true},
		}}}
	}
	w, err := witness.New(good())
	require.NoError(t, err)
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, w.Run(stopped))
	for want, spoil := range map[string]func(*witness.Config){
		"Dir is empty":                      func(c *witness.Config) { c.Dir = "" },
		"name at least one":                 func(c *witness.Config) { c.Sessions = nil },
		"openssl rand -hex 16":              func(c *witness.Config) { c.Sessions[0].ID = "orders" },
		"named twice":                       func(c *witness.Config) { c.Sessions = append(c.Sessions, c.Sessions[0]) },
		"name PartnerA and PartnerB":        func(c *witness.Config) { c.Sessions[0].PartnerB = "" },
		"must be three addresses":           func(c *witness.Config) { c.Sessions[0].PartnerB = c.Listen },
		"name CertFile, KeyFile and CAFile": func(c *witness.Config) { c.Sessions[0].Credentials = endpoint.Credentials{} },
		"timeout 1s is below 3s":            func(c *witness.Config) { c.Timing.Timeout = time.Second },
		"ping interval 10ms is below 50ms":  func(c *witness.Config) { c.Sessions[0].Timing = host.Timing{Ping: 10 * time.Millisecond} },
		"for all sessions at one address":   mixed,
		"witness as client of partner-a":    func(c *witness.Config) { c.Sessions[0].PartnerA = "192.0.2.1:1" },
	} {
		c := good()
		spoil(&c)
		_, err := witness.New(c)
		require.ErrorIs(t, err, witness.ErrConfig, want)
		require.ErrorContains(t, err, want)
	}
}

func mixed(c *witness.Config) {
	second := c.Sessions[0]
	second.ID = "ff112233445566778899aabbccddeeff"
	second.Credentials = endpoint.Credentials{CertFile: "a", KeyFile: "b", CAFile: "c"}
	c.Sessions = append(c.Sessions, second)
}
