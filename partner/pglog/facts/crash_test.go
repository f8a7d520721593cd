package facts

import (
	"strconv"
	"syscall"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

// restart brings the server back and the administrative session with it.
func (b *bench) restart() {
	b.t.Helper()
	require.NoError(b.t, b.server.Restart(b.t.Context()))
	b.open()
}

func (b *bench) kill() {
	b.t.Helper()
	require.NoError(b.t, b.server.Kill())
}

// What waited when the server crashed is visible to the first who comes after the start.
func crashPublishes(b *bench) {
	b.hold("mir")
	b.commit(insert).mustWait()
	require.Zero(b.t, b.rows())
	b.kill()
	b.restart()
	require.Equal(b.t, 1, b.rows())
	require.Zero(b.t, value[int](b, "SELECT count(*) FROM pg_stat_replication"))
	b.commit(insert).mustWait()
}

// The crash of any session, in whatever database, does the same while the postmaster lives on.
func crashOfASessionPublishes(b *bench) {
	b.hold("mir")
	b.commit(insert).mustWait()
	require.Zero(b.t, b.rows())
	began := value[string](b, "SELECT pg_postmaster_start_time()::text")
	victim := b.connect("postgres")
	require.NoError(b.t, syscall.Kill(int(victim.PgConn().PID()), syscall.SIGKILL))
	b.eventually("the administrative session is lost", func() bool {
		_, err := b.admin.Exec(b.t.Context(), "SELECT 1")
		return err != nil
	})
	b.eventually("the server is back", func() bool {
		conn, err := b.dial(b.name, "synchronous_commit", "local")
		if err == nil {
			hangUp(conn)
		}
		return err == nil
	})
	b.open()
	require.Equal(b.t, 1, b.rows())
	require.Equal(b.t, began, value[string](b, "SELECT pg_postmaster_start_time()::text"))
	require.Zero(b.t, value[int](b, "SELECT count(*) FROM pg_stat_replication"))
}

// An orderly stop ends the wait like the end of the session does; it does not wait for the standby.
func fastStopPublishes(b *bench) {
	b.hold("mir")
	c := b.commit(insert).mustWait()
	require.NoError(b.t, b.server.Stop("fast"))
	<-c.done
	require.Error(b.t, c.err)
	require.Contains(b.t, c.codes(), "57P01")
	b.restart()
	require.Equal(b.t, 1, b.rows())
}

// A report beyond the end of the log is believed, ends all waiting until the server is restarted, and moves the slot for
// good where an orderly stop saves it.
func reportBeyondTheEnd(b *bench) {
	slot, start := b.slot("s")
	b.hold("mir")
	r := b.receive(slot, "mir", start)
	r.reportAll(start)
	const beyond = mirror.LSN(1 << 40)
	r.reportAll(beyond)
	require.Equal(b.t, beyond, b.lsn("SELECT flush_lsn FROM pg_stat_replication WHERE pid = $1", r.pid))
	b.commit(insert).returns()
	r.reportAll(r.transactions(1)[0])
	b.commit(insert).returns()
	confirmed := func() mirror.LSN {
		return b.lsn("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = $1", slot)
	}
	require.Equal(b.t, beyond, confirmed(), "a lower report takes nothing back")
	r.leave()
	b.commit(insert).returns()
	b.put("another")
	b.eventually("the name is in force for new sessions", func() bool { return b.shown() == "another" })
	b.commit(insert).returns()

	again := b.receive(slot, "mir", 0)
	again.drained()
	require.Empty(b.t, again.letters(), "nothing is sent, and nothing said")
	again.leave()

	require.NoError(b.t, b.server.Stop("fast"))
	b.restart()
	b.commit(insert).mustWait()
	if b.major() >= 17 {
		require.Equal(b.t, beyond, confirmed())
		return
	}
	require.Contains(b.t, []mirror.LSN{start, beyond}, confirmed(), "saved, or back where it was last saved")
}

// What a sequence hands out without log is lost in a crash: it goes on behind what was logged ahead.
func sequenceJumpsAfterACrash(b *bench) {
	b.exec("CREATE SEQUENCE q", "SELECT nextval('q') FROM generate_series(1, 10)")
	require.Equal(b.t, "10 23", value[string](b, "SELECT last_value || ' ' || log_cnt FROM q"))
	b.kill()
	b.restart()
	require.Equal(b.t, "33 0", value[string](b, "SELECT last_value || ' ' || log_cnt FROM q"))
	require.Equal(b.t, 34, value[int](b, "SELECT nextval('q')"))
}

// The walsender of a crashed server begins where it is asked to, above what the slot remembers, with the same ends.
func tailAfterCrash(b *bench) {
	slot, start := b.slot("s")
	r := b.receive(slot, "mir", start)
	for n := range 5 {
		b.exec("INSERT INTO t (v) VALUES ('" + strconv.Itoa(n) + "')")
	}
	before := r.transactions(5)
	r.reportAll(before[2])
	b.kill()
	b.restart()
	require.Less(b.t, b.lsn("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = $1", slot), before[2])
	again := b.receive(slot, "mir", before[2])
	again.drained()
	require.Equal(b.t, before[3:], again.transactions(2))
}
