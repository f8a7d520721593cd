package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/examples/internal/trio"
)

// TestMain lets the tests' binary be started again as a server of the session.
func TestMain(m *testing.M) {
	if settings, ok := trio.Child(os.Args); ok {
		os.Exit(trio.RunPartner(settings, service))
	}
	os.Exit(m.Run())
}

// screen is where the program prints.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
	news chan struct{}
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(b)
	select {
	case s.news <- struct{}{}:
	default:
	}
	return len(b), nil
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// await waits until something is printed, and returns what its groups have matched.
func (s *screen) await(t *testing.T, pattern string) []string {
	t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	for {
		if found := regexp.MustCompile(pattern).FindStringSubmatch(s.String()); found != nil {
			return found
		}
		select {
		case <-s.news:
		case <-limit.C:
			require.FailNow(t, "not printed: "+pattern, s.String())
		}
	}
}

// TestEmbedded does what the program tells a user to do.
func TestEmbedded(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	ctx, cancel := context.WithCancel(t.Context())
	out := &screen{news: make(chan struct{}, 1)}
	done := make(chan error, 1)
	go func() { done <- show(ctx, log.New(out, "", 0)) }()
	ended := sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = ended() }) // looked at below, unless the test has failed

	a := out.await(t, `(http://\S+)/notes/1 `)[1]
	b := out.await(t, `(http://\S+)/notes/2 `)[1]
	pid, err := strconv.Atoi(out.await(t, `kill -9 (\d+)`)[1])
	require.NoError(t, err)

	status, _ := ask(t, http.MethodPut, a+"/notes/1", "a note")
	require.Equal(t, http.StatusOK, status)
	status, text := ask(t, http.MethodPut, b+"/notes/2", "another")
	require.Equal(t, http.StatusOK, status, "the mirror sends its client to the principal: %s", text)
	awaitAnswer(t, http.MethodGet, b+"/notes/1", "", "a note")
	awaitAnswer(t, http.MethodGet, b+"/notes/2", "", "another")
	status, _ = ask(t, http.MethodGet, a+"/notes/3", "")
	require.Equal(t, http.StatusNotFound, status)
	status, _ = ask(t, http.MethodPut, a+"/notes/4", strings.Repeat("x", maxBody+1))
	require.Equal(t, http.StatusRequestEntityTooLarge, status)
	_, seen := ask(t, http.MethodGet, a+"/metrics", "")
	require.Contains(t, seen, `service_writes_total{outcome="committed"} 2`)
	require.Contains(t, seen, "dbmirror_role_sequence")
	_, seen = ask(t, http.MethodGet, b+"/metrics", "")
	require.Contains(t, seen, `service_writes_total{outcome="redirected"} 1`)

	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	awaitAnswer(t, http.MethodPut, b+"/notes/3", "after the principal was lost", "committed\n")
	out.await(t, `partner-b +principal +role sequence 2 \(automatic failover\)`)
	awaitAnswer(t, http.MethodGet, b+"/notes/1", "", "a note")
	out.await(t, `partner-a +its process has ended, and is started again`)
	out.await(t, `(?s)partner-a +process \d+.*partner-a +mirror +\S+ -> SYNCHRONIZED`)
	awaitAnswer(t, http.MethodGet, a+"/notes/3", "", "after the principal was lost")
	status, text = ask(t, http.MethodPut, a+"/notes/5", "what was principal sends its clients on, too")
	require.Equal(t, http.StatusOK, status, text)

	require.NoError(t, ended())
	require.Contains(t, out.String(), "everything is stopped in order")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
	t.Log(out)
}

// TestHelpStartsNothing: whoever asks what it does gets an answer, and no servers.
func TestHelpStartsNothing(t *testing.T) {
	for arg, status := range map[string]int{"-h": 0, "-port=1": 2, "help": 2} {
		var stdout, stderr bytes.Buffer
		require.Equal(t, status, start([]string{arg}, &stdout, &stderr), arg)
		require.Contains(t, stderr.String(), "embedded has no flags", arg)
		require.Empty(t, stdout.String(), arg)
	}
}

// TestInterruptedAtOnce: nothing is left behind when it is interrupted before there is a session.
func TestInterruptedAtOnce(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, show(ctx, log.New(io.Discard, "", 0)))
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// ask follows redirects, as curl -L does. The status is 0 when nobody answers.
func ask(t *testing.T, method, url, body string) (status int, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	require.NoError(t, err)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	all, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err.Error()
	}
	return answer.StatusCode, string(all)
}

// awaitAnswer asks until it is answered.
func awaitAnswer(t *testing.T, method, url, body, want string) {
	t.Helper()
	var last string
	require.Eventually(t, func() bool {
		status, text := ask(t, method, url, body)
		last = fmt.Sprint(status, " ", text)
		return status == http.StatusOK && text == want
	}, time.Minute, 50*time.Millisecond, "%s %s", method, url)
	require.Contains(t, last, want)
}
