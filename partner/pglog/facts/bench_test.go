package facts

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// patience bounds every wait for something that the server will do. No promise is measured by it.
const patience = time.Minute

// limit is the context of one call to a server. It outlives the test: what a test leaves behind is cleaned up by calls.
func limit() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

// bench is a server, and on it a database for one fact: table t (id, v), publication p of all tables.
type bench struct {
	t       *testing.T
	server  *pgtest.Server
	name    string    // of the database
	admin   *pgx.Conn // a superuser's session that commits locally
	version int       // as server_version_num: 150018
}

// major returns the server's major version.
func (b *bench) major() int { return b.version / 10000 }

var benches atomic.Int64 // numbers the databases

const template = "facts"

// prepare makes what the databases of the facts are copied from.
func prepare(t *testing.T, server *pgtest.Server) {
	t.Helper()
	b := &bench{t: t, server: server, name: template}
	run(t, b.connect("postgres", "synchronous_commit", "local"), "CREATE DATABASE "+template)
	conn := b.connect(template, "synchronous_commit", "local")
	run(t, conn, "CREATE TABLE t (id bigserial PRIMARY KEY, v text)", "CREATE PUBLICATION p FOR ALL TABLES")
	hangUp(conn)
}

// lay gives a fact its database, and takes away with the end of its test what would be in the way of the next one:
// sessions, slots, prepared transactions, and the names that commits wait for.
func lay(t *testing.T, server *pgtest.Server) *bench {
	t.Helper()
	b := &bench{t: t, server: server, name: fmt.Sprintf("m%d", benches.Add(1))}
	conn := b.connect("postgres", "synchronous_commit", "local")
	run(t, conn, fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s", b.name, template))
	hangUp(conn)
	b.open()
	t.Cleanup(b.clear)
	return b
}

// open connects the administrative session, for the first time or after a restart.
func (b *bench) open() {
	b.t.Helper()
	b.admin = b.connect(b.name, "synchronous_commit", "local")
	b.version = value[int](b, "SELECT current_setting('server_version_num')::int")
}

func (b *bench) clear() {
	ctx, cancel := limit()
	defer cancel()
	conn, err := pgx.Connect(ctx, withParams(b.t, b.server.DSN("postgres"), "synchronous_commit", "local"))
	require.NoError(b.t, err)
	defer hangUp(conn)
	_, err = conn.Exec(ctx, "ALTER SYSTEM RESET synchronous_standby_names")
	require.NoError(b.t, err)
	_, err = conn.Exec(ctx, "SELECT pg_reload_conf()")
	require.NoError(b.t, err)
	require.NoError(b.t, poll(ctx, func() (done bool, err error) {
		err = conn.QueryRow(ctx, `WITH ended AS (SELECT count(pg_terminate_backend(pid)) AS n FROM pg_stat_activity
			WHERE backend_type IN ('client backend', 'walsender') AND pid <> pg_backend_pid())
			SELECT n = 0 FROM ended`).Scan(&done)
		return done, err
	}))
	_, err = conn.Exec(ctx, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
	require.NoError(b.t, err)
}

// connect opens a session of a superuser, with parameters given as key and value in turn. It ends with the test.
func (b *bench) connect(database string, params ...string) *pgx.Conn {
	b.t.Helper()
	conn, err := b.dial(database, params...)
	require.NoError(b.t, err)
	return conn
}

func (b *bench) dial(database string, params ...string) (*pgx.Conn, error) {
	ctx, cancel := limit()
	defer cancel()
	conn, err := pgx.Connect(ctx, withParams(b.t, b.server.DSN(database), params...))
	if err != nil {
		return nil, err
	}
	b.t.Cleanup(func() { hangUp(conn) })
	return conn, nil
}

// withParams adds parameters, given as key and value in turn, to a connection URL. The key "user" names the role.
func withParams(t *testing.T, dsn string, params ...string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	q := u.Query()
	for i := 0; i < len(params); i += 2 {
		if params[i] == "user" {
			u.User = url.User(params[i+1])
			continue
		}
		q.Set(params[i], params[i+1])
	}
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20")
	return u.String()
}

// hangUp ends a session without waiting for a server that may be gone.
func hangUp(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// exec runs statements in the administrative session.
func (b *bench) exec(statements ...string) {
	b.t.Helper()
	run(b.t, b.admin, statements...)
}

func run(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	ctx, cancel := limit()
	defer cancel()
	for _, statement := range statements {
		_, err := conn.Exec(ctx, statement, pgx.QueryExecModeSimpleProtocol)
		require.NoError(t, err, statement)
	}
}

// value asks the administrative session for one value.
func value[T any](b *bench, sql string, args ...any) (v T) {
	b.t.Helper()
	ctx, cancel := limit()
	defer cancel()
	require.NoError(b.t, b.admin.QueryRow(ctx, sql, args...).Scan(&v), sql)
	return v
}

// lsn asks for a position.
func (b *bench) lsn(sql string, args ...any) mirror.LSN {
	b.t.Helper()
	at, err := mirror.ParseLSN(value[string](b, "SELECT ("+sql+")::text", args...))
	require.NoError(b.t, err)
	return at
}

// until waits for what the server will do: a condition in SQL.
func (b *bench) until(what, condition string, args ...any) {
	b.t.Helper()
	b.eventually(what, func() bool { return value[bool](b, "SELECT "+condition, args...) })
}

// eventually waits for what somebody else will do.
func (b *bench) eventually(what string, check func() bool) {
	b.t.Helper()
	ctx, cancel := limit()
	defer cancel()
	require.NoError(b.t, poll(ctx, func() (bool, error) { return check(), nil }), "wait until %s", what)
}

func poll(ctx context.Context, check func() (bool, error)) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if done, err := check(); done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// put writes synchronous_standby_names and reloads, which proves nothing yet.
func (b *bench) put(names string) {
	b.t.Helper()
	b.exec("ALTER SYSTEM SET synchronous_standby_names = '"+names+"'", "SELECT pg_reload_conf()")
}

// hold makes commits wait for the names, and returns when one of them has been seen to wait; that one is ended.
func (b *bench) hold(names string) {
	b.t.Helper()
	b.put(names)
	probe := func() bool {
		c := b.commit("SELECT pg_logical_emit_message(true, 'probe', '')")
		b.eventually("the probe waits or returns", func() bool { return c.waits() || c.over() })
		if c.over() {
			return false
		}
		b.exec(fmt.Sprintf("SELECT pg_terminate_backend(%d)", c.pid))
		<-c.done
		return true
	}
	b.eventually("commits wait for "+names, probe)
}

// commit is one statement in a session of its own, on a goroutine of its own.
type commit struct {
	b    *bench
	conn *pgx.Conn
	pid  uint32
	done chan struct{}

	mu      sync.Mutex
	notices []*pgconn.Notice

	tag pgconn.CommandTag // valid when done is closed, as is err
	err error
}

const insert = "INSERT INTO t (v) VALUES ('x')"

// commit runs a statement by the simple protocol, with parameters of its session.
func (b *bench) commit(sql string, params ...string) *commit {
	b.t.Helper()
	return b.act(func(conn *pgx.Conn) (pgconn.CommandTag, error) {
		return conn.Exec(context.Background(), sql, pgx.QueryExecModeSimpleProtocol)
	}, params...)
}

// act runs what ends in a commit.
func (b *bench) act(do func(*pgx.Conn) (pgconn.CommandTag, error), params ...string) *commit {
	b.t.Helper()
	c := &commit{b: b, done: make(chan struct{})}
	cfg, err := pgx.ParseConfig(withParams(b.t, b.server.DSN(b.name), params...))
	require.NoError(b.t, err)
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.notices = append(c.notices, n)
	}
	ctx, cancel := limit()
	defer cancel()
	c.conn, err = pgx.ConnectConfig(ctx, cfg)
	require.NoError(b.t, err)
	c.pid = c.conn.PgConn().PID()
	go func() {
		defer close(c.done)
		c.tag, c.err = do(c.conn)
		hangUp(c.conn)
	}()
	return c
}

func (c *commit) over() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// waits tells whether the commit waits for a standby now.
func (c *commit) waits() bool {
	return value[bool](c.b, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep')", int32(c.pid))
}

// mustWait returns when the commit is seen to wait.
func (c *commit) mustWait() *commit {
	c.b.t.Helper()
	c.b.eventually("the commit waits", func() bool {
		require.False(c.b.t, c.over(), "the commit returned: %v", c.err)
		return c.waits()
	})
	return c
}

// returns waits for the commit's return, and requires that it is told as a success.
func (c *commit) returns() {
	c.b.t.Helper()
	select {
	case <-c.done:
		require.NoError(c.b.t, c.err)
	case <-time.After(patience):
		require.FailNow(c.b.t, "the commit does not return")
	}
}

// codes returns the SQLSTATEs of the notices.
func (c *commit) codes() (codes []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.notices {
		codes = append(codes, n.Code)
	}
	return codes
}

// rows counts what others see in table t.
func (b *bench) rows() int {
	b.t.Helper()
	return value[int](b, "SELECT count(*) FROM t")
}
