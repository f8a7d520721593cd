package pglog

import (
	"context"
	"encoding/binary"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

const testSession = "abcd1234"

// hangs is how long a call may go on after its context has ended: by far more than any machine needs.
const hangs = 20 * time.Second

// adminContext ends well before the test binary's own limit, so that a hang shows where it is. It is no measure of anything.
func adminContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func dialServer(t *testing.T, dsn string) *Server {
	s, err := Dial(adminContext(t), Secret(dsn), testSession)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

// adminServer starts a server and dials it, with the schema made.
func adminServer(t *testing.T, settings map[string]string) (*pgtest.Server, *Server) {
	srv := pgtest.New(t, settings)
	s := dialServer(t, srv.DSN("app"))
	require.NoError(t, s.EnsureSchema(adminContext(t)))
	return srv, s
}

// clientDSN changes the user and adds parameters, given as key and value in turn, to a connection URL.
func clientDSN(t *testing.T, dsn, user string, params ...string) string {
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	u.User = url.User(user)
	q := u.Query()
	for i := 0; i < len(params); i += 2 {
		q.Set(params[i], params[i+1])
	}
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20")
	return u.String()
}

func adminClient(t *testing.T, dsn string) *pgx.Conn {
	conn, err := pgx.Connect(adminContext(t), dsn)
	require.NoError(t, err)
	t.Cleanup(func() { hangUp(conn) })
	return conn
}

// adminExec executes statements that do not wait for a mirror.
func adminExec(t *testing.T, dsn string, statements ...string) {
	conn := adminClient(t, clientDSN(t, dsn, "postgres", "synchronous_commit", "local", "default_transaction_read_only", "off"))
	for _, statement := range statements {
		_, err := conn.Exec(adminContext(t), statement, pgx.QueryExecModeSimpleProtocol)
		require.NoError(t, err, statement)
	}
	hangUp(conn)
}

// adminEventually waits for something that another process will do.
func adminEventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	err := poll(adminContext(t), func() (bool, error) { return check(), nil })
	require.NoError(t, err, "wait until %s", what)
}

func adminValue[T any](t *testing.T, s *Server, sql string, args ...any) T {
	t.Helper()
	var v T
	require.NoError(t, s.pool.QueryRow(adminContext(t), sql, args...).Scan(&v))
	return v
}

// testMirror reads a slot and reports what it has read, as a mirror does, unless it is told to hold its reports back.
type testMirror struct {
	conn *pgconn.PgConn
	hold atomic.Bool
	seen atomic.Uint64 // end of what was received
	stop context.CancelFunc
	done sync.WaitGroup
}

// startMirror begins to read; it ends with the test, or when its walsender is ended.
func startMirror(t *testing.T, s *Server, dsn, slot, name string, hold bool) *testMirror {
	ctx, stop := context.WithCancel(context.Background())
	conn, err := pgconn.Connect(ctx, clientDSN(t, dsn, "postgres", "replication", "database", "application_name", name))
	require.NoError(t, err)
	m := &testMirror{conn: conn, stop: stop}
	m.hold.Store(hold)
	adminEventually(t, "who read the slot before has gone", func() bool {
		return adminValue[bool](t, s, "SELECT active_pid IS NULL FROM pg_replication_slots WHERE slot_name = $1", slot)
	})
	conn.Frontend().Send(&pgproto3.Query{String: "START_REPLICATION SLOT " + slot +
		" LOGICAL 0/0 (proto_version '1', publication_names 'dbmirror')"})
	require.NoError(t, conn.Frontend().Flush())
	for {
		msg, err := conn.ReceiveMessage(adminContext(t))
		require.NoError(t, err)
		if _, ok := msg.(*pgproto3.CopyBothResponse); ok {
			break
		}
		refused, ok := msg.(*pgproto3.ErrorResponse)
		require.False(t, ok, "start replication: %v", refused)
	}
	m.done.Go(func() { m.read(ctx) })
	t.Cleanup(m.end)
	adminEventually(t, "the walsender streams", func() bool {
		return adminValue[bool](t, s, `SELECT count(*) > 0 FROM pg_stat_replication WHERE pid = $1 AND state = 'streaming'`, int32(conn.PID()))
	})
	return m
}

// leave ends it, and returns when the server has noticed.
func (m *testMirror) leave(t *testing.T, s *Server) {
	t.Helper()
	m.end()
	adminEventually(t, "the walsender has gone", func() bool {
		return adminValue[bool](t, s, "SELECT count(*) = 0 FROM pg_stat_replication WHERE pid = $1", int32(m.conn.PID()))
	})
}

func (m *testMirror) end() {
	m.stop()
	m.done.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = m.conn.Close(ctx)
}

func (m *testMirror) read(ctx context.Context) {
	open := false
	for ctx.Err() == nil {
		turn, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		msg, err := m.conn.ReceiveMessage(turn)
		cancel()
		if err != nil && !pgconn.Timeout(err) {
			return
		}
		if data, ok := msg.(*pgproto3.CopyData); ok {
			open = m.take(data.Data, open)
		}
		if !m.hold.Load() && m.seen.Load() > 0 && m.report() != nil {
			return
		}
	}
}

func (m *testMirror) take(data []byte, open bool) bool {
	switch data[0] {
	case 'k':
		if end := binary.BigEndian.Uint64(data[1:]); !open {
			m.seen.Store(max(m.seen.Load(), end))
		}
	case 'w':
		if data[25] == TypeBegin {
			return true
		}
		if end, ok := EndsTransaction(data[25:]); ok {
			m.seen.Store(uint64(end))
			return false
		}
	}
	return open
}

func (m *testMirror) report() error {
	status := []byte{'r'}
	for range 3 {
		status = binary.BigEndian.AppendUint64(status, m.seen.Load())
	}
	epoch := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	status = binary.BigEndian.AppendUint64(status, uint64(time.Since(epoch).Microseconds()))
	m.conn.Frontend().Send(&pgproto3.CopyData{Data: append(status, 0)})
	return m.conn.Frontend().Flush()
}

func (m *testMirror) reported() mirror.LSN { return mirror.LSN(m.seen.Load()) }
