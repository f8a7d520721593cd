package endpoint

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// stranger is somebody who does not use our Client.
type stranger struct {
	name   string
	config func(t *testing.T, a *ca) *tls.Config
	result Result
	logged string // what the server says
	told   string // what the stranger is told, by TLS or in the reply
}

func with(certificate func(t *testing.T, a *ca) tls.Certificate) func(*testing.T, *ca) *tls.Config {
	return func(t *testing.T, a *ca) *tls.Config {
		return strangerConfig(certificate(t, a))
	}
}

func strangerConfig(certificate tls.Certificate) *tls.Config {
	// GetClientCertificate sends a certificate even where the server does not ask for its authority.
	return &tls.Config{
		InsecureSkipVerify: true, ServerName: serverName(sessionOne, DefaultDomain), NextProtos: []string{protocol},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil },
	}
}

func template(change func(*x509.Certificate)) func(*testing.T, *ca) *tls.Config {
	return with(func(t *testing.T, a *ca) tls.Certificate {
		c := &x509.Certificate{URIs: uris(id(PartnerB))}
		change(c)
		return a.issue(t, c)
	})
}

func changed(change func(*tls.Config)) func(*testing.T, *ca) *tls.Config {
	return func(t *testing.T, a *ca) *tls.Config {
		config := strangerConfig(a.of(t, id(PartnerB)))
		change(config)
		return config
	}
}

// certificateFaults are certificates that are refused by whoever verifies them.
var certificateFaults = []stranger{
	{
		name:   "role that the table does not know",
		config: with(func(t *testing.T, a *ca) tls.Certificate { return a.of(t, id(Admin)) }),
		result: ResultAuthorizationFailure, logged: "certificate is for " + id(Admin).URI(DefaultDomain).String() + ", expected " +
			id(PartnerB).URI(DefaultDomain).String() + " or " + id(Witness).URI(DefaultDomain).String(), told: "bad certificate",
	}, {
		name:   "the server's own role",
		config: with(func(t *testing.T, a *ca) tls.Certificate { return a.of(t, id(PartnerA)) }),
		result: ResultAuthorizationFailure, logged: "somebody else's", told: "bad certificate",
	}, {
		name: "another session",
		config: with(func(t *testing.T, a *ca) tls.Certificate {
			return a.of(t, Identity{Session: sessionTwo, Role: PartnerB})
		}),
		result: ResultAuthorizationFailure, logged: "certificate is for spiffe://dbmirror/mirror/" + sessionTwo + "/partner-b, expected",
		told: "bad certificate",
	}, {
		name: "another domain",
		config: template(func(c *x509.Certificate) {
			c.URIs = []*url.URL{id(PartnerB).URI("example.org")}
		}),
		result: ResultAuthorizationFailure, logged: "spiffe://example.org/", told: "bad certificate",
	}, {
		name:   "two URIs",
		config: template(func(c *x509.Certificate) { c.URIs = uris(id(PartnerB), id(Witness)) }),
		result: ResultAuthorizationFailure, logged: "it has 2 URIs", told: "bad certificate",
	}, {
		name: "no URI, but names",
		config: template(func(c *x509.Certificate) {
			c.URIs, c.DNSNames = nil, []string{"partner-b", serverName(sessionOne, DefaultDomain)}
		}),
		result: ResultAuthorizationFailure, logged: "certificate is for no URI", told: "bad certificate",
	}, {
		name:   "expired",
		config: template(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }),
		result: ResultAuthenticationFailure, logged: "has expired", told: "expired",
	}, {
		name:   "not yet valid",
		config: template(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }),
		result: ResultAuthenticationFailure, logged: "compare the clocks", told: "expired",
	}, {
		name:   "for another use",
		config: template(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }),
		result: ResultAuthenticationFailure, logged: "incompatible key usage", told: "bad certificate",
	}, {
		name: "self-signed",
		config: with(func(t *testing.T, _ *ca) tls.Certificate {
			return new(ca).of(t, id(PartnerB))
		}),
		result: ResultAuthenticationFailure, logged: "another authority issued it", told: "unknown certificate authority",
	}, {
		name:   "another authority",
		config: with(func(t *testing.T, _ *ca) tls.Certificate { return newCA(t).of(t, id(PartnerB)) }),
		result: ResultAuthenticationFailure, logged: "another authority issued it", told: "unknown certificate authority",
	},
}

// connectionFaults are refused by a listener of ours.
var connectionFaults = []stranger{
	{
		name: "no certificate",
		config: changed(func(c *tls.Config) {
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
		}),
		result: ResultAuthenticationFailure, logged: "didn't provide a certificate", told: "certificate required",
	}, {
		name:   "TLS 1.2",
		config: changed(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }),
		result: ResultNegotiateFailure, logged: "versions", told: "protocol version",
	}, {
		name:   "HTTP/2",
		config: changed(func(c *tls.Config) { c.NextProtos = []string{"h2"} }),
		result: ResultNegotiateFailure, logged: "unsupported application protocols", told: "no application protocol",
	}, {
		name:   "no application protocol",
		config: changed(func(c *tls.Config) { c.NextProtos = nil }),
		result: ResultNegotiateFailure, logged: "TLS 1.3 with http/1.1 is needed", told: "bad certificate",
	}, {
		name:   "unknown session",
		config: changed(func(c *tls.Config) { c.ServerName = serverName(sessionTwo, DefaultDomain) }),
		result: ResultNegotiateFailure, logged: "no session that is served here", told: "unrecognized name",
	}, {
		name:   "another domain in the server name",
		config: changed(func(c *tls.Config) { c.ServerName = serverName(sessionOne, "example.org") }),
		result: ResultNegotiateFailure, logged: "no session that is served here", told: "unrecognized name",
	},
}

// post sends one message and returns what came back, be it a reply or an alert.
func post(addr string, config *tls.Config, session, body string) (status int, text string, err error) {
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, "", err
	}
	defer raw.Close()
	conn := net.Conn(raw)
	if config != nil {
		conn = tls.Client(raw, config)
	}
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return 0, "", err
	}
	if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s",
		pathOf(session, "ping"), len(body), body); err != nil {
		return 0, "", err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, "", err
	}
	reply, err := io.ReadAll(response.Body)
	return response.StatusCode, string(reply), err
}

// S1, S2, S3: everybody who is not expected is refused in TLS, nothing is handled, and both sides are told.
func TestAbuseS3Strangers(t *testing.T) {
	for _, who := range append(certificateFaults, connectionFaults...) {
		t.Run(who.name, func(t *testing.T) {
			s := tcpSite(t, Limits{})
			_, _, err := post(s.addr, who.config(t, s.ca), sessionOne, "x")
			require.ErrorContains(t, err, who.told)
			s.stop() // what was refused has then been logged and counted

			require.Contains(t, s.log.String(), who.logged)
			require.Contains(t, s.log.String(), "result="+who.result.String())
			var want [ResultCount]uint64
			want[who.result] = 1
			require.Equal(t, want, s.server.Totals().Logins)
			require.Zero(t, s.handled.Load())
		})
	}
}

// mount puts a Server behind a listener that asks for any certificate and verifies none.
func mount(t *testing.T) (*site, *httptest.Server) {
	t.Helper()
	s := &site{ca: newCA(t)}
	var err error
	s.server, err = NewServer(ServerConfig{Logger: s.log.logger()})
	require.NoError(t, err)
	require.NoError(t, s.server.Register(SessionConfig{
		Self: id(PartnerA), Credentials: s.ca.credentials(t, id(PartnerA)), Allow: allowed, Handler: s.echo,
		Streams: allowedStreams, Stream: s.stream,
	}))
	mux := http.NewServeMux()
	mux.Handle(PathPrefix, s.server)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the service") })
	web := httptest.NewUnstartedServer(mux)
	web.Config.ErrorLog = log.New(io.Discard, "", 0)
	web.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	t.Cleanup(web.Close)
	s.addr = web.Listener.Addr().String()
	return s, web
}

// A service that verifies nobody does not open the endpoint in it: the endpoint verifies by itself, and says why in words.
func TestAbuseS3Mounted(t *testing.T) {
	s, web := mount(t)
	web.StartTLS()
	for i, who := range certificateFaults {
		status, text, err := post(s.addr, who.config(t, s.ca), sessionOne, "x")
		require.NoError(t, err, who.name)
		require.Equal(t, http.StatusForbidden, status, who.name)
		require.Contains(t, text, who.logged, who.name)
		at, _ := s.server.Stats(sessionOne)
		require.EqualValues(t, i+1, at.Logins[ResultAuthenticationFailure]+at.Logins[ResultAuthorizationFailure])
	}
	bare := &tls.Config{InsecureSkipVerify: true}
	status, text, err := post(s.addr, bare, sessionOne, "x")
	require.NoError(t, err)
	require.Equal(t, http.StatusForbidden, status)
	require.Contains(t, text, "no certificate; give it one")
	status, _, err = post(s.addr, bare, sessionTwo, "x")
	require.NoError(t, err)
	require.Equal(t, http.StatusNotFound, status)
	require.Zero(t, s.handled.Load())

	status, text, err = post(s.addr, strangerConfig(s.ca.of(t, id(PartnerB))), sessionOne, "x")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "partner-b says ping: x", text)
}

// With ConfigForClient a Client can talk to the endpoint in a service, and the service's own clients see no difference.
func TestMountedForClients(t *testing.T) {
	s, web := mount(t)
	web.TLS.GetConfigForClient = s.server.ConfigForClient
	web.StartTLS()
	_, err := s.client(t, PartnerB).Send(t.Context(), "ping", nil)
	require.NoError(t, err)

	response, err := web.Client().Get(web.URL)
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, "the service", string(body))
}

// A good certificate of one session opens nothing in another one at the same address (S2).
func TestAbuseS2OtherSession(t *testing.T) {
	s := tcpSite(t, Limits{})
	two := Identity{Session: sessionTwo, Role: PartnerA}
	require.NoError(t, s.server.Register(SessionConfig{
		Self: two, Credentials: s.ca.credentials(t, two), Allow: allowed, Handler: s.echo,
	}))
	status, text, err := post(s.addr, strangerConfig(s.ca.of(t, id(PartnerB))), sessionTwo, "x")
	require.NoError(t, err)
	require.Equal(t, http.StatusForbidden, status)
	require.Contains(t, text, "your certificate is for spiffe://dbmirror/mirror/"+sessionOne+"/partner-b, expected spiffe://dbmirror/mirror/"+sessionTwo)
	require.Zero(t, s.handled.Load())
}

// The client refuses a server that is somebody else, and tells who it is; the message is not sent.
func TestClientRefusesServers(t *testing.T) {
	for _, who := range certificateFaults {
		if who.name == "the server's own role" {
			continue // it is the right one here
		}
		t.Run(who.name, func(t *testing.T) {
			a := newCA(t)
			certificate, err := who.config(t, a).GetClientCertificate(nil)
			require.NoError(t, err)
			if strings.Contains(who.name, "expired") || strings.Contains(who.name, "not yet") ||
				strings.Contains(who.name, "signed") || strings.Contains(who.name, "authority") || strings.Contains(who.name, "use") {
				// Nothing else is wrong with it.
				require.Len(t, certificate.Leaf.URIs, 1)
			}
			received := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{*certificate}, NextProtos: []string{protocol}})
			c, err := NewClient(ClientConfig{
				Self: id(Witness), Peer: id(PartnerA), Addr: received.Listener.Addr().String(),
				Credentials: a.credentials(t, id(Witness)),
			})
			require.NoError(t, err)
			defer c.Close()
			_, err = c.Send(t.Context(), "ping", []byte("secret"))
			var bad *CertificateError
			require.ErrorAs(t, err, &bad)
			require.Equal(t, id(PartnerA).URI(DefaultDomain).String(), bad.Expected)
			require.Equal(t, urisOf(certificate.Leaf), bad.Presented)
			require.Equal(t, who.result, bad.result())
			require.EqualValues(t, 1, c.Stats().Logins[who.result])
			require.Zero(t, c.Stats().Logins[ResultSuccess])
			if who.result == ResultAuthenticationFailure {
				require.ErrorContains(t, err, who.logged)
			}
		})
	}
}

// serveTLS is a server that fails the test when it gets a message.
func serveTLS(t *testing.T, config *tls.Config) *httptest.Server {
	t.Helper()
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("a message was sent to somebody else")
	}))
	web.TLS = config
	web.Config.ErrorLog = log.New(io.Discard, "", 0)
	web.StartTLS()
	t.Cleanup(web.Close)
	return web
}

func TestClientNeedsTLS13(t *testing.T) {
	a := newCA(t)
	web := serveTLS(t, &tls.Config{
		Certificates: []tls.Certificate{a.of(t, id(PartnerA))}, MaxVersion: tls.VersionTLS12, NextProtos: []string{protocol},
	})
	c, err := NewClient(ClientConfig{
		Self: id(Witness), Peer: id(PartnerA), Addr: web.Listener.Addr().String(), Credentials: a.credentials(t, id(Witness)),
	})
	require.NoError(t, err)
	_, err = c.Send(t.Context(), "ping", nil)
	require.ErrorContains(t, err, "protocol version")
}

// A client whose certificate the server refuses learns it in words, though TLS tells only a number.
func TestClientIsToldWhyItWasRefused(t *testing.T) {
	s := tcpSite(t, Limits{})
	newClient := func(self Identity, credentials Credentials) *Client {
		c, err := NewClient(ClientConfig{Self: self, Peer: id(PartnerA), Addr: s.addr, Credentials: credentials})
		require.NoError(t, err)
		t.Cleanup(c.Close)
		return c
	}
	other := newCA(t)
	for want, c := range map[string]*Client{
		"not one that is expected there; its log says which are": newClient(id(Admin), s.ca.credentials(t, id(Admin))),
		"same authority (CAFile)": newClient(id(PartnerB), Credentials{
			Certificate: other.of(t, id(PartnerB)), Authorities: s.ca.pool(),
		}),
		"compare the clocks": newClient(id(PartnerB), Credentials{
			Certificate: s.ca.issue(t, &x509.Certificate{URIs: uris(id(PartnerB)), NotBefore: time.Now().Add(time.Minute)}),
			Authorities: s.ca.pool(),
		}),
	} {
		_, err := c.Send(t.Context(), "ping", nil)
		var denied *DeniedError
		require.ErrorAs(t, err, &denied)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, c.cfg.Self.URI(DefaultDomain).String())
		require.Zero(t, c.Stats().Logins[ResultSuccess])
	}
	expired := newClient(id(PartnerB), Credentials{
		Certificate: s.ca.issue(t, &x509.Certificate{URIs: uris(id(PartnerB)), NotAfter: time.Now().Add(-time.Minute)}),
		Authorities: s.ca.pool(),
	})
	_, err := expired.Send(t.Context(), "ping", nil)
	require.ErrorContains(t, err, "our own certificate for "+id(PartnerB).String()+" expired")
	require.Zero(t, s.handled.Load())
}

// Whoever is refused is told so even when he has sent much that nobody reads: the alert is not lost with it.
func TestAlertIsNotLost(t *testing.T) {
	s := tcpSite(t, Limits{})
	config := strangerConfig(s.ca.of(t, id(Admin)))
	for range 20 {
		_, _, err := post(s.addr, config, sessionOne, strings.Repeat("x", MaxBody))
		require.ErrorContains(t, err, "bad certificate")
	}
}

func TestCertificateErrorIsBounded(t *testing.T) {
	leaf := &x509.Certificate{}
	for i := range 100 {
		leaf.URIs = append(leaf.URIs, &url.URL{Scheme: "spiffe", Host: "h", Path: fmt.Sprint("/", i, "\n", strings.Repeat("x", 5000))})
	}
	got := (&CertificateError{Presented: urisOf(leaf)}).Error()
	require.Less(t, len(got), 1200)
	require.NotContains(t, got, "\n")
	require.Contains(t, got, "96 more")
}

func TestPlaintext(t *testing.T) {
	var lines logBuffer
	s := &site{}
	server, err := NewServer(ServerConfig{Plaintext: true, Logger: lines.logger()})
	require.NoError(t, err)
	s.server = server
	require.NoError(t, server.Register(SessionConfig{
		Self: id(PartnerA), Credentials: Credentials{Plaintext: true}, Allow: allowed, Handler: s.echo,
	}))
	require.Contains(t, lines.String(), "unauthenticated")
	everywhere, err := net.Listen("tcp", ":0")
	require.NoError(t, err)
	require.ErrorContains(t, server.Serve(t.Context(), everywhere), "loopback only")
	_, err = everywhere.Accept()
	require.ErrorIs(t, err, net.ErrClosed)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.serve(t, listener)
	plain := func(self Identity, peer Identity, addr string) (*Client, error) {
		return NewClient(ClientConfig{
			Self: self, Peer: peer, Addr: addr, Credentials: Credentials{Plaintext: true}, Logger: lines.logger(),
		})
	}
	addr := listener.Addr().String()
	c, err := plain(id(PartnerB), id(PartnerA), addr)
	require.NoError(t, err)
	defer c.Close()
	require.Equal(t, 2, count(lines.String(), "unauthenticated"))
	reply, err := c.Send(t.Context(), "ping", []byte("x"))
	require.NoError(t, err)
	require.Equal(t, "partner-b says ping: x", string(reply))
	_, err = c.Send(t.Context(), "vote", nil)
	require.ErrorContains(t, err, "partner-b may not send")

	wrong, err := plain(id(PartnerA), id(Witness), addr)
	require.NoError(t, err)
	defer wrong.Close()
	_, err = wrong.Send(t.Context(), "ping", nil)
	require.ErrorContains(t, err, "check the address")
	status, text, err := post(addr, nil, sessionOne, "x")
	require.NoError(t, err)
	require.Equal(t, http.StatusForbidden, status)
	require.Contains(t, text, headerFrom)

	for _, far := range []string{"10.0.0.1:1", "[2001:db8::1]:1", "example.org:1", "0.0.0.0:1", "localhost.example.org:1"} {
		_, err = plain(id(PartnerB), id(PartnerA), far)
		require.ErrorContains(t, err, "loopback only", far)
	}
	require.EqualValues(t, 1, s.handled.Load())
}

// A way to connect that leads away from this machine is refused too.
func TestPlaintextDialledAway(t *testing.T) {
	c, err := NewClient(ClientConfig{
		Self: id(PartnerB), Peer: id(PartnerA), Addr: "localhost:1", Credentials: Credentials{Plaintext: true},
		Dial: func(context.Context, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			return away{ours}, theirs.Close()
		},
	})
	require.NoError(t, err)
	_, err = c.Send(t.Context(), "ping", nil)
	require.ErrorContains(t, err, "loopback only")
}

// away is a connection to another machine.
type away struct{ net.Conn }

func (away) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1} }

// Behind a listener of somebody else's, plaintext works no farther.
func TestPlaintextFromAfar(t *testing.T) {
	s := &site{}
	server, err := NewServer(ServerConfig{Plaintext: true})
	require.NoError(t, err)
	require.NoError(t, server.Register(SessionConfig{
		Self: id(PartnerA), Credentials: Credentials{Plaintext: true}, Allow: allowed, Handler: s.echo,
	}))
	near, far := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1}
	for _, c := range []struct {
		local  net.Addr
		remote string
		tls    *tls.ConnectionState
		status int
	}{
		{near, "127.0.0.1:9", nil, http.StatusOK},
		{near, "[::1]:9", nil, http.StatusOK},
		{pipeAddr{}, "pipe", nil, http.StatusOK},
		{near, "10.0.0.9:9", nil, http.StatusForbidden},
		{far, "127.0.0.1:9", nil, http.StatusForbidden},
		{far, "10.0.0.9:9", nil, http.StatusForbidden},
		{nil, "127.0.0.1:9", nil, http.StatusForbidden},
		{near, "127.0.0.1:9", new(tls.ConnectionState), http.StatusForbidden},
	} {
		r := httptest.NewRequest(http.MethodPost, pathOf(sessionOne, "ping"), strings.NewReader("x"))
		r.RemoteAddr, r.TLS = c.remote, c.tls
		r.Header.Set(headerFrom, id(PartnerB).String())
		r.Header.Set(headerTo, id(PartnerA).String())
		if c.local != nil {
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, c.local))
		}
		w := httptest.NewRecorder()
		server.ServeHTTP(w, r)
		require.Equal(t, c.status, w.Code, "%v %s", c.local, c.remote)
	}
	require.EqualValues(t, 3, s.handled.Load())
}

// The two ways to disagree about TLS are told apart from a dead server.
func TestTLSAndPlaintextMixed(t *testing.T) {
	s := tcpSite(t, Limits{})
	c, err := NewClient(ClientConfig{
		Self: id(PartnerB), Peer: id(PartnerA), Addr: s.addr, Credentials: Credentials{Plaintext: true},
	})
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Send(t.Context(), "ping", nil)
	require.ErrorContains(t, err, "plaintext is refused here; use TLS")
	s.stop()
	require.Contains(t, s.log.String(), "not TLS")
	require.EqualValues(t, 1, s.server.Totals().Logins[ResultNegotiateFailure])
}
