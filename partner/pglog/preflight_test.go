package pglog

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// find returns the findings of a code, about an object unless that is empty.
func find(findings []Finding, code Code, object string) []Finding {
	return slices.DeleteFunc(slices.Clone(findings), func(f Finding) bool {
		return f.Code != code || object != "" && f.Object != object
	})
}

// mend runs what the findings say mends them.
func mend(t *testing.T, conn *pgx.Conn, findings []Finding) {
	t.Helper()
	for _, f := range findings {
		require.NotEmpty(t, f.SQL, f.String())
		_, err := conn.Exec(t.Context(), f.SQL, pgx.QueryExecModeSimpleProtocol)
		require.NoError(t, err, f.SQL)
	}
}

// testPreflightDatabase provokes each finding about what is in a database, runs its mend, and looks again.
func testPreflightDatabase(t *testing.T, p *testPair) {
	ctx := t.Context()
	d := p.fresh(t)
	conn := d.a
	script(t, conn, `CREATE ROLE app_role; CREATE SCHEMA "S"`)
	cfg := PreflightConfig{LongTransaction: time.Nanosecond}
	for _, c := range []struct {
		code     Code
		severity Severity
		setup    string
		object   string
		mendless bool
	}{
		{CodeReplicaIdentity, Fatal, `CREATE TABLE "S"."no ""key""" (a integer)`, `"S"."no ""key"""`, false},
		{CodeReplicaIdentity, Fatal, `CREATE TABLE nothing (a integer PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING`,
			"public.nothing", false},
		{CodeReplicaIdentity, Fatal, `CREATE TABLE late (a integer PRIMARY KEY DEFERRABLE)`, "public.late", false},
		{CodeReplicaIdentity, Fatal, `CREATE TABLE lost (a integer NOT NULL); CREATE UNIQUE INDEX lost_i ON lost (a);
			ALTER TABLE lost REPLICA IDENTITY USING INDEX lost_i; DROP INDEX lost_i`, "public.lost", false},
		{CodeReplicaIdentity, Fatal, `CREATE TABLE p (a integer) PARTITION BY LIST (a);
			CREATE TABLE p1 PARTITION OF p DEFAULT`, "public.p1", false},
		{CodePartitioned, Info, "", "public.p", true},
		{CodeUnloggedTable, Warning, `CREATE UNLOGGED TABLE u (a integer PRIMARY KEY)`, "public.u", false},
		{CodeLargeObjects, Warning, `SELECT lo_create(0)`, "", true},
		{CodeForeignTable, Warning, `CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;
			CREATE FOREIGN TABLE f (a integer) SERVER s`, "public.f", true},
		{CodeMaterializedView, Info, `CREATE MATERIALIZED VIEW m AS SELECT 1`, "public.m", true},
		{CodeGeneratedColumn, Info, `CREATE TABLE g (a integer PRIMARY KEY, "B" integer GENERATED ALWAYS AS (a + 1) STORED)`,
			`public.g."B"`, true},
		{CodeSequenceCycle, Warning, `CREATE SEQUENCE "Cyc" MAXVALUE 5 CYCLE`, `public."Cyc"`, false},
		{CodeAlwaysTrigger, Warning, `CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
			CREATE TRIGGER "Tr" BEFORE INSERT ON g FOR EACH ROW EXECUTE FUNCTION tf(); ALTER TABLE g ENABLE ALWAYS TRIGGER "Tr"`,
			`public.g."Tr"`, false},
		{CodeAlwaysTrigger, Warning, `CREATE RULE ru AS ON DELETE TO g DO ALSO SELECT 1; ALTER TABLE g ENABLE REPLICA RULE ru`,
			`public.g.ru`, false},
		{CodeAlwaysTrigger, Warning, `CREATE FUNCTION ef() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
			CREATE EVENT TRIGGER ev ON sql_drop EXECUTE FUNCTION ef(); ALTER EVENT TRIGGER ev ENABLE ALWAYS`, `ev`, false},
		{CodePrepared, Fatal, `BEGIN; INSERT INTO g VALUES (1); PREPARE TRANSACTION 'it''s'`, `@ 'it''s'`, false},
		{CodePrepared, Info, "", "max_prepared_transactions", true},
		{CodeSyncCommit, Warning, `ALTER ROLE app_role SET synchronous_commit = off`, "app_role", false},
		{CodeSyncCommit, Warning, `ALTER DATABASE @ SET synchronous_commit = local`, "@", false},
		{CodeSyncCommit, Warning, `ALTER ROLE app_role IN DATABASE @ SET synchronous_commit = off`, "app_role in @", false},
	} {
		script(t, conn, strings.ReplaceAll(c.setup, "@", d.name))
		c.object = strings.ReplaceAll(c.object, "@", d.name)
		findings, err := PreflightPrincipal(ctx, conn, cfg)
		require.NoError(t, err)
		found := find(findings, c.code, c.object)
		require.Len(t, found, 1, "%s %s in %v", c.code, c.object, findings)
		require.Equal(t, c.severity, found[0].Severity)
		require.Equal(t, "principal", found[0].Server)
		if c.mendless {
			require.Empty(t, found[0].SQL)
			continue
		}
		mend(t, conn, found)
		findings, err = PreflightPrincipal(ctx, conn, cfg)
		require.NoError(t, err)
		require.Empty(t, find(findings, c.code, c.object))
		require.NoError(t, backend.Refuse(findings))
	}
}

func testPreflightOwnSchemaAndTemporary(t *testing.T, p *testPair) {
	conn := p.fresh(t).a
	script(t, conn, `CREATE SCHEMA dbmirror; CREATE TABLE dbmirror.t (a integer); CREATE TEMP TABLE t (a integer);
		CREATE TABLE full_identity (a integer); ALTER TABLE full_identity REPLICA IDENTITY FULL;
		CREATE TABLE by_index (a integer NOT NULL UNIQUE); ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_a_key;
		CREATE EXTENSION hstore`)
	findings, err := PreflightPrincipal(t.Context(), conn, PreflightConfig{LogBudget: 1 << 60})
	require.NoError(t, err)
	require.Empty(t, find(findings, CodeReplicaIdentity, ""))
	require.Len(t, find(findings, CodeSpace, ""), 1, "an exabyte of log does not fit on the local disk")
	require.NoError(t, backend.Refuse(findings))
}

// TestPreflightSettings starts a server on which nothing is as it should be, mends all of it and looks again.
func TestPreflightSettings(t *testing.T) {
	ctx := t.Context()
	server := pgtest.New(t, map[string]string{"wal_level": "replica", "max_wal_senders": "1", "max_replication_slots": "0",
		"synchronous_commit": "off", "fsync": "off", "full_page_writes": "off", "max_slot_wal_keep_size": "100MB",
		"synchronous_standby_names": "*"})
	conn := dial(t, server.DSN("app"))
	script(t, conn, "SET synchronous_commit = local")
	cfg := PreflightConfig{Slots: 2, LogBudget: 1 << 30}
	want := map[Code]Severity{CodeWALLevel: Fatal, CodeSenders: Fatal, CodeSlots: Fatal, CodeSyncCommit: Fatal,
		CodeSyncNames: Fatal, CodeDurability: Warning, CodeMaxSlotWALKeepSize: Warning}

	off, err := PreflightMirror(ctx, conn, PreflightConfig{SafetyOff: true})
	require.NoError(t, err)
	require.Equal(t, Warning, find(off, CodeSyncCommit, "")[0].Severity)

	findings, err := PreflightMirror(ctx, conn, cfg)
	require.NoError(t, err)
	for code, severity := range want {
		found := find(findings, code, "")
		require.NotEmpty(t, found, code)
		require.Equal(t, severity, found[0].Severity, code)
		require.Equal(t, "mirror", found[0].Server)
		mend(t, conn, found)
	}
	require.Len(t, find(findings, CodeDurability, ""), 2)
	var refusal *backend.PreflightError
	require.ErrorAs(t, backend.Refuse(findings), &refusal)
	require.Len(t, refusal.Findings, 5)
	require.ErrorContains(t, refusal, "wal_level is replica and logical decoding needs logical")
	require.ErrorContains(t, refusal, "mend: ALTER SYSTEM SET wal_level = logical")

	hangUp(conn)
	require.NoError(t, server.Stop("fast"))
	require.NoError(t, server.Restart(ctx))
	conn = dial(t, server.DSN("app"))
	findings, err = PreflightMirror(ctx, conn, cfg)
	require.NoError(t, err)
	for code := range want {
		require.Empty(t, find(findings, code, ""), code)
	}
	require.NoError(t, backend.Refuse(findings))
}

func TestPreflightForeignNames(t *testing.T) {
	server := pgtest.New(t, map[string]string{"synchronous_standby_names": "FIRST 1 (his)"})
	conn := dial(t, server.DSN("app"))
	findings, err := PreflightPrincipal(t.Context(), conn, PreflightConfig{})
	require.NoError(t, err)
	require.Contains(t, find(findings, CodeSyncNames, "")[0].Text, "FIRST 1 (his)")
	require.Equal(t, Warning, find(findings, CodeSyncNames, "")[0].Severity)
	require.Equal(t, Info, find(findings, CodeMaxSlotWALKeepSize, "")[0].Severity)
}

// testPreflightRights: any role but a superuser is refused, on either server, and finds out without an error whatever it
// may not see.
func testPreflightRights(t *testing.T, p *testPair) {
	ctx := t.Context()
	d := p.fresh(t)
	script(t, d.a, `CREATE ROLE "mir ror" LOGIN`)
	conn := dial(t, strings.Replace(d.principal, "postgres@", "mir%20ror@", 1))
	principal, err := PreflightPrincipal(ctx, conn, PreflightConfig{})
	require.NoError(t, err)
	mirror, err := PreflightMirror(ctx, conn, PreflightConfig{SafetyOff: true})
	require.NoError(t, err)
	for _, findings := range [][]Finding{principal, mirror} {
		found := find(findings, CodeRights, "")
		require.Len(t, found, 1)
		require.Equal(t, Fatal, found[0].Severity)
		require.Equal(t, `"mir ror"`, found[0].Object)
		require.Equal(t, `ALTER ROLE "mir ror" SUPERUSER`, found[0].SQL)
	}
	mend(t, d.a, find(principal, CodeRights, ""))
	principal, err = PreflightPrincipal(ctx, conn, PreflightConfig{})
	require.NoError(t, err)
	require.NoError(t, backend.Refuse(principal))
}

// testPreflightBlockers: a transaction that writes holds up the making of a slot.
func testPreflightBlockers(t *testing.T, p *testPair) {
	d := p.fresh(t)
	conn, writer := d.a, dial(t, d.principal)
	script(t, writer, "BEGIN; CREATE TABLE t (a integer PRIMARY KEY)")
	findings, err := PreflightPrincipal(t.Context(), conn, PreflightConfig{LongTransaction: time.Nanosecond})
	require.NoError(t, err)
	found := find(findings, CodeLongTransaction, fmt.Sprintf("pid %d", writer.PgConn().PID()))
	require.Len(t, found, 1)
	findings, err = PreflightPrincipal(t.Context(), conn, PreflightConfig{LongTransaction: time.Hour})
	require.NoError(t, err)
	require.Empty(t, find(findings, CodeLongTransaction, ""))
	mend(t, conn, found)
	err = writer.Ping(t.Context())
	require.Error(t, err, "the mend has ended the session")
}

// testPreflightHostileNames: what a user names like PostgreSQL's own changes nothing.
func testPreflightHostileNames(t *testing.T, p *testPair) {
	d := p.fresh(t)
	conn := d.a
	script(t, conn, `CREATE TABLE public.pg_class (a integer); CREATE VIEW public.pg_settings AS SELECT 'x' AS name;
		CREATE FUNCTION public.format(text, name) RETURNS text LANGUAGE sql AS 'SELECT ''hijacked''';
		ALTER DATABASE `+d.name+` SET search_path = public, pg_catalog`)
	conn = dial(t, d.principal)
	findings, err := PreflightPrincipal(t.Context(), conn, PreflightConfig{})
	require.NoError(t, err)
	require.Len(t, find(findings, CodeReplicaIdentity, "public.pg_class"), 1)
	require.NotContains(t, fmt.Sprint(findings), "hijacked")
}

func TestPreflightVersions(t *testing.T) {
	for number, want := range map[int]Severity{140018: Fatal, 150012: Warning, 150013: 0, 160008: Warning, 160009: 0,
		170004: Warning, 170010: 0, 180000: 0, 190000: Fatal, 90603: Fatal} {
		e := &examination{name: serverPrincipal}
		e.versionNumber(number)
		if want == 0 {
			require.Empty(t, e.findings, number)
			continue
		}
		require.Len(t, e.findings, 1, number)
		require.Equal(t, want, e.findings[0].Severity, number)
	}
}

func TestPreflightOutputPlugins(t *testing.T) {
	for allowed, fatal := range map[string]bool{"pgoutput, test_decoding": false, `test_decoding,"pgoutput"`: false,
		"test_decoding": true, "": true, "my_pgoutput": true} {
		e := &examination{name: serverPrincipal}
		e.outputPlugins(allowed)
		require.Equal(t, fatal, backend.Refuse(e.findings) != nil, allowed)
	}
}

func TestPreflightConfigRefuses(t *testing.T) {
	for says, cfg := range map[string]PreflightConfig{
		"Slots is -1": {Slots: -1}, "Slots is 1001": {Slots: 1001}, "LogBudget is -1": {LogBudget: -1},
		"LongTransaction is -1s": {LongTransaction: -time.Second},
	} {
		_, err := PreflightPrincipal(t.Context(), nil, cfg)
		require.ErrorContains(t, err, says)
		_, err = PreflightMirror(t.Context(), nil, cfg)
		require.ErrorContains(t, err, says)
	}
}

// deafPort is a port that is ours until the test ends, and nobody listens at.
func deafPort(t *testing.T) int {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, syscall.Close(fd)) })
	require.NoError(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	at, err := syscall.Getsockname(fd)
	require.NoError(t, err)
	return at.(*syscall.SockaddrInet4).Port
}

// noHost is no name that a host can have, so that no name server is asked for it: there may be none that answers.
var noHost = strings.Repeat("x", 64) + ".invalid"

// TestConnectFinding makes every kind of failed connection and looks at what is said; the password never is.
func TestConnectFinding(t *testing.T) {
	server := pgtest.New(t, map[string]string{"password_encryption": "scram-sha-256"})
	admin := dial(t, server.DSN("app"))
	script(t, admin, `CREATE ROLE barred LOGIN; CREATE ROLE full_up LOGIN CONNECTION LIMIT 0; REVOKE CONNECT ON DATABASE app FROM PUBLIC`)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	silent := listener.Addr().(*net.TCPAddr).Port
	t.Cleanup(func() { require.NoError(t, listener.Close()) })
	closed := deafPort(t)

	const canary = "CANARY-9f3c"
	dsn := func(user, host string, port int, database string) string {
		return fmt.Sprintf("postgres://%s:%s@%s:%d/%s?sslmode=disable&connect_timeout=60", user, canary, host, port, database)
	}
	for text, dsn := range map[string]string{
		"names a database that does not exist": dsn("postgres", "127.0.0.1", server.Port(), "nowhere"),
		"the role does not exist":              dsn("nobody", "127.0.0.1", server.Port(), "app"),
		"lacks the right to connect":           dsn("barred", "127.0.0.1", server.Port(), "app"),
		"raise max_connections":                dsn("full_up", "127.0.0.1", server.Port(), "postgres"),
		"nothing listens at 127.0.0.1":         dsn("postgres", "127.0.0.1", closed, "app"),
		"did not answer in time":               strings.Replace(dsn("postgres", "127.0.0.1", silent, "app"), "=60", "=1", 1),
		"is not known to name resolution":      dsn("postgres", noHost, 5432, "app"),
		"the DSN cannot be read":               "postgres://u:" + canary + "@h:port/",
		"the server does without TLS":          strings.Replace(dsn("postgres", "127.0.0.1", server.Port(), "app"), "disable", "require", 1),
	} {
		cfg, err := pgx.ParseConfig(dsn)
		if err == nil {
			cfg.LookupFunc = (&net.Resolver{PreferGo: true}).LookupHost
			_, err = pgx.ConnectConfig(t.Context(), cfg)
		}
		require.Error(t, err, text)
		f := ConnectFinding("mirror", err)
		require.Contains(t, f.Text, text)
		require.Equal(t, Finding{Severity: Fatal, Code: CodeConnect, Server: "mirror", Text: f.Text}, f)
		require.NotContains(t, f.Text, canary)
	}
	hba := filepath.Join(filepath.Dir(server.LogFile()), "data", "pg_hba.conf")
	require.NoError(t, os.WriteFile(hba, []byte("host all barred 127.0.0.1/32 reject\nhost all all 127.0.0.1/32 scram-sha-256\n"), 0o600))
	script(t, admin, "SELECT pg_reload_conf()")
	for user, text := range map[string]string{"barred": "pg_hba.conf has no line that admits it", "full_up": "the role or its password in the DSN is wrong"} {
		// The reload reaches the postmaster by a signal; until then the old rules let the role in as far as before.
		var f Finding
		require.NoError(t, poll(t.Context(), func() (bool, error) {
			_, err := pgx.Connect(t.Context(), dsn(user, "127.0.0.1", server.Port(), "postgres"))
			if err == nil {
				return false, nil
			}
			f = ConnectFinding("principal", err)
			return strings.Contains(f.Text, text), nil
		}))
		require.NotContains(t, f.Text, canary)
	}
	require.Contains(t, ConnectFinding("mirror", context.DeadlineExceeded).Text, "did not answer in time")
	require.Contains(t, ConnectFinding("mirror", context.Canceled).Text, "it was broken off")
	require.Contains(t, ConnectFinding("mirror", errors.New(canary)).Text, "check sslmode")
	for text, err := range map[string]error{
		"as sslrootcert in the DSN":           x509.UnknownAuthorityError{},
		"use a name that is in the server's":  x509.HostnameError{Certificate: &x509.Certificate{DNSNames: []string{"db"}}, Host: "127.0.0.1"},
		"give the server a certificate that ": x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: x509.Expired},
	} {
		require.Contains(t, ConnectFinding("mirror", fmt.Errorf("%s: %w", canary, &tls.CertificateVerificationError{Err: err})).Text, text)
	}
}
