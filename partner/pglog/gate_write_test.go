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

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// TestGateClosesAgainstHeldLocks closes the gate while clients hold what they can of what that needs.
func TestGateClosesAgainstHeldLocks(t *testing.T) {
	t.Parallel()
	srv, s := adminServer(t, nil)
	dsn := srv.DSN("app")
	gateUsers(t, dsn)
	elsewhere := srv.DSN("postgres")
	ctx := adminContext(t)
	for name, c := range map[string]struct {
		dsn, user string
		hold      string
		prepare   []string // by a superuser, before
	}{
		"the owner changes a setting":                {dsn, "owner", "BEGIN; ALTER DATABASE app SET work_mem = '8MB'", nil},
		"the owner changes the same, from elsewhere": {elsewhere, "owner", "BEGIN; ALTER DATABASE app SET default_transaction_read_only = off", nil},
		"the owner changes the limit":                {elsewhere, "owner", "BEGIN; ALTER DATABASE app CONNECTION LIMIT 5", nil},
		"the owner grants":                           {dsn, "owner", "BEGIN; GRANT CONNECT ON DATABASE app TO ordinary", nil},
		"the owner makes our schema":                 {dsn, "owner", "BEGIN; CREATE SCHEMA dbmirror", []string{"DROP SCHEMA dbmirror CASCADE"}},
		"a superuser locks our table":                {dsn, "postgres", "BEGIN; LOCK TABLE dbmirror.settings", nil},
		"anybody takes advisory locks":               {dsn, "ordinary", "SELECT pg_advisory_lock(x) FROM generate_series(1684172147, 1684172151) x", nil},
	} {
		t.Run(name, func(t *testing.T) {
			adminExec(t, dsn, c.prepare...)
			holder := adminClient(t, clientDSN(t, c.dsn, c.user))
			_, err := holder.Exec(ctx, c.hold, pgx.QueryExecModeSimpleProtocol)
			require.NoError(t, err)
			client := adminClient(t, clientDSN(t, dsn, "ordinary"))
			began, before := time.Now(), gaveWay(t, srv)
			p, err := s.SetGate(ctx, mirror.GateClosed, 0)
			took := time.Since(began)
			require.NoError(t, err)
			require.Equal(t, mirror.GateClosed, p.Gate)
			require.Zero(t, p.Sessions)
			require.LessOrEqual(t, gaveWay(t, srv)-before, 1)
			t.Logf("closed in %v", took)
			require.Error(t, holder.Ping(ctx), "who held the lock is ended")
			require.Error(t, client.Ping(ctx))
			p, err = s.SetGate(ctx, mirror.GateOpen, 0)
			require.NoError(t, err)
			require.Equal(t, -1, p.ConnLimit)
			require.NoError(t, s.EnsureSchema(ctx))
		})
	}
}

// A change of the database whose commit waits for a mirror holds its lock all that while, and is committed when its
// session is ended.
func TestGateClosesWhileAChangeOfTheDatabaseHangs(t *testing.T) {
	t.Parallel()
	srv, s := adminServer(t, nil)
	dsn := srv.DSN("app")
	gateUsers(t, dsn)
	ctx := adminContext(t)
	require.NoError(t, s.WaitBlock(ctx))
	hanging := adminClient(t, clientDSN(t, dsn, "owner"))
	done := make(chan error, 1)
	go func() {
		_, err := hanging.Exec(context.Background(), "ALTER DATABASE app CONNECTION LIMIT 5")
		done <- err
	}()
	adminEventually(t, "the commit waits", func() bool {
		return adminValue[int](t, s, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = 'owner'") == 1
	})
	before := gaveWay(t, srv)
	p, err := s.SetGate(ctx, mirror.GateClosed, 0)
	require.NoError(t, err)
	require.Zero(t, p.Sessions)
	require.LessOrEqual(t, gaveWay(t, srv)-before, 1)
	require.Error(t, <-done)
}

// gaveWay counts the statements that have waited for a lock as long as they may, a second each. That is what a change of
// the gate waits for others, however long a machine that does other work takes for it. Who holds a lock is ended before
// the first has waited so long, where the machine is quick enough.
func gaveWay(t *testing.T, srv *pgtest.Server) int {
	log, err := os.ReadFile(srv.LogFile())
	require.NoError(t, err)
	return bytes.Count(log, []byte("canceling statement due to lock timeout"))
}

// Nobody can be ended for the lock of a prepared transaction: it is named, and clients are ended all the same.
func TestGateIsHeldByAPreparedTransaction(t *testing.T) {
	t.Parallel()
	srv, s := adminServer(t, map[string]string{"max_prepared_transactions": "2"})
	dsn := srv.DSN("app")
	gateUsers(t, dsn)
	ctx := adminContext(t)
	owner := adminClient(t, clientDSN(t, dsn, "owner"))
	for _, statement := range []string{"BEGIN", "ALTER DATABASE app CONNECTION LIMIT 5", "PREPARE TRANSACTION 'held'"} {
		_, err := owner.Exec(ctx, statement)
		require.NoError(t, err)
	}
	p, err := s.Gate(ctx)
	require.NoError(t, err)
	require.Equal(t, 1, p.Writers)
	client := adminClient(t, clientDSN(t, dsn, "ordinary"))
	// A machine that does other work may need longer to come to where it is named.
	for limit := 2500 * time.Millisecond; ; limit *= 2 {
		short, cancel := context.WithTimeout(ctx, limit)
		began := time.Now()
		_, err = s.SetGate(short, mirror.GateClosed, 0)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, time.Since(began), limit+hangs, "it ends with its context")
		if limit > 20*time.Second || strings.Contains(err.Error(), "pg_prepared_xacts") {
			break
		}
	}
	require.ErrorContains(t, err, "pg_prepared_xacts")
	require.Error(t, client.Ping(ctx), "clients are ended although the gate cannot be closed")
	require.Error(t, owner.Ping(ctx))

	adminExec(t, dsn, "ROLLBACK PREPARED 'held'")
	p, err = s.SetGate(ctx, mirror.GateClosed, 0)
	require.NoError(t, err)
	require.Zero(t, p.Writers)
}

// awaitSleep returns when a process of the server has nothing to do, where the system shows that in its files: one that is
// stopped in the middle of its work may hold what the whole server needs.
func awaitSleep(t *testing.T, pid int) {
	t.Helper()
	seen := 0
	adminEventually(t, "it sleeps", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return true
		}
		_, state, _ := strings.Cut(string(stat), ") ") // "pid (name) state ..."
		if seen++; !strings.HasPrefix(state, "S") {
			seen = 0
		}
		return seen > 2
	})
}

// stuckStarting is a session that is starting and does not get on before thaw, which the end of the test calls too.
func stuckStarting(t *testing.T, s *Server, dsn string) (thaw func()) {
	ctx := adminContext(t)
	connected := make(chan struct{})
	go func() {
		defer close(connected)
		if conn, err := pgx.Connect(ctx, clientDSN(t, dsn, "ordinary", "options", "-c post_auth_delay=60")); err == nil {
			hangUp(conn)
		}
	}()
	var pid int
	adminEventually(t, "it is starting", func() bool {
		starting, err := s.starting(ctx)
		require.NoError(t, err)
		for one := range starting {
			pid = int(one)
		}
		return pid != 0
	})
	awaitSleep(t, pid)
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	thaw = sync.OnceFunc(func() { require.NoError(t, syscall.Kill(pid, syscall.SIGCONT)) })
	t.Cleanup(func() {
		thaw()
		<-connected
	})
	return thaw
}

// A session that is starting and does not come to an end keeps the gate from being proven closed. It keeps nobody else in.
func TestGateEndsSessionsWhileOneIsStuckStarting(t *testing.T) {
	t.Parallel()
	srv, s := adminServer(t, nil)
	dsn := srv.DSN("app")
	gateUsers(t, dsn)
	ctx := adminContext(t)
	client := adminClient(t, clientDSN(t, dsn, "ordinary"))
	thaw := stuckStarting(t, s, dsn)
	closing, giveUp := context.WithCancel(ctx)
	closed := make(chan error, 1)
	go func() {
		_, err := s.SetGate(closing, mirror.GateClosed, 0)
		closed <- err
	}()
	adminEventually(t, "the client is ended", func() bool { return client.Ping(ctx) != nil })
	giveUp()
	require.ErrorIs(t, <-closed, context.Canceled)
	thaw()
	_, err := s.SetGate(ctx, mirror.GateClosed, 0)
	require.NoError(t, err)
}

// Whoever is broken off while he opens the database has not ended the sessions that began read-only. The next one does.
func TestGateThatIsBrokenOffWhileItOpens(t *testing.T) {
	t.Parallel()
	srv, s := adminServer(t, nil)
	dsn := srv.DSN("app")
	gateUsers(t, dsn)
	ctx := adminContext(t)
	_, err := s.SetGate(ctx, mirror.GateReadOnly, 0)
	require.NoError(t, err)
	reader := adminClient(t, clientDSN(t, dsn, "ordinary"))
	thaw := stuckStarting(t, s, dsn)
	opening, breakOff := context.WithCancel(ctx)
	opened := make(chan error, 1)
	go func() {
		_, err := s.SetGate(opening, mirror.GateOpen, 0)
		opened <- err
	}()
	adminEventually(t, "it is open", func() bool {
		p, err := s.Gate(ctx)
		require.NoError(t, err)
		return p.Gate == mirror.GateOpen
	})
	breakOff()
	require.ErrorIs(t, <-opened, context.Canceled)
	thaw()
	require.NoError(t, reader.Ping(ctx))
	_, err = s.SetGate(ctx, mirror.GateOpen, 0)
	require.NoError(t, err)
	require.Error(t, reader.Ping(ctx))

	later := adminClient(t, clientDSN(t, dsn, "ordinary"))
	_, err = s.SetGate(ctx, mirror.GateOpen, 0)
	require.NoError(t, err)
	require.NoError(t, later.Ping(ctx), "who came to an open database is left alone")
}

// What a look at the gate shows of those who write, and what a look costs.
func TestGateShowsWriters(t *testing.T) {
	t.Parallel()
	srv, s := adminServer(t, nil)
	dsn := srv.DSN("app")
	gateUsers(t, dsn)
	ctx := adminContext(t)
	writer := adminClient(t, clientDSN(t, dsn, "ordinary"))
	for _, c := range []struct {
		statement string
		writers   int
	}{
		{"BEGIN", 0}, {"SELECT count(*) FROM t", 0}, {"INSERT INTO t (v) VALUES ('x')", 1}, {"COMMIT", 0},
	} {
		_, err := writer.Exec(ctx, c.statement)
		require.NoError(t, err)
		adminEventually(t, "it shows after "+c.statement, func() bool {
			p, err := s.Gate(ctx)
			require.NoError(t, err)
			return p.Writers == c.writers
		})
	}
	const looks = 200
	began := time.Now()
	for range looks {
		_, err := s.Gate(ctx)
		require.NoError(t, err)
	}
	t.Logf("a look at the gate takes %v", time.Since(began)/looks)
}
