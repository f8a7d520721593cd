package partner

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint/certs"
	"github.com/f19126b3/dbmirror/mirror/host/loopback"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// refusal is a session that must not come to be.
type refusal struct {
	name string
	// The case has databases of its own when it has SQL to run in one, or one is made in a special way.
	prepareA, prepareB string
	as                 [3]string
	edit               func(t *testing.T, r *refusing, a, b *Config)
	// ends is the partner whose program ends with an error; Nobody: both go on and wait.
	ends        mirror.Server
	cause, mend string // shown by both partners, in status and log
}

// refusing is where refusals are tried: two servers that can be mirrored, and one that cannot.
type refusing struct {
	good [3]*pgtest.Server
	poor *pgtest.Server
}

var refusals = []refusal{
	{name: "principal without logical log", edit: onPoorServer(mirror.PartnerA), ends: mirror.PartnerA, cause: "fatal: principal: wal_level", mend: "ALTER SYSTEM SET wal_level"},
	{name: "mirror without logical log", edit: onPoorServer(mirror.PartnerB), ends: mirror.PartnerB, cause: "fatal: mirror: wal_level", mend: "ALTER SYSTEM SET wal_level"},
	{name: "too few slots", edit: onPoorServer(mirror.PartnerB), ends: mirror.PartnerB, cause: "fatal: mirror: slots", mend: "ALTER SYSTEM SET max_replication_slots"},
	{name: "too few senders", edit: onPoorServer(mirror.PartnerB), ends: mirror.PartnerB, cause: "fatal: mirror: senders", mend: "ALTER SYSTEM SET max_wal_senders"},
	{name: "old mirror", edit: asVersion14(mirror.PartnerB), ends: mirror.PartnerB, cause: "fatal: mirror: version: PostgreSQL 14.18 is not supported", mend: "use version 15 to 18"},
	{name: "old principal", edit: asVersion14(mirror.PartnerA), ends: mirror.PartnerA, cause: "fatal: principal: version: PostgreSQL 14.18 is not supported", mend: "use version 15 to 18"},
	{name: "rights missing at the mirror", edit: asPlainRole(mirror.PartnerB), ends: mirror.PartnerB, cause: "fatal: mirror: rights", mend: "ALTER ROLE plain SUPERUSER"},
	{name: "rights missing at the principal", edit: asPlainRole(mirror.PartnerA), ends: mirror.PartnerA, cause: "fatal: principal: rights", mend: "ALTER ROLE plain SUPERUSER"},
	{name: "no replica identity", prepareA: "CREATE TABLE loose(x int)", ends: mirror.PartnerA,
		cause: "fatal: principal: replica_identity (public.loose)", mend: "ALTER TABLE public.loose REPLICA IDENTITY FULL"},
	{name: "mirror not empty", prepareB: "CREATE TABLE old(x int PRIMARY KEY)", cause: "fatal: mirror: mirror_not_empty", mend: "use an empty one, or order that its content be replaced"},
	{name: "role missing", prepareA: "CREATE ROLE clerk; CREATE TABLE desk(x int PRIMARY KEY); ALTER TABLE desk OWNER TO clerk",
		cause: "fatal: mirror: missing_role (clerk)", mend: "CREATE ROLE clerk"},
	{name: "other encoding", prepareA: none, as: onB("ENCODING 'LATIN1' LOCALE 'C'"), cause: "its encoding is LATIN1, the principal's UTF8", mend: "CREATE DATABASE"},
	{name: "other collation", prepareA: none, as: onB("LOCALE_PROVIDER icu ICU_LOCALE 'de'"), cause: "fatal: mirror: collation", mend: "CREATE DATABASE"},
	{name: "one server", edit: func(t *testing.T, r *refusing, a, b *Config) {
		at(t, mirror.PartnerB, a, b, r.good[mirror.PartnerA].DSN("postgres"))
	}, cause: "fatal: mirror: same_server", mend: "made by its own initdb"},
	{name: "no such database", edit: func(t *testing.T, r *refusing, _, b *Config) {
		b.redirect(t, r.good[mirror.PartnerB].DSN("nowhere"), "")
	}, ends: mirror.PartnerB, cause: `database "nowhere" does not exist`, mend: "the DSN names a database that does not exist"},
	{name: "nobody at the principal's DSN", edit: func(t *testing.T, _ *refusing, a, _ *Config) {
		a.redirect(t, "postgres://u:hidden@"+loopback.Addr(t)+"/app", "")
	}, ends: mirror.PartnerA, cause: "nothing listens at", mend: "check host, port and listen_addresses"},
	{name: "nobody at the mirror's PeerDSN", edit: func(t *testing.T, _ *refusing, _, b *Config) {
		b.redirect(t, "", "postgres://u:hidden@"+loopback.Addr(t)+"/app")
	}, cause: "fatal: principal: connect: nothing listens at", mend: "check host, port and listen_addresses"},
	{name: "another database at PeerDSN", edit: func(t *testing.T, r *refusing, _, b *Config) {
		b.redirect(t, "", r.good[mirror.PartnerA].DSN("postgres"))
	}, cause: "PeerDSN leads to database postgres", mend: "correct PeerDSN here, or DSN there"},
	{name: "two that want to be principal", edit: func(_ *testing.T, _ *refusing, _, b *Config) { b.Establish = true },
		cause: "both partners are told to make the session", mend: "set Establish on the one that is to be principal only"},
	{name: "two timings", edit: func(_ *testing.T, _ *refusing, _, b *Config) { b.Timing = host.Timing{} },
		cause: "has other timeouts", mend: "set the same Timing on all three servers"},
	{name: "two authorities", edit: twoAuthorities, cause: "another authority", mend: "CAFile"},
}

// TestRefusal: a session is not made while anything is against it. Both partners say what, and neither server has
// changed.
func TestRefusal(t *testing.T) {
	t.Parallel()
	r := &refusing{}
	var starting sync.WaitGroup
	starting.Go(func() { r.good[mirror.PartnerA] = pgtest.New(t, nil) })
	starting.Go(func() { r.good[mirror.PartnerB] = pgtest.New(t, nil) })
	starting.Go(func() {
		r.poor = pgtest.New(t, map[string]string{"wal_level": "minimal", "max_wal_senders": "0", "max_replication_slots": "0"})
	})
	starting.Wait()
	for _, server := range []*pgtest.Server{r.good[1], r.good[2]} {
		run(t, server, "postgres", "CREATE ROLE plain LOGIN")
	}
	for n, c := range refusals {
		if c.prepareA != "" || c.prepareB != "" {
			for s, sql := range map[mirror.Server]string{mirror.PartnerA: c.prepareA, mirror.PartnerB: c.prepareB} {
				run(t, r.good[s], "postgres", "CREATE DATABASE "+databaseOf(n)+" "+c.as[s])
				run(t, r.good[s], databaseOf(n), cmp.Or(sql, none))
			}
		}
	}
	before := r.footprint(t)
	t.Run("cases", func(t *testing.T) {
		for n, c := range refusals {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				r.refuse(t, n, c)
			})
		}
	})
	require.Equal(t, before, r.footprint(t), "a server has changed")
}

func databaseOf(n int) string { return fmt.Sprintf("app%d", n) }

func (r *refusing) refuse(t *testing.T, n int, c refusal) {
	database := "app"
	if c.prepareA != "" || c.prepareB != "" {
		database = databaseOf(n)
	}
	first, second := r.configs(t, n, database)
	if c.edit != nil {
		c.edit(t, r, &first, &second)
	}
	if c.ends == mirror.PartnerA {
		first, second = second, first
	}
	partners := []*beginning{begin(t, first)}
	partners[0].await("looking", func(st Status) bool { return st.Trouble != "" })
	partners = append(partners, begin(t, second))
	if c.ends != mirror.Nobody {
		err := partners[1].failure()
		require.ErrorContains(t, err, c.cause)
		require.ErrorContains(t, err, c.mend)
	}
	for _, p := range partners {
		st := p.await("aware that "+c.name, func(st Status) bool {
			text := fmt.Sprint(st.Trouble, st.Findings, st.Links)
			return strings.Contains(text, c.cause) && strings.Contains(text, c.mend) &&
				strings.Contains(strings.ReplaceAll(p.log.String(), `\"`, `"`), c.cause)
		})
		require.Equal(t, mirror.RoleNone, st.Role)
		require.NotContains(t, p.log.String(), "hidden", "a password is logged")
	}
}

// configs are those of two partners that could make a session, for each case another.
func (r *refusing) configs(t *testing.T, n int, database string) (a, b Config) {
	addrA, addrB, dir := loopback.Addr(t), loopback.Addr(t), t.TempDir()
	a = Config{
		Session: fmt.Sprintf("%08x", n) + strings.Repeat("0", 24), Self: mirror.PartnerA, Dir: filepath.Join(dir, "a"),
		Backend: between(t, r.good[mirror.PartnerA].DSN(database), r.good[mirror.PartnerB].DSN(database)),
		Listen:  addrA, Peer: addrB, Credentials: endpoint.Credentials{Plaintext: true}, Establish: true, Timing: host.Fast(),
	}
	b = a
	b.Self, b.Dir, b.Listen, b.Peer, b.Establish = mirror.PartnerB, filepath.Join(dir, "b"), addrB, addrA, false
	b.redirect(t, r.good[mirror.PartnerB].DSN(database), r.good[mirror.PartnerA].DSN(database))
	return a, b
}

// footprint is what a session would leave behind on the servers.
func (r *refusing) footprint(t *testing.T) (found []string) {
	for _, server := range []*pgtest.Server{r.good[1], r.good[2], r.poor} {
		databases := rows(t, server, "postgres", "SELECT datname FROM pg_database WHERE datallowconn")
		found = append(found, rows(t, server, "postgres", `SELECT 'slot ' || slot_name FROM pg_replication_slots
			UNION ALL SELECT 'waits for ' || current_setting('synchronous_standby_names')
			UNION ALL SELECT 'setting ' || name FROM pg_file_settings WHERE sourcefile LIKE '%auto.conf'
			UNION ALL SELECT 'closed ' || datname FROM pg_database WHERE datconnlimit <> -1
			UNION ALL SELECT 'set ' || array_to_string(setconfig, ',') FROM pg_db_role_setting`)...)
		for _, database := range databases {
			found = append(found, rows(t, server, database, `SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname = 'dbmirror'
				UNION ALL SELECT 'publication ' || pubname FROM pg_publication
				UNION ALL SELECT 'table ' || relname FROM pg_class WHERE relnamespace = 'public'::regnamespace`)...)
		}
	}
	return found
}

func rows(t *testing.T, server *pgtest.Server, database, sql string) []string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server.DSN(database))
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	result, err := conn.Query(t.Context(), sql)
	require.NoError(t, err)
	all, err := pgx.CollectRows(result, pgx.RowTo[string])
	require.NoError(t, err)
	return all
}

func run(t *testing.T, server *pgtest.Server, database, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server.DSN(database))
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	_, err = conn.Exec(t.Context(), sql)
	require.NoError(t, err, sql)
}

// at gives a partner another database, known to both partners by the same connection string.
func at(t *testing.T, s mirror.Server, a, b *Config, dsn string) {
	if s == mirror.PartnerB {
		a, b = b, a
	}
	a.redirect(t, dsn, "")
	b.redirect(t, "", dsn)
}

func onPoorServer(s mirror.Server) func(*testing.T, *refusing, *Config, *Config) {
	return func(t *testing.T, r *refusing, a, b *Config) { at(t, s, a, b, r.poor.DSN("app")) }
}

func asPlainRole(s mirror.Server) func(*testing.T, *refusing, *Config, *Config) {
	return func(t *testing.T, r *refusing, a, b *Config) {
		dsn, err := url.Parse(r.good[s].DSN("app"))
		require.NoError(t, err)
		dsn.User = url.User("plain")
		at(t, s, a, b, dsn.String())
	}
}

const none = "SELECT"

func onB(how string) [3]string { return [3]string{mirror.PartnerB: "TEMPLATE template0 " + how} }

// asVersion14 puts a line between that lets a server say that it is PostgreSQL 14.
func asVersion14(s mirror.Server) func(*testing.T, *refusing, *Config, *Config) {
	return func(t *testing.T, r *refusing, a, b *Config) {
		version, err := r.good[s].Psql(t.Context(), "postgres", "SHOW server_version_num")
		require.NoError(t, err)
		var number uint32
		_, err = fmt.Sscan(version, &number)
		require.NoError(t, err)
		told := rewriting(t, fmt.Sprintf("127.0.0.1:%d", r.good[s].Port()), number, 140018)
		dsn, err := url.Parse(r.good[s].DSN("app"))
		require.NoError(t, err)
		dsn.Host = told
		at(t, s, a, b, dsn.String())
	}
}

// rewriting passes connections on and replaces an int4 column of that value in each answer.
func rewriting(t *testing.T, to string, from, by uint32) (addr string) {
	column := func(v uint32) []byte { return binary.BigEndian.AppendUint32([]byte{0, 0, 0, 4}, v) }
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var open sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		open.Wait()
	})
	open.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			open.Go(func() { defer out.Close(); _, _ = io.Copy(out, in) })
			open.Go(func() {
				defer in.Close()
				b := make([]byte, 64<<10)
				for {
					n, err := out.Read(b) // an answer of one row comes as one piece
					if _, werr := in.Write(bytes.ReplaceAll(b[:n], column(from), column(by))); err != nil || werr != nil {
						return
					}
				}
			})
		}
	})
	return l.Addr().String()
}

// twoAuthorities gives each partner a certificate that the other one cannot verify.
func twoAuthorities(t *testing.T, _ *refusing, a, b *Config) {
	for _, c := range []*Config{a, b} {
		c.Credentials = credentials(t, nil, endpoint.Identity{Session: c.Session, Role: host.Role(c.Self)})
	}
}

// credentials are issued by an authority, a new one if it is nil.
func credentials(t *testing.T, authority *certs.Authority, to endpoint.Identity) endpoint.Credentials {
	var err error
	if authority == nil {
		authority, err = certs.NewAuthority("test", time.Hour)
		require.NoError(t, err)
	}
	certificate, err := authority.Issue(to.URI(endpoint.DefaultDomain), time.Hour)
	require.NoError(t, err)
	return endpoint.Credentials{Certificate: certificate, Authorities: authority.Pool()}
}

// TestForeignCertificate: a partner with a certificate for another role or session does not start.
func TestForeignCertificate(t *testing.T) {
	session := strings.Repeat("ab", 16)
	cfg := Config{
		Session: session, Self: mirror.PartnerB, Dir: filepath.Join(t.TempDir(), "dir"),
		Backend: between(t, "postgres://127.0.0.1:1/db", "postgres://127.0.0.1:2/db"), Listen: "127.0.0.1:3", Peer: "127.0.0.1:4",
	}
	for name, to := range map[string]endpoint.Identity{
		"of the other partner": {Session: session, Role: endpoint.PartnerA},
		"of the witness":       {Session: session, Role: endpoint.Witness},
		"of another session":   {Session: strings.Repeat("cd", 16), Role: endpoint.PartnerB},
	} {
		cfg.Credentials = credentials(t, nil, to)
		_, err := New(cfg)
		require.ErrorContains(t, err, "certificate is for "+to.URI(endpoint.DefaultDomain).String()+", expected", name)
		require.ErrorContains(t, err, "name the right file", name)
		require.NoDirExists(t, cfg.Dir)
	}
}
