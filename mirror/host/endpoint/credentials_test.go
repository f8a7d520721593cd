package endpoint

import (
	"bytes"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror/host/endpoint/certs"
)

const canary = "CANARY-9f3c"

// installed are the files of one server.
type installed struct{ Credentials }

func install(t *testing.T, dir string) installed {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir, 0o700))
	file := func(name string) string { return filepath.Join(dir, name) }
	return installed{Credentials{CertFile: file("cert.pem"), KeyFile: file(canary + ".pem"), CAFile: file("ca.pem")}}
}

// replace replaces the files, and waits until that is noticed.
func (f installed) replace(t *testing.T, a *certs.Authority, who Identity, lifetime time.Duration) {
	t.Helper()
	f.write(t, a, who, lifetime)
	<-time.After(lookEvery)
}

// write replaces the files.
func (f installed) write(t *testing.T, a *certs.Authority, who Identity, lifetime time.Duration) {
	t.Helper()
	pair, err := a.Issue(who.URI(DefaultDomain), lifetime)
	require.NoError(t, err)
	require.NoError(t, certs.Write(pair, f.CertFile, f.KeyFile))
	require.NoError(t, a.Write(f.CAFile, f.CAFile+".key"))
}

func newAuthority(t *testing.T) *certs.Authority {
	t.Helper()
	a, err := certs.NewAuthority("test", 24*time.Hour)
	require.NoError(t, err)
	return a
}

// filedSite is a site, and a client of it, whose credentials are files.
func filedSite(t *testing.T, a *certs.Authority) (s *site, c *Client, server, client installed) {
	t.Helper()
	s = tcpSite(t, Limits{})
	s.server.Unregister(sessionOne)
	server, client = install(t, filepath.Join(t.TempDir(), "a")), install(t, filepath.Join(t.TempDir(), "b"))
	server.write(t, a, id(PartnerA), time.Hour)
	client.write(t, a, id(PartnerB), time.Hour)
	require.NoError(t, s.server.Register(SessionConfig{
		Self: id(PartnerA), Credentials: server.Credentials, Allow: allowed, Handler: s.echo,
		Streams: allowedStreams, Stream: s.stream,
	}))
	c, err := NewClient(ClientConfig{
		Self: id(PartnerB), Peer: id(PartnerA), Addr: s.addr, Credentials: client.Credentials, Logger: s.log.logger(),
	})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return s, c, server, client
}

// New files are used from the next message on, without a restart, and by connections that are open too.
func TestCredentialsAreReadAgain(t *testing.T) {
	a := newAuthority(t)
	s, c, server, client := filedSite(t, a)
	send := func() error {
		_, err := c.Send(t.Context(), "ping", nil)
		return err
	}
	require.NoError(t, send())
	require.NoError(t, send())
	require.EqualValues(t, 1, c.Stats().Logins[ResultSuccess])

	client.replace(t, a, id(PartnerB), 2*time.Hour)
	require.NoError(t, send())
	require.EqualValues(t, 2, c.Stats().Logins[ResultSuccess], "the client logs in anew")
	require.WithinDuration(t, time.Now().Add(2*time.Hour), c.Stats().CertificateExpires, time.Minute)

	server.replace(t, a, id(PartnerA), 3*time.Hour)
	require.NoError(t, send())
	at, _ := s.server.Stats(sessionOne)
	require.WithinDuration(t, time.Now().Add(3*time.Hour), at.CertificateExpires, time.Minute)

	// Another authority: who is connected is not let in any more, although his connection is open.
	next := newAuthority(t)
	server.replace(t, next, id(PartnerA), time.Hour)
	handled := s.handled.Load()
	require.Error(t, send())
	require.Equal(t, handled, s.handled.Load())
	client.replace(t, next, id(PartnerB), time.Hour)
	require.NoError(t, send())
	require.Contains(t, s.log.String(), "credentials replaced")

	// Whoever logs in does not wait until a change is noticed.
	third := newAuthority(t)
	server.write(t, third, id(PartnerA), time.Hour)
	client.write(t, third, id(PartnerB), time.Hour)
	c.Close()
	require.NoError(t, send())
	require.Zero(t, c.Stats().ReloadFailures)
}

// Files that cannot be used change nothing, and are complained about once.
func TestBadChangeKeepsTheOld(t *testing.T) {
	a := newAuthority(t)
	s, c, _, client := filedSite(t, a)
	for i, spoil := range []func(){
		func() { replaceFile(t, client.CertFile, []byte("not PEM")) },
		func() { client.write(t, a, id(Witness), time.Hour) },
		func() { require.NoError(t, os.Remove(client.KeyFile)) },
	} {
		spoil()
		<-time.After(lookEvery)
		for range 3 {
			_, err := c.Send(t.Context(), "ping", nil)
			require.NoError(t, err)
		}
		require.EqualValues(t, i+1, c.Stats().ReloadFailures)
		require.Equal(t, i+1, count(s.log.String(), "the old ones stay in use"))
	}
	client.replace(t, a, id(PartnerB), 2*time.Hour)
	_, err := c.Send(t.Context(), "ping", nil)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(2*time.Hour), c.Stats().CertificateExpires, time.Minute)
	require.NotContains(t, s.log.String(), canary)
}

func replaceFile(t *testing.T, path string, content []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", content, 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

// S13: whatever is wrong with the files, no error tells the place or the content of the key.
func TestBadFiles(t *testing.T) {
	a := newAuthority(t)
	secret := []byte("-----BEGIN PRIVATE KEY-----\n" + canary + "\n-----END PRIVATE KEY-----\n")
	for want, spoil := range map[string]func(f installed){
		"read CertFile":          func(f installed) { require.NoError(t, os.Remove(f.CertFile)) },
		"read KeyFile":           func(f installed) { require.NoError(t, os.Remove(f.KeyFile)) },
		"read CAFile":            func(f installed) { require.NoError(t, os.Remove(f.CAFile)) },
		"CertFile and KeyFile":   func(f installed) { replaceFile(t, f.KeyFile, secret) },
		"private key does not":   func(f installed) { copyKey(t, a, f) },
		"PEM form":               func(f installed) { replaceFile(t, f.CAFile, secret) },
		"chmod 600":              func(f installed) { require.NoError(t, os.Chmod(f.KeyFile, 0o604)) },
		"not the certificate":    func(f installed) { f.write(t, a, id(Witness), time.Hour) },
		"failed to find any PEM": func(f installed) { replaceFile(t, f.KeyFile, []byte(canary)) },
	} {
		f := install(t, t.TempDir())
		f.write(t, a, id(PartnerB), time.Hour)
		spoil(f)
		_, err := NewClient(ClientConfig{Self: id(PartnerB), Peer: id(PartnerA), Addr: "127.0.0.1:1", Credentials: f.Credentials})
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), canary)
	}
}

// copyKey installs the key of another certificate.
func copyKey(t *testing.T, a *certs.Authority, f installed) {
	t.Helper()
	pair, err := a.Issue(id(PartnerB).URI(DefaultDomain), time.Hour)
	require.NoError(t, err)
	require.NoError(t, certs.Write(pair, f.CertFile+".other", f.KeyFile))
}

// S13: the canary, in every key path and in an error of a Handler, is in no log and no error of a whole exchange.
func TestAbuseS13Canary(t *testing.T) {
	s, c, _, _ := filedSite(t, newAuthority(t))
	_, err := c.Send(t.Context(), "ping", []byte(canary))
	require.NoError(t, err)
	_, err = c.Send(t.Context(), "vote", []byte(canary))
	require.Error(t, err)
	require.NotContains(t, err.Error(), canary)
	s.stop()
	_, err = c.Send(t.Context(), "ping", []byte(canary))
	require.Error(t, err)
	require.NotContains(t, err.Error(), canary)
	require.NotContains(t, s.log.String(), canary)
	require.NotEmpty(t, s.log.String())
}

// A certificate that ends while a connection is open ends the connection's use, on both sides.
func TestCertificateEndsOnAnOpenConnection(t *testing.T) {
	for name, lifetime := range map[string][2]time.Duration{
		"server's": {10 * time.Second, time.Hour}, "client's": {time.Hour, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := pipeSite(t, Limits{}, echoing)
				s.server.Unregister(sessionOne)
				credentials := func(who Identity, lifetime time.Duration) Credentials {
					return Credentials{Authorities: s.ca.pool(), Certificate: s.ca.issue(t, &x509.Certificate{
						URIs: uris(who), NotAfter: time.Now().Add(lifetime),
					})}
				}
				require.NoError(t, s.server.Register(SessionConfig{
					Self: id(PartnerA), Credentials: credentials(id(PartnerA), lifetime[0]), Allow: allowed, Handler: s.echo,
				}))
				c, err := NewClient(ClientConfig{
					Self: id(PartnerB), Peer: id(PartnerA), Addr: s.addr, Dial: s.dial,
					Credentials: credentials(id(PartnerB), lifetime[1]),
				})
				require.NoError(t, err)
				for range 9 {
					_, err = c.Send(t.Context(), "ping", nil)
					require.NoError(t, err)
					<-time.After(time.Second)
				}
				<-time.After(2 * time.Second)
				_, err = c.Send(t.Context(), "ping", nil)
				require.ErrorContains(t, err, "expired")
				require.EqualValues(t, 1, c.Stats().Logins[ResultSuccess])
				c.Close()
				s.stop()
			})
		})
	}
}

func TestOneLine(t *testing.T) {
	got := oneLine("a\nb\x00c\xff" + strings.Repeat("é", 2000))
	require.True(t, strings.HasPrefix(got, "a b c?é"))
	require.LessOrEqual(t, len(got), 1030)
	require.False(t, bytes.ContainsAny([]byte(got), "\n\x00"))
}
