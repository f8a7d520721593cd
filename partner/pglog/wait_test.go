package pglog

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

const (
	mirrorA = "dbmirror_abcd1234_1_a"
	mirrorB = "dbmirror_abcd1234_2_b"
	slotA   = "dbmirror_abcd1234_1"
	slotB   = "dbmirror_abcd1234_2"
)

// writers commit rows in loops until they are stopped. Each keeps the ids of the rows whose commit returned.
type writers struct {
	count int
	mu    sync.Mutex
	ids   []int64
	stop  context.CancelFunc
	done  sync.WaitGroup
}

func startWriters(t *testing.T, dsn string, count int) *writers {
	ctx, stop := context.WithCancel(context.Background())
	w := &writers{count: count, stop: stop}
	for range count {
		conn := adminClient(t, clientDSN(t, dsn, "postgres", "application_name", "writer"))
		w.done.Go(func() {
			defer hangUp(conn)
			for ctx.Err() == nil {
				var id int64
				// Not with ctx: a commit that is cancelled is released.
				if err := conn.QueryRow(context.Background(), "INSERT INTO t (v) VALUES ('x') RETURNING id").Scan(&id); err != nil {
					return
				}
				w.mu.Lock()
				w.ids = append(w.ids, id)
				w.mu.Unlock()
			}
		})
	}
	return w
}

// allWait tells whether every writer's commit waits. Then acked is complete.
func (w *writers) allWait(t *testing.T, s *Server) bool {
	return adminValue[int](t, s, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'writer' AND wait_event = 'SyncRep'") == w.count
}

func (w *writers) acked() []int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.ids)
}

// commitEnds maps each row of table t to the end of the commit that wrote it, by the slot's own account.
func commitEnds(t *testing.T, dsn, slot string) map[int64]mirror.LSN {
	conn := adminClient(t, dsn)
	defer hangUp(conn)
	rows, err := conn.Query(adminContext(t), "SELECT lsn::text, data FROM pg_logical_slot_peek_changes($1, NULL, NULL)", slot)
	require.NoError(t, err)
	ends := make(map[int64]mirror.LSN)
	var open []int64
	for rows.Next() {
		var lsn mirror.LSN
		var data string
		require.NoError(t, rows.Scan(lsnColumn{&lsn}, &data))
		if rest, ok := strings.CutPrefix(data, "table public.t: INSERT: id[bigint]:"); ok {
			id, err := strconv.ParseInt(rest[:strings.IndexByte(rest, ' ')], 10, 64)
			require.NoError(t, err)
			open = append(open, id)
		}
		if strings.HasPrefix(data, "COMMIT") {
			for _, id := range open {
				ends[id] = lsn
			}
			open = open[:0]
		}
	}
	require.NoError(t, rows.Err())
	return ends
}

func waitServer(t *testing.T) (*pgtest.Server, *Server, string) {
	srv, s := adminServer(t, nil)
	dsn := srv.DSN("app")
	adminExec(t, dsn, "CREATE TABLE t (id bigserial PRIMARY KEY, v text)")
	return srv, s, dsn
}

// awaitProbes returns when as many probes are there. One that has returned, or was ended, is shown for a moment longer.
func awaitProbes(t *testing.T, s *Server, count int) {
	t.Helper()
	adminEventually(t, fmt.Sprintf("%d probes are there", count), func() bool {
		return adminValue[int](t, s, "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'dbmirror probe%'") == count
	})
}

// No commit that is acknowledged lies beyond the end that WaitMirror returned, over many rounds under load, while
// checkpoints delay the setting.
func TestWaitMirrorLetsNothingSlip(t *testing.T) {
	t.Parallel()
	_, s, dsn := waitServer(t)
	ctx := adminContext(t)
	const rounds = 15
	busy := adminClient(t, dsn)
	commits, slipped := 0, 0
	var longest time.Duration
	for round := range rounds {
		slot := fmt.Sprintf("round_%d", round)
		adminExec(t, dsn, "SELECT pg_create_logical_replication_slot('"+slot+"', 'test_decoding')")
		w := startWriters(t, dsn, 4)
		adminEventually(t, "the load runs", func() bool { return adminValue[int](t, s, "SELECT count(*) FROM public.t") > 20*(round+1) })
		checkpointed := make(chan error, 1)
		if round%3 == 0 {
			go func() { _, err := busy.Exec(context.Background(), "CHECKPOINT"); checkpointed <- err }()
		} else {
			checkpointed <- nil
		}
		began := time.Now()
		end, err := s.WaitMirror(ctx, fmt.Sprintf("dbmirror_abcd1234_%d", round))
		require.NoError(t, err)
		longest = max(longest, time.Since(began))
		require.NoError(t, <-checkpointed)
		adminEventually(t, "every writer waits", func() bool { return w.allWait(t, s) })
		ends := commitEnds(t, dsn, slot)
		for _, id := range w.acked() {
			require.Contains(t, ends, id)
			commits++
			if ends[id] > end {
				slipped++
			}
		}
		w.stop()
		require.NoError(t, s.WaitNone(ctx, round%2 == 0))
		w.done.Wait()
		adminExec(t, dsn, "SELECT pg_drop_replication_slot('"+slot+"')")
	}
	require.Zero(t, slipped, "of %d acknowledged", commits)
	require.Positive(t, commits)
	awaitProbes(t, s, 0)
	t.Logf("%d rounds, %d acknowledged commits, %d slipped through, longest call %v", rounds, commits, slipped, longest)
}

func TestWaitMirrorIsReleasedByItsMirrorOnly(t *testing.T) {
	t.Parallel()
	_, s, dsn := waitServer(t)
	ctx := adminContext(t)
	_, err := s.CreateSlot(ctx, slotA)
	require.NoError(t, err)
	a := startMirror(t, s, dsn, slotA, mirrorA, true)
	end, err := s.WaitMirror(ctx, mirrorA)
	require.NoError(t, err)

	conn := adminClient(t, clientDSN(t, dsn, "postgres", "application_name", "writer"))
	commit := func() chan error {
		done := make(chan error, 1)
		go func() { _, err := conn.Exec(context.Background(), "INSERT INTO t (v) VALUES ('x')"); done <- err }()
		return done
	}
	waits := func() bool {
		return adminValue[bool](t, s, "SELECT coalesce(bool_or(wait_event = 'SyncRep'), false) FROM pg_stat_activity WHERE application_name = 'writer'")
	}
	done := commit()
	adminEventually(t, "it waits", waits)
	awaitProbes(t, s, 1)
	st, err := s.Waiting(ctx)
	require.NoError(t, err)
	require.Equal(t, mirrorA, st.Name)
	require.False(t, st.Blocked)
	require.True(t, st.RestartWaits)
	require.Zero(t, st.Foreign)
	require.Equal(t, 2, st.Waiters)
	require.Len(t, st.Walsenders, 1)
	require.Equal(t, slotA, st.Walsenders[0].Slot)

	a.hold.Store(false)
	require.NoError(t, <-done)
	awaitProbes(t, s, 0) // the mirror releases it too
	require.Greater(t, a.reported(), end)

	t.Run("a renamed mirror: the old walsender releases nothing", func(t *testing.T) {
		for round := range 10 {
			_, err := s.WaitMirror(ctx, fmt.Sprintf("%s_%d", mirrorB, round))
			require.NoError(t, err)
			done := commit()
			adminEventually(t, "it waits", waits)
			require.Zero(t, adminValue[int](t, s, "SELECT count(*) FROM pg_stat_replication"), "the old walsender was ended")
			require.NoError(t, s.WaitNone(ctx, false))
			require.NoError(t, <-done)
			again := startMirror(t, s, dsn, slotA, mirrorA, false)
			_, err = s.WaitMirror(ctx, mirrorA)
			require.NoError(t, err)
			require.NoError(t, <-commit())
			_ = again
		}
	})
}

func TestWaitBlockAndNone(t *testing.T) {
	t.Parallel()
	_, s, dsn := waitServer(t)
	ctx := adminContext(t)
	_, err := s.CreateSlot(ctx, slotA)
	require.NoError(t, err)
	a := startMirror(t, s, dsn, slotA, mirrorA, false)
	_, err = s.WaitMirror(ctx, mirrorA)
	require.NoError(t, err)
	quick := 0
	block := func() {
		t.Helper()
		began := time.Now()
		require.NoError(t, s.WaitBlock(ctx))
		inTime := time.Since(began) < settlePatience
		alone := adminValue[bool](t, s, "SELECT count(*) = 1 FROM pg_stat_replication WHERE pid = $1", int32(a.conn.PID()))
		if inTime {
			quick++
			require.True(t, alone, "a walsender that follows the setting is left alone")
		} else if !alone { // on a machine that does other work it may not have come to it
			a.leave(t, s)
			a = startMirror(t, s, dsn, slotA, mirrorA, false)
		}
	}
	for round := 0; round < 5 || quick == 0; round++ {
		w := startWriters(t, dsn, 3)
		block()
		st, err := s.Waiting(ctx)
		require.NoError(t, err)
		require.True(t, st.Blocked)
		adminEventually(t, "every writer waits", func() bool { return w.allWait(t, s) })
		block()
		awaitProbes(t, s, 1) // twice leaves one
		w.stop()
		require.NoError(t, s.WaitNone(ctx, true))
		w.done.Wait()
		st, err = s.Waiting(ctx)
		require.NoError(t, err)
		require.Empty(t, st.InForce)
		require.Equal(t, `FIRST 1 ("dbmirror_abcd1234_restart")`, st.Persisted)
		require.True(t, st.RestartWaits)
		require.NoError(t, s.WaitNone(ctx, true), "twice")
		adminExec(t, dsn, "SELECT 1")
	}
	t.Run("a reload of somebody else is seen, and mended", func(t *testing.T) {
		adminExec(t, dsn, "SELECT pg_reload_conf()")
		adminEventually(t, "the name is in force", func() bool {
			st, err := s.Waiting(ctx)
			require.NoError(t, err)
			return st.Reloaded && st.Blocked
		})
		require.NoError(t, s.WaitNone(ctx, true))
		st, err := s.Waiting(ctx)
		require.NoError(t, err)
		require.Empty(t, st.InForce)
	})
	t.Run("remove", func(t *testing.T) {
		require.NoError(t, s.WaitRemove(ctx))
		st, err := s.Waiting(ctx)
		require.NoError(t, err)
		require.Empty(t, st.InForce)
		require.Empty(t, st.Persisted)
		require.NoError(t, s.WaitNone(ctx, false))
	})
}

// A principal that acknowledges alone is killed: it must not do so again by itself.
func TestWaitNoneDoesNotSurviveARestart(t *testing.T) {
	t.Parallel()
	srv, s, dsn := waitServer(t)
	ctx := adminContext(t)
	for round := range 2 {
		require.NoError(t, s.WaitNone(ctx, true))
		w := startWriters(t, dsn, 2)
		adminEventually(t, "it serves", func() bool { return adminValue[int](t, s, "SELECT count(*) FROM public.t") > 10*(round+1) })
		require.NoError(t, srv.Kill())
		w.stop()
		w.done.Wait()
		require.NoError(t, srv.Restart(ctx))
		rows := adminValue[int](t, s, "SELECT count(*) FROM public.t")
		w = startWriters(t, dsn, 3)
		adminEventually(t, "every writer waits", func() bool { return w.allWait(t, s) })
		require.Empty(t, w.acked(), "acknowledged alone after the restart")
		require.Equal(t, rows, adminValue[int](t, s, "SELECT count(*) FROM public.t"))
		st, err := s.Waiting(ctx)
		require.NoError(t, err)
		require.True(t, st.Blocked)
		w.stop()
		require.NoError(t, s.WaitNone(ctx, true))
		w.done.Wait()
	}
}

func TestWaitKeepsTheOperatorsStandbys(t *testing.T) {
	t.Parallel()
	srv, s := adminServer(t, map[string]string{"synchronous_standby_names": "theirs"})
	dsn := srv.DSN("app")
	ctx := adminContext(t)
	adminExec(t, dsn, "CREATE TABLE t (id bigserial PRIMARY KEY, v text)")
	_, err := s.CreateSlot(ctx, "theirs")
	require.NoError(t, err)
	theirs := startMirror(t, s, dsn, "theirs", "theirs", false)
	require.NoError(t, s.WaitBlock(ctx))
	st, err := s.Waiting(ctx)
	require.NoError(t, err)
	require.Equal(t, `FIRST 2 ("dbmirror_abcd1234_closed", "theirs")`, st.InForce)
	require.NoError(t, s.WaitNone(ctx, true))
	st, err = s.Waiting(ctx)
	require.NoError(t, err)
	require.Equal(t, `FIRST 1 ("theirs")`, st.InForce)
	require.Equal(t, `FIRST 2 ("dbmirror_abcd1234_restart", "theirs")`, st.Persisted)

	t.Run("another session shares the setting", func(t *testing.T) {
		other, err := Dial(ctx, Secret(dsn), "other567")
		require.NoError(t, err)
		defer other.Close()
		require.NoError(t, other.WaitBlock(ctx))
		st, err := other.Waiting(ctx)
		require.NoError(t, err)
		require.Equal(t, `FIRST 2 ("dbmirror_other567_closed", "theirs")`, st.InForce, "what is for the restart is not put in force")
		require.NoError(t, other.WaitRemove(ctx))
		require.NoError(t, s.WaitNone(ctx, true))
		st, err = s.Waiting(ctx)
		require.NoError(t, err)
		require.Equal(t, `FIRST 2 ("dbmirror_abcd1234_restart", "theirs")`, st.Persisted)
	})
	t.Run("two of one name could confirm for the mirror", func(t *testing.T) {
		_, err := s.CreateSlot(ctx, "theirs_too")
		require.NoError(t, err)
		twin := startMirror(t, s, dsn, "theirs_too", "Theirs", false)
		_, err = s.WaitMirror(ctx, mirrorA)
		require.ErrorContains(t, err, "give each standby its own")
		twin.end()
	})
	require.NoError(t, s.WaitRemove(ctx))
	st, err = s.Waiting(ctx)
	require.NoError(t, err)
	require.Equal(t, "theirs", st.Persisted, "the operator's own line counts again")
	require.Zero(t, adminValue[int](t, s, "SELECT count(*) FROM pg_file_settings WHERE name = 'synchronous_standby_names' AND sourcefile LIKE '%auto.conf'"))
	_ = theirs

	adminExec(t, dsn, "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (theirs, more)'", "SELECT pg_reload_conf()")
	var refused *WaitListError
	_, err = s.WaitMirror(ctx, mirrorA)
	require.ErrorAs(t, err, &refused)
	require.Contains(t, err.Error(), `FIRST 2 ("theirs", "more")`)
	require.NoError(t, s.WaitRemove(ctx), "nothing of ours is in it")
}

// PostgreSQL does not care how the operator writes the name of the setting.
func TestWaitKeepsWhatIsWrittenInCapitals(t *testing.T) {
	t.Parallel()
	_, s := adminServer(t, map[string]string{"Synchronous_Standby_Names": "theirs"})
	ctx := adminContext(t)
	require.NoError(t, s.WaitBlock(ctx))
	st, err := s.Waiting(ctx)
	require.NoError(t, err)
	require.Equal(t, `FIRST 2 ("dbmirror_abcd1234_closed", "theirs")`, st.InForce)
}

// Who leaves does not wait for the operator's standbys: a mirror follows though one of those is away.
func TestWaitRemoveWhereOthersAreWaitedFor(t *testing.T) {
	t.Parallel()
	srv, s := adminServer(t, map[string]string{"synchronous_standby_names": "absent"})
	ctx := adminContext(t)
	require.NoError(t, s.WaitRemove(ctx), "none of ours is in it")
	leave := func(inForce string) {
		leaving, giveUp := context.WithCancel(ctx)
		left := make(chan error, 1)
		go func() { left <- s.WaitRemove(leaving) }()
		adminEventually(t, "it was taken out, which cannot be proven", func() bool {
			st, err := s.Waiting(ctx)
			require.NoError(t, err)
			return st.InForce == inForce
		})
		giveUp()
		require.Error(t, <-left)
		require.NoError(t, s.WaitRemove(ctx))
	}
	require.NoError(t, s.WaitBlock(ctx))
	leave("absent")
	require.NoError(t, s.WaitBlock(ctx))
	// Somebody is in the middle of changing it to what cannot be joined.
	adminExec(t, srv.DSN("app"), "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (absent, more)'")
	leave("ANY 1 (absent, more)")
}

func TestAbuseS7WaitMirrorRefusesForeignWalsender(t *testing.T) {
	t.Parallel()
	_, s, dsn := waitServer(t)
	ctx := adminContext(t)
	for _, slot := range []string{slotA, slotB} {
		_, err := s.CreateSlot(ctx, slot)
		require.NoError(t, err)
	}
	startMirror(t, s, dsn, slotA, mirrorA, false)
	_, err := s.WaitMirror(ctx, mirrorA)
	require.NoError(t, err)
	startMirror(t, s, dsn, slotB, strings.ToUpper(mirrorA), false)
	st, err := s.Waiting(ctx)
	require.NoError(t, err)
	require.Equal(t, 1, st.Foreign)
	_, err = s.WaitMirror(ctx, mirrorA)
	require.ErrorIs(t, err, ErrForeignWalsender)
	for _, name := range []string{"", "mirror", "dbmirror_other567_1", "dbmirror_abcd1234_", "dbmirror_abcd1234_closed", "dbmirror_abcd1234_1_restart",
		"dbmirror_abcd1234_A", "dbmirror_abcd1234_" + strings.Repeat("x", 50)} {
		_, err := s.WaitMirror(ctx, name)
		require.Error(t, err, name)
	}
}

// A stranger that bears the mirror's name would confirm in its place, also while the mirror is away.
func TestWaitMirrorRefusesWhoReadsOtherLog(t *testing.T) {
	t.Parallel()
	_, s, dsn := waitServer(t)
	ctx := adminContext(t)
	for _, slot := range []string{slotA, "stranger"} {
		_, err := s.CreateSlot(ctx, slot)
		require.NoError(t, err)
	}
	alone := startMirror(t, s, dsn, "stranger", mirrorA, false)
	_, err := s.WaitMirror(ctx, mirrorA)
	require.ErrorIs(t, err, ErrForeignWalsender)
	alone.leave(t, s)

	m := startMirror(t, s, dsn, slotA, mirrorA, false)
	_, err = s.WaitMirror(ctx, mirrorA)
	require.NoError(t, err)
	st, err := s.Waiting(ctx)
	require.NoError(t, err)
	require.Zero(t, st.Foreign)
	m.leave(t, s)
	startMirror(t, s, dsn, "stranger", mirrorA, false)
	require.NoError(t, adminCommit(ctx, dsn), "the stranger has confirmed it")
	st, err = s.Waiting(ctx)
	require.NoError(t, err)
	require.Equal(t, 1, st.Foreign)
}

// A probe whose wait is cancelled commits all the same. Its return is no proof of anything.
func TestWaitProbeThatIsCancelled(t *testing.T) {
	t.Parallel()
	srv, s, dsn := waitServer(t)
	ctx := adminContext(t)
	require.NoError(t, s.WaitBlock(ctx))
	p := s.wait.pending
	adminExec(t, dsn, fmt.Sprintf("SELECT pg_cancel_backend(%d)", p.pid))
	<-p.returned
	require.ErrorIs(t, p.result(), errProbeCut)
	require.NoError(t, s.WaitBlock(ctx), "a new one is made")
	require.NotEqual(t, p.pid, s.wait.pending.pid)
	awaitProbes(t, s, 1)

	t.Run("a program that was killed leaves none behind for long", func(t *testing.T) {
		again := dialServer(t, dsn)
		require.NoError(t, again.WaitBlock(ctx))
		awaitProbes(t, again, 1)
		again.Close()
		awaitProbes(t, s, 0)
	})
	t.Run("closing while the server is down", func(t *testing.T) {
		last := dialServer(t, dsn)
		require.NoError(t, last.WaitBlock(ctx))
		require.NoError(t, srv.Kill())
		last.Close()
	})
}
