package pglog

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/pglog/tunnel"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

func TestThroughSocketKeepsRoleAndDatabase(t *testing.T) {
	const dir = `/some 'where/of\ours`
	for _, dsn := range []Secret{
		"postgres://u:p%20w@far:6000/db?sslmode=verify-full&connect_timeout=7&channel_binding=require",
		"postgresql://u@far/db?password=p%20w&ssl=true&connect_timeout=7",
		`host=far port=6000 user=u password='p w' dbname=db sslmode=require connect_timeout=7`,
		`user=u dbname=db connect_timeout=7 password=p\ w`,
		`user=u dbname=db connect_timeout=7 password='p w' options=-cgeqo=off\`,
		`user=u dbname=db connect_timeout=7 password='p w' options=`,
	} {
		made, err := throughSocket(dsn, dir, 5432)
		require.NoError(t, err)
		cfg, err := parseDSN(made)
		require.NoError(t, err)
		require.Equal(t, []any{dir, uint16(5432), "u", "p w", "db", 7.0},
			[]any{cfg.Host, cfg.Port, cfg.User, cfg.Password, cfg.Database, cfg.ConnectTimeout.Seconds()})
		require.Nil(t, cfg.TLSConfig)
		require.Empty(t, cfg.Fallbacks)
		env, err := libpqEnv(nil, made)
		require.NoError(t, err)
		require.Subset(t, env, []string{"PGHOST=" + dir, "PGPORT=5432", "PGUSER=u", "PGPASSWORD=p w", "PGSSLMODE=disable", "PGCHANNELBINDING=disable"})
	}
	made, err := throughSocket("host=far user=u options='-c geqo=off' application_name=it+s&", dir, 1)
	require.NoError(t, err)
	cfg, err := parseDSN(made)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"options": "-c geqo=off", "application_name": "it+s&"}, cfg.RuntimeParams)
	made, err = throughSocket("host=far user=u require_auth=scram-sha-256,md5", dir, 1)
	require.NoError(t, err)
	cfg, err = parseDSN(made)
	require.NoError(t, err)
	require.Equal(t, "scram-sha-256,md5", cfg.RequireAuth)
	_, err = throughSocket("postgres://u@far/db?=hidden", dir, 1)
	require.ErrorContains(t, err, `the setting "", which cannot be`)
	_, err = throughSocket("host=h password='hidden", dir, 1)
	require.ErrorContains(t, err, "not valid")
	require.NotContains(t, err.Error(), "hidden")
}

// The password may stand in a file, under the name of a server that is not connected to any more.
func TestThroughSocketFindsThePassword(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pass")
	require.NoError(t, os.WriteFile(file, []byte("far:6000:db:u:from the file\n"), 0o600))
	t.Setenv("PGPASSFILE", file)
	made, err := throughSocket("host=far port=6000 user=u dbname=db", "/d", 1)
	require.NoError(t, err)
	cfg, err := parseDSN(made)
	require.NoError(t, err)
	require.Equal(t, "from the file", cfg.Password)
}

// FuzzThroughSocket: whatever connection string is good leads to the socket afterwards, as the same role and to the same
// database, and with the same settings.
func FuzzThroughSocket(f *testing.F) {
	f.Add("postgres://u:p%20w@[::1]:6000/db?application_name=a&sslmode=allow", "/dir")
	f.Add(`host='a b' user=u dbname='d\'b' password=\\ options=x\`, `/d'i\r`)
	f.Add("postgres:///?host=/a&user=u", "/x y")
	f.Add("postgres://?=", "/")
	f.Add("postgres://?user=", "/")
	f.Fuzz(func(t *testing.T, dsn, dir string) {
		before, err := parseDSN(Secret(dsn))
		if err != nil || dir == "" || dir[0] != '/' || filepath.Clean(dir) != dir || bytesOfControl(dir) {
			return
		}
		made, err := throughSocket(Secret(dsn), dir, 5432)
		if err != nil {
			require.ErrorContains(t, err, "which cannot be")
			return
		}
		after, err := parseDSN(made)
		require.NoError(t, err, "%q", string(made))
		require.Equal(t, dir, after.Host)
		require.EqualValues(t, 5432, after.Port)
		require.Equal(t, [3]string{before.User, before.Password, before.Database}, [3]string{after.User, after.Password, after.Database})
		require.Equal(t, before.RuntimeParams, after.RuntimeParams)
		require.Nil(t, after.TLSConfig)
	})
}

// bytesOfControl: a list of hosts is divided by commas, and pgx drops what is no text.
func bytesOfControl(dir string) bool {
	for _, r := range dir {
		if r < ' ' || r == ',' || r == '\ufffd' || r == 0x7f {
			return true
		}
	}
	return false
}

func TestLending(t *testing.T) {
	for dsn, lent := range map[Secret]bool{
		"postgres://u@db.example/x":                                true, // prefers TLS, and can do without
		"postgres://u@db.example/x?sslmode=allow":                  true,
		"postgres://u@db.example/x?sslmode=require":                false,
		"postgres://u@db.example/x?sslmode=verify-full":            false,
		"postgres://u@10.0.0.1/x?sslmode=verify-ca":                false,
		"postgres://u@127.0.0.1/x?sslmode=verify-full":             true,
		"postgres://u@localhost/x?sslmode=require":                 true,
		"host=::1 user=u sslmode=require":                          true,
		"host=/var/run/postgresql user=u dbname=x sslmode=require": true,
	} {
		require.Equal(t, lent, checkLending(dsn) == nil, "%s", string(dsn))
	}
}

// lent is a database with ThroughPartner, whose own Accept serves what it dials: the tunnel leads back to its own server.
func lent(t *testing.T, srv *pgtest.Server, through bool) (backend.Database, *database) {
	t.Helper()
	b, err := New(Config{DSN: Secret(srv.DSN("app")), ThroughPartner: true,
		PeerDSN: "postgres://postgres@192.0.2.1:1/app?sslmode=verify-full&connect_timeout=5"})
	require.NoError(t, err)
	far := &database{cfg: Config{DSN: Secret(srv.DSN("app")), ThroughPartner: through}}
	opened, err := b.Open(t.Context(), backend.Env{Session: "0123456789abcdef0123456789abcdef", Dir: filepath.Join(shortDir(t), "backend"),
		Logger: slog.New(slog.DiscardHandler), Dial: func(ctx context.Context) (net.Conn, error) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return nil, err
			}
			go func() {
				conn, err := listener.Accept()
				if err == nil {
					_ = far.Accept(t.Context(), conn)
				}
				_ = listener.Close()
			}()
			return new(net.Dialer).DialContext(ctx, "tcp", listener.Addr().String())
		}})
	require.NoError(t, err)
	t.Cleanup(opened.Close)
	return opened, far
}

// With ThroughPartner the other side's server is reached through the other partner, who serves his own and nothing else.
func TestPeerThroughPartner(t *testing.T) {
	t.Parallel()
	srv := pgtest.New(t, nil)
	opened, _ := lent(t, srv, true)
	here, err := opened.Identity(t.Context())
	require.NoError(t, err)
	there, err := opened.Peer().Identity(t.Context())
	require.NoError(t, err)
	require.True(t, here.Same(there))

	kept, _ := lent(t, srv, false)
	_, err = kept.Peer().Identity(t.Context())
	refused, ok := err.(interface{ Unwrap() error })
	require.True(t, ok, "%v", err)
	require.ErrorContains(t, refused.Unwrap(), "set ThroughPartner on both sides")
	var said *pgconn.PgError
	require.ErrorAs(t, err, &said)
	require.Equal(t, tunnel.CodeNoWay, said.Code)
	require.Equal(t, errNotLent.Error(), ConnectFinding("principal", err).Text)
}

// A directory that cannot be used keeps the database from opening, with the cause and the mend.
func TestThroughPartnerBadDirectory(t *testing.T) {
	t.Parallel()
	srv := pgtest.New(t, nil)
	b, err := New(Config{DSN: Secret(srv.DSN("app")), PeerDSN: "user=postgres dbname=app", ThroughPartner: true})
	require.NoError(t, err)
	open := shortDir(t)
	require.NoError(t, os.Chmod(open, 0o755))
	_, err = b.Open(t.Context(), backend.Env{Session: "0123456789abcdef0123456789abcdef", Dir: open, Logger: slog.New(slog.DiscardHandler)})
	require.ErrorContains(t, err, "chmod 700 it")
	_, err = pgx.Connect(t.Context(), srv.DSN("app"))
	require.NoError(t, err)
}
