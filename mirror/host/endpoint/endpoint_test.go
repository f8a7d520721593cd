package endpoint

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var errRefusedByPipe = syscall.ECONNREFUSED

func TestIdentity(t *testing.T) {
	for _, role := range []Role{PartnerA, PartnerB, Witness, Admin} {
		got, err := ParseIdentity("example.org", id(role).URI("example.org"))
		require.NoError(t, err)
		require.Equal(t, id(role), got)
	}
	require.Equal(t, "spiffe://dbmirror/mirror/"+sessionOne+"/witness", id(Witness).URI(DefaultDomain).String())

	good := "spiffe://dbmirror/mirror/" + sessionOne + "/witness"
	for _, bad := range []string{
		"", "spiffe://dbmirror", strings.ToUpper(good), good + "/", good + "?", good + "?x=1", good + "#x",
		strings.Replace(good, "dbmirror", "other", 1), strings.Replace(good, "dbmirror", "dbmirror:80", 1),
		strings.Replace(good, "dbmirror", "me@dbmirror", 1), strings.Replace(good, "spiffe", "https", 1),
		strings.Replace(good, "witness", "principal", 1), strings.Replace(good, "witness", "witnes%73", 1),
		strings.Replace(good, "/mirror/", "/mirror//", 1), strings.Replace(good, "111", "11", 1),
		strings.Replace(good, "111", "11g", 1), strings.Replace(good, "111", "11A", 1), "mirror/" + sessionOne + "/witness",
	} {
		uri, err := url.Parse(bad)
		require.NoError(t, err, bad)
		_, err = ParseIdentity(DefaultDomain, uri)
		require.Error(t, err, bad)
	}
}

func TestMessageAndReply(t *testing.T) {
	s := tcpSite(t, Limits{})
	c := s.client(t, PartnerB)
	for i := range 5 {
		reply, err := c.Send(t.Context(), "ping", []byte{byte('0' + i)})
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("partner-b says ping: %d", i), string(reply))
	}
	largest := make([]byte, MaxBody-len("partner-b says ping: "))
	reply, err := c.Send(t.Context(), "ping", largest)
	require.NoError(t, err)
	require.Len(t, reply, MaxBody)

	got := c.Stats()
	require.EqualValues(t, 6, got.MessagesSent)
	require.EqualValues(t, 6, got.MessagesReceived)
	require.EqualValues(t, 5+len(largest), got.BytesSent)
	require.EqualValues(t, 1, got.Logins[ResultSuccess], "one connection is kept")
	require.Equal(t, 1, got.Connections)
	require.WithinDuration(t, time.Now().Add(time.Hour), got.CertificateExpires, time.Minute)

	at, ok := s.server.Stats(sessionOne)
	require.True(t, ok)
	require.EqualValues(t, 6, at.MessagesReceived)
	require.EqualValues(t, 6, at.MessagesSent)
	require.Equal(t, got.BytesSent, at.BytesReceived)
	require.Equal(t, got.BytesReceived, at.BytesSent)
	require.Equal(t, [ResultCount]uint64{ResultSuccess: 1}, at.Logins)
	require.Equal(t, 1, at.Connections)
	require.Equal(t, 1, count(s.log.String(), "logged in"))
	_, ok = s.server.Stats(sessionTwo)
	require.False(t, ok)
}

// Goal: the client of a registered session sends under that session's identity without credentials of its own.
func TestClientOfARegisteredSession(t *testing.T) {
	s := tcpSite(t, Limits{})
	sender, err := NewServer(ServerConfig{})
	require.NoError(t, err)
	cfg := ClientConfig{Self: id(Witness), Peer: id(PartnerA), Addr: s.addr}
	_, err = sender.NewClient(cfg)
	require.ErrorContains(t, err, "is not registered")
	require.NoError(t, sender.Register(SessionConfig{Self: id(Witness), Credentials: s.ca.credentials(t, id(Witness)), Handler: s.echo}))
	c, err := sender.NewClient(cfg)
	require.NoError(t, err)
	defer c.Close()
	reply, err := c.Send(t.Context(), "vote", nil)
	require.NoError(t, err)
	require.Equal(t, "witness says vote: ", string(reply))
	cfg.Self = id(PartnerB)
	_, err = sender.NewClient(cfg)
	require.ErrorContains(t, err, "is not registered", "of the same session, but somebody else")
}

func TestConcurrentMessages(t *testing.T) {
	s := tcpSite(t, Limits{})
	c := s.client(t, Witness)
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			body := fmt.Sprint(i)
			reply, err := c.Send(t.Context(), "vote", []byte(body))
			if err != nil || string(reply) != "witness says vote: "+body {
				t.Errorf("%q %v", reply, err)
			}
		})
	}
	all.Wait()
	require.LessOrEqual(t, c.Stats().Connections, maxConnections)
}

// Many sessions at one address, each with an authority of its own; sessions come and go.
func TestManySessions(t *testing.T) {
	s := tcpSite(t, Limits{})
	other := &site{ca: newCA(t), addr: s.addr, server: s.server}
	two := Identity{Session: sessionTwo, Role: Witness}
	from := Identity{Session: sessionTwo, Role: PartnerA}
	c, err := NewClient(ClientConfig{
		Self: from, Peer: two, Addr: s.addr, Credentials: other.ca.credentials(t, from),
	})
	require.NoError(t, err)
	defer c.Close()

	_, err = c.Send(t.Context(), "ping", nil)
	var denied *DeniedError
	require.ErrorAs(t, err, &denied)
	require.ErrorContains(t, err, "is not served there")

	registered := SessionConfig{
		Self: two, Credentials: other.ca.credentials(t, two), Allow: Table{PartnerA: {"ping": true}}, Handler: other.echo,
	}
	require.NoError(t, s.server.Register(registered))
	require.ErrorContains(t, s.server.Register(registered), "registered already")
	_, err = c.Send(t.Context(), "ping", nil)
	require.NoError(t, err)
	_, err = s.client(t, PartnerB).Send(t.Context(), "ping", nil)
	require.NoError(t, err)
	require.EqualValues(t, 1, other.handled.Load())
	require.EqualValues(t, 1, s.handled.Load())

	s.server.Unregister(sessionTwo)
	_, err = c.Send(t.Context(), "ping", nil)
	require.ErrorAs(t, err, &denied)
	require.EqualValues(t, 1, other.handled.Load())
	s.server.Unregister(sessionTwo)
}

func TestDenials(t *testing.T) {
	s := pipeLess(t, func(*site) Handler {
		return func(_ context.Context, _ Identity, _ Kind, body []byte) ([]byte, error) {
			switch string(body) {
			case "deny":
				return nil, fmt.Errorf("wrapped: %w", Deny("not now:\nrole sequence %d", 7))
			case "fail":
				return nil, errors.New("password CANARY-9f3c")
			default:
				return make([]byte, MaxBody+1), nil
			}
		}
	})
	c := s.client(t, PartnerB)
	for body, want := range map[string]DeniedError{
		"deny":  {Status: http.StatusForbidden, Text: "not now: role sequence 7"},
		"fail":  {Status: http.StatusInternalServerError, Text: `partner-a could not handle "ping"; its log says why`},
		"large": {Status: http.StatusInternalServerError, Text: `partner-a could not handle "ping"; its log says why`},
	} {
		_, err := c.Send(t.Context(), "ping", []byte(body))
		var denied *DeniedError
		require.ErrorAs(t, err, &denied)
		require.Equal(t, want.Status, denied.Status)
		require.Equal(t, want.Text, denied.Text)
		require.Equal(t, id(PartnerA), denied.Peer)
		require.NotContains(t, err.Error(), "CANARY")
	}
	require.EqualValues(t, 3, c.Stats().Denied)
	require.Equal(t, 1, c.Stats().Connections, "a refused message does not end the connection")

	_, err := c.Send(t.Context(), "ping", make([]byte, MaxBody+1))
	require.ErrorContains(t, err, "not valid")
	_, err = c.Send(t.Context(), "../vote", nil)
	require.ErrorContains(t, err, "not valid")
}

func pipeLess(t *testing.T, handler func(*site) Handler) *site {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return newSite(t, listener, Limits{}, handler)
}

// The static table: a witness may not send log, and nobody says what the table does not know (S1).
func TestTable(t *testing.T) {
	s := tcpSite(t, Limits{})
	for _, c := range []struct {
		from Role
		kind Kind
	}{{Witness, "log"}, {Witness, "hardened"}, {Witness, "propose"}, {Witness, "force"}, {PartnerB, "vote"}, {PartnerB, "unheard-of"}} {
		_, err := s.client(t, c.from).Send(t.Context(), c.kind, []byte("x"))
		var denied *DeniedError
		require.ErrorAs(t, err, &denied)
		require.Equal(t, http.StatusForbidden, denied.Status)
		require.Equal(t, fmt.Sprintf("%s may not send %q to partner-a", c.from, c.kind), denied.Text)
		require.Contains(t, s.log.String(), strings.ReplaceAll(denied.Text, `"`, `\"`), "it is seen on both sides")
	}
	require.Zero(t, s.handled.Load())
	at, _ := s.server.Stats(sessionOne)
	require.EqualValues(t, 6, at.Logins[ResultAuthorizationFailure])
}

// The table is the caller's only until it is registered.
func TestTableIsCopied(t *testing.T) {
	mine := Table{PartnerB: {"ping": true}}
	s := &site{ca: newCA(t)}
	server, err := NewServer(ServerConfig{})
	require.NoError(t, err)
	require.NoError(t, server.Register(SessionConfig{
		Self: id(PartnerA), Credentials: s.ca.credentials(t, id(PartnerA)), Allow: mine, Handler: s.echo,
	}))
	mine[PartnerB]["log"] = true
	require.False(t, server.session(sessionOne).allow[PartnerB]["log"])
}

func TestNobodyThere(t *testing.T) {
	s := newSite(t, lasting(t), Limits{}, echoing)
	c := s.client(t, PartnerB)
	_, err := c.Send(t.Context(), "ping", nil)
	require.NoError(t, err)
	s.stop()
	for range 2 {
		_, err = c.Send(t.Context(), "ping", nil)
		var refused *RefusedError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, id(PartnerA), refused.Peer)
	}
	require.EqualValues(t, 2, c.Stats().Refused)

	listener, err := net.Listen("tcp", s.addr)
	require.NoError(t, err)
	s.serve(t, listener)
	_, err = c.Send(t.Context(), "ping", nil)
	require.NoError(t, err, "it connects again by itself")
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	listener, err := net.Listen("unix", path)
	require.NoError(t, err)
	s := newSite(t, listener, Limits{}, echoing)
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	s.addr, s.dial = "unix:1", dial
	_, err = s.client(t, PartnerB).Send(t.Context(), "ping", nil)
	require.NoError(t, err)
}

func TestConfigErrors(t *testing.T) {
	s := &site{ca: newCA(t)}
	good := func() ClientConfig {
		return ClientConfig{Self: id(PartnerB), Peer: id(PartnerA), Addr: "127.0.0.1:1", Credentials: s.ca.credentials(t, id(PartnerB))}
	}
	for want, change := range map[string]func(*ClientConfig){
		"role":                     func(c *ClientConfig) { c.Self.Role = "principal" },
		"session":                  func(c *ClientConfig) { c.Peer.Session = "x" },
		"two servers of one":       func(c *ClientConfig) { c.Peer.Session = sessionTwo },
		"Addr":                     func(c *ClientConfig) { c.Addr = "nowhere" },
		"Timeout":                  func(c *ClientConfig) { c.Timeout = -1 },
		"domain":                   func(c *ClientConfig) { c.Domain = "10.0.0.1" },
		"none given":               func(c *ClientConfig) { c.Credentials = Credentials{} },
		"belong together":          func(c *ClientConfig) { c.Credentials.Authorities = nil },
		"not both":                 func(c *ClientConfig) { c.Credentials.CertFile = "x" },
		"excludes":                 func(c *ClientConfig) { c.Credentials.Plaintext = true },
		"CertFile, KeyFile and":    func(c *ClientConfig) { c.Credentials = Credentials{CertFile: "x"} },
		"not the certificate of":   func(c *ClientConfig) { c.Self = id(Witness) },
		"no authority to verify":   func(c *ClientConfig) { c.Credentials.Authorities = x509.NewCertPool() },
		"is for spiffe://dbmirror": func(c *ClientConfig) { c.Domain = "example.org" },
	} {
		cfg := good()
		change(&cfg)
		_, err := NewClient(cfg)
		require.ErrorContains(t, err, want)
	}
	_, err := NewClient(ClientConfig{Self: id(PartnerB), Peer: id(PartnerA), Addr: "127.0.0.1:1", Credentials: Credentials{CertFile: "x"}})
	require.ErrorContains(t, err, id(PartnerB).String()+" as client of partner-a: credentials", "whose files they are")
	_, err = NewServer(ServerConfig{Limits: Limits{Rate: -1}})
	require.ErrorContains(t, err, "Rate")
	_, err = NewServer(ServerConfig{Domain: "Upper"})
	require.ErrorContains(t, err, "domain")

	server, err := NewServer(ServerConfig{})
	require.NoError(t, err)
	for want, change := range map[string]func(*SessionConfig){
		"Handler":         func(c *SessionConfig) { c.Handler = nil },
		"itself":          func(c *SessionConfig) { c.Allow = Table{PartnerA: {"ping": true}} },
		"role":            func(c *SessionConfig) { c.Allow = Table{"boss": nil} },
		"kind":            func(c *SessionConfig) { c.Allow = Table{PartnerB: {"A/B": true}} },
		"only one of":     func(c *SessionConfig) { c.Credentials = Credentials{Plaintext: true} },
		"expected spiffe": func(c *SessionConfig) { c.Self.Role = Admin },
	} {
		cfg := SessionConfig{Self: id(PartnerA), Credentials: s.ca.credentials(t, id(PartnerA)), Handler: s.echo}
		change(&cfg)
		require.ErrorContains(t, server.Register(cfg), want)
	}
}

// Somebody else's service at the address is recognised as such.
func TestAnotherServiceAnswers(t *testing.T) {
	s := &site{ca: newCA(t)}
	other := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("welcome"))
	}))
	server, err := NewServer(ServerConfig{})
	require.NoError(t, err)
	require.NoError(t, server.Register(SessionConfig{
		Self: id(PartnerA), Credentials: s.ca.credentials(t, id(PartnerA)), Allow: allowed, Handler: s.echo,
	}))
	other.Config.ErrorLog = log.New(io.Discard, "", 0)
	other.TLS = server.session(sessionOne).tlsConfig()
	other.StartTLS()
	defer other.Close()
	s.addr = other.Listener.Addr().String()
	_, err = s.client(t, PartnerB).Send(t.Context(), "ping", nil)
	require.ErrorContains(t, err, "mounted at")

	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	s.addr = plain.Listener.Addr().String()
	_, err = s.client(t, PartnerB).Send(t.Context(), "ping", nil)
	require.ErrorContains(t, err, "does not speak TLS")
}
