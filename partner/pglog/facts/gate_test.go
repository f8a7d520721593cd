package facts

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// role makes a role for the time of the fact.
func (b *bench) role(name, options string) {
	b.t.Helper()
	b.exec("CREATE ROLE " + name + " " + options)
	b.t.Cleanup(func() {
		conn := b.connect(b.name, "synchronous_commit", "local", "replication", "database")
		run(b.t, conn, "DROP OWNED BY "+name, "DROP ROLE "+name)
	})
}

// attempt connects and returns the SQLSTATE of the refusal, or "" when it was let in.
func (b *bench) attempt(params ...string) string {
	b.t.Helper()
	conn, err := b.dial(b.name, params...)
	if err == nil {
		hangUp(conn)
		return ""
	}
	code := pgError(err)
	require.NotEmpty(b.t, code, "%v", err)
	return code
}

// A connection limit of zero holds off the sessions of all but superusers, and no connection for replication, on which
// any SQL runs.
func limitDoesNotCountReplication(b *bench) {
	b.role("mirroring", "LOGIN REPLICATION")
	open := b.connect(b.name, "user", "mirroring")
	b.exec("ALTER DATABASE " + b.name + " CONNECTION LIMIT 0")
	require.Equal(b.t, "53300", b.attempt("user", "mirroring"))
	require.Empty(b.t, b.attempt("user", "postgres"), "a superuser")
	run(b.t, open, "SELECT 1") // who is in stays in
	slot, start := b.slot("s")
	conn, err := pgconn.Connect(b.t.Context(), withParams(b.t, b.server.DSN(b.name), "user", "mirroring", "replication", "database"))
	require.NoError(b.t, err)
	defer conn.Close(b.t.Context())
	_, err = conn.Exec(b.t.Context(), "SELECT count(*) FROM pg_class").ReadAll()
	require.NoError(b.t, err)
	r, err := b.tryReceive(slot, "mir", start, "mirroring")
	require.NoError(b.t, err)
	b.exec(insert)
	r.transactions(1)
}

// A database that allows no connections refuses superusers and walsenders too; those that are there stay.
func allowConnectionsShutsOutTheLog(b *bench) {
	slot, start := b.slot("s")
	r := b.receive(slot, "mir", start)
	elsewhere := b.connect("postgres", "synchronous_commit", "local")
	run(b.t, elsewhere, "ALTER DATABASE "+b.name+" ALLOW_CONNECTIONS false")
	require.Equal(b.t, "55000", b.attempt())
	require.Equal(b.t, "55000", b.attempt("replication", "database"))
	b.exec(insert)
	r.transactions(1)
	run(b.t, elsewhere, "ALTER DATABASE "+b.name+" ALLOW_CONNECTIONS true")
}

// In pg_hba.conf the word replication is for physical replication only; a logical walsender comes by its database.
func hbaReplicationIsPhysical(b *bench) {
	b.role("mirroring", "LOGIN REPLICATION")
	file := filepath.Join(filepath.Dir(b.server.LogFile()), "data", "pg_hba.conf")
	before, err := os.ReadFile(file)
	require.NoError(b.t, err)
	write := func(text string) {
		require.NoError(b.t, os.WriteFile(file, []byte(text), 0o600))
		b.exec("SELECT pg_reload_conf()")
	}
	b.t.Cleanup(func() { write(string(before)) })
	const line = "host %s mirroring 127.0.0.1/32 %s\n"
	for _, c := range []struct{ replication, database, logical, physical string }{
		{"trust", "reject", "28000", ""},
		{"reject", "trust", "", "28000"},
	} {
		write(fmt.Sprintf(line+line, "replication", c.replication, b.name, c.database) + string(before))
		b.eventually("the lines are read", func() bool { return b.attempt("user", "mirroring") == c.logical })
		require.Equal(b.t, c.logical, b.attempt("user", "mirroring", "replication", "database"))
		require.Equal(b.t, c.physical, b.attemptPhysical("mirroring"))
	}
}

func (b *bench) attemptPhysical(user string) string {
	conn, err := pgconn.Connect(b.t.Context(), withParams(b.t, b.server.DSN(b.name), "user", user, "replication", "true"))
	if err == nil {
		return pgError(conn.Close(b.t.Context()))
	}
	return pgError(err)
}

// Of a list of servers whose first refuses for its limit, pgx goes on to the second; libpq does not. Both go on from one
// whose sessions are read-only by default, if they ask for one that is not.
func clientsStepOver(b *bench) {
	other := pgtest.New(b.t, nil)
	run(b.t, b.connect(b.name, "synchronous_commit", "local"), "CREATE ROLE ordinary LOGIN")
	b.t.Cleanup(func() { run(b.t, b.connect("postgres", "synchronous_commit", "local"), "DROP ROLE ordinary") })
	there, err := pgx.Connect(b.t.Context(), other.DSN("postgres"))
	require.NoError(b.t, err)
	defer hangUp(there)
	run(b.t, there, "CREATE ROLE ordinary LOGIN", "CREATE DATABASE "+b.name)
	list := fmt.Sprintf("host=127.0.0.1,127.0.0.1 port=%d,%d user=ordinary dbname=%s sslmode=disable target_session_attrs=",
		b.server.Port(), other.Port(), b.name)
	byPgx := func(attrs string) string {
		conn, err := pgx.Connect(b.t.Context(), list+attrs)
		if err != nil {
			return "refused"
		}
		defer hangUp(conn)
		var port string
		require.NoError(b.t, conn.QueryRow(b.t.Context(), "SELECT inet_server_port()::text").Scan(&port))
		return port
	}
	byLibpq := func(attrs string) string {
		in, err := pgtest.Find(b.t.Context(), nil)
		require.NoError(b.t, err)
		port, err := in.Psql(b.t.Context(), list+attrs, "SELECT inet_server_port()")
		if err != nil {
			require.ErrorContains(b.t, err, "too many connections")
			return "refused"
		}
		return port
	}
	first, second := fmt.Sprint(b.server.Port()), fmt.Sprint(other.Port())
	b.exec("ALTER DATABASE " + b.name + " SET default_transaction_read_only = on")
	for attrs, want := range map[string]string{"any": first, "primary": first, "read-write": second} {
		require.Equal(b.t, want, byPgx(attrs), "pgx, read-only, %s", attrs)
		require.Equal(b.t, want, byLibpq(attrs), "libpq, read-only, %s", attrs)
	}
	b.exec("ALTER DATABASE " + b.name + " CONNECTION LIMIT 0")
	for _, attrs := range []string{"any", "primary", "read-write"} {
		require.Equal(b.t, second, byPgx(attrs), "pgx, limit, %s", attrs)
		require.Equal(b.t, "refused", byLibpq(attrs), "libpq, limit, %s", attrs)
	}
}
