package endpoint

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzPath: whatever the path, what is accepted is what was asked for.
func FuzzPath(f *testing.F) {
	f.Add(pathOf(sessionOne, "ping"))
	f.Add(PathPrefix)
	f.Add(pathOf(sessionOne, "ping") + "/")
	f.Add(pathOf(sessionOne, "../vote"))
	f.Fuzz(func(t *testing.T, path string) {
		session, kind, ok := parsePath(path)
		if ok {
			require.Equal(t, path, pathOf(session, kind))
		}
	})
}

// FuzzIdentity: a URI of a certificate that is accepted is the one and only spelling of an identity.
func FuzzIdentity(f *testing.F) {
	f.Add(id(PartnerA).URI(DefaultDomain).String())
	f.Add("spiffe://dbmirror/mirror/" + sessionOne + "/%77itness")
	f.Add("spiffe://dbmirror:1/mirror/" + sessionOne + "/witness?x")
	f.Add("SPIFFE://DBMIRROR/mirror/" + sessionOne + "/witness")
	f.Fuzz(func(t *testing.T, s string) {
		uri, err := url.Parse(s)
		if err != nil {
			return
		}
		identity, err := ParseIdentity(DefaultDomain, uri)
		if err == nil {
			require.Equal(t, uri.String(), identity.URI(DefaultDomain).String())
			require.NoError(t, identity.validate())
		}
	})
}

// FuzzRequest: whatever is asked over plaintext, by whom and how, the handler hears only of messages of this session that
// the sender may send, whole and within the limit.
func FuzzRequest(f *testing.F) {
	f.Add("POST", pathOf(sessionOne, "ping"), sessionOne+"/partner-b", sessionOne+"/partner-a", "", int64(-1), []byte("body"))
	f.Add("POST", pathOf(sessionOne, "vote"), sessionOne+"/partner-b", sessionOne+"/partner-a", "", int64(-1), []byte{})
	f.Add("GET", pathOf(sessionTwo, "ping"), sessionTwo+"/witness", sessionOne+"/partner-a", "gzip", int64(2<<30), []byte{})
	f.Add("POST", pathOf(sessionOne, "ping"), sessionOne+"/admin", "", "", int64(MaxBody+1), make([]byte, MaxBody+1))
	var from Identity
	var kind Kind
	var got []byte
	var heard int
	s, err := NewServer(ServerConfig{Plaintext: true, Limits: Limits{Rate: 1 << 20, Burst: 1 << 20}})
	require.NoError(f, err)
	require.NoError(f, s.Register(SessionConfig{Self: id(PartnerA), Credentials: Credentials{Plaintext: true}, Allow: allowed,
		Handler: func(_ context.Context, who Identity, what Kind, body []byte) ([]byte, error) {
			from, kind, got, heard = who, what, body, heard+1
			return nil, nil
		}}))
	loopback := context.WithValue(context.Background(), http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}))
	f.Fuzz(func(t *testing.T, method, path, sender, receiver, encoding string, length int64, body []byte) {
		r := (&http.Request{Method: method, URL: &url.URL{Path: path}, Header: http.Header{}, ContentLength: length,
			Body: io.NopCloser(bytes.NewReader(body)), RemoteAddr: "127.0.0.1:9"}).WithContext(loopback)
		r.Header.Set(headerFrom, sender)
		r.Header.Set(headerTo, receiver)
		r.Header.Set("Content-Encoding", encoding)
		heard = 0
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		require.Equal(t, w.Code == http.StatusOK, heard == 1, "status %d", w.Code)
		if heard == 0 {
			return
		}
		require.Equal(t, http.MethodPost, method)
		require.Equal(t, pathOf(sessionOne, kind), path)
		require.Equal(t, sender, from.String())
		require.Equal(t, id(PartnerA).String(), receiver)
		require.True(t, allowed[from.Role][kind], "%s may not send %s", from.Role, kind)
		require.True(t, bytes.Equal(body, got) && len(got) <= MaxBody)
	})
}
