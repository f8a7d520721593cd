package endpoint

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// timeToClose returns how long the other side lets a connection live on which one byte of what is sent every second.
func timeToClose(conn net.Conn, what string) time.Duration {
	began := time.Now()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_, _ = io.Copy(io.Discard, conn)
	}()
	for i := 0; ; i++ {
		select {
		case <-closed:
			return time.Since(began)
		case <-time.After(time.Second):
			if i < len(what) {
				_, _ = conn.Write([]byte{what[i]})
			}
		}
	}
}

// S14, in synthetic time: whoever is slow is cut off at the limit, wherever he is slow.
func TestAbuseS14SlowConnections(t *testing.T) {
	const head = "POST /dbmirror/v1/" + sessionOne + "/ping HTTP/1.1\r\nHost: x\r\n"
	for _, c := range []struct {
		name         string
		login        bool
		from         Role
		first, slow  string
		want, within time.Duration
	}{
		{name: "silent before login", want: 5 * time.Second},
		{name: "slow handshake", slow: "\x16\x03\x01\x02\x00" + strings.Repeat("\x01", 500), want: 5 * time.Second},
		{name: "silent after login", login: true, want: 5 * time.Second},
		{name: "slow header", login: true, slow: head + "X: " + strings.Repeat("x", 500), want: 5 * time.Second},
		{name: "slow body", login: true, first: head + "Content-Length: 400\r\n\r\n", slow: strings.Repeat("x", 300), want: 5 * time.Second},
		{name: "silent body", login: true, first: head + "Content-Length: 400\r\n\r\n", want: 5 * time.Second},
		{name: "refused and silent", login: true, from: Admin, want: 5 * time.Second},
		{name: "idle", login: true, first: head + "Content-Length: 0\r\n\r\n", want: 90 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := pipeSite(t, Limits{}, echoing)
				conn, err := s.dial(t.Context(), "")
				require.NoError(t, err)
				defer conn.Close()
				if c.login {
					conn = tls.Client(conn, strangerConfig(s.ca.of(t, id(cmp.Or(c.from, PartnerB)))))
				}
				if c.first != "" {
					_, err = io.WriteString(conn, c.first)
					require.NoError(t, err)
				} else if c.login {
					require.NoError(t, conn.(*tls.Conn).Handshake())
				}
				// A server answers, and lets the client read it, before it closes.
				took := timeToClose(conn, c.slow)
				if c.from == Admin {
					// It was told so at once, and then does not close.
					require.Zero(t, took)
					require.Equal(t, 1, s.server.Totals().Handshakes)
					<-time.After(c.want + time.Millisecond)
				} else {
					require.InDelta(t, c.want.Seconds(), took.Seconds(), 1.5)
				}
				synctest.Wait()
				require.Zero(t, s.server.Totals().Connections)
			})
		})
	}
}

// A flood costs its sender only: messages over the rate are refused, and the log does not grow with them.
func TestAbuseS14Flood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := pipeSite(t, Limits{Rate: 10, Burst: 30}, echoing)
		flood, honest := s.client(t, PartnerB), s.client(t, Witness)
		send := func(n int) (passed int) {
			for range n {
				_, err := flood.Send(t.Context(), "ping", nil)
				var denied *DeniedError
				if errors.As(err, &denied) {
					require.Equal(t, http.StatusTooManyRequests, denied.Status)
					require.Contains(t, denied.Text, "10 per second")
				} else {
					require.NoError(t, err)
					passed++
				}
			}
			return passed
		}
		require.Equal(t, 30, send(500))
		_, err := honest.Send(t.Context(), "vote", nil)
		require.NoError(t, err, "others are not held up")
		<-time.After(2 * time.Second)
		require.Equal(t, 20, send(100), "the bucket fills up at the rate")
		<-time.After(10 * time.Minute)
		require.Equal(t, 30, send(100), "and no farther than the burst")

		require.EqualValues(t, 80+1, s.handled.Load())
		require.Equal(t, 1, flood.Stats().Connections, "a refusal does not cost a new login")
		require.Less(t, count(s.log.String(), "msg=refused"), 60)
		require.Contains(t, s.log.String(), "unlogged=4")
		at, _ := s.server.Stats(sessionOne)
		require.EqualValues(t, 470+80+70, at.Logins[ResultProtocolError])
		flood.Close()
		honest.Close()
		s.stop()
	})
}

// An identity has a bounded number of messages at a time.
func TestMessagesAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := pipeSite(t, Limits{MaxPerPeer: 2}, func(s *site) Handler {
			return func(ctx context.Context, from Identity, kind Kind, body []byte) ([]byte, error) {
				<-release
				return s.echo(ctx, from, kind, body)
			}
		})
		results := make(chan error, 3)
		for range 3 {
			go func() {
				c := s.client(t, PartnerB)
				_, err := c.Send(t.Context(), "ping", nil)
				c.Close()
				results <- err
			}()
			synctest.Wait()
		}
		// The third connection has replaced the first, and its message is one too many.
		both := errors.Join(<-results, <-results)
		close(release)
		require.NoError(t, <-results)
		var refused *RefusedError
		require.ErrorAs(t, both, &refused)
		var denied *DeniedError
		require.ErrorAs(t, both, &denied)
		require.Equal(t, http.StatusTooManyRequests, denied.Status)
		s.stop()
	})
}

// An identity has a bounded number of connections; the newest stay.
func TestConnectionsPerPeer(t *testing.T) {
	s := tcpSite(t, Limits{MaxPerPeer: 3})
	config := strangerConfig(s.ca.of(t, id(PartnerB)))
	var conns []*tls.Conn
	for range 10 {
		conn, err := tls.Dial("tcp", s.addr, config)
		require.NoError(t, err)
		defer conn.Close()
		// With its answer a connection is known to be counted.
		_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", pathOf(sessionOne, "ping"))
		require.NoError(t, err)
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, response.StatusCode)
		conns = append(conns, conn)
	}
	for _, conn := range conns[:7] {
		_, err := io.Copy(io.Discard, conn)
		require.NotErrorIs(t, err, context.DeadlineExceeded)
	}
	at, _ := s.server.Stats(sessionOne)
	require.Equal(t, 3, at.Connections)
	require.Equal(t, 3, s.server.Totals().Connections)
	_, err := s.client(t, Witness).Send(t.Context(), "ping", nil)
	require.NoError(t, err)
}

func TestConnectionsInAll(t *testing.T) {
	s := tcpSite(t, Limits{MaxConnections: 1})
	first := s.client(t, PartnerB)
	_, err := first.Send(t.Context(), "ping", nil)
	require.NoError(t, err)
	_, err = s.client(t, Witness).Send(t.Context(), "ping", nil)
	var refused *RefusedError
	require.ErrorAs(t, err, &refused)
	_, err = first.Send(t.Context(), "ping", nil)
	require.NoError(t, err)
	require.Contains(t, s.log.String(), "Limits.MaxConnections")
}

// S14: hundreds of silent connections keep nobody out, and cost a bounded amount.
func TestAbuseS14HalfOpenConnections(t *testing.T) {
	s := tcpSite(t, Limits{MaxHandshakes: 64, Handshake: time.Minute}) // nobody leaves by himself
	open := s.client(t, Witness)
	_, err := open.Send(t.Context(), "ping", nil)
	require.NoError(t, err)
	before := runtime.NumGoroutine()

	var silent []net.Conn
	for range 300 {
		conn, err := net.Dial("tcp", s.addr)
		require.NoError(t, err)
		defer conn.Close()
		silent = append(silent, conn)
	}
	_, err = open.Send(t.Context(), "ping", nil)
	require.NoError(t, err, "whoever is logged in notices nothing")
	require.Eventually(t, func() bool { return s.server.Totals().Evicted >= 300-64 }, time.Minute, 5*time.Millisecond, "who has waited longest gives way")
	_, err = s.client(t, PartnerB).Send(t.Context(), "ping", nil)
	require.NoError(t, err, "whoever can log in gets in")
	totals := s.server.Totals()
	require.LessOrEqual(t, totals.Handshakes, 64)
	require.Greater(t, totals.Evicted, uint64(300-64))
	require.LessOrEqual(t, totals.Connections, 64+2+1)
	require.Eventually(t, func() bool { return runtime.NumGoroutine()-before < 64+20 }, time.Minute, 5*time.Millisecond, "who has given way leaves nothing behind")

	// The first ones have been closed; that is the system's word for it, not a deadline's.
	_, err = silent[0].Read(make([]byte, 1))
	require.Error(t, err)
}

// A crowd that logs in at once, as after a restart of a witness, is let in: nobody pushes anybody out.
func TestCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := pipeSite(t, Limits{MaxHandshakes: 4, MaxPerPeer: 100}, echoing)
		errs := make(chan error)
		for range 40 {
			go func() {
				c := s.client(t, PartnerB)
				_, err := c.Send(t.Context(), "ping", nil)
				c.Close()
				errs <- err
			}()
		}
		for range 40 {
			require.NoError(t, <-errs)
		}
		require.EqualValues(t, 40, s.server.Totals().Logins[ResultSuccess])
		require.Zero(t, s.server.Totals().Evicted)
		s.stop()
	})
}

// Who has asked for a session may take longer to log in than who is silent, but not for ever.
func TestSilentGiveWayFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := pipeSite(t, Limits{MaxHandshakes: 2}, echoing)
		closed := make(chan string, 2)
		began := time.Now()
		wait := func(name string, conn net.Conn) {
			go func() {
				_, _ = io.Copy(io.Discard, conn)
				closed <- fmt.Sprint(name, " ", time.Since(began))
			}()
		}
		named, err := s.dial(t.Context(), "")
		require.NoError(t, err)
		_, err = named.Write(clientHello(t))
		require.NoError(t, err)
		wait("named", named)
		synctest.Wait()
		silent, err := s.dial(t.Context(), "")
		require.NoError(t, err)
		wait("silent", silent)

		for range 2 {
			again, err := s.dial(t.Context(), "")
			require.NoError(t, err)
			_, err = again.Write(clientHello(t))
			require.NoError(t, err)
			go func() { _, _ = io.Copy(io.Discard, again) }()
		}
		require.Equal(t, "silent 250ms", <-closed)
		require.Equal(t, "named 1s", <-closed)
		require.EqualValues(t, 2, s.server.Totals().Evicted)
		s.stop()
	})
}

// clientHello is the first thing a client says, and all a client says that wants to keep a place.
func clientHello(t *testing.T) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() {
		_ = tls.Client(theirs, &tls.Config{
			ServerName: serverName(sessionOne, DefaultDomain), NextProtos: []string{protocol}, InsecureSkipVerify: true,
		}).Handshake()
	}()
	hello := make([]byte, 16<<10)
	n, err := ours.Read(hello)
	require.NoError(t, err)
	require.NoError(t, ours.Close())
	return hello[:n]
}

// Sizes that are claimed are refused before anything is read or kept for them.
func TestAbuseS14OversizeBodies(t *testing.T) {
	s := tcpSite(t, Limits{})
	config := strangerConfig(s.ca.of(t, id(PartnerB)))
	chunk := fmt.Sprintf("%x\r\n%s\r\n", 4096, strings.Repeat("x", 4096))
	for name, request := range map[string]string{
		"one byte too long": fmt.Sprintf("Content-Length: %d\r\n\r\n", MaxBody+1),
		"2 GiB":             "Content-Length: 2147483648\r\n\r\n",
		"in chunks":         "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat(chunk, MaxBody/4096+1),
	} {
		conn, err := tls.Dial("tcp", s.addr, config)
		require.NoError(t, err)
		_, err = io.WriteString(conn, "POST "+pathOf(sessionOne, "ping")+" HTTP/1.1\r\nHost: x\r\n"+request)
		require.NoError(t, err, name)
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err, name)
		require.Equal(t, http.StatusRequestEntityTooLarge, response.StatusCode, name)
		require.True(t, response.Close, name)
		require.NoError(t, conn.Close())
	}
	require.Zero(t, s.handled.Load())
	at, _ := s.server.Stats(sessionOne)
	require.EqualValues(t, 3, at.Logins[ResultMessageFormatError])
}

func TestWhatIsNotAMessage(t *testing.T) {
	s := tcpSite(t, Limits{})
	config := strangerConfig(s.ca.of(t, id(PartnerB)))
	ping := pathOf(sessionOne, "ping")
	for request, want := range map[string]int{
		"GET " + ping:               http.StatusMethodNotAllowed,
		"PUT " + ping:               http.StatusMethodNotAllowed,
		"POST " + ping + "/":        http.StatusNotFound,
		"POST " + PathPrefix:        http.StatusNotFound,
		"POST /":                    http.StatusNotFound,
		"POST /x" + ping:            http.StatusNotFound,
		"POST " + ping + "?x=1":     http.StatusOK,
		"POST " + ping + "%2f":      http.StatusNotFound,
		"POST " + ping + "-PING":    http.StatusNotFound,
		"POST " + pathOf("abc", ""): http.StatusNotFound,
	} {
		conn, err := tls.Dial("tcp", s.addr, config)
		require.NoError(t, err)
		_, err = io.WriteString(conn, request+" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
		require.NoError(t, err)
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err, request)
		require.Equal(t, want, response.StatusCode, request)
		require.NoError(t, conn.Close())
	}
	require.EqualValues(t, 1, s.handled.Load())
}

// Silence is a soft error after the timeout, wherever the silence is.
func TestTimeouts(t *testing.T) {
	for name, limit := range map[string]time.Duration{"handler": time.Hour, "nobody accepts": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := pipeSite(t, Limits{Handler: limit}, func(*site) Handler {
					return func(ctx context.Context, _ Identity, _ Kind, _ []byte) ([]byte, error) {
						<-ctx.Done()
						return nil, ctx.Err()
					}
				})
				if limit == 0 {
					s.dial = func(ctx context.Context, _ string) (net.Conn, error) {
						<-ctx.Done()
						return nil, ctx.Err()
					}
				}
				c := s.client(t, PartnerB)
				c.cfg.Timeout = 3 * time.Second
				began := time.Now()
				_, err := c.Send(t.Context(), "ping", nil)
				var timeout *TimeoutError
				require.ErrorAs(t, err, &timeout)
				require.Equal(t, 3*time.Second, time.Since(began))
				require.True(t, timeout.Timeout())
				require.EqualValues(t, 1, c.Stats().Timeouts)

				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				_, err = c.Send(ctx, "ping", nil)
				require.ErrorIs(t, err, context.Canceled)
				require.EqualValues(t, 1, c.Stats().Timeouts, "being called back is not silence")
				c.Close()
				s.stop()
			})
		})
	}
}

// A Handler may take longer than a message may take to arrive.
func TestSlowHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := pipeSite(t, Limits{Handshake: time.Second, Handler: 10 * time.Second}, func(*site) Handler {
			return func(ctx context.Context, _ Identity, _ Kind, _ []byte) ([]byte, error) {
				<-time.After(4 * time.Second)
				return []byte("late"), ctx.Err()
			}
		})
		c := s.client(t, PartnerB)
		reply, err := c.Send(t.Context(), "ping", []byte("x"))
		require.NoError(t, err)
		require.Equal(t, "late", string(reply))
		c.Close()
		s.stop()
	})
}

// Serve ends in order: what is being handled gets its answer, or 2 s; and Serve does not leave it behind.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := pipeSite(t, Limits{}, func(*site) Handler {
			return func(ctx context.Context, _ Identity, _ Kind, body []byte) ([]byte, error) {
				if string(body) == "soon" {
					<-time.After(time.Second)
					return []byte("done"), nil
				}
				<-ctx.Done()
				<-time.After(500 * time.Millisecond)
				return nil, ctx.Err()
			}
		})
		soon, never := s.client(t, PartnerB), s.client(t, Witness)
		lost := make(chan error, 1)
		go func() {
			_, err := never.Send(t.Context(), "ping", []byte("never"))
			lost <- err
		}()
		answered := make(chan string, 1)
		go func() {
			reply, err := soon.Send(t.Context(), "ping", []byte("soon"))
			require.NoError(t, err)
			answered <- string(reply)
		}()
		synctest.Wait()
		began := time.Now()
		s.stop()
		require.Equal(t, stopTime+500*time.Millisecond, time.Since(began))
		require.Equal(t, "done", <-answered)
		require.Error(t, <-lost)
		soon.Close()
		never.Close()
	})
}
