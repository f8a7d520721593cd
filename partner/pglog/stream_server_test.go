package pglog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/partner/pgtest"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// TestServerCommitWaitsForHarden: the point of it all. A commit returns when its log is on the mirror's disk, and only
// then.
func TestServerCommitWaitsForHarden(t *testing.T) {
	s := newSource(t, nil)
	r := s.run(s.config())
	s.waitForMirror()
	client := s.connect("app", "on")
	_, err := client.Exec(t.Context(), "INSERT INTO t VALUES (1)")
	require.NoError(t, err)

	s.reach(r)
	gate := make(chan struct{})
	arrived := make(chan struct{})
	s.log.gate(arrived, gate)
	committed := make(chan error, 1)
	go func() {
		_, err := client.Exec(t.Context(), "INSERT INTO t VALUES (2)")
		committed <- err
	}()
	<-arrived
	s.until("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')")
	require.Equal(t, "1", s.text("SELECT count(*)::text FROM t"))
	require.Empty(t, committed)
	close(gate)
	require.NoError(t, <-committed)
	require.Equal(t, []int{1, 2}, insertedIDs(t, s.log.Queue))
	r.end(t)
	s.until("SELECT active_pid IS NULL FROM pg_replication_slots")
}

// TestServerReleasesCommitsWithoutRows: commits that publish nothing, and those of other databases, wait for the answer
// to a keepalive that does not ask for one.
func TestServerReleasesCommitsWithoutRows(t *testing.T) {
	s := newSource(t, nil)
	s.exec("CREATE DATABASE other")
	cfg := s.config()
	cfg.Silence = 10 * time.Minute // the server asks for an answer after half of it: no commit waits for that here
	r := s.run(cfg)
	s.waitForMirror()
	client, other := s.connect("app", "on"), s.connect("other", "on")
	var slowest time.Duration
	timed := func(conn *pgx.Conn, sql string) {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := conn.Exec(ctx, sql)
		require.NoError(t, err)
		slowest = max(slowest, time.Since(began))
	}
	timed(client, "CREATE TABLE unpublished (id int)")
	timed(other, "CREATE TABLE o (id int)")
	for range 100 {
		timed(other, "INSERT INTO o VALUES (1)")
		timed(client, "CREATE OR REPLACE VIEW w AS SELECT 1 AS one")
	}
	t.Logf("slowest of 202 commits: %v", slowest)
	require.Empty(t, insertedIDs(t, s.log.Queue))
	r.end(t)
}

// TestServerStreamsLargeTransactions: log of an open transaction is hardened before its commit, and what a
// subtransaction took back is marked so.
func TestServerStreamsLargeTransactions(t *testing.T) {
	s := newSource(t, nil)
	r := s.run(s.config())
	s.waitForMirror()
	client := s.connect("app", "on")
	tx, err := client.Begin(t.Context())
	require.NoError(t, err)
	insert := func(from, to int) {
		_, err := tx.Exec(t.Context(), "INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series($1::int, $2) i", from, to)
		require.NoError(t, err)
	}
	insert(1, 40000)
	_, err = tx.Exec(t.Context(), "SAVEPOINT a")
	require.NoError(t, err)
	insert(100001, 140000)
	_, err = tx.Exec(t.Context(), "ROLLBACK TO SAVEPOINT a")
	require.NoError(t, err)
	insert(40001, 60000)
	s.reach(r)
	before := kindCount(records(t, s.log.Queue))
	require.Positive(t, before[TypeStreamStart])
	require.Zero(t, before[TypeStreamCommit])
	began := time.Now()
	require.NoError(t, tx.Commit(t.Context()))
	t.Logf("commit of 60,000 rows: %v; streamed before it: %d inserts", time.Since(began), before[TypeInsert])
	r.end(t)
	after := kindCount(records(t, s.log.Queue))
	require.Equal(t, 1, after[TypeStreamCommit])
	require.Positive(t, after[TypeStreamAbort])
	require.Greater(t, after[TypeInsert], 60000)
	require.Equal(t, upTo(60000), insertedIDs(t, s.log.Queue))
}

func kindCount(all []redo.Record) map[byte]int {
	count := map[byte]int{}
	for _, r := range all {
		if len(r.Data) > 0 {
			count[r.Data[0]]++
		}
	}
	return count
}

// TestServerCrash: the slot forgets what was reported, so the stream begins at the end of the log. It then brings
// exactly the rest.
func TestServerCrash(t *testing.T) {
	s := newSource(t, nil)
	cfg := s.config()
	r := s.run(cfg)
	s.waitForMirror()
	client := s.connect("app", "on")
	for id := range 20 {
		_, err := client.Exec(t.Context(), "INSERT INTO t VALUES ($1)", id+1)
		require.NoError(t, err)
	}
	r.end(t)
	for id := range 5 { // as after a loss of the mirror: these are only on the principal
		s.exec("INSERT INTO t VALUES ($1)", id+21)
	}
	slot := "SELECT confirmed_flush_lsn::text FROM pg_replication_slots"
	reported := s.text(slot)
	require.NoError(t, s.server.Kill())
	require.NoError(t, s.server.Restart(t.Context()))
	s.admin = s.connect("app", "local")
	require.NotEqual(t, reported, s.text(slot), "the slot is expected to step back")

	r = s.run(cfg)
	s.reach(r)
	require.Equal(t, upTo(25), insertedIDs(t, s.log.Queue))

	require.NoError(t, s.server.Kill())
	err := <-r.done
	var network *net.OpError
	require.True(t, errors.Is(err, io.EOF) || errors.As(err, &network), "%v", err)
	require.False(t, r.Status().Streaming)
	require.ErrorContains(t, s.refusal(cfg, s.log), "connect to the principal: dial: connect: connection refused")
}

// TestServerHangs: a server that neither answers nor goes away is given up, and the stream can be begun anew.
func TestServerHangs(t *testing.T) {
	s := newSource(t, nil)
	cfg := s.config()
	cfg.Silence = 4 * time.Second
	r := s.run(cfg)
	s.exec("INSERT INTO t VALUES (1)")
	s.reach(r)
	require.NoError(t, s.server.Pause())
	require.ErrorIs(t, <-r.done, ErrSilent)
	require.NoError(t, s.server.Continue())
	s.exec("INSERT INTO t VALUES (2)")
	s.until("SELECT active_pid IS NULL FROM pg_replication_slots")
	r = s.run(cfg)
	s.reach(r)
	require.Equal(t, []int{1, 2}, insertedIDs(t, s.log.Queue))
	r.end(t)
}

// TestServerQuiet: a server with nothing to say is asked for a sign of life, and gives it.
func TestServerQuiet(t *testing.T) {
	s := newSource(t, nil)
	cfg := s.config()
	cfg.Silence = 4 * time.Second
	r := s.run(cfg)
	s.exec("INSERT INTO t VALUES (1)")
	s.reach(r)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	first := r.Status().LastByte
	require.NoError(t, poll(ctx, func() (bool, error) {
		require.Empty(t, r.done)
		return r.Status().LastByte.Sub(first) > cfg.Silence, nil
	}))
	r.end(t)
}

// TestServerStop: a server that is stopped in order waits until the mirror has hardened all of its log.
func TestServerStop(t *testing.T) {
	s := newSource(t, nil)
	r := s.run(s.config())
	s.waitForMirror()
	s.exec("INSERT INTO t VALUES (1)")
	require.NoError(t, s.server.Stop("fast"))
	require.ErrorIs(t, <-r.done, ErrStreamEnded)
	require.Equal(t, []int{1}, insertedIDs(t, s.log.Queue))
	require.NoError(t, s.server.Restart(t.Context()))
	s.admin = s.connect("app", "local")
	s.exec("INSERT INTO t VALUES (2)")
	r = s.run(s.config())
	s.reach(r)
	require.Equal(t, []int{1, 2}, insertedIDs(t, s.log.Queue))
	r.end(t)
}

// TestServerRefusals holds every way in which log would be missing without a word from the server.
func TestServerRefusals(t *testing.T) {
	s := newSource(t, map[string]string{"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB", "max_wal_size": "32MB"})
	cfg := s.config()
	r := s.run(cfg)
	s.exec("INSERT INTO t VALUES (1)")
	s.reach(r)
	id, ok := r.Identity()
	require.True(t, ok)

	t.Run("slot active", func(t *testing.T) {
		var active *SlotActiveError
		require.ErrorAs(t, s.refusal(cfg, newLog(t, r.Status().Hardened, redo.Config{})), &active)
		require.Equal(t, s.text("SELECT active_pid::text FROM pg_replication_slots"), strconv.Itoa(active.PID))
	})
	r.end(t)
	s.until("SELECT active_pid IS NULL FROM pg_replication_slots")

	with := func(change func(*StreamConfig)) StreamConfig {
		changed := cfg
		change(&changed)
		return changed
	}
	t.Run("identity", func(t *testing.T) {
		exact := with(func(c *StreamConfig) { c.SystemID, c.Timeline, c.Database = id.SystemID, id.Timeline, id.OID })
		same := s.run(exact)
		s.exec("INSERT INTO t VALUES (2)")
		s.reach(same)
		same.end(t)
		s.until("SELECT active_pid IS NULL FROM pg_replication_slots")
		s.requireGap(GapIdentity, with(func(c *StreamConfig) { c.Timeline = id.Timeline + 1 }), s.log)
		s.requireGap(GapDatabase, with(func(c *StreamConfig) { c.Database = id.OID + 1 }), s.log)
		stranger := pgtest.New(t, map[string]string{"wal_level": "logical"})
		s.requireGap(GapIdentity, with(func(c *StreamConfig) {
			c.SystemID = id.SystemID
			c.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", strconv.Itoa(stranger.Port())))
			}
		}), s.log)
	})
	t.Run("sequence", func(t *testing.T) {
		s.requireGap(GapSequence, with(func(c *StreamConfig) { c.Seq++ }), s.log)
	})
	t.Run("publication", func(t *testing.T) {
		s.requireGap(GapPublication, with(func(c *StreamConfig) { c.Publication = "q" }), s.log)
	})
	t.Run("database", func(t *testing.T) {
		require.ErrorContains(t, s.refusal(with(func(c *StreamConfig) { c.DSN = Secret(s.server.DSN("nowhere")) }), s.log), "SQLSTATE 3D000")
		s.exec("CREATE DATABASE other")
		other := s.connect("other", "local")
		_, err := other.Exec(t.Context(), "CREATE PUBLICATION p FOR ALL TABLES")
		require.NoError(t, err)
		s.requireGap(GapSlotForeign, with(func(c *StreamConfig) { c.DSN = Secret(s.server.DSN("other")) }), s.log)
	})
	t.Run("log ahead", func(t *testing.T) {
		s.requireGap(GapLogAhead, cfg, newLog(t, 1<<40, redo.Config{}))
	})
	t.Run("log empty", func(t *testing.T) {
		s.requireGap(GapSlotAhead, cfg, newLog(t, 0, redo.Config{}))
	})
	t.Run("slot foreign", func(t *testing.T) {
		s.exec("SELECT pg_create_physical_replication_slot('physical')")
		s.requireGap(GapSlotForeign, with(func(c *StreamConfig) { c.Slot = "physical" }), s.log)
		s.exec("SELECT pg_drop_replication_slot('physical')")
	})
	t.Run("slot ahead", func(t *testing.T) {
		s.exec("INSERT INTO t VALUES (3)")
		s.exec("SELECT pg_replication_slot_advance('s', pg_current_wal_flush_lsn())")
		s.requireGap(GapSlotAhead, cfg, s.log)
	})
	t.Run("slot poisoned", func(t *testing.T) {
		s.poison()
		s.requireGap(GapSlotPoisoned, cfg, s.log)
	})
	t.Run("slot missing", func(t *testing.T) {
		s.exec("SELECT pg_drop_replication_slot('s')")
		s.requireGap(GapSlotMissing, cfg, s.log)
		require.Equal(t, "0", s.text("SELECT count(*)::text FROM pg_replication_slots"))
	})
	t.Run("slot invalidated", func(t *testing.T) {
		log := newLog(t, s.createSlot(), redo.Config{})
		for range 3 {
			s.exec("INSERT INTO t VALUES ((SELECT max(id) + 1 FROM t))")
			s.exec("SELECT pg_switch_wal()")
			s.exec("CHECKPOINT")
		}
		require.Equal(t, "lost", s.text("SELECT wal_status FROM pg_replication_slots"))
		lost := "slot s: log lost"
		if id.Version >= 170000 { // which tells why it gave the slot up
			lost = "slot s: wal_removed"
		}
		require.ErrorContains(t, s.refusal(cfg, log), lost)
		s.requireGap(GapSlotInvalidated, cfg, log)
	})
}

// TestServerTimelines: a server that left the timeline of the session, as one does that was restored, can be followed
// if the mirror had not gone beyond that point.
func TestServerTimelines(t *testing.T) {
	s := newSource(t, map[string]string{"restore_command": "false"})
	cfg := s.config()
	cfg.Timeline = 1
	r := s.run(cfg)
	s.exec("INSERT INTO t VALUES (1)")
	s.reach(r)
	r.end(t)
	require.NoError(t, s.server.Stop("fast"))
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(s.server.LogFile()), "data", "recovery.signal"), nil, 0o600))
	require.NoError(t, s.server.Restart(t.Context()))
	s.admin = s.connect("app", "local")
	s.until("SELECT NOT pg_is_in_recovery()")

	r = s.run(cfg)
	s.exec("INSERT INTO t VALUES (2)")
	s.reach(r)
	id, ok := r.Identity()
	require.True(t, ok)
	require.Equal(t, uint32(2), id.Timeline)
	require.Equal(t, []int{1, 2}, insertedIDs(t, s.log.Queue))
	r.end(t)
	s.until("SELECT active_pid IS NULL FROM pg_replication_slots")
	s.requireGap(GapIdentity, cfg, s.log)

	cfg.Timeline = 2
	r = s.run(cfg)
	s.exec("INSERT INTO t VALUES (3)")
	s.reach(r)
	r.end(t)
}

// TestServerStartAfterCheckRaces pins what the server itself says when the slot changes between check and start.
func TestServerStartAfterCheckRaces(t *testing.T) {
	s := newSource(t, nil)
	r := s.run(s.config())
	s.until("SELECT active_pid IS NOT NULL FROM pg_replication_slots")
	start := func(slot string) error {
		cfg := s.config()
		cfg.Slot = slot
		stream, err := NewStream(cfg)
		require.NoError(t, err)
		conn, err := pgconn.ConnectConfig(t.Context(), stream.connect)
		require.NoError(t, err)
		raw, err := hijack(t.Context(), conn)
		require.NoError(t, err)
		defer raw.Close()
		return newReadLoop(stream, s.log, raw, 1).start(t.Context())
	}
	var active *SlotActiveError
	require.ErrorAs(t, start("s"), &active)
	require.Equal(t, s.text("SELECT active_pid::text FROM pg_replication_slots"), strconv.Itoa(active.PID))
	var missing *GapError
	require.ErrorAs(t, start("s_missing"), &missing)
	require.Equal(t, GapSlotMissing, missing.Why)
	r.end(t)
}

// TestServerSettingsOfStream: the session that the server sees.
func TestServerSettingsOfStream(t *testing.T) {
	s := newSource(t, nil)
	s.exec("ALTER ROLE postgres SET datestyle = 'German'")
	s.exec("ALTER ROLE postgres SET statement_timeout = '2s'") // less than the stream takes
	s.exec("ALTER ROLE postgres SET bytea_output = 'escape'")
	stream, err := NewStream(s.config())
	require.NoError(t, err)
	conn, err := pgconn.ConnectConfig(t.Context(), stream.connect)
	require.NoError(t, err)
	for setting, want := range map[string]string{"datestyle": "ISO, MDY", "bytea_output": "hex", "extra_float_digits": "3",
		"intervalstyle": "postgres", "logical_decoding_work_mem": "4MB", "synchronous_commit": "local",
		"wal_sender_timeout": "30s", "client_encoding": "UTF8", "application_name": "mir"} {
		row, err := queryOne(t.Context(), conn, "SHOW "+setting)
		require.NoError(t, err)
		require.Equal(t, []string{want}, row, setting)
	}
	require.NoError(t, conn.Close(t.Context()))

	r := s.run(s.config())
	for id := range 10 {
		s.exec("INSERT INTO t SELECT $1 FROM pg_sleep(0.25)", id+1)
		s.reach(r)
	}
	require.Equal(t, upTo(10), insertedIDs(t, s.log.Queue))
	r.end(t)
}

func TestServerIdentity(t *testing.T) {
	s := newSource(t, nil)
	ordinary, err := ReadIdentity(t.Context(), s.admin.PgConn())
	require.NoError(t, err)
	cfg, err := pgconn.ParseConfig(s.server.DSN("app") + "&replication=database")
	require.NoError(t, err)
	conn, err := pgconn.ConnectConfig(t.Context(), cfg)
	require.NoError(t, err)
	defer conn.Close(context.Background())
	replication, err := ReadIdentity(t.Context(), conn)
	require.NoError(t, err)
	require.Equal(t, ordinary, replication)
	theirs, err := pglogrepl.IdentifySystem(t.Context(), conn)
	require.NoError(t, err)
	require.Equal(t, theirs.SystemID, strconv.FormatUint(ordinary.SystemID, 10))
	require.Equal(t, theirs.Timeline, int32(ordinary.Timeline))
	require.Equal(t, theirs.DBName, ordinary.Database)
	require.Equal(t, s.text("SELECT oid::text FROM pg_database WHERE datname = 'app'"), fmt.Sprint(ordinary.OID))
	require.Equal(t, s.text("SHOW server_version_num"), strconv.Itoa(ordinary.Version))
	require.Equal(t, s.text("SHOW server_encoding"), ordinary.Encoding)
	require.NotEmpty(t, ordinary.Collate)
	require.NotEmpty(t, ordinary.Ctype)
}
