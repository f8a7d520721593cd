package pglog

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/pgtest"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// source is a principal's server with a published table, a slot, and the mirror's log that begins at the slot.
type source struct {
	t      testing.TB
	server *pgtest.Server
	admin  *pgx.Conn // commits locally
	log    *watchedLog
}

func newSource(t testing.TB, settings map[string]string) *source {
	t.Helper()
	all := map[string]string{"wal_level": "logical"}
	for name, value := range settings {
		all[name] = value
	}
	s := &source{t: t, server: pgtest.New(t, all)}
	s.admin = s.connect("app", "local")
	s.exec("CREATE TABLE t (id bigint PRIMARY KEY, v text)")
	s.exec("CREATE PUBLICATION p FOR ALL TABLES")
	s.log = newLog(t, s.createSlot(), redo.Config{})
	return s
}

func (s *source) connect(database, synchronousCommit string) *pgx.Conn {
	s.t.Helper()
	cfg, err := pgx.ParseConfig(s.server.DSN(database))
	require.NoError(s.t, err)
	cfg.RuntimeParams["synchronous_commit"] = synchronousCommit
	conn, err := pgx.ConnectConfig(s.t.Context(), cfg)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func (s *source) exec(sql string, args ...any) {
	s.t.Helper()
	_, err := s.admin.Exec(s.t.Context(), sql, args...)
	require.NoError(s.t, err)
}

func (s *source) text(sql string, args ...any) (text string) {
	s.t.Helper()
	require.NoError(s.t, s.admin.QueryRow(s.t.Context(), sql, args...).Scan(&text))
	return text
}

func (s *source) createSlot() mirror.LSN {
	s.t.Helper()
	start, err := mirror.ParseLSN(s.text("SELECT lsn::text FROM pg_create_logical_replication_slot('s', 'pgoutput')"))
	require.NoError(s.t, err)
	return start
}

// waitForMirror makes commits wait for the stream, and returns when they do and the server counts it. Commits wait when
// the checkpointer has read a name, whatever is shown: one has to be seen to wait, for a name that nobody bears.
func (s *source) waitForMirror() {
	s.t.Helper()
	wait := func(name string) {
		s.exec("ALTER SYSTEM SET synchronous_standby_names = " + quoteLiteral(name))
		s.exec("SELECT pg_reload_conf()")
	}
	wait("nobody")
	conn, returned := s.connect("app", "on"), make(chan error, 1)
	commit := func() { _, err := conn.Exec(context.Background(), "COMMENT ON TABLE t IS 'x'"); returned <- err }
	go commit()
	require.NoError(s.t, poll(s.t.Context(), func() (waits bool, err error) {
		select {
		case err := <-returned:
			if err != nil {
				return false, err
			}
			go commit()
		default:
		}
		err = s.admin.QueryRow(s.t.Context(), "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')").Scan(&waits)
		return waits, err
	}))
	wait("mir")
	s.until("SELECT EXISTS (SELECT FROM pg_stat_replication WHERE application_name = 'mir' AND sync_state = 'sync')")
	require.NoError(s.t, <-returned)
}

// until waits for a condition on the server.
func (s *source) until(condition string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	require.NoError(s.t, poll(ctx, func() (done bool, err error) {
		err = s.admin.QueryRow(ctx, condition).Scan(&done)
		return done, err
	}))
}

func (s *source) config() StreamConfig {
	return StreamConfig{DSN: Secret(s.server.DSN("app")), Slot: "s", Publication: "p", ApplicationName: "mir", Seq: testSeq}
}

// refusal runs a stream that must not come to stream, and returns its error.
func (s *source) refusal(cfg StreamConfig, log Log) error {
	s.t.Helper()
	stream, err := NewStream(cfg)
	require.NoError(s.t, err)
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	err = stream.Run(ctx, log)
	require.Error(s.t, err)
	require.NoError(s.t, ctx.Err())
	return err
}

func (s *source) requireGap(why GapReason, cfg StreamConfig, log Log) {
	s.t.Helper()
	var found *GapError
	require.ErrorAs(s.t, s.refusal(cfg, log), &found)
	require.Equal(s.t, why, found.Why, found.Error())
	s.t.Log(found)
}

// running is a stream on a goroutine of its own.
type running struct {
	*Stream
	stop context.CancelCauseFunc
	done chan error
}

func (s *source) run(cfg StreamConfig) *running {
	s.t.Helper()
	stream, err := NewStream(cfg)
	require.NoError(s.t, err)
	ctx, stop := context.WithCancelCause(s.t.Context())
	r := &running{Stream: stream, stop: stop, done: make(chan error, 1)}
	go func() { r.done <- stream.Run(ctx, s.log) }()
	s.t.Cleanup(func() { stop(errTestOver) })
	return r
}

// reach waits until the log of the server as it is now is hardened here.
func (s *source) reach(r *running) {
	s.t.Helper()
	end, err := mirror.ParseLSN(s.text("SELECT pg_current_wal_flush_lsn()::text"))
	require.NoError(s.t, err)
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	require.NoError(s.t, poll(ctx, func() (bool, error) { return r.Status().Hardened >= end, nil }))
}

func (r *running) end(t testing.TB) {
	t.Helper()
	r.stop(errTestOver)
	require.ErrorIs(t, <-r.done, errTestOver)
}

// insertedIDs redoes the log in memory: what was inserted by transactions that committed, in order of commit.
func insertedIDs(t *testing.T, q *redo.Queue) (ids []int) {
	t.Helper()
	type change struct {
		xid uint32
		id  int
	}
	var d Decoder
	var open []change                // of the transaction between Begin and Commit
	streams := map[uint32][]change{} // by transaction
	inStream, xid := false, uint32(0)
	for _, r := range records(t, q) {
		if r.Kind == redo.KindAttach {
			open, inStream, streams = nil, false, map[uint32][]change{}
		}
		if r.Kind != redo.KindData && r.Kind != redo.KindCommit {
			continue
		}
		m, err := d.Decode(r.Data, inStream)
		require.NoError(t, err)
		switch m.Type {
		case TypeInsert:
			id, err := strconv.Atoi(string(m.New[0].Data))
			require.NoError(t, err)
			if inStream {
				streams[xid] = append(streams[xid], change{m.Xid, id})
			} else {
				open = append(open, change{0, id})
			}
		case TypeStreamStart:
			inStream, xid = true, m.Xid
		case TypeStreamStop:
			inStream = false
		case TypeStreamAbort:
			streams[m.Xid] = slices.DeleteFunc(streams[m.Xid], func(c change) bool { return c.xid == m.SubXid || m.SubXid == m.Xid })
		case TypeCommit:
			for _, c := range open {
				ids = append(ids, c.id)
			}
			open = nil
		case TypeStreamCommit:
			for _, c := range streams[m.Xid] {
				ids = append(ids, c.id)
			}
			delete(streams, m.Xid)
		}
	}
	return ids
}

func upTo(n int) (ids []int) {
	for i := range n {
		ids = append(ids, i+1)
	}
	return ids
}

// poison reports a position beyond the server's log, as a careless receiver does.
func (s *source) poison() {
	s.t.Helper()
	cfg, err := pgconn.ParseConfig(s.server.DSN("app") + "&replication=database")
	require.NoError(s.t, err)
	conn, err := pgconn.ConnectConfig(s.t.Context(), cfg)
	require.NoError(s.t, err)
	err = pglogrepl.StartReplication(s.t.Context(), conn, "s", 0, pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '1'", "publication_names 'p'"},
	})
	require.NoError(s.t, err)
	require.NoError(s.t, pglogrepl.SendStandbyStatusUpdate(s.t.Context(), conn, pglogrepl.StandbyStatusUpdate{WALWritePosition: 1 << 40}))
	s.until("SELECT confirmed_flush_lsn = '100/0' FROM pg_replication_slots")
	require.NoError(s.t, conn.Close(s.t.Context()))
	s.until("SELECT active_pid IS NULL FROM pg_replication_slots")
}
