package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/examples/internal/trio"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// TestMain lets the tests' binary be started again as a server of the session.
func TestMain(m *testing.M) {
	if settings, ok := trio.Child(os.Args); ok {
		os.Exit(trio.RunProgram(settings, till))
	}
	os.Exit(m.Run())
}

func TestTour(t *testing.T) {
	own := map[string][]string{
		"postgres": {`backend: PostgreSQL \d+ from /`, `psql with both servers in its DSN finds partner-b`, `killed after [1-9]\d* acknowledged`},
		"sqlite": {
			`backend: SQLite, embedded`, `an upload of 8 MiB is on the principal's disk alone, and every client waits`,
			`partner-a +saved [1-9]\d* transactions that the principal never had`, `partner-a +undid them`,
			`lost-transactions-2-\S+ holds the [1-9]\d* transactions that partner-a had committed`,
			`the mirror can be read \([1-9]\d* payments\), and refuses to write: .* read-only here, this is the mirror: ask http://127`,
		},
	}
	for backend, claims := range own {
		t.Run(backend, func(t *testing.T) {
			dir := tempDir(t)
			var stdout, stderr bytes.Buffer
			status := start([]string{"-backend", backend}, &stdout, &stderr)
			t.Log(stdout.String())
			require.Zero(t, status, stderr.String())
			lines := strings.Split(strings.TrimSpace(stdout.String()), "\n")
			require.Regexp(t, `^acknowledged=[1-9]\d{2,} lost=0 duplicated=0 automatic_failover=\d+\.\d\d s manual_failover=\d+\.\d\d s$`, lines[len(lines)-1])
			for _, claim := range append(claims,
				`partner-a +principal +SYNCHRONIZING -> SYNCHRONIZED`, `partner-b +mirror +SYNCHRONIZING -> SYNCHRONIZED`,
				`partner-b +principal +role sequence 2 \(automatic failover\)`, `partner-a +mirror +role sequence 2`,
				`partner-b +principal +SYNCHRONIZED -> PENDING_FAILOVER`, `partner-a +principal +role sequence 3 \(manual failover\)`,
				`witness +witness +role sequence 3`, `tables with [1-9]\d{3,} rows are equal`,
			) {
				require.Regexp(t, regexp.MustCompile(claim), stdout.String())
			}
			nothingLeft(t, dir)
		})
	}
}

// Goal: where there is no PostgreSQL the tour plays with what Go alone brings, and installs nothing.
func TestChoosesWhatIsThere(t *testing.T) {
	require.Zero(t, start([]string{"-h"}, io.Discard, io.Discard), "help is no failure")
	for _, c := range []struct {
		name, says, fails string
		found             error
		want              kind
	}{
		{"", "backend: PostgreSQL 17 from /pg;", "", nil, &postgres{}},
		{"", "backend: SQLite, embedded in the partners' processes: no server programs of PostgreSQL are found here", "", pgtest.ErrNotFound, &embedded{}},
		{"", "", pgtest.EnvBin, errors.New(pgtest.EnvBin + " is wrong"), nil},
		{"sqlite", "backend: SQLite, embedded in the partners' processes\n", "", nil, &embedded{}},
	} {
		var out bytes.Buffer
		got, err := choose(t.Context(), &stage{out: newConsole(&out)}, c.name, func(context.Context) (pgtest.Install, error) {
			return pgtest.Install{Bin: "/pg", Version: 17}, c.found
		})
		if c.fails != "" {
			require.ErrorContains(t, err, c.fails)
			continue
		}
		require.NoError(t, err)
		require.IsType(t, c.want, got)
		require.Contains(t, out.String(), c.says)
	}
	var stdout, stderr bytes.Buffer
	require.Equal(t, 2, start([]string{"-backend", "mysql"}, &stdout, &stderr))
	require.Equal(t, "tour: -backend mysql: want postgres or sqlite, or leave it out\n", stderr.String())
	require.Empty(t, stdout.String())
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
	for _, backend := range []string{"postgres", "sqlite"} {
		t.Run(backend, func(t *testing.T) {
			dir := tempDir(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			at := &cancelAt{text: "killed after", cancel: cancel}
			err := tour(ctx, newConsole(at), options{backend, "fast", 200})
			t.Log(at.all.String())
			require.EqualError(t, err, "interrupted")
			require.Contains(t, at.all.String(), "killed after")
			nothingLeft(t, dir)
		})
	}
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
	require.ErrorContains(t, book.verdict(newAudit()), "1 tickets were given to two payments")
}
