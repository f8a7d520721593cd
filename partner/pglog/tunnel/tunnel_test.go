package tunnel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint/certs"
	"github.com/f19126b3/dbmirror/partner/pglog/tunnel"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

const session = "00112233445566778899aabbccddeeff"

// site is a PostgreSQL server, the endpoint of the partner beside it, and the other partner's entrance to it.
type site struct {
	t        *testing.T
	server   *pgtest.Server
	endpoint *endpoint.Server
	client   *endpoint.Client
	entrance *tunnel.Entrance
	stop     func() // ends the endpoint

	mu    sync.Mutex
	exits []error // what Exit returned
}

func newSite(t *testing.T, settings map[string]string) *site {
	t.Helper()
	s := &site{t: t, server: pgtest.New(t, settings)}
	authority, err := certs.NewAuthority("test", time.Hour)
	require.NoError(t, err)
	here, there := s.identities()
	credentials := func(who endpoint.Identity) endpoint.Credentials {
		certificate, err := authority.Issue(who.URI(endpoint.DefaultDomain), time.Hour)
		require.NoError(t, err)
		return endpoint.Credentials{Certificate: certificate, Authorities: authority.Pool()}
	}
	s.endpoint, err = endpoint.NewServer(endpoint.ServerConfig{})
	require.NoError(t, err)
	require.NoError(t, s.endpoint.Register(endpoint.SessionConfig{
		Self: there, Credentials: credentials(there), Streams: endpoint.Table{here.Role: {"data": true}}, Stream: s.exit,
		Handler: func(context.Context, endpoint.Identity, endpoint.Kind, []byte) ([]byte, error) { return nil, nil },
	}))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.serve(listener)
	s.client, err = endpoint.NewClient(endpoint.ClientConfig{
		Self: here, Peer: there, Addr: listener.Addr().String(), Credentials: credentials(here),
	})
	require.NoError(t, err)
	dial := func(ctx context.Context) (net.Conn, error) { return s.client.Open(ctx, "data") }
	s.entrance, err = tunnel.Listen(shortDir(t), dial, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ignoreClosed(s.entrance.Close())) })
	return s
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// shortDir is a directory whose sockets have paths that are short enough, wherever TMPDIR is.
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/tmp", "tunnel")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return filepath.Join(dir, "d")
}

func (*site) identities() (here, there endpoint.Identity) {
	return endpoint.Identity{Session: session, Role: endpoint.PartnerB}, endpoint.Identity{Session: session, Role: endpoint.PartnerA}
}

func (s *site) serve(listener net.Listener) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.endpoint.Serve(ctx, listener) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(s.t, <-done)
	})
	s.t.Cleanup(s.stop)
}

func (s *site) exit(ctx context.Context, _ endpoint.Identity, _ endpoint.Kind, conn net.Conn) {
	cfg, err := pgx.ParseConfig(s.server.DSN("app"))
	if err == nil {
		network, address := pgconn.NetworkAddress(cfg.Host, cfg.Port)
		err = tunnel.Exit(ctx, conn, func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.exits = append(s.exits, err)
}

// dsn leads to the server through the tunnel, with more words.
func (s *site) dsn(more string) string {
	return fmt.Sprintf("host=%s port=%d user=postgres dbname=app sslmode=prefer %s", s.entrance.Dir(), tunnel.Port, more)
}

func (s *site) connect(more string) *pgx.Conn {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.dsn(more))
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// Everything that a mirror asks of the principal's server works through the tunnel: queries, COPY both ways, many
// connections.
func TestQueries(t *testing.T) {
	s := newSite(t, nil)
	conn := s.connect("")
	_, err := conn.Exec(t.Context(), "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(1, 50000) i")
	require.NoError(t, err)
	var rows bytes.Buffer
	_, err = conn.PgConn().CopyTo(t.Context(), &rows, "COPY t TO STDOUT (FORMAT binary)")
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "CREATE TABLE u (LIKE t)")
	require.NoError(t, err)
	tag, err := conn.PgConn().CopyFrom(t.Context(), &rows, "COPY u FROM STDIN (FORMAT binary)")
	require.NoError(t, err)
	require.EqualValues(t, 50000, tag.RowsAffected())
	var same bool
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT (SELECT sum(hashtext(t::text)) FROM t) = (SELECT sum(hashtext(u::text)) FROM u)").Scan(&same))
	require.True(t, same)

	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			conn, err := pgx.Connect(t.Context(), s.dsn(""))
			if err == nil {
				var got int
				err = conn.QueryRow(t.Context(), "SELECT $1::int", i).Scan(&got)
				err = errors.Join(err, conn.Close(t.Context()))
				if got != i {
					t.Errorf("%d is not %d", got, i)
				}
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// Programs of PostgreSQL work through the tunnel too: a baseline runs one.
func TestPrograms(t *testing.T) {
	s := newSite(t, nil)
	_, err := s.connect("").Exec(t.Context(), "CREATE TABLE t AS SELECT repeat('x', 200) AS v FROM generate_series(1, 50000) i")
	require.NoError(t, err)
	install, err := pgtest.Find(t.Context(), nil)
	require.NoError(t, err)
	out, err := install.Psql(t.Context(), s.dsn(""), "SELECT count(*) FROM t")
	require.NoError(t, err)
	require.Equal(t, "50000", out)
	dump, err := exec.CommandContext(t.Context(), filepath.Join(install.Bin, "pg_dump"), "--dbname="+s.dsn("")).Output()
	require.NoError(t, err)
	require.Equal(t, 50000, strings.Count(string(dump), strings.Repeat("x", 200)))
}

// Replication goes through the tunnel, and so does the report that releases a commit.
func TestReplication(t *testing.T) {
	s := newSite(t, map[string]string{"wal_level": "logical"})
	client := s.connect("")
	_, err := client.Exec(t.Context(), "CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR ALL TABLES")
	require.NoError(t, err)
	_, err = client.Exec(t.Context(), "SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
	require.NoError(t, err)
	replica, err := pgconn.Connect(t.Context(), s.dsn("replication=database application_name=far"))
	require.NoError(t, err)
	defer replica.Close(context.Background())
	require.NoError(t, pglogrepl.StartReplication(t.Context(), replica, "s", 0, pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '1'", "publication_names 'p'"},
	}))
	for _, sql := range []string{"ALTER SYSTEM SET synchronous_standby_names = 'far'", "SELECT pg_reload_conf()"} {
		_, err = client.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	waits := s.connect("") // a new session has the setting
	committed := make(chan error, 1)
	commit := func(id int) {
		_, err := waits.Exec(t.Context(), "INSERT INTO t VALUES ($1)", id)
		committed <- err
	}
	// The first do not wait if the server's checkpointer has not read the setting yet.
	inserts := 1
	go commit(inserts)
	for waiting := false; !waiting; {
		select {
		case err := <-committed:
			require.NoError(t, err)
			inserts++
			go commit(inserts)
		default:
		}
		require.NoError(t, client.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')").Scan(&waiting))
	}
	for inserted := 0; ; {
		message, err := replica.ReceiveMessage(t.Context())
		require.NoError(t, err)
		data, end := copyData(t, message)
		if len(data) > 0 && data[0] == 'I' {
			inserted++
		}
		if len(data) > 0 && data[0] == 'C' && inserted == inserts {
			require.Empty(t, committed, "it waits for us")
			require.NoError(t, pglogrepl.SendStandbyStatusUpdate(t.Context(), replica, pglogrepl.StandbyStatusUpdate{
				WALWritePosition: end, WALFlushPosition: end, WALApplyPosition: end,
			}))
			break
		}
	}
	require.NoError(t, <-committed)
}

// copyData is one message of the log, and a place behind its end.
func copyData(t *testing.T, message any) ([]byte, pglogrepl.LSN) {
	copied, ok := message.(interface{ Encode([]byte) ([]byte, error) })
	require.True(t, ok)
	raw, err := copied.Encode(nil)
	require.NoError(t, err)
	if len(raw) < 6 || raw[0] != 'd' || raw[5] != 'w' {
		return nil, 0
	}
	data, err := pglogrepl.ParseXLogData(raw[6:])
	require.NoError(t, err)
	return data.WALData, data.ServerWALEnd + 1<<20
}

// A cancel request finds its way to the same server.
func TestCancel(t *testing.T) {
	s := newSite(t, nil)
	conn, watch := s.connect("application_name=sleeper"), s.connect("")
	result := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "SELECT pg_sleep(600)")
		result <- err
	}()
	for sleeping := false; !sleeping; {
		require.NoError(t, watch.QueryRow(t.Context(),
			"SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'sleeper' AND wait_event = 'PgSleep')").Scan(&sleeping))
	}
	require.NoError(t, conn.PgConn().CancelRequest(t.Context()))
	var refused *pgconn.PgError
	require.ErrorAs(t, <-result, &refused)
	require.Equal(t, "57014", refused.Code)
	require.NoError(t, conn.Ping(t.Context()), "the connection is good still")
}

// A client that goes away in the middle of an answer leaves no session at the server, and nothing in the tunnel.
func TestClientGoesAway(t *testing.T) {
	s := newSite(t, nil)
	watch := s.connect("")
	for name, leave := range map[string]func(conn *pgx.Conn){
		"closes":     func(conn *pgx.Conn) { _ = conn.Close(context.Background()) },
		"hangs up":   func(conn *pgx.Conn) { _ = conn.PgConn().Conn().Close() },
		"half reads": func(conn *pgx.Conn) { leaveHalfway(t, conn) },
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := pgx.Connect(t.Context(), s.dsn("application_name=leaver"))
			require.NoError(t, err)
			leave(conn)
			for left := 1; left > 0; {
				require.NoError(t, watch.QueryRow(t.Context(),
					"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'leaver'").Scan(&left))
			}
			for s.client.Stats().Streams > 1 {
				require.NoError(t, watch.Ping(t.Context()))
			}
		})
	}
}

func leaveHalfway(t *testing.T, conn *pgx.Conn) {
	raw := conn.PgConn()
	results := raw.Exec(t.Context(), "SELECT repeat('x', 1000) FROM generate_series(1, 1000000)")
	require.True(t, results.NextResult())
	require.True(t, results.ResultReader().NextRow())
	require.NoError(t, raw.Conn().Close())
}

// When there is no way through, the program hears why, in PostgreSQL's words; and the way is there again by itself.
func TestNoWay(t *testing.T) {
	s := newSite(t, nil)
	noWay := func(want string) {
		t.Helper()
		_, err := pgx.Connect(t.Context(), s.dsn(""))
		var refused *pgconn.PgError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, tunnel.CodeNoWay, refused.Code)
		require.Contains(t, refused.Message, want)
	}
	conn := s.connect("")
	require.NoError(t, s.server.Kill())
	require.Error(t, conn.Ping(t.Context()))
	noWay("the other partner cannot reach its own server")
	noWay("connection refused")
	require.NoError(t, s.server.Restart(t.Context()))
	conn = s.connect("")

	address := s.stopEndpoint()
	require.Error(t, conn.Ping(t.Context()))
	noWay("the tunnel to the other side's server")
	noWay("see whether it runs and listens there")
	install, err := pgtest.Find(t.Context(), nil)
	require.NoError(t, err)
	_, err = install.Psql(t.Context(), s.dsn(""), "SELECT 1")
	require.ErrorContains(t, err, "see whether it runs and listens there", "programs of libpq show it, too")
	listener, err := net.Listen("tcp", address)
	require.NoError(t, err)
	s.serve(listener)
	s.connect("")

	here, _ := s.identities()
	s.endpoint.Unregister(here.Session)
	noWay("is not served there")
}

func (s *site) stopEndpoint() (address string) {
	conn, err := s.client.Open(s.t.Context(), "data")
	require.NoError(s.t, err)
	address = conn.RemoteAddr().String()
	require.NoError(s.t, conn.Close())
	s.stop()
	return address
}

// Close ends what is under way, waits for it, and lets nobody in any more.
func TestClose(t *testing.T) {
	s := newSite(t, nil)
	conns := []*pgx.Conn{s.connect(""), s.connect("")}
	idle, err := net.Dial("unix", filepath.Join(s.entrance.Dir(), ".s.PGSQL.5432"))
	require.NoError(t, err)
	require.NoError(t, s.entrance.Close())
	for _, conn := range conns {
		require.Error(t, conn.Ping(t.Context()))
	}
	_, err = io.Copy(io.Discard, idle)
	require.NoError(t, ignoreReset(err))
	_, err = pgx.Connect(t.Context(), s.dsn(""))
	require.Error(t, err)
	require.Zero(t, s.client.Stats().Streams)
	_, err = os.Stat(filepath.Join(s.entrance.Dir(), ".s.PGSQL.5432"))
	require.ErrorIs(t, err, os.ErrNotExist)
	s.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	require.GreaterOrEqual(t, len(s.exits), 2, "the far end has ended too")
}

func ignoreReset(err error) error {
	if errors.Is(err, net.ErrClosed) || err != nil && strings.Contains(err.Error(), "reset by peer") {
		return nil
	}
	return err
}

// What a directory must be, and what was left in it.
func TestListen(t *testing.T) {
	dial := func(context.Context) (net.Conn, error) { return nil, errors.New("nobody there") }
	log := slog.New(slog.DiscardHandler)
	_, err := tunnel.Listen(filepath.Join(shortDir(t), strings.Repeat("x", 100)), dial, log)
	require.ErrorContains(t, err, "choose a shorter directory")

	open := shortDir(t)
	require.NoError(t, os.Mkdir(open, 0o755))
	_, err = tunnel.Listen(open, dial, log)
	require.ErrorContains(t, err, "chmod 700 it")

	file := shortDir(t)
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = tunnel.Listen(file, dial, log)
	require.ErrorContains(t, err, "open the entrance of the tunnel")

	dir := shortDir(t)
	require.NoError(t, os.Mkdir(dir, 0o700))
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, ".s.PGSQL.5432")})
	require.NoError(t, err)
	left.SetUnlinkOnClose(false)
	require.NoError(t, left.Close())
	entrance, err := tunnel.Listen(dir, dial, log)
	require.NoError(t, err, "a socket that was left behind is replaced")
	_, err = pgx.Connect(t.Context(), fmt.Sprintf("host=%s port=%d user=postgres", dir, tunnel.Port))
	require.ErrorContains(t, err, "nobody there")
	require.NoError(t, entrance.Close())

	required := filepath.Join(dir, ".s.PGSQL.5432")
	require.NoError(t, os.WriteFile(required, []byte("somebody's"), 0o600))
	_, err = tunnel.Listen(dir, dial, log)
	require.Error(t, err, "a file that is no socket is not removed")
	kept, err := os.ReadFile(required)
	require.NoError(t, err)
	require.Equal(t, "somebody's", string(kept))
}
