package endpoint

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func open(t testing.TB, c *Client) net.Conn {
	t.Helper()
	conn, err := c.Open(t.Context(), "bytes")
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func halfClose(conn net.Conn) error { return conn.(interface{ CloseWrite() error }).CloseWrite() }

func (s *site) stats(t testing.TB) Stats {
	t.Helper()
	at, ok := s.server.Stats(sessionOne)
	require.True(t, ok)
	return at
}

// Bytes arrive whole and in order both ways at once, either end closes its direction by itself, and both sides count.
func TestStream(t *testing.T) {
	s := tcpSite(t, Limits{})
	c := s.client(t, PartnerB)
	conn := open(t, c)
	require.Equal(t, 1, c.Stats().Streams)
	sent := make([]byte, 5<<20+3)
	_, _ = rand.Read(sent)
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(onlyWriter{conn}, bytes.NewReader(sent))
		done <- errors.Join(err, halfClose(conn))
	}()
	got, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.NoError(t, <-done)
	require.True(t, bytes.Equal(sent, got))
	require.NoError(t, conn.Close())
	_, err = conn.Write([]byte("x"))
	require.Error(t, err)

	s.stop()
	at, ours := s.stats(t), c.Stats()
	require.EqualValues(t, len(sent), at.StreamBytesReceived)
	require.EqualValues(t, len(sent), at.StreamBytesSent)
	require.EqualValues(t, len(sent), ours.StreamBytesReceived)
	require.EqualValues(t, len(sent), ours.StreamBytesSent)
	require.EqualValues(t, 1, at.StreamsOpened)
	require.EqualValues(t, 1, ours.StreamsOpened)
	require.Zero(t, at.Streams+ours.Streams+at.Connections+ours.Connections)
	require.EqualValues(t, 1, s.returned.Load())
	require.Zero(t, at.BytesReceived, "messages are counted by themselves")
}

// The server can end its direction first, and still hears the client.
func TestStreamHalfClosedByTheServer(t *testing.T) {
	s := tcpSite(t, Limits{})
	heard := make(chan string, 1)
	s.serveStreams(func(_ context.Context, from Identity, name Kind, conn net.Conn) {
		_, err := io.WriteString(conn, string(from.Role)+" opened "+string(name))
		all, readErr := []byte(nil), errors.Join(err, halfClose(conn))
		if readErr == nil {
			all, readErr = io.ReadAll(conn)
		}
		heard <- string(all) + errorText(readErr)
	})
	conn := open(t, s.client(t, PartnerB))
	said, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Equal(t, "partner-b opened bytes", string(said))
	_, err = io.WriteString(conn, "after your end")
	require.NoError(t, err)
	require.NoError(t, halfClose(conn))
	require.Equal(t, "after your end", <-heard)
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// A deadline for reading ends one Read; a deadline for writing ends a Write to somebody who does not read.
func TestStreamDeadlines(t *testing.T) {
	s := tcpSite(t, Limits{})
	goOn := make(chan struct{})
	s.serveStreams(func(_ context.Context, _ Identity, _ Kind, conn net.Conn) {
		<-goOn
		_, _ = io.WriteString(conn, "late")
		<-goOn
	})
	conn := open(t, s.client(t, PartnerB))
	for range 2 {
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Millisecond)))
		_, err := conn.Read(make([]byte, 9))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	}
	require.NoError(t, conn.SetReadDeadline(time.Time{}))
	goOn <- struct{}{}
	got := make([]byte, 4)
	_, err := io.ReadFull(conn, got)
	require.NoError(t, err)
	require.Equal(t, "late", string(got))

	require.NoError(t, conn.SetWriteDeadline(time.Now().Add(50*time.Millisecond)))
	for err == nil {
		_, err = conn.Write(make([]byte, 1<<20))
	}
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	close(goOn)
}

// Only who is in the table opens a stream, and only one that is named there. A kind of message is no stream, and a
// stream no kind of message (S1).
func TestStreamTable(t *testing.T) {
	s := tcpSite(t, Limits{})
	for _, c := range []struct {
		from Role
		name Kind
	}{{Witness, "bytes"}, {Witness, "ping"}, {PartnerB, "ping"}, {PartnerB, "log"}, {PartnerB, "unheard-of"}} {
		client := s.client(t, c.from)
		_, err := client.Open(t.Context(), c.name)
		var denied *DeniedError
		require.ErrorAs(t, err, &denied)
		require.Equal(t, http.StatusForbidden, denied.Status)
		require.ErrorContains(t, err, string(c.from)+" may not open stream \""+string(c.name)+"\" to partner-a")
		require.Contains(t, s.log.String(), "may not open stream", "it is seen on both sides")
		require.Zero(t, client.Stats().Streams+client.Stats().Connections)
	}
	_, err := s.client(t, PartnerB).Send(t.Context(), "bytes", nil)
	require.ErrorContains(t, err, "may not send")
	_, err = s.client(t, PartnerB).Open(t.Context(), "../bytes")
	require.ErrorContains(t, err, "not valid")
	require.Zero(t, s.streamed.Load())
	require.EqualValues(t, 6, s.stats(t).Logins[ResultAuthorizationFailure])
	require.Zero(t, s.stats(t).StreamsOpened)
}

// Somebody with the certificate of an identity that is expected nowhere, or of another session, opens nothing (S2, S3).
func TestStreamWrongIdentity(t *testing.T) {
	s := tcpSite(t, Limits{})
	for _, who := range []Identity{id(Admin), {Session: sessionTwo, Role: PartnerB}} {
		c, err := NewClient(ClientConfig{
			Self: Identity{Session: sessionOne, Role: PartnerB}, Peer: id(PartnerA), Addr: s.addr, Credentials: s.ca.credentials(t, id(PartnerB)),
		})
		require.NoError(t, err)
		certificate := s.ca.of(t, who)
		c.own.mu.current.certificate = &certificate
		_, err = c.Open(t.Context(), "bytes")
		var denied *DeniedError
		require.ErrorAs(t, err, &denied)
		require.ErrorContains(t, err, "our certificate is not one that is expected there")
	}
	stranger := newCA(t)
	c, err := NewClient(ClientConfig{
		Self: id(PartnerB), Peer: id(PartnerA), Addr: s.addr, Credentials: stranger.credentials(t, id(PartnerB)),
	})
	require.NoError(t, err)
	_, err = c.Open(t.Context(), "bytes")
	var bad *CertificateError
	require.ErrorAs(t, err, &bad, "the client verifies first")
	require.Zero(t, s.streamed.Load())
}

// A session that serves no streams, a release that knows none, and somebody else's service give one clear error each.
func TestStreamsNotOffered(t *testing.T) {
	s := tcpSite(t, Limits{})
	s.server.Unregister(sessionOne)
	require.NoError(t, s.server.Register(SessionConfig{
		Self: id(PartnerA), Credentials: s.ca.credentials(t, id(PartnerA)), Allow: allowed, Handler: s.echo,
	}))
	_, err := s.client(t, PartnerB).Open(t.Context(), "bytes")
	require.ErrorContains(t, err, `refuses: partner-b may not open stream "bytes" to partner-a`)

	for want, handler := range map[string]http.HandlerFunc{
		"refuses: it knows messages and no streams; run the same release there": func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPost {
				http.Error(w, "a message is a POST without encoding", http.StatusMethodNotAllowed)
			}
		},
		"mounted at /dbmirror/v1/": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", streamProtocol)
			w.WriteHeader(http.StatusSwitchingProtocols)
		},
		"refuses: welcome": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "welcome") },
	} {
		other := &site{ca: s.ca, addr: another(t, s, handler)}
		_, err := other.client(t, PartnerB).Open(t.Context(), "bytes")
		require.ErrorContains(t, err, want)
	}
}

// another is somebody else's service with the certificate of a site. It returns its address.
func another(t *testing.T, s *site, handler http.HandlerFunc) string {
	web := httptest.NewUnstartedServer(handler)
	web.Config.ErrorLog = log.New(io.Discard, "", 0)
	web.TLS = s.server.session(sessionOne).tlsConfig()
	web.StartTLS()
	t.Cleanup(web.Close)
	return web.Listener.Addr().String()
}

// In a service that listens itself, streams are served as well, and end with the session.
func TestStreamsMounted(t *testing.T) {
	s, web := mount(t)
	web.TLS.GetConfigForClient = s.server.ConfigForClient
	web.StartTLS()
	c := s.client(t, PartnerB)
	conn := open(t, c)
	_, err := io.WriteString(conn, "x")
	require.NoError(t, err)
	_, err = io.ReadFull(conn, make([]byte, 1))
	require.NoError(t, err)
	_, err = s.client(t, Witness).Open(t.Context(), "bytes")
	require.ErrorContains(t, err, "may not open")
	s.server.Unregister(sessionOne)
	require.EqualValues(t, 1, s.returned.Load(), "Unregister waits for the handler")
	_, err = conn.Read(make([]byte, 1))
	require.Error(t, err)
	_, err = c.Open(t.Context(), "bytes")
	require.Error(t, err)
}

// Without TLS, on loopback, streams are served to whom a header claims to be in the table.
func TestStreamsInPlaintext(t *testing.T) {
	s := &site{}
	var err error
	s.server, err = NewServer(ServerConfig{Plaintext: true, Logger: s.log.logger()})
	require.NoError(t, err)
	require.NoError(t, s.server.Register(SessionConfig{
		Self: id(PartnerA), Credentials: Credentials{Plaintext: true}, Allow: allowed, Handler: s.echo,
		Streams: allowedStreams, Stream: s.stream,
	}))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.serve(t, listener)
	client := func(role Role) *Client {
		c, err := NewClient(ClientConfig{
			Self: id(role), Peer: id(PartnerA), Addr: listener.Addr().String(), Credentials: Credentials{Plaintext: true},
		})
		require.NoError(t, err)
		return c
	}
	conn := open(t, client(PartnerB))
	_, err = io.WriteString(conn, "whole")
	require.NoError(t, err)
	require.NoError(t, halfClose(conn))
	got, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Equal(t, "whole", string(got))
	_, err = client(Witness).Open(t.Context(), "bytes")
	require.ErrorContains(t, err, "witness may not open")
}

// With the server end its streams, their handlers, and everything that belongs to them; so they do one by one with the
// session. That nothing runs on is what the bubble checks.
func TestStreamsEndWithTheServer(t *testing.T) {
	for name, end := range map[string]func(*site){
		"server":  func(s *site) { s.stop() },
		"session": func(s *site) { s.server.Unregister(sessionOne) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := pipeSite(t, Limits{}, echoing)
				causes := make(chan error, 2)
				s.serveStreams(func(ctx context.Context, _ Identity, _ Kind, conn net.Conn) {
					<-ctx.Done() // it reads nothing: only ctx tells it
					_, err := conn.Read(make([]byte, 1))
					causes <- err
				})
				c := s.client(t, PartnerB)
				first, second := open(t, c), open(t, c)
				synctest.Wait()
				began := time.Now()
				end(s)
				require.Less(t, time.Since(began), 5*time.Second)
				require.EqualValues(t, 2, s.returned.Load())
				for _, conn := range []net.Conn{first, second} {
					_, err := conn.Read(make([]byte, 1))
					require.Error(t, err)
					require.Error(t, <-causes)
					_ = conn.Close()
				}
				require.Zero(t, c.Stats().Streams+c.Stats().Connections)
				require.Zero(t, s.server.Totals().Connections)
				s.stop()
			})
		})
	}
}
