package sqlitelog

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	process "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// A process of this test is told by this variable where its files are, and at which point it ends, zero for none.
const childVariable = "DBMIRROR_SQLITELOG_CHILD"

// TestKill ends a process that is principal and mirror in one, at random moments and at each point of interest, as kill -9
// does. What was acknowledged is in the mirror's hardened log, is redone exactly once, and both databases are equal.
func TestKill(t *testing.T) {
	if dir := os.Getenv(childVariable); dir != "" {
		child(t, dir)
		return
	}
	points := []crashpoint.Point{
		crashpoint.SnapshotUnmade, crashpoint.SnapshotMade, crashpoint.CopyMarked, crashpoint.CopyCleared, crashpoint.CopyFinished,
		crashpoint.RedoUnbegun, crashpoint.RedoBegun, crashpoint.RedoRows, crashpoint.RedoCommitted, crashpoint.RedoFlushed, crashpoint.RedoTrimmed,
		crashpoint.LogWritten, crashpoint.LogSynced, crashpoint.SlotMade, crashpoint.ReignUnwritten, crashpoint.ReignWritten,
		0, 0, 0, 0, 0, 0,
	}
	for _, point := range points {
		t.Run(strings.ReplaceAll(point.String(), " ", "_"), func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.Mkdir(filepath.Join(dir, "principal"), 0o700))
			acknowledged := map[int]bool{}
			for life := range 3 {
				at := point
				if life == 2 {
					at = 0
				}
				liveAndDie(t, dir, at, acknowledged)
			}
			judge(t, dir, acknowledged)
		})
	}
}

// liveAndDie runs a process until it is killed, and notes the numbers that it has acknowledged.
func liveAndDie(t *testing.T, dir string, point crashpoint.Point, acknowledged map[int]bool) {
	from := 0
	for n := range acknowledged {
		from = max(from, n)
	}
	cmd := process.Command(os.Args[0], "-test.run=^TestKill$", "-test.v")
	// What it makes for the time of the test it cannot take away when it is killed: that goes with the directory of this one.
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s:%d:%d", childVariable, dir, point, from), "TMPDIR="+dir)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = cmd.Stdout // a panic is told there
	require.NoError(t, cmd.Start())
	some := 1 + rand.IntN(60)
	lines := bufio.NewScanner(out)
	var said []string
	for seen := 0; lines.Scan(); {
		number, found := strings.CutPrefix(lines.Text(), "acknowledged ")
		if !found {
			said = append(said, lines.Text())
			continue
		}
		n, err := strconv.Atoi(number)
		require.NoError(t, err)
		acknowledged[n] = true
		if seen++; seen == some && point == 0 {
			require.NoError(t, cmd.Process.Kill())
		}
	}
	err = cmd.Wait()
	exit, ok := err.(*process.ExitError)
	require.True(t, ok, "the process ended by itself: %v\n%s", err, strings.Join(said, "\n"))
	require.Equal(t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal(), strings.Join(said, "\n"))
}

// child is a principal and its mirror that write for ever.
func child(t *testing.T, where string) {
	parts := strings.Split(where, ":")
	point, err := strconv.Atoi(parts[1])
	require.NoError(t, err)
	from, err := strconv.Atoi(parts[2])
	require.NoError(t, err)
	crashpoint.Arm(crashpoint.Point(point), func() {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	})
	l, r := bringUp(t, parts[0])
	_, err = l.p.WaitMirror(context.Background(), name)
	require.NoError(t, err)
	var said sync.Mutex
	next := from
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for {
				said.Lock()
				next++
				n := next
				said.Unlock()
				err := writeNumber(l.a, n)
				said.Lock()
				if err != nil {
					fmt.Println("failed", n, err)
				} else {
					fmt.Println("acknowledged", n)
				}
				said.Unlock()
			}
		})
	}
	writers.Wait()
	r.stop(t)
}

// writeNumber writes number n in a transaction that does something of everything.
func writeNumber(db *DB, n int) error {
	sql := fmt.Sprintf("INSERT INTO ledger VALUES (%d, randomblob(%d)); UPDATE counter SET n = n + 1; INSERT INTO loose VALUES (%d), (NULL)", n, n%7*500, n)
	if n%25 == 0 {
		sql += fmt.Sprintf("; CREATE TABLE IF NOT EXISTS made%d (a); INSERT INTO made%d VALUES (%d); UPDATE ledger SET b = 0 WHERE n < %d", n, n, n, n-20)
	}
	return exec(db, sql)
}

// bringUp opens what is there, makes what is missing, and lets the mirror follow.
func bringUp(t *testing.T, dir string) (*link, *running) {
	ctx := context.Background()
	l := &link{}
	l.a = open(t, Config{Path: filepath.Join(dir, "principal", "database")})
	l.b = open(t, Config{Path: filepath.Join(dir, "mirror")})
	l.p, l.m = l.open(t, l.a, mirror.PartnerA), l.open(t, l.b, mirror.PartnerB)
	var err error
	l.queue, err = redo.Open(redo.Config{Dir: filepath.Join(dir, "log")})
	require.NoError(t, err)
	require.NoError(t, l.p.SetGate(ctx, mirror.GateOpen, 0))
	require.NoError(t, l.p.WaitNone(ctx))
	must(t, l.a, `CREATE TABLE IF NOT EXISTS ledger (n INTEGER PRIMARY KEY, b); CREATE TABLE IF NOT EXISTS loose (a);
		CREATE TABLE IF NOT EXISTS counter (n); INSERT INTO counter SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM counter)`)
	if l.reign, err = l.p.Reign(ctx, first); err != nil {
		require.ErrorIs(t, err, backend.ErrNoReign)
		l.reign, err = l.p.BeginLog(ctx, first)
		require.NoError(t, err)
		require.NoError(t, l.p.WriteReign(ctx, l.reign))
	}
	if at, err := l.m.Progress(ctx); err != nil || l.queue.Hardened().Compare(at) < 0 {
		l.seed(t)
		l.reign, err = l.p.Reign(ctx, first)
		require.NoError(t, err)
	}
	return l, l.follow(t)
}

// judge looks at the mirror without the principal, and then at both.
func judge(t *testing.T, dir string, acknowledged map[int]bool) {
	require.NoError(t, os.Rename(filepath.Join(dir, "principal"), filepath.Join(dir, "away")))
	b := open(t, Config{Path: filepath.Join(dir, "mirror")})
	queue, err := redo.Open(redo.Config{Dir: filepath.Join(dir, "log")})
	require.NoError(t, err)
	r := newRedo(b, session)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx, queue) }()
	require.NoError(t, r.Drain(ctx, queue.Hardened()))
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	require.NotEmpty(t, acknowledged)
	there := map[string]bool{}
	for _, n := range rows(t, b, "SELECT n FROM ledger") {
		there[n] = true
	}
	for n := range acknowledged {
		require.True(t, there[strconv.Itoa(n)], "%d was acknowledged and is not at the mirror", n)
	}
	require.NoError(t, queue.Close())
	require.NoError(t, b.Close())
	requireSound(t, open(t, Config{Path: b.cfg.Path}))

	require.NoError(t, os.Rename(filepath.Join(dir, "away"), filepath.Join(dir, "principal")))
	l, follow := bringUp(t, dir)
	l.same(t, follow)
	require.Equal(t, rows(t, l.a, "SELECT count(*) FROM ledger"), rows(t, l.b, "SELECT n FROM counter"), "each exactly once")
	follow.stop(t)
	l.sever()
	l.served.Wait()
	require.NoError(t, l.queue.Close())
}
