package facts

import (
	"context"
	"fmt"
	"sync"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

// A commit waits for the named standby only: not being there, and another being there, are the same.
func waitsForTheNamed(b *bench) {
	slot, start := b.slot("other")
	b.hold("mir")
	c := b.commit(insert).mustWait()
	other := b.receive(slot, "other", start)
	other.reportAll(other.transactions(1)[0])
	require.Equal(b.t, "async", value[string](b, "SELECT sync_state FROM pg_stat_replication WHERE pid = $1", other.pid))
	require.True(b.t, c.waits())
	require.Zero(b.t, b.rows(), "others do not see it")
	b.put("")
	c.returns()
	require.Equal(b.t, 1, b.rows())
}

func namesIgnoreCase(b *bench) {
	slot, start := b.slot("s")
	b.hold("mir")
	c := b.commit(insert).mustWait()
	r := b.receive(slot, "MIR", start)
	r.reportAll(r.transactions(1)[0])
	c.returns()
}

// A standby counts from its first status with a flush position on.
func countsAfterTheFirstReport(b *bench) {
	slot, start := b.slot("s")
	b.hold("mir")
	r := b.receive(slot, "mir", start)
	state := func() string {
		return value[string](b, "SELECT sync_state FROM pg_stat_replication WHERE pid = $1", r.pid)
	}
	require.Equal(b.t, "async", state())
	r.report(start, 0, 0)
	require.Equal(b.t, "async", state(), "no position to count")
	r.report(start, start, 0)
	require.Equal(b.t, "sync", state())
	b.commit(insert).mustWait()
}

// Each level is released by its own number, exactly at the end of the commit.
func releasedExactlyAtTheEnd(b *bench) {
	slot, start := b.slot("s")
	b.hold("mir")
	r := b.receive(slot, "mir", start)
	r.reportAll(start)
	for _, level := range []string{"off", "local"} {
		b.commit(insert, "synchronous_commit", level).returns()
	}
	n := 2
	for level, report := range map[string]func(end, last mirror.LSN){
		"remote_write": func(end, last mirror.LSN) { r.report(last, end-1, end-1) },
		"on":           func(end, last mirror.LSN) { r.report(end, last, end-1) },
		"remote_apply": func(end, last mirror.LSN) { r.report(end, end, last) },
	} {
		c := b.commit(insert, "synchronous_commit", level).mustWait()
		n++
		end := r.transactions(n)[n-1]
		report(end, end-1)
		require.True(b.t, c.waits(), "%s is not released one byte before the end", level)
		report(end, end)
		c.returns()
	}
}

// What a commit waits for is the end of its own record, and nothing behind it.
func endsSuffice(b *bench) {
	slot, start := b.slot("s")
	b.hold("mir")
	r := b.receive(slot, "mir", start)
	r.reportAll(start)
	r.speak(commitsOnly)
	conn := b.connect(b.name)
	for n := range 200 {
		_, err := conn.Exec(context.Background(), "INSERT INTO t (v) VALUES (repeat('x', $1))", n*37%3000)
		require.NoError(b.t, err)
	}
}

// Whoever cancels the wait makes the commit succeed, visible and unmirrored, with a warning.
func cancelSucceeds(b *bench) {
	b.hold("mir")
	ctx := context.Background()
	for name, do := range map[string]func(*pgx.Conn) (pgconn.CommandTag, error){
		"simple": func(c *pgx.Conn) (pgconn.CommandTag, error) {
			return c.Exec(ctx, insert, pgx.QueryExecModeSimpleProtocol)
		},
		"extended": func(c *pgx.Conn) (pgconn.CommandTag, error) { return c.Exec(ctx, insert) },
		"returning": func(c *pgx.Conn) (tag pgconn.CommandTag, err error) {
			rows, err := c.Query(ctx, insert+" RETURNING id")
			if err == nil {
				rows.Close()
				tag, err = rows.CommandTag(), rows.Err()
			}
			return tag, err
		},
		"transaction": func(c *pgx.Conn) (tag pgconn.CommandTag, err error) {
			err = pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error { tag, err = tx.Exec(ctx, insert); return err })
			return tag, err
		},
	} {
		before := b.rows()
		c := b.act(do).mustWait()
		require.Equal(b.t, before, b.rows(), name)
		b.exec(fmt.Sprintf("SELECT pg_cancel_backend(%d)", c.pid))
		c.returns()
		require.Equal(b.t, "INSERT 0 1", c.tag.String(), name)
		require.Equal(b.t, []string{"01000"}, c.codes(), name)
		require.Contains(b.t, c.notices[0].Message, "synchronous replication", name)
		require.Equal(b.t, before+1, b.rows(), name)
	}
}

// Whoever ends the session makes its commit visible and unmirrored; the client is warned, then cut off.
func terminatePublishes(b *bench) {
	b.hold("mir")
	c := b.commit(insert).mustWait()
	b.exec(fmt.Sprintf("SELECT pg_terminate_backend(%d)", c.pid))
	<-c.done
	require.Error(b.t, c.err)
	require.Contains(b.t, c.codes(), "57P01")
	b.eventually("the row is visible", func() bool { return b.rows() == 1 })
}

// waitedFor waits until a statement has run for some time.
func (c *commit) waitedFor(interval string) {
	c.b.t.Helper()
	c.b.until("the commit has waited for "+interval,
		"EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND clock_timestamp() - query_start > $2::interval)", int32(c.pid), interval)
}

func timeoutsDoNotEndTheWait(b *bench) {
	b.hold("mir")
	options := "-c statement_timeout=2s" // more than the statement takes that comes before the wait
	if b.major() >= 17 {
		options += " -c transaction_timeout=2s"
	}
	c := b.commit(insert, "options", options).mustWait()
	c.waitedFor("3s")
	require.True(b.t, c.waits())
	require.Zero(b.t, b.rows())
}

// A client that gives up sends a cancel request, as a driver does at its deadline: the row is published, nobody is told.
func deadlinePublishes(b *bench) {
	b.hold("mir")
	ctx, giveUp := context.WithCancel(context.Background())
	c := b.act(func(conn *pgx.Conn) (pgconn.CommandTag, error) { return conn.Exec(ctx, insert) }).mustWait()
	require.Zero(b.t, b.rows())
	giveUp()
	<-c.done
	require.ErrorIs(b.t, c.err, context.Canceled)
	require.Empty(b.t, c.codes())
	b.eventually("the row is visible", func() bool { return b.rows() == 1 })
}

// A client that vanishes is not missed: its commit waits on. The driver is left out of it, as it would send a cancel
// request.
func vanishedClientWaitsOn(b *bench) {
	b.hold("mir")
	conn, err := pgconn.Connect(b.t.Context(), withParams(b.t, b.server.DSN(b.name), "options", "-c client_connection_check_interval=50ms"))
	require.NoError(b.t, err)
	require.NoError(b.t, conn.SyncConn(b.t.Context()))
	raw, err := conn.Hijack()
	require.NoError(b.t, err)
	raw.Frontend.Send(&pgproto3.Query{String: insert})
	require.NoError(b.t, raw.Frontend.Flush())
	c := (&commit{b: b, pid: raw.PID}).mustWait()
	require.NoError(b.t, raw.Conn.Close())
	c.waitedFor("700ms")
	require.True(b.t, c.waits())
	require.Zero(b.t, b.rows())
}

// freeze stops a process of the server; thaw lets it run on.
func (b *bench) freeze(pid int) (thaw func()) {
	b.t.Helper()
	require.NoError(b.t, syscall.Kill(pid, syscall.SIGSTOP))
	thaw = sync.OnceFunc(func() { require.NoError(b.t, syscall.Kill(pid, syscall.SIGCONT)) })
	b.t.Cleanup(thaw)
	return thaw
}

func (b *bench) checkpointer() int {
	return value[int](b, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
}

// shown is what a new session is shown of the setting.
func (b *bench) shown() (names string) {
	b.t.Helper()
	conn := b.connect(b.name)
	defer hangUp(conn)
	require.NoError(b.t, conn.QueryRow(b.t.Context(), "SHOW synchronous_standby_names").Scan(&names))
	return names
}

// The names are taken out: all who wait return as committed, when the checkpointer has read it.
func clearingReleasesAll(b *bench) {
	b.hold("mir")
	waiters := []*commit{b.commit(insert).mustWait(), b.commit(insert).mustWait()}
	thaw := b.freeze(b.checkpointer())
	b.put("")
	require.Empty(b.t, b.shown())
	for _, c := range waiters {
		require.True(b.t, c.waits(), "shown as cleared, and they wait")
	}
	thaw()
	for _, c := range waiters {
		c.returns()
		require.Empty(b.t, c.codes())
	}
}

// The names are put in: until the checkpointer has read it, commits return at once, whatever is shown.
func shownIsNotInForce(b *bench) {
	thaw := b.freeze(b.checkpointer())
	b.put("mir")
	b.eventually("it is shown", func() bool { return b.shown() == "mir" })
	for range 3 {
		b.commit(insert).returns()
	}
	thaw()
	b.eventually("a commit waits", func() bool {
		c := b.commit(insert)
		b.eventually("it waits or returns", func() bool { return c.waits() || c.over() })
		return !c.over()
	})
}

// Who waited under a name that was taken out and put back is released by the next report only.
func changedBackIsReleasedByAReport(b *bench) {
	slot, start := b.slot("s")
	b.hold("mir")
	r := b.receive(slot, "mir", start)
	r.reportAll(start)
	b.hold("absent")
	b.until("the walsender has read it", "EXISTS (SELECT FROM pg_stat_replication WHERE pid = $1 AND sync_priority = 0)", r.pid)
	c := b.commit(insert).mustWait()
	end := r.transactions(1)[0]
	r.reportAll(end)
	require.True(b.t, c.waits(), "reported under a name that is not waited for")
	b.hold("mir")
	b.until("the walsender has read it", "EXISTS (SELECT FROM pg_stat_replication WHERE pid = $1 AND sync_state = 'sync')", r.pid)
	require.True(b.t, c.waits(), "the setting alone releases nobody")
	b.eventually("a report does, when the walsender knows the name", func() bool {
		r.reportAll(end)
		return c.over()
	})
	c.returns()
}

// Administration waits as any commit does, unless it commits locally; what is no transaction never waits.
func administrationWaits(b *bench) {
	b.hold("mir")
	limit := func() int {
		return value[int](b, "SELECT datconnlimit FROM pg_database WHERE datname = current_database()")
	}
	b.commit("ALTER SYSTEM SET work_mem = '5MB'").returns()
	b.commit("ALTER SYSTEM RESET work_mem").returns()
	b.commit("SELECT pg_reload_conf()").returns()
	b.exec("ALTER DATABASE " + b.name + " CONNECTION LIMIT 7")
	require.Equal(b.t, 7, limit(), "committed locally")
	b.commit("ALTER DATABASE " + b.name + " CONNECTION LIMIT 0").mustWait()
	require.Equal(b.t, 7, limit(), "the gate has not closed")
	b.connect(b.name)
}

// Any session may leave the wait out.
func anybodyMayOptOut(b *bench) {
	b.hold("mir")
	b.exec("CREATE ROLE careless LOGIN", "GRANT ALL ON t, t_id_seq TO careless")
	b.t.Cleanup(func() {
		run(b.t, b.connect(b.name, "synchronous_commit", "local"), "DROP OWNED BY careless", "DROP ROLE careless")
	})
	require.Equal(b.t, "user", value[string](b, "SELECT context FROM pg_settings WHERE name = 'synchronous_commit'"))
	for _, level := range []string{"local", "off"} {
		b.commit("SET synchronous_commit = "+level+"; "+insert, "user", "careless").returns()
	}
	require.Equal(b.t, 2, b.rows())
	b.commit(insert, "user", "careless").mustWait()
}

// Exclusive locks on the catalog hold up decoding, and their holder waits for what is decoded. Cancelling its wait ends
// both.
func catalogLocksHang(b *bench) {
	slot, start := b.slot("s")
	b.hold("mir")
	r := b.receive(slot, "mir", start)
	r.reportAll(start)
	r.speak(asMirror)
	c := b.commit("BEGIN; LOCK TABLE pg_catalog.pg_publication IN ACCESS EXCLUSIVE MODE; " + insert + "; COMMIT").mustWait()
	b.until("the walsender waits for its lock", "$2 = ANY (pg_blocking_pids($1))", r.pid, int32(c.pid))
	require.True(b.t, c.waits())
	require.NotContains(b.t, r.letters(), "C")
	elsewhere := b.connect("postgres")
	run(b.t, elsewhere, fmt.Sprintf("SELECT pg_cancel_backend(%d)", c.pid))
	c.returns()
	require.Equal(b.t, []string{"01000"}, c.codes())
	r.transactions(1)
}

// A walsender goes on under the names that it has read: until then it releases commits of sessions that wait for another.
// Each process of the server reads the setting by itself, when it is told to; here one session is told before the rest.
func formerNameStillReleases(b *bench) {
	slot, start := b.slot("s")
	b.hold("mir_a")
	r := b.receive(slot, "mir_a", start)
	r.reportAll(start)
	b.exec("ALTER SYSTEM SET synchronous_standby_names = 'mir_b'")
	c := b.act(func(conn *pgx.Conn) (tag pgconn.CommandTag, err error) {
		err = syscall.Kill(int(conn.PgConn().PID()), syscall.SIGHUP)
		for names := "mir_a"; err == nil && names == "mir_a"; {
			err = conn.QueryRow(context.Background(), "SHOW synchronous_standby_names").Scan(&names)
		}
		if err != nil {
			return tag, err
		}
		return conn.Exec(context.Background(), insert)
	}).mustWait()
	r.reportAll(r.transactions(1)[0])
	c.returns()
	require.Empty(b.t, c.codes())

	b.exec("SELECT pg_reload_conf()")
	b.until("the walsender has read it", "EXISTS (SELECT FROM pg_stat_replication WHERE pid = $1 AND sync_priority = 0)", r.pid)
	c = b.commit(insert).mustWait()
	r.reportAll(r.transactions(2)[1])
	require.True(b.t, c.waits(), "it is not the one that is waited for")
}
