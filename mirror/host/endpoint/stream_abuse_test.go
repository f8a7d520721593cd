package endpoint

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

const upgrade = "GET /dbmirror/v1/" + sessionOne + "/bytes HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: " + streamProtocol + "\r\n"

// An identity has a bounded number of streams. One that is closed makes room for the next.
func TestStreamsPerPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := pipeSite(t, Limits{MaxStreams: 3}, echoing)
		c := s.client(t, PartnerB)
		var conns []net.Conn
		for range 3 {
			conns = append(conns, open(t, c))
		}
		for range 20 {
			_, err := c.Open(t.Context(), "bytes")
			var denied *DeniedError
			require.ErrorAs(t, err, &denied)
			require.Equal(t, http.StatusTooManyRequests, denied.Status)
			require.Contains(t, denied.Text, "the limit is 3")
			synctest.Wait()
		}
		require.Equal(t, 3, s.stats(t).Streams)
		require.Equal(t, 3, s.server.Totals().Connections, "a refused stream leaves nothing open")
		require.NoError(t, conns[1].Close())
		synctest.Wait()
		conns = append(conns, open(t, c))
		for _, conn := range conns {
			_ = conn.Close()
		}
		synctest.Wait()
		require.Zero(t, s.stats(t).Streams)
		s.stop()
	})
}

// A flood of streams is refused, whatever becomes of each, and does not use up what messages may.
func TestAbuseS14FloodOfStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := pipeSite(t, Limits{Rate: 10, Burst: 30}, echoing)
		c := s.client(t, PartnerB)
		var passed []net.Conn
		for range 100 {
			conn, err := c.Open(t.Context(), "bytes")
			if err == nil {
				passed = append(passed, conn)
				continue
			}
			require.ErrorContains(t, err, "10 per second")
		}
		require.Len(t, passed, 30)
		_, err := c.Send(t.Context(), "ping", nil)
		require.NoError(t, err)
		c.Close()
		s.stop()
		for _, conn := range passed {
			_ = conn.Close()
		}
	})
}

// Messages never wait for streams: not for one whose reader does not read, and not for places of connections.
func TestMessagesBesideStreams(t *testing.T) {
	const streams = 3
	s := tcpSite(t, Limits{MaxPerPeer: 2})
	c := s.client(t, PartnerB)
	c.cfg.Timeout = time.Minute // what waits for a stream waits longer: they stay as they are until the test ends
	_, err := c.Send(t.Context(), "ping", nil)
	require.NoError(t, err)
	stalled := make(chan struct{})
	s.serveStreams(func(ctx context.Context, _ Identity, _ Kind, _ net.Conn) { <-ctx.Done() })
	for range streams {
		conn := open(t, c)
		go func() {
			for err := error(nil); err == nil; {
				_ = conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
				_, err = conn.Write(make([]byte, 1<<20))
			}
			stalled <- struct{}{}
		}()
	}
	for range streams {
		<-stalled // nobody reads what was written: the other side's buffers are full
	}
	for range 50 {
		_, err := c.Send(t.Context(), "ping", nil)
		require.NoError(t, err)
	}
	require.EqualValues(t, 1+streams, c.Stats().Logins[ResultSuccess], "the connection of messages was never given up")
	require.Equal(t, streams, s.stats(t).Streams)

	config := strangerConfig(s.ca.of(t, id(PartnerB)))
	for range 10 {
		status, _, err := post(s.addr, config, sessionOne, "x")
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, status)
	}
	require.Equal(t, streams, s.stats(t).Streams, "and streams do not give way to messages")
}

// What is not a request for a stream opens none, whoever it comes from.
func TestAbuseStreamRequests(t *testing.T) {
	s := tcpSite(t, Limits{})
	config := strangerConfig(s.ca.of(t, id(PartnerB)))
	for name, c := range map[string]struct {
		request, want string
	}{
		"another protocol": {strings.Replace(upgrade, streamProtocol, "websocket", 1) + "\r\n", "HTTP/1.1 400"},
		"a body":           {upgrade + "Content-Length: 5\r\n\r\nhello", "HTTP/1.1 400"},
		"a chunked body":   {upgrade + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "HTTP/1.1 400"},
		"a message":        {strings.Replace(upgrade, "GET", "POST", 1) + "\r\n", "HTTP/1.1 400"},
		"no upgrade":       {strings.Split(upgrade, "Connection")[0] + "\r\n", "HTTP/1.1 405"},
		"another path":     {strings.Replace(upgrade, "/bytes", "/bytes/x", 1) + "\r\n", "HTTP/1.1 404"},
		"another session":  {strings.Replace(upgrade, sessionOne, sessionTwo, 1) + "\r\n", "HTTP/1.1 404"},
		"garbage":          {"\x00\x01\x02 garbage\r\n\r\n", "HTTP/1.1 400"},
		"bytes in advance": {upgrade + "\r\n" + strings.Repeat("x", 500), ""},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := tls.Dial("tcp", s.addr, config)
			require.NoError(t, err)
			defer conn.Close()
			_, err = io.WriteString(conn, c.request)
			require.NoError(t, err)
			line, _ := bufio.NewReader(conn).ReadString('\r')
			require.True(t, strings.HasPrefix(line, c.want) && !strings.Contains(line, "101"), "%q", line)
		})
	}
	require.Zero(t, s.streamed.Load())
	require.Zero(t, s.stats(t).Streams)
	open(t, s.client(t, PartnerB))
}

// A stream that ends in the middle ends its handler, whichever way.
func TestStreamEndsInTheMiddle(t *testing.T) {
	s := tcpSite(t, Limits{})
	ended := make(chan error, 1)
	s.serveStreams(func(_ context.Context, _ Identity, _ Kind, conn net.Conn) {
		_, err := io.Copy(io.Discard, conn)
		ended <- err
	})
	c := s.client(t, PartnerB)
	for name, end := range map[string]func(conn net.Conn) error{
		"reset":     func(conn net.Conn) error { return reset(conn) },
		"closed":    func(conn net.Conn) error { return conn.Close() },
		"cut short": func(conn net.Conn) error { return rawOf(conn.(*stream).Conn).Close() },
		"garbage on the line": func(conn net.Conn) error {
			_, err := rawOf(conn.(*stream).Conn).Write([]byte("not a record of TLS, by far"))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			conn := open(t, c)
			_, err := conn.Write(make([]byte, 100))
			require.NoError(t, err)
			require.NoError(t, end(conn))
			err = <-ended
			whole := name == "closed" || name == "cut short" // TLS does not tell the two apart
			require.Equal(t, whole, err == nil, "%v", err)
		})
	}
}

func reset(conn net.Conn) error {
	tcp := rawOf(conn.(*stream).Conn).(*net.TCPConn)
	return errors.Join(tcp.SetLinger(0), tcp.Close())
}

// The end of a certificate, on either side, ends streams that are open, and both sides say why.
func TestStreamEndsWithItsCertificate(t *testing.T) {
	for name, lifetime := range map[string][2]time.Duration{
		"server's": {time.Minute, time.Hour}, "client's": {time.Hour, time.Minute},
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
					Streams: allowedStreams, Stream: s.stream,
				}))
				causes := make(chan error, 1)
				s.serveStreams(func(ctx context.Context, _ Identity, _ Kind, conn net.Conn) {
					_, err := conn.Read(make([]byte, 1))
					<-ctx.Done()
					causes <- errors.Join(err, context.Cause(ctx))
				})
				c, err := NewClient(ClientConfig{
					Self: id(PartnerB), Peer: id(PartnerA), Addr: s.addr, Dial: s.dial,
					Credentials: credentials(id(PartnerB), lifetime[1]),
				})
				require.NoError(t, err)
				conn, began := open(t, c), time.Now()
				_, err = conn.Read(make([]byte, 1))
				require.InDelta(t, 60, time.Since(began).Seconds(), reverifyEvery.Seconds()+1)
				cause := err
				if name == "client's" {
					cause = <-causes
				}
				var bad *CertificateError
				require.ErrorAs(t, cause, &bad)
				require.ErrorContains(t, cause, "expired")
				require.Zero(t, c.Stats().Streams-map[bool]int{true: 1}[name == "client's"])
				_ = conn.Close()
				s.stop()
				require.Zero(t, c.Stats().Streams)
			})
		})
	}
}

// Streams outlive the renewal of certificates, and end with the authority that vouched for them.
func TestStreamsWhenCredentialsAreReplaced(t *testing.T) {
	a := newAuthority(t)
	s, c, server, client := filedSite(t, a)
	conn := open(t, c)
	server.write(t, a, id(PartnerA), 2*time.Hour)
	client.replace(t, a, id(PartnerB), 2*time.Hour)
	require.NoError(t, conn.(*stream).verify())
	_, err := io.WriteString(conn, "x")
	require.NoError(t, err)
	_, err = io.ReadFull(conn, make([]byte, 1))
	require.NoError(t, err)

	other := newAuthority(t)
	server.write(t, other, id(PartnerA), time.Hour)
	client.replace(t, other, id(PartnerB), time.Hour)
	conn.(*stream).reverify() // as it does every few seconds
	_, err = conn.Read(make([]byte, 1))
	var bad *CertificateError
	require.ErrorAs(t, err, &bad)
	require.ErrorContains(t, err, "another authority issued it")
	_, err = conn.Write([]byte("x"))
	require.ErrorAs(t, err, &bad)
	require.Zero(t, c.Stats().Streams)
	conn = open(t, c)
	_, err = io.WriteString(conn, "x")
	require.NoError(t, err)
	_, err = io.ReadFull(conn, make([]byte, 1)) // then the server has counted it
	require.NoError(t, err)
	require.EqualValues(t, 2, s.stats(t).StreamsOpened)
}

// Whoever does not answer, or answers nonsense, costs an Open its time at most, and leaves nothing behind.
func TestOpenIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		want   string
	}{
		"silence":        {"", "did not answer within 5s"},
		"half a header":  {"HTTP/1.1 101 Switching Protocols\r\nConnection:", "did not answer within 5s"},
		"endless header": {"HTTP/1.1 101 Switching Protocols\r\nX: " + strings.Repeat("x", maxHeader), "unexpected EOF"},
		"nonsense":       {strings.Repeat("nonsense\r\n", 20), "malformed HTTP"},
		"a long text":    {"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nno\n!", "refuses: no !"},
		"endless text":   {"HTTP/1.1 403 Forbidden\r\n\r\n" + strings.Repeat("n", maxHeader), "refuses: nnn"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := answering(t, c.answer)
				began := time.Now()
				_, err := client.Open(t.Context(), "bytes")
				require.ErrorContains(t, err, c.want)
				require.LessOrEqual(t, time.Since(began), 10*time.Second)
				require.Zero(t, client.Stats().Connections+client.Stats().Streams)
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		client := answering(t, "")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("enough"))
		defer cancel()
		_, err := client.Open(ctx, "bytes")
		var timeout *TimeoutError
		require.ErrorAs(t, err, &timeout)
		ctx, stop := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, stop)
		_, err = client.Open(ctx, "bytes")
		require.ErrorContains(t, err, "given up by the caller")
	})
}

// answering is a client of a server without TLS that says one thing to whatever it is asked.
func answering(t *testing.T, answer string) *Client {
	c, err := NewClient(ClientConfig{
		Self: id(PartnerB), Peer: id(PartnerA), Addr: "localhost:1", Credentials: Credentials{Plaintext: true},
		Dial: func(context.Context, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				_, _ = http.ReadRequest(bufio.NewReader(theirs))
				_, _ = io.WriteString(theirs, answer)
				_, _ = io.Copy(io.Discard, theirs)
				_ = theirs.Close()
			}()
			return ours, nil
		},
	})
	require.NoError(t, err)
	return c
}

// Few streams are opened at a time, so that the places of messages at the server are not taken.
func TestStreamsAreOpenedInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := pipeSite(t, Limits{}, echoing)
		var dialling, most atomic.Int64
		c, err := NewClient(ClientConfig{
			Self: id(PartnerB), Peer: id(PartnerA), Addr: s.addr, Credentials: s.ca.credentials(t, id(PartnerB)),
			Dial: func(ctx context.Context, addr string) (net.Conn, error) {
				defer dialling.Add(-1)
				if now := dialling.Add(1); now > most.Load() {
					most.Store(now)
				}
				<-time.After(100 * time.Millisecond)
				return s.dial(ctx, addr)
			},
		})
		require.NoError(t, err)
		results := make(chan error)
		for range 20 {
			go func() {
				conn, err := c.Open(t.Context(), "bytes")
				if err == nil {
					err = conn.Close()
				}
				results <- err
			}()
		}
		for range 20 {
			require.NoError(t, <-results)
		}
		require.EqualValues(t, maxOpening, most.Load())
		s.stop()
	})
}

// FuzzStreamAnswer: whatever answers the request for a stream, what is taken for a stream was offered as one by the right
// server, and what follows the headers is read from it whole.
func FuzzStreamAnswer(f *testing.F) {
	good := fmt.Sprintf("HTTP/1.1 101 Switching Protocols\r\nUpgrade: %s\r\n%s: %s\r\n\r\n", streamProtocol, headerFrom, id(PartnerA))
	f.Add([]byte(good + "what follows"))
	f.Add([]byte(strings.Replace(good, "101", "200", 1)))
	f.Add([]byte(strings.Replace(good, "partner-a", "partner-b", 1)))
	f.Add([]byte("HTTP/1.1 405 Method Not Allowed\r\n\r\n"))
	for _, end := range []string{"\n\n", "\n\r\n", "\r\n\n", "\r\n \r\n\r\n"} { // a line may end without CR
		f.Add([]byte(strings.Replace(good, "\r\n\r\n", end, 1) + "what\r\n\r\nfollows"))
	}
	end := regexp.MustCompile(`\n\r?\n`) // of the headers: the first empty line
	f.Fuzz(func(t *testing.T, answer []byte) {
		c := &Client{cfg: ClientConfig{Self: id(PartnerB), Peer: id(PartnerA), Addr: "a:1"}}
		conn := &scripted{from: bytes.NewReader(answer)}
		if c.upgrade(t.Context(), conn, "bytes") != nil {
			return
		}
		got, err := io.ReadAll(conn)
		require.NoError(t, err)
		head := end.FindIndex(answer)
		require.NotNil(t, head, "it was taken for whole")
		require.Equal(t, string(answer[head[1]:]), string(got))
		require.Contains(t, string(answer[:head[1]]), id(PartnerA).String())
		require.Contains(t, string(answer[:head[1]]), streamProtocol)
	})
}

// scripted is a connection on which the other side has said everything already.
type scripted struct {
	net.Conn
	from io.Reader
}

func (s *scripted) Read(p []byte) (int, error)  { return s.from.Read(p) }
func (s *scripted) Write(p []byte) (int, error) { return len(p), nil }
func (*scripted) SetDeadline(time.Time) error   { return nil }
