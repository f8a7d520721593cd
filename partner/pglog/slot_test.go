package pglog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

func TestSlot(t *testing.T) {
	t.Parallel()
	srv, s := adminServer(t, map[string]string{"max_slot_wal_keep_size": "100MB"})
	dsn := srv.DSN("app")
	ctx := adminContext(t)
	_, err := s.Slot(ctx, "s1")
	require.ErrorIs(t, err, ErrNoSlot)
	_, err = s.Retained(ctx, "s1")
	require.ErrorIs(t, err, ErrNoSlot)
	require.NoError(t, s.DropSlot(ctx, "s1"), "a missing slot is as good as dropped")
	for _, name := range []string{"", "Upper", "a-b", "a b", "a;drop", "é", string(make([]byte, 64))} {
		_, err := s.CreateSlot(ctx, name)
		require.Error(t, err, name)
		_, err = s.CreateSlotWithSnapshot(ctx, name)
		require.Error(t, err, name)
		require.Error(t, s.DropSlot(ctx, name), name)
	}

	start, err := s.CreateSlot(ctx, "s1")
	require.NoError(t, err)
	st, err := s.Slot(ctx, "s1")
	require.NoError(t, err)
	require.Equal(t, start, st.Confirmed)
	require.Equal(t, "app", st.Database)
	require.Equal(t, "reserved", st.WALStatus)
	require.Positive(t, st.SafeWAL)
	require.Less(t, st.Restart, start)
	require.Empty(t, st.Invalid)
	_, err = s.CreateSlot(ctx, "s1")
	require.ErrorContains(t, err, "exists already")

	before, err := s.Retained(ctx, "s1")
	require.NoError(t, err)
	adminExec(t, dsn, "CREATE TABLE big AS SELECT i, repeat('x', 100) FROM generate_series(1, 20000) i")
	after, err := s.Retained(ctx, "s1")
	require.NoError(t, err)
	require.Greater(t, after, before+2_000_000)

	t.Run("a slot in use is dropped all the same", func(t *testing.T) {
		m := startMirror(t, s, dsn, "s1", mirrorA, false)
		st, err := s.Slot(ctx, "s1")
		require.NoError(t, err)
		require.EqualValues(t, m.conn.PID(), st.ActivePID)
		require.NoError(t, s.DropSlot(ctx, "s1"))
		_, err = s.Slot(ctx, "s1")
		require.ErrorIs(t, err, ErrNoSlot)
	})
}

// A new principal makes commits wait for a mirror that cannot come before its slot exists: the commit that proves the
// waiting must not hold up the slot.
// A server that has no slot left is found at a failover, when nobody serves: the error says what helps at once.
func TestSlotThatIsNotFreeNamesTheMend(t *testing.T) {
	t.Parallel()
	_, s := adminServer(t, map[string]string{"max_replication_slots": "1"})
	ctx := adminContext(t)
	_, err := s.CreateSlot(ctx, "first")
	require.NoError(t, err)
	_, err = s.CreateSlot(ctx, "second")
	require.ErrorContains(t, err, "all replication slots are in use")
	require.ErrorContains(t, err, "drop one that nobody needs, which helps at once, or raise max_replication_slots")
	require.NoError(t, s.DropSlot(ctx, "first"))
	_, err = s.CreateSlot(ctx, "second")
	require.NoError(t, err)
}

func TestSlotIsNotHeldUpByOurProbe(t *testing.T) {
	t.Parallel()
	_, s, dsn := waitServer(t)
	ctx := adminContext(t)
	_, err := s.WaitMirror(ctx, mirrorA)
	require.NoError(t, err)
	awaitProbes(t, s, 1)
	_, err = s.CreateSlot(ctx, "s1")
	require.NoError(t, err)
	awaitProbes(t, s, 0)
	_, err = s.WaitMirror(ctx, mirrorB)
	require.NoError(t, err)
	snap, err := s.CreateSlotWithSnapshot(ctx, "s2")
	require.NoError(t, err)
	snap.Close()

	w := startWriters(t, dsn, 1)
	adminEventually(t, "commits wait all the same", func() bool { return w.allWait(t, s) })
	require.Empty(t, w.acked())
	require.NoError(t, s.WaitNone(ctx, false))
	w.stop()
	w.done.Wait()
}

func TestSlotWithSnapshot(t *testing.T) {
	t.Parallel()
	srv, s := adminServer(t, nil)
	dsn := srv.DSN("app")
	ctx := adminContext(t)
	adminExec(t, dsn, "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
	snap, err := s.CreateSlotWithSnapshot(ctx, "s1")
	require.NoError(t, err)
	adminExec(t, dsn, "INSERT INTO t VALUES (2)")
	st, err := s.Slot(ctx, "s1")
	require.NoError(t, err)
	require.Equal(t, snap.Start, st.Confirmed)
	count := func() (int, error) {
		conn := adminClient(t, dsn)
		defer hangUp(conn)
		var n int
		err := pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SET TRANSACTION SNAPSHOT "+quoteLiteral(snap.Name)); err != nil {
				return err
			}
			return tx.QueryRow(ctx, "SELECT count(*) FROM t").Scan(&n)
		})
		return n, err
	}
	n, err := count()
	require.NoError(t, err)
	require.Equal(t, 1, n, "as it was where the slot starts")
	require.NoError(t, snap.Close())
	adminEventually(t, "the snapshot has gone with its connection", func() bool { _, err := count(); return err != nil })
	_, err = s.Slot(ctx, "s1")
	require.NoError(t, err, "the slot stays")
}

// From version 17 on a server can end transactions that take long. None of ours may be among them.
func TestSlotOutlivesTransactionTimeout(t *testing.T) {
	t.Parallel()
	srv, s := adminServer(t, nil)
	ctx := adminContext(t)
	if adminValue[int](t, s, "SELECT current_setting('server_version_num')::int") < 170000 {
		t.Skip("transaction_timeout came with version 17")
	}
	adminExec(t, srv.DSN("app"), "ALTER SYSTEM SET transaction_timeout = '1s'", "SELECT pg_reload_conf()")
	held, err := s.CreateSlotWithSnapshot(ctx, "s1")
	require.NoError(t, err)
	blocker := adminClient(t, clientDSN(t, srv.DSN("postgres"), "postgres", "transaction_timeout", "0"))
	_, err = blocker.Exec(ctx, "BEGIN; SELECT pg_current_xact_id()")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { _, err := s.CreateSlot(ctx, "s2"); done <- err }()
	_, err = blocker.Exec(ctx, "SELECT pg_sleep(2)")
	require.NoError(t, err)
	_, err = blocker.Exec(ctx, "COMMIT")
	require.NoError(t, err)
	require.NoError(t, <-done)
	importer := adminClient(t, clientDSN(t, srv.DSN("app"), "postgres", "transaction_timeout", "0"))
	_, err = importer.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT "+quoteLiteral(held.Name), pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
	require.NoError(t, held.Close())
}

// A transaction that has written, in another database or prepared, keeps a slot from being made. It is named, and
// nothing is left behind.
func TestSlotIsBlocked(t *testing.T) {
	t.Parallel()
	srv, s := adminServer(t, map[string]string{"max_prepared_transactions": "2"})
	ctx := adminContext(t)
	blocker := adminClient(t, clientDSN(t, srv.DSN("postgres"), "postgres", "application_name", "batch job"))
	_, err := blocker.Exec(ctx, "BEGIN; SELECT pg_current_xact_id()")
	require.NoError(t, err)

	plain := func(ctx context.Context) error { _, err := s.CreateSlot(ctx, "s1"); return err }
	withSnapshot := func(ctx context.Context) error { _, err := s.CreateSlotWithSnapshot(ctx, "s1"); return err }
	begin := func(ctx context.Context, create func(context.Context) error) chan error {
		done := make(chan error, 1)
		go func() { done <- create(ctx) }()
		return done
	}
	for _, create := range []func(context.Context) error{plain, withSnapshot} {
		short, stop := context.WithCancel(ctx)
		done := begin(short, create)
		adminEventually(t, "the one who blocks is named", func() bool {
			list, err := s.SlotBlockers(ctx, "s1")
			return err == nil && len(list) == 1 && list[0].PID == int32(blocker.PgConn().PID())
		})
		stop()
		err = <-done
		var blocked *SlotBlockedError
		require.ErrorAs(t, err, &blocked)
		require.Len(t, blocked.Blockers, 1)
		require.Equal(t, "postgres", blocked.Blockers[0].Database)
		require.Equal(t, "batch job", blocked.Blockers[0].Application)
		require.ErrorContains(t, err, fmt.Sprintf("process %d (batch job of postgres in database postgres)", blocker.PgConn().PID()))
		_, err = s.Slot(ctx, "s1")
		require.ErrorIs(t, err, ErrNoSlot, "the half-made slot is gone")
	}

	done := begin(ctx, plain)
	adminEventually(t, "it waits", func() bool { list, err := s.SlotBlockers(ctx, "s1"); return err == nil && len(list) == 1 })
	_, err = blocker.Exec(ctx, "COMMIT")
	require.NoError(t, err)
	require.NoError(t, <-done, "it goes on when the transaction ends")
	require.NoError(t, s.DropSlot(ctx, "s1"))

	_, err = blocker.Exec(ctx, "BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'forgotten'")
	require.NoError(t, err)
	short, stop := context.WithCancel(ctx)
	done = begin(short, plain)
	adminEventually(t, "the prepared one is named", func() bool {
		list, err := s.SlotBlockers(ctx, "s1")
		return err == nil && len(list) == 1 && list[0].Prepared == "forgotten"
	})
	stop()
	err = <-done
	require.ErrorContains(t, err, `prepared transaction "forgotten" in database postgres`)
	require.ErrorContains(t, err, "ROLLBACK PREPARED")
	_, err = blocker.Exec(ctx, "ROLLBACK PREPARED 'forgotten'")
	require.NoError(t, err)

	t.Run("the server goes down meanwhile", func(t *testing.T) {
		_, err = blocker.Exec(ctx, "BEGIN; SELECT pg_current_xact_id()")
		require.NoError(t, err)
		done := begin(ctx, plain)
		adminEventually(t, "it waits", func() bool { list, err := s.SlotBlockers(ctx, "s1"); return err == nil && len(list) == 1 })
		began := time.Now()
		require.NoError(t, srv.Kill())
		require.Error(t, <-done)
		require.Less(t, time.Since(began), slotPatience)
	})
}

// A process that makes a slot and does not listen is not waited for: whoever wants to close the database waits behind it.
func TestSlotOfAProcessThatDoesNotListen(t *testing.T) {
	t.Parallel()
	srv, s := adminServer(t, nil)
	ctx := adminContext(t)
	blocker := adminClient(t, srv.DSN("postgres"))
	_, err := blocker.Exec(ctx, "BEGIN; SELECT pg_current_xact_id()")
	require.NoError(t, err)
	making, giveUp := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		_, err := s.CreateSlot(making, "s1")
		done <- err
	}()
	adminEventually(t, "it waits", func() bool { list, err := s.SlotBlockers(ctx, "s1"); return err == nil && len(list) == 1 })
	st, err := s.Slot(ctx, "s1")
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(int(st.ActivePID), syscall.SIGSTOP))
	thaw := sync.OnceValue(func() error { return syscall.Kill(int(st.ActivePID), syscall.SIGCONT) })
	defer thaw()
	giveUp()
	select {
	case err = <-done:
	case <-ctx.Done():
		require.Fail(t, "it hangs")
	}
	var blocked *SlotBlockedError
	require.ErrorAs(t, err, &blocked)
	require.NoError(t, thaw())
	adminEventually(t, "the half-made slot goes with its process", func() bool {
		_, err := s.Slot(ctx, "s1")
		return errors.Is(err, ErrNoSlot)
	})
}

// An orderly stop keeps a slot's position from version 17 on. Before, the slot may step back to where it was last saved:
// its memory is no place to start reading.
func TestSlotAfterAnOrderlyStop(t *testing.T) {
	t.Parallel()
	srv, s, dsn := waitServer(t)
	ctx := adminContext(t)
	start, err := s.CreateSlot(ctx, slotA)
	require.NoError(t, err)
	m := startMirror(t, s, dsn, slotA, mirrorA, false)
	require.NoError(t, adminCommit(ctx, dsn))
	end := adminValue[string](t, s, "SELECT pg_current_wal_flush_lsn()::text")
	adminEventually(t, "the commit is confirmed", func() bool {
		return adminValue[bool](t, s, "SELECT confirmed_flush_lsn >= $1::pg_lsn FROM pg_replication_slots", end)
	})
	m.end()
	adminEventually(t, "nobody reads", func() bool {
		return adminValue[bool](t, s, "SELECT active_pid IS NULL FROM pg_replication_slots")
	})
	before, err := s.Slot(ctx, slotA)
	require.NoError(t, err)
	require.Greater(t, before.Confirmed, start)
	require.NoError(t, srv.Stop("fast"))
	require.NoError(t, srv.Restart(ctx))
	after, err := s.Slot(ctx, slotA)
	require.NoError(t, err)
	if adminValue[int](t, s, "SELECT current_setting('server_version_num')::int") >= 170000 {
		require.Equal(t, before.Confirmed, after.Confirmed)
	} else {
		require.LessOrEqual(t, after.Confirmed, before.Confirmed)
		require.GreaterOrEqual(t, after.Confirmed, start)
		t.Logf("the slot was made at %s, stood at %s, and stands at %s", start, before.Confirmed, after.Confirmed)
	}
}
