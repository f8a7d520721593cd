package pglog

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

// gateUsers makes an owner, an ordinary user and a table that both may write.
func gateUsers(t *testing.T, dsn string) {
	adminExec(t, dsn, "CREATE ROLE owner LOGIN", "CREATE ROLE ordinary LOGIN", "ALTER DATABASE app OWNER TO owner",
		"CREATE TABLE t (id bigserial PRIMARY KEY, v text)", "GRANT ALL ON t, t_id_seq TO owner, ordinary")
}

// attempt connects as a user and writes a row: what came of it.
func attempt(t *testing.T, dsn, user string, before ...string) string {
	ctx := adminContext(t)
	conn, err := pgx.Connect(ctx, clientDSN(t, dsn, user))
	if refused, ok := asPg(err); ok {
		return "refused " + refused
	}
	require.NoError(t, err)
	defer hangUp(conn)
	for _, statement := range append(before, "INSERT INTO t (v) VALUES ('x')") {
		if _, err = conn.Exec(ctx, statement); err != nil {
			break
		}
	}
	if refused, ok := asPg(err); ok {
		return "read only " + refused
	}
	require.NoError(t, err)
	return "wrote"
}

func asPg(err error) (code string, ok bool) {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return "", false
	}
	return pg.Code, true
}

func TestGateStrength(t *testing.T) {
	t.Parallel()
	srv, s := adminServer(t, nil)
	dsn := srv.DSN("app")
	gateUsers(t, dsn)
	ctx := adminContext(t)
	const undo = "SET default_transaction_read_only = off"
	for _, c := range []struct {
		gate                       mirror.Gate
		ordinary, owner, superuser string
		after                      string // an ordinary user who turns the default off
		proof                      [3]Strength
	}{
		{mirror.GateOpen, "wrote", "wrote", "wrote", "wrote", [3]Strength{StrengthNone, StrengthNone, StrengthNone}},
		{mirror.GateReadOnly, "read only 25006", "read only 25006", "read only 25006", "wrote",
			[3]Strength{StrengthDefault, StrengthDefault, StrengthDefault}},
		{mirror.GateClosed, "refused 53300", "refused 53300", "read only 25006", "refused 53300",
			[3]Strength{StrengthRefused, StrengthUndo, StrengthDefault}},
		{mirror.GateReadOnly, "read only 25006", "read only 25006", "read only 25006", "wrote",
			[3]Strength{StrengthDefault, StrengthDefault, StrengthDefault}},
		{mirror.GateClosed, "refused 53300", "refused 53300", "read only 25006", "refused 53300",
			[3]Strength{StrengthRefused, StrengthUndo, StrengthDefault}},
		{mirror.GateOpen, "wrote", "wrote", "wrote", "wrote", [3]Strength{StrengthNone, StrengthNone, StrengthNone}},
	} {
		p, err := s.SetGate(ctx, c.gate, 0)
		require.NoError(t, err)
		require.Equal(t, c.gate, p.Gate)
		require.True(t, p.Holds())
		require.Equal(t, c.ordinary, attempt(t, dsn, "ordinary"), "ordinary at %s", c.gate)
		require.Equal(t, c.owner, attempt(t, dsn, "owner"), "owner at %s", c.gate)
		require.Equal(t, c.superuser, attempt(t, dsn, "postgres"), "superuser at %s", c.gate)
		require.Equal(t, c.after, attempt(t, dsn, "ordinary", undo), "ordinary who undoes at %s", c.gate)
		require.Equal(t, c.proof, [3]Strength{p.Ordinary, p.Owner, p.Superuser})
		keep, err := s.SetGate(ctx, mirror.GateKeep, 0)
		require.NoError(t, err)
		require.Equal(t, c.gate, keep.Gate)
	}
	t.Run("the owner can undo a closed gate, and that shows", func(t *testing.T) {
		_, err := s.SetGate(ctx, mirror.GateClosed, 0)
		require.NoError(t, err)
		other := adminClient(t, clientDSN(t, srv.DSN("postgres"), "owner"))
		_, err = other.Exec(ctx, "ALTER DATABASE app CONNECTION LIMIT -1")
		require.NoError(t, err)
		p, err := s.Gate(ctx)
		require.NoError(t, err)
		require.Equal(t, mirror.GateReadOnly, p.Gate)
	})
	t.Run("a role with a setting of its own is named", func(t *testing.T) {
		adminExec(t, dsn, "ALTER ROLE ordinary SET default_transaction_read_only = off")
		p, err := s.SetGate(ctx, mirror.GateReadOnly, 0)
		require.NoError(t, err)
		require.Equal(t, []string{"ordinary"}, p.Exempt)
		require.Equal(t, "wrote", attempt(t, dsn, "ordinary"))
	})
	_, err := s.SetGate(ctx, 0, 0)
	require.Error(t, err)
}

func TestGateGivesBackTheConnectionLimit(t *testing.T) {
	t.Parallel()
	srv, s := adminServer(t, nil)
	ctx := adminContext(t)
	limit := func() int {
		return adminValue[int](t, s, "SELECT datconnlimit FROM pg_database WHERE datname = current_database()")
	}
	adminExec(t, srv.DSN("app"), "ALTER DATABASE app CONNECTION LIMIT 7")
	for _, g := range []mirror.Gate{mirror.GateClosed, mirror.GateClosed, mirror.GateReadOnly, mirror.GateClosed, mirror.GateOpen} {
		p, err := s.SetGate(ctx, g, 0)
		require.NoError(t, err)
		want := 7
		if g == mirror.GateClosed {
			want = 0
		}
		require.Equal(t, want, limit(), "at %s", g)
		require.Equal(t, want, p.ConnLimit)
	}
	adminExec(t, srv.DSN("app"), "ALTER DATABASE app CONNECTION LIMIT 9")
	for _, g := range []mirror.Gate{mirror.GateClosed, mirror.GateOpen} {
		_, err := s.SetGate(ctx, g, 0)
		require.NoError(t, err)
	}
	require.Equal(t, 9, limit(), "a limit that the operator changed meanwhile")
	adminExec(t, srv.DSN("app"), "DROP SCHEMA dbmirror CASCADE", "ALTER DATABASE app CONNECTION LIMIT 0")
	_, err := s.SetGate(ctx, mirror.GateOpen, 0)
	require.NoError(t, err)
	require.Equal(t, -1, limit(), "closed, and nobody knows what it was")
}

func TestGateEndsSessions(t *testing.T) {
	t.Parallel()
	srv, s := adminServer(t, nil)
	dsn := srv.DSN("app")
	gateUsers(t, dsn)
	ctx := adminContext(t)
	_, err := s.CreateSlot(ctx, "gate_slot")
	require.NoError(t, err)
	walsender := startMirror(t, s, dsn, "gate_slot", "walsender", false)

	sessions := map[string]*pgx.Conn{
		"ordinary":  adminClient(t, clientDSN(t, dsn, "ordinary")),
		"forged":    adminClient(t, clientDSN(t, dsn, "ordinary", "application_name", "dbmirror redo")),
		"superuser": adminClient(t, dsn),
		"ours":      adminClient(t, clientDSN(t, dsn, "postgres", "application_name", "dbmirror redo")),
		"elsewhere": adminClient(t, srv.DSN("postgres")),
	}
	alive := func(name string) bool {
		_, err := sessions[name].Exec(ctx, "SELECT 1")
		return err == nil
	}
	adminEventually(t, "those of the preparation have gone", func() bool {
		p, err := s.Gate(ctx)
		require.NoError(t, err)
		return p.Sessions == 3 && p.Superusers == 1
	})

	p, err := s.SetGate(ctx, mirror.GateClosed, 0)
	require.NoError(t, err)
	require.Zero(t, p.Sessions)
	for name, want := range map[string]bool{"ordinary": false, "forged": false, "superuser": false, "ours": true, "elsewhere": true} {
		require.Equal(t, want, alive(name), name)
	}
	require.True(t, adminValue[bool](t, s, "SELECT count(*) = 1 FROM pg_stat_replication WHERE pid = $1", int32(walsender.conn.PID())),
		"the log must be able to drain")

	t.Run("a read-only gate ends who came before, an open one who is idle from before", func(t *testing.T) {
		_, err := s.SetGate(ctx, mirror.GateOpen, 0)
		require.NoError(t, err)
		writer := adminClient(t, clientDSN(t, dsn, "ordinary"))
		_, err = s.SetGate(ctx, mirror.GateReadOnly, 0)
		require.NoError(t, err)
		_, err = writer.Exec(ctx, "INSERT INTO t (v) VALUES ('slipped')")
		require.Error(t, err)
		reader := adminClient(t, clientDSN(t, dsn, "ordinary"))
		report := adminClient(t, clientDSN(t, dsn, "ordinary"))
		busy, err := report.Begin(ctx)
		require.NoError(t, err)
		_, err = s.SetGate(ctx, mirror.GateReadOnly, 0)
		require.NoError(t, err)
		adminEventually(t, "the idle one is ended", func() bool {
			_, err := s.SetGate(ctx, mirror.GateOpen, 0)
			require.NoError(t, err)
			_, err = reader.Exec(ctx, "SELECT 1")
			return err != nil
		})
		_ = busy
	})
}

func TestGateClosesWhileCommitsHang(t *testing.T) {
	t.Parallel()
	srv, s := adminServer(t, nil)
	dsn := srv.DSN("app")
	gateUsers(t, dsn)
	ctx := adminContext(t)
	require.NoError(t, s.WaitBlock(ctx))
	hanging := adminClient(t, clientDSN(t, dsn, "ordinary"))
	done := make(chan error, 1)
	go func() {
		_, err := hanging.Exec(context.Background(), "INSERT INTO t (v) VALUES ('waits')")
		done <- err
	}()
	adminEventually(t, "the commit waits", func() bool {
		return adminValue[int](t, s, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = 'ordinary'") == 1
	})
	began := time.Now()
	p, err := s.SetGate(ctx, mirror.GateClosed, 0)
	require.NoError(t, err)
	require.Zero(t, p.Sessions)
	t.Logf("closed in %v while commits hang", time.Since(began))
	require.Error(t, <-done, "a session that waited is ended")
}

func TestGateDrains(t *testing.T) {
	t.Parallel()
	srv, s := adminServer(t, nil)
	dsn := srv.DSN("app")
	gateUsers(t, dsn)
	ctx := adminContext(t)
	idle := adminClient(t, clientDSN(t, dsn, "ordinary"))
	busy := adminClient(t, clientDSN(t, dsn, "ordinary"))
	stuck := adminClient(t, clientDSN(t, dsn, "ordinary"))
	begin := func(conn *pgx.Conn) {
		_, err := conn.Exec(ctx, "BEGIN; INSERT INTO t (v) VALUES ('drained')")
		require.NoError(t, err)
	}
	begin(busy)
	closed := make(chan error, 1)
	go func() {
		_, err := s.SetGate(ctx, mirror.GateClosed, 30*time.Second)
		closed <- err
	}()
	adminEventually(t, "the idle session is ended", func() bool {
		_, err := idle.Exec(ctx, "SELECT 1")
		return idle.IsClosed() && err != nil
	})
	require.Equal(t, "refused 53300", attempt(t, dsn, "ordinary"), "new sessions are refused first")
	_, err := busy.Exec(ctx, "COMMIT")
	require.NoError(t, err, "a transaction may finish within the grace")
	require.NoError(t, <-closed)
	_, err = stuck.Exec(ctx, "SELECT 1")
	require.Error(t, err)
	require.Equal(t, 1, adminValue[int](t, s, "SELECT count(*) FROM public.t"))

	_, err = s.SetGate(ctx, mirror.GateOpen, 0)
	require.NoError(t, err)
	late := adminClient(t, clientDSN(t, dsn, "ordinary"))
	begin(late)
	_, err = s.SetGate(ctx, mirror.GateClosed, 100*time.Millisecond)
	require.NoError(t, err)
	_, err = late.Exec(ctx, "COMMIT")
	require.Error(t, err, "the grace has passed")
	require.Equal(t, 1, adminValue[int](t, s, "SELECT count(*) FROM public.t"))
}

// A backend reads the settings of its database before it shows in pg_stat_activity. post_auth_delay holds it there.
func TestGateCatchesSessionsThatAreStarting(t *testing.T) {
	t.Parallel()
	srv, s := adminServer(t, nil)
	dsn := srv.DSN("app")
	gateUsers(t, dsn)
	ctx := adminContext(t)
	for _, g := range []mirror.Gate{mirror.GateClosed, mirror.GateReadOnly} {
		for delay := 1; delay <= 3; delay += 2 { // less, and more, than the patience with those that start
			_, err := s.SetGate(ctx, mirror.GateOpen, 0)
			require.NoError(t, err)
			outcome := startWriting(t, s, dsn, delay)
			_, err = s.SetGate(ctx, g, 0)
			require.NoError(t, err)
			// It may have written while the gate was still closing, but not any more.
			rows := adminValue[int](t, s, "SELECT count(*) FROM public.t")
			<-outcome
			require.Equal(t, rows, adminValue[int](t, s, "SELECT count(*) FROM public.t"), "%s, delay %d s", g, delay)
		}
	}
}

// startWriting begins a session that writes from when it has started until it is ended or refused, and returns while it is
// still starting. A machine that does other work for as long as the delay, in seconds, comes too late: then it begins anew.
func startWriting(t *testing.T, s *Server, dsn string, delay int) (ended chan struct{}) {
	ctx := adminContext(t)
	shown := func() bool {
		return adminValue[bool](t, s, "SELECT count(pg_terminate_backend(pid)) > 0 FROM pg_stat_activity WHERE usename = 'ordinary'")
	}
	for ended == nil || shown() {
		if ended != nil {
			<-ended
		}
		adminEventually(t, "the one before has gone", func() bool { return !shown() })
		outcome := make(chan struct{})
		go func() {
			defer close(outcome)
			conn, err := pgx.Connect(ctx, clientDSN(t, dsn, "ordinary", "options", fmt.Sprintf("-c post_auth_delay=%d", delay)))
			if err != nil {
				return // ended while it started
			}
			defer hangUp(conn)
			for err == nil {
				_, err = conn.Exec(ctx, "INSERT INTO t (v) VALUES ('slipped in')")
			}
		}()
		adminEventually(t, "it is starting", func() bool {
			starting, err := s.starting(ctx)
			require.NoError(t, err)
			return len(starting) > 0
		})
		ended = outcome
	}
	return ended
}

// A role with every right that can be granted closes the database, and is then shut out of it: this is why preflight
// refuses any role but a superuser.
func TestGateShutsOutALesserRole(t *testing.T) {
	t.Parallel()
	srv, _ := adminServer(t, nil) // which publishes all tables, as a lesser role cannot
	ctx := adminContext(t)
	adminExec(t, srv.DSN("app"), "CREATE ROLE lesser LOGIN REPLICATION", "ALTER DATABASE app OWNER TO lesser",
		"ALTER SCHEMA dbmirror OWNER TO lesser", "ALTER TABLE dbmirror.settings OWNER TO lesser",
		"GRANT ALTER SYSTEM ON PARAMETER synchronous_standby_names TO lesser",
		"GRANT EXECUTE ON FUNCTION pg_catalog.pg_reload_conf() TO lesser",
		"GRANT SET ON PARAMETER session_replication_role TO lesser", "GRANT pg_monitor, pg_signal_backend TO lesser")
	dsn := clientDSN(t, srv.DSN("app"), "lesser")
	s := dialServer(t, dsn)
	require.ErrorContains(t, s.WaitBlock(ctx), "permission denied for table pg_shseclabel")
	super := adminClient(t, srv.DSN("app"))
	_, err := s.SetGate(ctx, mirror.GateClosed, 0)
	require.ErrorContains(t, err, "SQLSTATE 42501", "it cannot end a superuser's session")
	require.NoError(t, super.Ping(ctx))
	_, err = Dial(ctx, Secret(dsn), testSession)
	require.ErrorContains(t, err, "too many connections")
}
