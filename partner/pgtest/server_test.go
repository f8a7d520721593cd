package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// connect opens a session that ends with the test.
func connect(t *testing.T, s *Server) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.DSN("app"))
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Second)
		defer cancel()
		_ = conn.Close(ctx) // the server may be dead already: that is what some of these tests are about
	})
	return conn
}

func show(t *testing.T, s *Server, setting string) string {
	t.Helper()
	value, err := s.Psql(t.Context(), "app", "SHOW "+setting)
	require.NoError(t, err)
	return value
}

func TestTwoServersSideBySide(t *testing.T) {
	servers := make([]*Server, 2)
	var group sync.WaitGroup
	in, err := Find(t.Context(), nil)
	require.NoError(t, err)
	errs := make([]error, 2)
	for i := range servers {
		dir := filepath.Join(tempDir(t), "server")
		group.Go(func() {
			servers[i], errs[i] = Start(t.Context(), in, Config{Dir: dir, Settings: map[string]string{
				"cluster_name":    fmt.Sprintf(`it's no. %d \ here`, i),
				"max_connections": "23",
			}})
		})
	}
	group.Wait()
	require.NoError(t, errors.Join(errs...))
	for i, s := range servers {
		require.Equal(t, fmt.Sprintf(`it's no. %d \ here`, i), show(t, s, "cluster_name"))
		require.Equal(t, "23", show(t, s, "max_connections"), "a setting overrides the default")
		require.Equal(t, "logical", show(t, s, "wal_level"), "a default that is not overridden stays")
		require.Equal(t, fmt.Sprint(s.Port()), show(t, s, "port"))
	}
	require.NotEqual(t, servers[0].Port(), servers[1].Port())
	for _, s := range servers {
		require.NoError(t, s.Remove())
		require.False(t, s.Running())
		require.NoDirExists(t, s.cfg.Dir)
	}
}

func TestKillLosesNothingCommitted(t *testing.T) {
	s := New(t, nil)
	conn := connect(t, s)
	_, err := conn.Exec(t.Context(), "CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
	require.NoError(t, err)
	other := connect(t, s)
	_, err = other.Exec(t.Context(), "BEGIN; INSERT INTO t VALUES (2)")
	require.NoError(t, err)
	below, err := s.current().below()
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(below), 4, "two sessions and the server's own processes")

	require.NoError(t, s.Kill())
	require.False(t, s.Running())
	left, err := unlike(below, gone)
	require.NoError(t, err)
	require.Empty(t, left, "no process outlives Kill")
	require.NoError(t, s.Kill(), "a second kill finds nothing to do")

	require.NoError(t, s.Restart(t.Context()))
	rows, err := s.Psql(t.Context(), "app", "SELECT n FROM t")
	require.NoError(t, err)
	require.Equal(t, "1", rows, "the committed row and not the open one")
	text, err := os.ReadFile(s.LogFile())
	require.NoError(t, err)
	require.Contains(t, string(text), "not properly shut down", "the kill was a crash to the server")
	require.ErrorContains(t, s.Restart(t.Context()), "still runs")
}

func TestKillDuringRestart(t *testing.T) {
	s := New(t, nil)
	require.NoError(t, s.Kill())
	before := s.current()
	restarted := make(chan error, 1)
	go func() { restarted <- s.Restart(t.Context()) }()
	for s.current() == before {
		select {
		case err := <-restarted:
			t.Fatalf("restart came back before the kill: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	require.NoError(t, s.Kill())
	if err := <-restarted; err != nil {
		require.ErrorContains(t, err, "ended before it was ready")
	}
	require.False(t, s.Running())
	require.NoError(t, s.Restart(t.Context()))
}

func TestStopModes(t *testing.T) {
	s := New(t, nil)
	require.ErrorContains(t, s.Stop("gently"), "smart, fast, immediate")
	for mode, clean := range map[string]bool{"smart": true, "fast": true, "immediate": false} {
		before, err := os.Stat(s.LogFile())
		require.NoError(t, err)
		done := s.Done()
		require.NoError(t, s.Stop(mode))
		<-done
		require.False(t, s.Running())
		require.NoError(t, s.Stop(mode), "a server that is down stays so")
		require.NoError(t, s.Restart(t.Context()))
		text, err := os.ReadFile(s.LogFile())
		require.NoError(t, err)
		require.Equal(t, clean, !strings.Contains(string(text[before.Size():]), "not properly shut down"), mode)
	}
}

func TestPausedServerAnswersAfterContinue(t *testing.T) {
	s := New(t, nil)
	conn := connect(t, s)
	require.NoError(t, s.Pause())
	below, err := s.current().below()
	require.NoError(t, err)
	awake, err := unlike(append(below, s.current().cmd.Process.Pid), frozen)
	require.NoError(t, err)
	require.Empty(t, awake, "every process is frozen")
	require.True(t, s.Running())

	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = pgx.Connect(ctx, s.DSN("app"))
	require.ErrorIs(t, err, context.DeadlineExceeded, "a new session gets no answer")
	answered := make(chan error, 1)
	go func() {
		_, err := conn.Exec(t.Context(), "SELECT 1")
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatalf("a frozen session answered: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	require.NoError(t, s.Continue())
	require.NoError(t, <-answered, "the open session goes on where it was")
}

func TestPausedServerCanBeKilledAndStopped(t *testing.T) {
	s := New(t, nil)
	require.NoError(t, s.Pause())
	require.NoError(t, s.Kill())
	require.ErrorIs(t, s.Pause(), os.ErrProcessDone)
	require.NoError(t, s.Continue())
	require.NoError(t, s.Restart(t.Context()))
	require.NoError(t, s.Pause())
	require.NoError(t, s.Stop("fast"))
}

func TestPsql(t *testing.T) {
	s := New(t, nil)
	rows, err := s.Psql(t.Context(), "app", "SELECT 1, 'a'; SELECT 2, NULL")
	require.NoError(t, err)
	require.Equal(t, "1|a\n2|", rows)
	_, err = s.Psql(t.Context(), "app", "SELECT 1; SELECT nothing")
	require.ErrorContains(t, err, `column "nothing" does not exist`)
	rows, err = s.install.Psql(t.Context(), fmt.Sprintf("host=127.0.0.1,127.0.0.1 port=1,%d user=postgres dbname=app", s.Port()), "SELECT 3")
	require.NoError(t, err, "libpq goes on to the second host")
	require.Equal(t, "3", rows)
}

func TestStartNamesWhatIsWrong(t *testing.T) {
	in, err := Find(t.Context(), nil)
	require.NoError(t, err)
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, taken.Close()) })
	port := taken.Addr().(*net.TCPAddr).Port
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, "Config.Dir is empty"},
		{Config{Dir: "x", Port: 70000}, "Config.Port 70000"},
		{Config{Dir: "x", Settings: map[string]string{"Port": "1"}}, "use Config.Port"},
		{Config{Dir: "x", Settings: map[string]string{"a = 1\nb": "1"}}, "not the name of a setting"},
		{Config{Dir: filepath.Join(tempDir(t), "s"), Port: port}, "Address already in use"},
		{Config{Dir: filepath.Join(tempDir(t), "s"), Settings: map[string]string{"wal_level": "thorough"}}, `invalid value for parameter "wal_level"`},
	} {
		_, err := Start(t.Context(), in, c.cfg)
		require.ErrorContains(t, err, c.want)
	}
}

func TestCancelledStartLeavesNoServer(t *testing.T) {
	s := New(t, nil)
	require.NoError(t, s.Kill())
	changedMind := errors.New("the test has changed its mind")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(changedMind)
	require.ErrorIs(t, s.Restart(ctx), changedMind)
	require.False(t, s.Running())
}

func TestWaitingForAStandbyDoesNotHinderTheStart(t *testing.T) {
	s := New(t, map[string]string{"synchronous_standby_names": "nobody_yet"})
	name, err := s.Psql(t.Context(), "app", "SELECT current_database()")
	require.NoError(t, err)
	require.Equal(t, "app", name)
}
