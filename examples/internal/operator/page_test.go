package operator

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
)

func TestOnlyLoopbackIsListenedOn(t *testing.T) {
	for addr, want := range map[string]string{
		"8080": "write it as 127.0.0.1:8080", ":8080": "is not on loopback", "0.0.0.0:8080": "is not on loopback",
		"example.org:8080": "is not on loopback",
	} {
		_, err := Open(addr)
		require.ErrorContains(t, err, want, addr)
	}
	for _, addr := range []string{"127.0.0.1:0", "localhost:0"} {
		p, err := Open(addr)
		require.NoError(t, err)
		_, err = Open(p.listener.Addr().String())
		require.ErrorContains(t, err, "address already in use")
		p.Close()
	}
}

func TestOtherSitesAreKeptOut(t *testing.T) {
	page := guard(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "here") }))
	for _, c := range []struct {
		host, origin string
		status       int
	}{
		{"127.0.0.1:8080", "", http.StatusOK},
		{"localhost:8080", "http://localhost:8080", http.StatusOK},
		{"[::1]", "", http.StatusOK},
		{"127.0.0.1:8080", "http://example.org", http.StatusForbidden},
		{"rebound.example.org:8080", "http://rebound.example.org:8080", http.StatusMisdirectedRequest},
	} {
		r := httptest.NewRequest(http.MethodPost, "/failover", nil)
		r.Host = c.host
		r.Header.Set("Origin", c.origin)
		w := httptest.NewRecorder()
		page.ServeHTTP(w, r)
		require.Equal(t, c.status, w.Code, "%+v", c)
	}
}

func TestPageAndServerEndTogether(t *testing.T) {
	broken := errors.New("broken")
	open := func(addr string) *Page {
		p, err := Open(addr)
		require.NoError(t, err)
		return p
	}
	for _, addr := range []string{"127.0.0.1:0", ""} {
		err := open(addr).Run(t.Context(), http.NotFoundHandler(), func(context.Context) error { return broken })
		require.ErrorIs(t, err, broken)
	}
	ctx, cancel := context.WithCancel(t.Context())
	p := open("127.0.0.1:0")
	require.NoError(t, p.Run(ctx, http.NotFoundHandler(), func(ctx context.Context) error {
		answer, err := http.Get("http://" + p.listener.Addr().String())
		require.NoError(t, err)
		require.Equal(t, http.StatusNotFound, answer.StatusCode)
		cancel()
		<-ctx.Done()
		return answer.Body.Close()
	}))
	p = open("127.0.0.1:0")
	err := p.Run(t.Context(), http.NotFoundHandler(), func(ctx context.Context) error {
		p.Close()
		<-ctx.Done()
		return nil
	})
	require.ErrorContains(t, err, "serve the operator")
}

func TestTransitionsAreOneLineEach(t *testing.T) {
	var out, log bytes.Buffer
	logger := slog.New(Transitions(&out, slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))).With("session", "0123abcd")
	logger.Info("state", "role", mirror.RoleMirror, "to", mirror.StateSuspended, "reason", mirror.ReasonRedoError)
	logger.Info("role", "role", mirror.RolePrincipal, "role_seq", mirror.RoleSeq(4), "reason", mirror.ReasonAutomaticFailover)
	logger.Info("record")
	logger.Warn("message not delivered")
	shown := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, shown, 2)
	require.Regexp(t, `^20\S+Z 0123abcd mirror SUSPENDED \(redo error\)$`, shown[0])
	require.Regexp(t, `^20\S+Z 0123abcd principal in role sequence 4 \(automatic failover\)$`, shown[1])
	require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
	require.Contains(t, log.String(), "message not delivered")
}

func TestCredentialsBelongTogether(t *testing.T) {
	for args, good := range map[string]bool{
		"-plaintext": true, "-cert=a -key=b -ca=c": true, "-cert=a -key=b": false, "": false, "-plaintext -ca=c": false,
	} {
		var c endpoint.Credentials
		flags := flag.NewFlagSet("", flag.ContinueOnError)
		flags.SetOutput(io.Discard)
		CredentialFlags(flags, &c)
		require.NoError(t, flags.Parse(strings.Fields(args)))
		require.Equal(t, good, CheckCredentials(c) == nil, args)
	}
}
