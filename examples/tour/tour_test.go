package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/examples/internal/trio"
)

// TestMain lets the tests' binary be started again as a server of the session.
func TestMain(m *testing.M) {
	if settings, ok := trio.Child(os.Args); ok {
		os.Exit(trio.RunProgram(settings))
	}
	os.Exit(m.Run())
}

func TestTour(t *testing.T) {
	dir := tempDir(t)
	var stdout, stderr bytes.Buffer
	status := start(nil, &stdout, &stderr)
	t.Log(stdout.String())
	require.Zero(t, status, stderr.String())
	lines := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	require.Regexp(t, `^acknowledged=[1-9]\d{2,} lost=0 duplicated=0 automatic_failover=\d+\.\d\d s manual_failover=\d+\.\d\d s$`, lines[len(lines)-1])
	for _, transition := range []string{
		`partner-a +principal +SYNCHRONIZING -> SYNCHRONIZED`, `partner-b +mirror +SYNCHRONIZING -> SYNCHRONIZED`,
		`partner-b +principal +role sequence 2 \(automatic failover\)`, `partner-a +mirror +role sequence 2`,
		`partner-b +principal +SYNCHRONIZED -> PENDING_FAILOVER`, `partner-a +principal +role sequence 3 \(manual failover\)`,
		`witness +witness +role sequence 3`,
	} {
		require.Regexp(t, regexp.MustCompile(transition), stdout.String())
	}
	nothingLeft(t, dir)
}

// tempDir makes a directory that is everybody's way, as the servers may run under another account, and lets the tour
// work in it.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dbmirror-tour-test-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Setenv("TMPDIR", dir)
	return dir
}

// cancelAt ends a context when a text is printed.
type cancelAt struct {
	text   string
	cancel context.CancelFunc
	mu     sync.Mutex
	all    bytes.Buffer
}

func (c *cancelAt) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all.Write(b)
	if strings.Contains(c.all.String(), c.text) {
		c.cancel()
	}
	return len(b), nil
}

// Goal: an interrupt leaves nothing behind, at the worst moment: one server is killed, clients wait, the mirror is about
// to take over.
func TestInterruptedTourLeavesNothing(t *testing.T) {
	dir := tempDir(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	at := &cancelAt{text: "killed after", cancel: cancel}
	err := tour(ctx, newConsole(at), "fast", 200)
	t.Log(at.all.String())
	require.EqualError(t, err, "interrupted")
	require.Contains(t, at.all.String(), "killed after")
	nothingLeft(t, dir)
}

// nothingLeft looks for files and, where the system shows command lines, for processes.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, file := range commands {
		command, err := os.ReadFile(file)
		if err == nil { // else it has ended
			require.NotContains(t, string(command), dir, "still runs")
		}
	}
}

func TestLedgerFindsWhatIsWrong(t *testing.T) {
	l := &load{}
	for i := range l.clients {
		l.clients[i] = &client{id: i}
	}
	l.clients[1].promise = promises{attempted: 5, acknowledged: []int64{0, 1}, unknown: []int64{2, 3}, abandoned: []int64{4},
		tickets: []ticket{{0, 70}, {1, 71}, {2, 72}, {3, 73}, {4, 74}}}
	right := func() map[payment]found {
		return map[payment]found{{1, 0}: {1, 70}, {1, 1}: {1, 71}, {1, 3}: {1, 73}}
	}
	for _, c := range []struct {
		name, want string
		spoil      func(map[payment]found)
	}{
		{"right", "", func(map[payment]found) {}},
		{"all unknown ones are there", "", func(m map[payment]found) { m[payment{1, 2}] = found{1, 72} }},
		{"lost", "1 acknowledged payments are missing", func(m map[payment]found) { delete(m, payment{1, 1}) }},
		{"acknowledged one twice", "1 payments are there more than once", func(m map[payment]found) { m[payment{1, 1}] = found{2, 71} }},
		{"unknown one twice", "1 payments are there more than once", func(m map[payment]found) { m[payment{1, 3}] = found{2, 73} }},
		{"abandoned one", "1 payments are there whose clients never", func(m map[payment]found) { m[payment{1, 4}] = found{1, 74} }},
		{"never attempted", "1 payments are there whose clients never", func(m map[payment]found) { m[payment{0, 0}] = found{1, 0} }},
		{"another ticket", "1 payments have another ticket", func(m map[payment]found) { m[payment{1, 0}] = found{1, 99} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			book, a := newLedger(l), newAudit()
			there := right()
			c.spoil(there)
			book.compare(a, right())
			book.compare(a, there)
			err := book.verdict(a)
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
		})
	}
	l.clients[2].promise = promises{attempted: 1, abandoned: []int64{0}, tickets: []ticket{{0, 71}}}
	book := newLedger(l)
	require.ErrorContains(t, book.verdict(newAudit()), "1 values of the sequence were handed out again")
}
