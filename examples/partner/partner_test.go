package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/examples/internal/trio"
	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
	"github.com/f19126b3/dbmirror/partner/pgtest"
	"github.com/f19126b3/dbmirror/witness"
)

const sessionID = "0123456789abcdef0123456789abcdef"

func TestFlagErrorsNameCauseAndMend(t *testing.T) {
	good := map[string]string{"session": sessionID, "self": "partner-a", "dir": t.TempDir(), "listen": "127.0.0.1:1",
		"peer": "127.0.0.1:2", "plaintext": "true"}
	environment := map[string]string{"DBMIRROR_DSN": "postgres://a/app", "DBMIRROR_PEER_DSN": "postgres://b/app"}
	args := func(change map[string]string) []string {
		var all []string
		for name, value := range good {
			if _, changed := change[name]; !changed {
				all = append(all, "-"+name+"="+value)
			}
		}
		for name, value := range change {
			all = append(all, "-"+name+"="+value)
		}
		return all
	}
	getenv := func(name string) string { return environment[name] }
	s, err := parse(args(map[string]string{"http": "127.0.0.1:3", "dsn": "postgres://c/app"}), getenv, io.Discard)
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:3", s.page)
	require.Equal(t, "postgres://c/app", string(s.database.DSN), "a flag overrides the environment")
	require.Equal(t, "postgres://b/app", string(s.database.PeerDSN))

	for _, c := range []struct{ name, value, want string }{
		{"self", "principal", "want partner-a or partner-b"},
		{"safety", "half", "want FULL or OFF"},
		{"profile", "slow", "want default or fast"},
		{"listen", "", "name an address that the other servers reach"},
		{"plaintext", "false", "give -cert, -key and -ca together, or -plaintext alone"},
		{"cert", "a.pem", "or -plaintext alone"},
		{"session", "orders", "openssl rand -hex 16"},
		{"dir", "", "Dir is empty"},
		{"nonsense", "1", "flag provided but not defined"},
		{"http", "0.0.0.0:8080", "nobody logs in there; use 127.0.0.1"},
	} {
		err := run(t.Context(), args(map[string]string{c.name: c.value}), getenv, io.Discard, io.Discard)
		require.ErrorContains(t, err, c.want, "-%s=%s", c.name, c.value)
	}
	for _, name := range []string{"DBMIRROR_DSN", "DBMIRROR_PEER_DSN"} {
		was := environment[name]
		delete(environment, name)
		_, err := parse(args(nil), getenv, io.Discard)
		require.ErrorContains(t, err, "set "+name)
		environment[name] = was
	}
	_, err = parse([]string{"-help"}, getenv, io.Discard)
	require.ErrorIs(t, err, flag.ErrHelp)
	_, err = parse(append(args(nil), "failover"), getenv, io.Discard)
	require.ErrorContains(t, err, `"failover" is not a flag`)
}

// program is a partner's program with its operator's page.
type program struct {
	t    *testing.T
	page string
	out  lockedBuffer
	stop func()
}

type lockedBuffer struct {
	sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.Lock()
	defer b.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) text() string {
	b.Lock()
	defer b.Unlock()
	return b.String()
}

func start(t *testing.T, args ...string) *program {
	t.Helper()
	p := &program{t: t, page: free(t)}
	args = append(args, "-session", sessionID, "-dir", t.TempDir(), "-plaintext", "-profile", "fast", "-http", p.page)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx, args, func(string) string { return "" }, &p.out, &p.out) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done, p.out.text())
	})
	t.Cleanup(p.stop)
	return p
}

func free(t *testing.T) string {
	t.Helper()
	port, err := trio.FreePort()
	require.NoError(t, err)
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// ask returns the status and body of an answer; 0 when nobody answers.
func (p *program) ask(method, path string, header ...string) (int, string) {
	r, err := http.NewRequestWithContext(p.t.Context(), method, "http://"+p.page+path, nil)
	require.NoError(p.t, err)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(p.t, err)
	return answer.StatusCode, string(body)
}

// eventually waits until something is so in other processes, for which there is no event.
func (p *program) eventually(so func() (bool, string)) {
	p.t.Helper()
	deadline := time.NewTimer(40 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		good, have := so()
		if good {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			require.Fail(p.t, "it does not become so", "have %s\n%s", have, p.out.text())
		}
	}
}

// await waits until the page shows these fields.
func (p *program) await(want map[string]any) {
	p.t.Helper()
	p.eventually(func() (bool, string) {
		_, body := p.ask(http.MethodGet, "/status")
		shown := map[string]any{}
		good := json.Unmarshal([]byte(body), &shown) == nil
		for name, value := range want {
			good = good && shown[name] == value
		}
		return good, body
	})
}

// command asks again while another change is under way, as the answer says.
func (p *program) command(path string) {
	p.t.Helper()
	p.eventually(func() (bool, string) {
		status, body := p.ask(http.MethodPost, path)
		if status != http.StatusAccepted {
			require.Equal(p.t, http.StatusConflict, status, body)
			require.Contains(p.t, body, "ask again in a moment")
		}
		return status == http.StatusAccepted, body
	})
}

func runWitness(t *testing.T, listen, a, b string) {
	t.Helper()
	w, err := witness.New(witness.Config{Dir: t.TempDir(), Listen: listen, Timing: host.Fast(), Sessions: []witness.Session{{
		ID: sessionID, PartnerA: a, PartnerB: b, Credentials: endpoint.Credentials{Plaintext: true}}}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
}

// The operator sees and commands a session of two real servers.
func TestOperatorsPage(t *testing.T) {
	var pg [2]*pgtest.Server
	var servers sync.WaitGroup
	for i := range pg {
		servers.Go(func() { pg[i] = pgtest.New(t, nil) })
	}
	servers.Wait()
	addrA, addrB, addrW := free(t), free(t), free(t)
	runWitness(t, addrW, addrA, addrB)
	b := start(t, "-self", "partner-b", "-listen", addrB, "-peer", addrA, "-witness", addrW,
		"-dsn", pg[1].DSN("app"), "-peer-dsn", pg[0].DSN("app"))
	a := start(t, "-self", "partner-a", "-listen", addrA, "-peer", addrB, "-witness", addrW, "-establish",
		"-dsn", pg[0].DSN("app"), "-peer-dsn", pg[1].DSN("app"))
	a.await(map[string]any{"role": "principal", "state": "SYNCHRONIZED", "serving": true, "safety": "FULL", "quorum": "full"})
	b.await(map[string]any{"role": "mirror", "state": "SYNCHRONIZED", "streaming": true})

	refusals(t, a)
	for path, want := range map[string]string{
		"/explain": "mirror holds every acknowledged commit", "/journal": "DISCONNECTED -> ", "/force": `"token"`,
	} {
		status, body := a.ask(http.MethodGet, path)
		require.Equal(t, http.StatusOK, status, body)
		require.Contains(t, body, want)
	}

	a.command("/failover")
	b.await(map[string]any{"role": "principal", "state": "SYNCHRONIZED", "serving": true})
	a.await(map[string]any{"role": "mirror", "state": "SYNCHRONIZED", "serving": false})
	b.command("/safety?level=OFF")
	b.await(map[string]any{"safety": "OFF", "mode": "high performance"})
	b.command("/suspend")
	b.await(map[string]any{"state": "SUSPENDED", "exposed": true})

	b.stop()
	require.Regexp(t, `(?m)^\S+Z 01234567 principal SYNCHRONIZED \(caught up\)$`, a.out.text())
	require.Regexp(t, `(?m)^\S+Z 01234567 mirror in role sequence \d+ \(\S.*\)$`, a.out.text())
	require.Regexp(t, `(?m)^\S+Z 01234567 principal SUSPENDED \(command\)$`, b.out.text())
}

// refusals asks a principal for what is refused.
func refusals(t *testing.T, a *program) {
	t.Helper()
	for _, c := range []struct {
		method, path string
		status       int
		want         string
	}{
		{http.MethodPost, "/safety?level=half", http.StatusBadRequest, "level=FULL"},
		{http.MethodPost, "/witness", http.StatusBadRequest, "set=true"},
		{http.MethodPost, "/force", http.StatusBadRequest, "GET /force shows"},
		{http.MethodPost, "/force?token=old", http.StatusConflict, "look at the plan again"},
		{http.MethodPost, "/reseed", http.StatusConflict, "ask the mirror"},
		{http.MethodGet, "/failover", http.StatusMethodNotAllowed, ""},
		{http.MethodPost, "/nonsense", http.StatusNotFound, ""},
	} {
		status, body := a.ask(c.method, c.path)
		require.Equal(t, c.status, status, c.path)
		require.Contains(t, body, c.want, c.path)
	}
	status, _ := a.ask(http.MethodPost, "/failover", "Origin", "http://example.org")
	require.Equal(t, http.StatusForbidden, status, "a page of another site can not command")
	status, _ = a.ask(http.MethodPost, "/failover", "Sec-Fetch-Site", "cross-site")
	require.Equal(t, http.StatusForbidden, status)
	require.True(t, strings.HasPrefix(a.page, "127.0.0.1:"))
}
