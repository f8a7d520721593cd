package pglog

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// Two sessions lose their mirrors at once. Each one's commits wait for the other's mirror as well, until both have
// released them.
func TestWaitNoneOfTwoSessions(t *testing.T) {
	t.Parallel()
	_, s, dsn := waitServer(t)
	ctx := adminContext(t)
	other, err := Dial(ctx, Secret(dsn), "other567")
	require.NoError(t, err)
	t.Cleanup(other.Close)
	_, err = s.WaitMirror(ctx, mirrorA)
	require.NoError(t, err)
	_, err = other.WaitMirror(ctx, "dbmirror_other567_1")
	require.NoError(t, err)
	first := make(chan error, 1)
	go func() { first <- s.WaitNone(ctx, true) }()
	adminEventually(t, "the first has taken its name out", func() bool {
		st, err := s.Waiting(ctx)
		require.NoError(t, err)
		return st.InForce == `FIRST 1 ("dbmirror_other567_1")`
	})
	awaitProbes(t, s, 2) // its commits still wait for the other's mirror
	require.NoError(t, other.WaitNone(ctx, true))
	require.NoError(t, <-first)
	st, err := s.Waiting(ctx)
	require.NoError(t, err)
	require.Empty(t, st.InForce)
	require.Contains(t, st.Persisted, "dbmirror_abcd1234_restart")
	require.Contains(t, st.Persisted, "dbmirror_other567_restart")

	// One after the other, too: neither takes out what the other's restart waits for.
	require.NoError(t, s.WaitRemove(ctx))
	for range 2 {
		require.NoError(t, s.WaitNone(ctx, true))
		require.NoError(t, other.WaitNone(ctx, true))
	}
	for _, each := range []*Server{s, other} {
		st, err := each.Waiting(ctx)
		require.NoError(t, err)
		require.Empty(t, st.InForce)
		require.True(t, st.RestartWaits)
	}
}

// A standby that has reported a position beyond the end of the log makes every later commit return at once, whatever
// name is set. It must not be taken for waiting, and must not keep the principal from going on alone.
func TestWaitIsNotBelievedAfterAReportBeyondTheEnd(t *testing.T) {
	t.Parallel()
	_, s, dsn := waitServer(t)
	ctx := adminContext(t)
	_, err := s.CreateSlot(ctx, slotA)
	require.NoError(t, err)
	m := startMirror(t, s, dsn, slotA, mirrorA, false)
	_, err = s.WaitMirror(ctx, mirrorA)
	require.NoError(t, err)
	m.end()
	m = startMirror(t, s, dsn, slotA, mirrorA, false)
	m.seen.Store(1 << 40)
	adminEventually(t, "commits do not wait any more", func() bool {
		return adminValue[bool](t, s, "SELECT coalesce(bool_or(flush_lsn > '1/0'), false) FROM pg_stat_replication")
	})
	err = givenUpOnceProbed(t, s, func(ctx context.Context) error { _, err := s.WaitMirror(ctx, mirrorA); return err })
	require.ErrorIs(t, err, ErrNotWaiting)
	require.ErrorContains(t, err, "restart the server")
	require.ErrorIs(t, givenUpOnceProbed(t, s, s.WaitBlock), ErrNotWaiting)
	require.ErrorIs(t, s.WaitNone(ctx, true), ErrNotWaiting, "released, and said")
	st, err := s.Waiting(ctx)
	require.NoError(t, err)
	require.Empty(t, st.Persisted)
	require.NoError(t, adminCommit(ctx, dsn))
}

// givenUpOnceProbed makes a call that sees no commit wait, ends its context when probes have returned, of which each takes a
// transaction number, and returns its error. A call that does not end with its context fails the test.
func givenUpOnceProbed(t *testing.T, s *Server, call func(context.Context) error) error {
	t.Helper()
	awaitProbes(t, s, 0)
	numbers := func() int64 {
		return adminValue[int64](t, s, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
	}
	before := numbers()
	calling, giveUp := context.WithCancel(adminContext(t))
	defer giveUp()
	done := make(chan error, 1)
	go func() { done <- call(calling) }()
	adminEventually(t, "probes have returned", func() bool { return numbers() > before+2 })
	require.Empty(t, done, "it goes on as long as it may")
	giveUp()
	select {
	case err := <-done:
		return err
	case <-time.After(hangs):
		require.FailNow(t, "it does not end with its context")
	}
	return nil
}

func adminCommit(ctx context.Context, dsn string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer hangUp(conn)
	_, err = conn.Exec(ctx, "INSERT INTO t (v) VALUES ('x')")
	return err
}

// The crash of any session makes the server forget who was waiting: the probe's connection is lost, and what is proven
// afterwards is proven anew.
func TestWaitAfterTheCrashOfASession(t *testing.T) {
	t.Parallel()
	_, s, dsn := waitServer(t)
	ctx := adminContext(t)
	require.NoError(t, s.WaitBlock(ctx))
	before, err := s.Ping(ctx)
	require.NoError(t, err)
	p := s.wait.pending
	victim, killer := adminClient(t, dsn), adminClient(t, dsn)
	_, err = killer.Exec(ctx, fmt.Sprintf("COPY (SELECT 1) TO PROGRAM 'kill -9 %d'", victim.PgConn().PID()))
	t.Logf("the session that brought it about: %v", err)
	<-p.returned
	require.Error(t, p.result())
	adminEventually(t, "the server is back", func() bool {
		after, err := s.Ping(ctx)
		return err == nil && !after.CheckpointerStart.Equal(before.CheckpointerStart)
	})
	require.NoError(t, s.WaitBlock(ctx))
	awaitProbes(t, s, 1)
	require.NoError(t, s.WaitNone(ctx, false))
}

// A caller who gives up leaves commits waiting, never returning.
func TestWaitMirrorGivenUp(t *testing.T) {
	t.Parallel()
	_, s, dsn := waitServer(t)
	ctx := adminContext(t)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, err := s.WaitMirror(gone, mirrorA)
	require.ErrorIs(t, err, context.Canceled)
	for round := range 10 {
		short, cancel := context.WithTimeout(ctx, time.Duration(2*round)*time.Millisecond)
		_, err := s.WaitMirror(short, mirrorA)
		cancel()
		st, waitErr := s.Waiting(ctx)
		require.NoError(t, waitErr)
		if err == nil {
			require.Equal(t, mirrorA, st.Name)
		} else if st.Persisted != "" {
			require.True(t, st.RestartWaits)
		}
		require.NoError(t, s.WaitNone(ctx, false))
		require.NoError(t, adminCommit(ctx, dsn))
	}
}

// A walsender that does not run has not read the new setting: it could release commits when it goes on. Commits do not
// count as blocked before it has been ended.
func TestWaitBlockEndsAWalsenderThatDoesNotFollow(t *testing.T) {
	t.Parallel()
	_, s, dsn := waitServer(t)
	ctx := adminContext(t)
	_, err := s.CreateSlot(ctx, slotA)
	require.NoError(t, err)
	a := startMirror(t, s, dsn, slotA, mirrorA, true) // reports would keep it busy
	_, err = s.WaitMirror(ctx, mirrorA)
	require.NoError(t, err)
	pid := int(a.conn.PID())
	awaitSleep(t, pid)
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	thaw := sync.OnceValue(func() error { return syscall.Kill(pid, syscall.SIGCONT) })
	defer thaw()
	// A machine that does other work may need longer to come to where it is ended.
	for limit := 3 * settlePatience; ; limit *= 2 {
		short, cancel := context.WithTimeout(ctx, limit)
		err = s.WaitBlock(short)
		cancel()
		require.Error(t, err)
		if limit > 20*time.Second || strings.Contains(err.Error(), "end walsenders") {
			break
		}
	}
	require.ErrorContains(t, err, "end walsenders")
	require.NoError(t, thaw())
	require.NoError(t, s.WaitBlock(ctx))
	require.Zero(t, adminValue[int](t, s, "SELECT count(*) FROM pg_stat_replication WHERE pid = $1", int32(pid)))
}

// A call that hangs does not keep one with a deadline waiting beyond it.
func TestWaitTurnEndsWithTheContext(t *testing.T) {
	t.Parallel()
	_, s, dsn := waitServer(t)
	ctx := adminContext(t)
	adminExec(t, dsn, "ALTER SYSTEM SET synchronous_standby_names = 'absent'", "SELECT pg_reload_conf()")
	hanging, giveUp := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.WaitNone(hanging, true) }()
	adminEventually(t, "it has made its change, and waits for the operator's standby", func() bool {
		st, err := s.Waiting(ctx)
		require.NoError(t, err)
		changing := adminValue[bool](t, s, "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name LIKE 'dbmirror lock%'")
		return st.InForce == `FIRST 1 ("absent")` && st.Waiters > 0 && !changing
	})
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	require.ErrorContains(t, s.WaitBlock(short), "call before")
	giveUp()
	require.ErrorContains(t, <-done, "another standby")
	require.NoError(t, s.WaitBlock(ctx))
}

// The lock on the setting is none that a client could hold: not by any advisory lock, nor by reading the catalog.
func TestWaitIsNotHeldUpByClients(t *testing.T) {
	t.Parallel()
	srv, s, dsn := waitServer(t)
	ctx := adminContext(t)
	adminExec(t, dsn, "CREATE ROLE ordinary LOGIN", "CREATE ROLE owner LOGIN", "ALTER DATABASE app OWNER TO owner")
	for _, user := range []string{"ordinary", "owner"} {
		for _, database := range []string{"postgres", "app"} {
			holder := adminClient(t, clientDSN(t, srv.DSN(database), user))
			_, err := holder.Exec(ctx, "BEGIN; SELECT pg_advisory_lock_shared(x) FROM generate_series(1684172147, 1684172151) x",
				pgx.QueryExecModeSimpleProtocol)
			require.NoError(t, err)
			_, err = holder.Exec(ctx, "SELECT FROM pg_shseclabel; SAVEPOINT s; LOCK TABLE pg_shseclabel IN ACCESS SHARE MODE",
				pgx.QueryExecModeSimpleProtocol)
			require.NoError(t, err)
			for _, mode := range []string{"ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "ACCESS EXCLUSIVE"} {
				_, err = holder.Exec(ctx, "ROLLBACK TO s; LOCK TABLE pg_shseclabel IN "+mode+" MODE", pgx.QueryExecModeSimpleProtocol)
				require.ErrorContains(t, err, "permission denied", mode)
			}
			_, err = holder.Exec(ctx, "ROLLBACK TO s; ANALYZE pg_shseclabel", pgx.QueryExecModeSimpleProtocol) // a warning
			require.NoError(t, err)
		}
	}
	began := time.Now()
	require.NoError(t, s.WaitBlock(ctx))
	_, err := s.WaitMirror(ctx, mirrorA)
	require.NoError(t, err)
	require.NoError(t, s.WaitNone(ctx, true))
	t.Logf("all three in %v", time.Since(began))
}

// As long as the checkpointer is busy it does not put the name in force. Who waits for that gives up in time.
func TestWaitBlockEndsWithTheContext(t *testing.T) {
	t.Parallel()
	_, s, _ := waitServer(t)
	ctx := adminContext(t)
	pid := adminValue[int](t, s, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	thaw := sync.OnceValue(func() error { return syscall.Kill(pid, syscall.SIGCONT) })
	defer thaw()
	require.ErrorIs(t, givenUpOnceProbed(t, s, s.WaitBlock), ErrNotWaiting)
	require.NoError(t, thaw())
	require.NoError(t, s.WaitBlock(ctx))
}

// One line in its files that the server cannot read keeps it from taking over any setting, and from starting again. That
// is said at once; nothing is written over what cannot be read, and nobody takes it for a change of the setting.
func TestWaitWhereTheServersFilesAreBroken(t *testing.T) {
	t.Parallel()
	_, s, dsn := waitServer(t)
	ctx := adminContext(t)
	adminExec(t, dsn, "ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (theirs)'")
	_, err := s.WaitMirror(ctx, mirrorA)
	require.NoError(t, err)
	adminEventually(t, "the name is in force", func() bool {
		st, err := s.Waiting(ctx)
		return err == nil && st.Name == mirrorA
	})
	path := adminValue[string](t, s, "SELECT current_setting('config_file')")
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	add := func(line string) {
		require.NoError(t, os.WriteFile(path, append(bytes.Clone(whole), []byte("\n"+line+"\n")...), 0o600))
	}
	for line, cause := range map[string]string{"this is = no setting": "syntax error", "no_such_setting = 1": "no_such_setting"} {
		add(line)
		for _, err := range []error{s.WaitNone(ctx, true), s.WaitBlock(ctx), s.WaitRemove(ctx)} {
			require.ErrorIs(t, err, errBrokenFiles)
			require.ErrorContains(t, err, "postgresql.conf, line ")
			require.ErrorContains(t, err, cause)
		}
		st, err := s.Waiting(ctx)
		require.NoError(t, err)
		require.Equal(t, mirrorA, st.Name)
		require.True(t, st.RestartWaits)
	}
	add("work_mem = lots") // only what is not valid is left out
	require.NoError(t, s.WaitBlock(ctx))
	st, err := s.Waiting(ctx)
	require.NoError(t, err)
	require.Equal(t, `FIRST 2 ("dbmirror_abcd1234_closed", "theirs")`, st.InForce)
}

// A program that was lost while it held the lock is not waited for once the server knows; one that lost the lock writes
// nothing.
func TestWaitLockThatIsLost(t *testing.T) {
	t.Parallel()
	_, s, dsn := waitServer(t)
	ctx := adminContext(t)
	held, err := s.lockWait(ctx)
	require.NoError(t, err)
	defer hangUp(held)
	blocking, giveUp := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.WaitBlock(blocking) }()
	adminEventually(t, "it waits, as another holds the lock", func() bool {
		return adminValue[bool](t, s, "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'pg_shseclabel'::regclass AND NOT granted")
	})
	giveUp()
	require.ErrorIs(t, <-done, context.Canceled)
	adminExec(t, dsn, fmt.Sprintf("SELECT pg_terminate_backend(%d)", held.PgConn().PID()))
	require.NoError(t, s.WaitBlock(ctx))
	err = waiting{Server: s, lock: held}.put(ctx, waitList{}, true)
	require.ErrorContains(t, err, "lock on it was lost")
	st, err := s.Waiting(ctx)
	require.NoError(t, err)
	require.True(t, st.Blocked)
}
