package endpoint

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sent is what a Client writes for one message.
func sent(body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: 127.0.0.1:7001\r\nUser-Agent: dbmirror\r\nContent-Length: %d\r\n"+
		"Content-Type: application/octet-stream\r\n\r\n%s", pathOf(sessionOne, "ping"), len(body), body)
}

// FuzzPost: what is read here is what package net/http reads of the same bytes, whole, and is written in one way only.
func FuzzPost(f *testing.F) {
	f.Add([]byte(sent("body")))
	f.Add([]byte(sent("")))
	f.Add([]byte(strings.Replace(sent("body"), "Length: 4", "Length: 04", 1)))
	f.Add([]byte(strings.Replace(sent("body"), "127.0.0.1", "a\r\nTransfer-Encoding: chunked\r\nX: ", 1)))
	f.Add([]byte(sent("body") + sent("body")))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := parsePost(b)
		if !ok {
			return
		}
		in := bufio.NewReader(bytes.NewReader(b))
		r, err := http.ReadRequest(in)
		require.NoError(t, err)
		body, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		require.Zero(t, in.Buffered(), "nothing follows")
		require.Equal(t, "POST", r.Method)
		require.Equal(t, pathOf(p.session, p.kind), r.URL.Path)
		require.Empty(t, r.URL.RawQuery)
		require.Empty(t, r.TransferEncoding)
		require.True(t, bytes.Equal(p.body, body) && r.ContentLength == int64(len(body)))
		require.Equal(t, http.Header{
			"User-Agent": {"dbmirror"}, "Content-Length": {fmt.Sprint(len(body))}, "Content-Type": {"application/octet-stream"},
		}, r.Header)
	})
}

// What a Client writes is read here in one piece: if the standard library came to write it otherwise, this says so.
func TestClientWritesPosts(t *testing.T) {
	a := newCA(t)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{a.of(t, id(PartnerA))}, NextProtos: []string{protocol}, ClientAuth: tls.RequireAnyClientCert,
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	read := make(chan []byte, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		room := make([]byte, roomForPost)
		n, _ := conn.Read(room)
		read <- room[:n]
	}()
	c, err := NewClient(ClientConfig{
		Self: id(PartnerB), Peer: id(PartnerA), Addr: listener.Addr().String(), Credentials: a.credentials(t, id(PartnerB)),
	})
	require.NoError(t, err)
	_, err = c.Send(t.Context(), "ping", make([]byte, 182))
	require.Error(t, err, "nobody answers")
	p, ok := parsePost(<-read)
	require.True(t, ok)
	require.Equal(t, posted{sessionOne, "ping", make([]byte, 182)}, p)
}

// A form that only net/http understands is served by it, on the same connection, and so is all that follows.
func TestOtherFormsAreMadeOver(t *testing.T) {
	other := strings.Replace(sent("body"), "User-Agent: dbmirror", "User-Agent: curl", 1)
	for name, requests := range map[string][]string{
		"at first":   {other, sent("again")},
		"afterwards": {sent("first"), other, sent("again"), sent("and again")},
		"in pieces":  {sent("first"), sent(strings.Repeat("x", 40<<10)), sent("again")},
	} {
		t.Run(name, func(t *testing.T) {
			s := tcpSite(t, Limits{})
			c := dialled(t, s)
			for _, request := range requests {
				_, body, _ := strings.Cut(request, "\r\n\r\n")
				require.Equal(t, "partner-b says ping: "+body, c.ask(t, request))
			}
			require.EqualValues(t, 1, s.stats(t).Logins[ResultSuccess])
		})
	}
}

// Requests that came together are all answered, in their order.
func TestPipelined(t *testing.T) {
	s := tcpSite(t, Limits{})
	c := dialled(t, s)
	for _, b := range []string{"one", "two", "three"} { // a record each
		_, err := io.WriteString(c.conn, sent(b))
		require.NoError(t, err)
	}
	for _, b := range []string{"one", "two", "three"} {
		require.Equal(t, "partner-b says ping: "+b, c.answer(t))
	}
	_, err := io.WriteString(c.conn, sent("four")+sent("five")) // in one record
	require.NoError(t, err)
	require.Equal(t, "partner-b says ping: four", c.answer(t))
	require.Equal(t, "partner-b says ping: five", c.answer(t))
}

// S14, in real time with short limits: where a caller is slow or silent, it is cut off at the limit, not before.
func TestAbuseS14SlowCallers(t *testing.T) {
	const handshake, idle = 500 * time.Millisecond, 1500 * time.Millisecond
	for _, c := range []struct {
		name  string
		do    func(t *testing.T, c *dialledConn)
		least time.Duration
		most  time.Duration
	}{
		{"silent after login", func(*testing.T, *dialledConn) {}, handshake / 2, idle},
		{"idle", func(t *testing.T, c *dialledConn) { c.ask(t, sent("x")) }, idle, 3 * idle},
		{"a piece of a record", func(t *testing.T, c *dialledConn) {
			c.ask(t, sent("x"))
			_, err := c.conn.NetConn().Write([]byte{23, 3, 3, 1, 0, 7})
			require.NoError(t, err)
		}, handshake, idle},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := tcpSite(t, Limits{Handshake: handshake, Idle: idle})
			conn := dialled(t, s)
			c.do(t, conn)
			began := time.Now()
			_, err := io.Copy(io.Discard, conn.conn)
			require.NotErrorIs(t, err, net.ErrClosed)
			require.GreaterOrEqual(t, time.Since(began), c.least)
			require.Less(t, time.Since(began), c.most)
		})
	}
}

// Whoever is refused hears why, and goes on if the refusal is of the message alone.
func TestRefusedPosts(t *testing.T) {
	s := tcpSite(t, Limits{Rate: 1, Burst: 2})
	c := dialled(t, s)
	vote := strings.Replace(sent(""), "/ping", "/vote", 1)
	for range 2 {
		status, text := c.exchange(t, vote)
		require.Equal(t, http.StatusForbidden, status)
		require.Equal(t, "partner-b may not send \"vote\" to partner-a\n", text)
	}
	for range 2 {
		c.ask(t, sent("x"))
	}
	status, text := c.exchange(t, sent("x"))
	require.Equal(t, http.StatusTooManyRequests, status)
	require.Contains(t, text, "1 per second")
	require.EqualValues(t, 2, s.handled.Load())
	require.EqualValues(t, 2, s.stats(t).Logins[ResultAuthorizationFailure])
}

// dialledConn is a connection of partner-b to a site, byte for byte.
type dialledConn struct {
	conn *tls.Conn
	in   *bufio.Reader
}

func dialled(t *testing.T, s *site) *dialledConn {
	t.Helper()
	conn, err := tls.Dial("tcp", s.addr, strangerConfig(s.ca.of(t, id(PartnerB))))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return &dialledConn{conn, bufio.NewReader(conn)}
}

func (c *dialledConn) ask(t *testing.T, request string) string {
	t.Helper()
	_, err := io.WriteString(c.conn, request)
	require.NoError(t, err)
	return c.answer(t)
}

func (c *dialledConn) exchange(t *testing.T, request string) (int, string) {
	t.Helper()
	_, err := io.WriteString(c.conn, request)
	require.NoError(t, err)
	return c.read(t)
}

func (c *dialledConn) answer(t *testing.T) string {
	t.Helper()
	status, text := c.read(t)
	require.Equal(t, http.StatusOK, status, text)
	return text
}

func (c *dialledConn) read(t *testing.T) (int, string) {
	t.Helper()
	response, err := http.ReadResponse(c.in, nil)
	require.NoError(t, err)
	require.Equal(t, id(PartnerA).String(), response.Header.Get(headerFrom))
	require.NotEmpty(t, response.Header.Get("Date"))
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	return response.StatusCode, string(text)
}
