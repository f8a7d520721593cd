package pglog

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/partner/backend"
)

// testPreflightPair provokes each finding between two servers, runs its mend at the mirror, and looks again.
func testPreflightPair(t *testing.T, p *testPair) {
	ctx := t.Context()
	d := p.fresh(t)
	a, b := d.a, d.b
	findings, err := PreflightPair(ctx, a, b, MirrorEmpty)
	require.NoError(t, err)
	require.Empty(t, findings)

	script(t, b, "CREATE EXTENSION hstore VERSION '1.4'")
	script(t, a, "CREATE EXTENSION hstore")
	for _, c := range []struct {
		code     Code
		severity Severity
		setup    string // at the principal
		object   string
		mendless bool
	}{
		{CodeExtensionVersion, Warning, "", "hstore", false},
		{CodeMissingRole, Fatal, `CREATE ROLE "Ow ner" LOGIN NOINHERIT; CREATE SCHEMA s AUTHORIZATION "Ow ner"`, "Ow ner", false},
		{CodeMissingRole, Fatal, `CREATE ROLE reader; CREATE TABLE t (id integer PRIMARY KEY); GRANT SELECT ON t TO reader`, "reader", false},
		{CodeTablespace, Info, `SET allow_in_place_tablespaces = on; CREATE TABLESPACE fast LOCATION '';
			CREATE TABLE elsewhere (id integer PRIMARY KEY) TABLESPACE fast`, "fast", true},
		{CodeDatabaseSetting, Warning, `ALTER DATABASE @ SET search_path = "Ow ner", public`, "search_path", false},
		{CodeDatabaseSetting, Warning, `ALTER DATABASE @ SET statement_timeout = '7min'`, "statement_timeout", false},
		{CodeDatabaseSetting, Warning, `ALTER ROLE "Ow ner" IN DATABASE @ SET work_mem = '7MB'`, `"Ow ner" work_mem`, false},
		{CodeDatabaseGrants, Warning, `REVOKE ALL ON DATABASE @ FROM PUBLIC`, "PUBLIC", false},
		{CodeDatabaseGrants, Warning, `GRANT CREATE ON DATABASE @ TO "Ow ner"`, `"Ow ner"`, false},
		{CodeDatabaseGrants, Warning, `ALTER DATABASE @ OWNER TO reader`, "postgres", false},
	} {
		script(t, a, strings.ReplaceAll(c.setup, "@", d.name))
		findings, err := PreflightPair(ctx, a, b, MirrorEmpty)
		require.NoError(t, err)
		found := find(findings, c.code, c.object)
		require.Len(t, found, 1, "%s in %v", c.setup, findings)
		require.Equal(t, c.severity, found[0].Severity)
		require.Equal(t, "mirror", found[0].Server)
		if c.mendless {
			continue
		}
		mend(t, b, found)
		findings, err = PreflightPair(ctx, a, b, MirrorEmpty)
		require.NoError(t, err)
		require.Empty(t, find(findings, c.code, c.object))
	}
}

// testPreflightPairText: a database of another encoding or collation is refused, and the statement that is proposed makes
// one that is not.
func testPreflightPairText(t *testing.T, p *testPair) {
	ctx := t.Context()
	a, admin := p.fresh(t).a, dial(t, p.mirror.DSN("postgres"))
	script(t, admin, `CREATE DATABASE "Other 1" TEMPLATE template0 ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C';
		CREATE DATABASE "Other 2" TEMPLATE template0 ENCODING UTF8 LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'`)
	for database, code := range map[string]Code{"Other 1": CodeEncoding, "Other 2": CodeCollation} {
		b, err := pgx.Connect(ctx, p.mirror.DSN(database))
		require.NoError(t, err)
		findings, err := PreflightPair(ctx, a, b, MirrorEmpty)
		require.NoError(t, err)
		require.Len(t, findings, 1)
		require.Equal(t, code, findings[0].Code)
		require.Error(t, backend.Refuse(findings))
		hangUp(b)
		script(t, admin, "DROP DATABASE "+quoteIdent(database)+" WITH (FORCE)")
		mend(t, admin, findings)
		b, err = pgx.Connect(ctx, p.mirror.DSN(database))
		require.NoError(t, err)
		findings, err = PreflightPair(ctx, a, b, MirrorEmpty)
		require.NoError(t, err)
		require.Empty(t, findings)
		hangUp(b)
	}
}

func testPreflightPairContent(t *testing.T, p *testPair) {
	ctx := t.Context()
	d := p.fresh(t)
	a, b := d.a, d.b
	findings, err := PreflightPair(ctx, a, a, MirrorEmpty)
	require.NoError(t, err)
	require.Len(t, find(findings, CodeSameServer, ""), 1)
	require.Error(t, backend.Refuse(findings))

	script(t, b, "CREATE EXTENSION pg_trgm; CREATE SCHEMA dbmirror; CREATE TABLE dbmirror.t (a integer)")
	findings, err = PreflightPair(ctx, a, b, MirrorEmpty)
	require.NoError(t, err)
	require.Empty(t, findings, "what is ours or an extension's is no content")
	script(t, b, `CREATE TABLE "Ta ble" (a integer)`)
	findings, err = PreflightPair(ctx, a, b, MirrorEmpty)
	require.NoError(t, err)
	require.Len(t, findings, 1)
	require.Equal(t, CodeMirrorNotEmpty, findings[0].Code)
	require.Contains(t, findings[0].Text, `the database holds 1 object(s) such as table public."Ta ble"`)
	findings, err = PreflightPair(ctx, a, b, MirrorReplaced)
	require.NoError(t, err)
	require.Empty(t, findings)
	findings, err = PreflightPair(ctx, a, b, MirrorAdopted)
	require.NoError(t, err)
	require.Len(t, find(findings, CodeSchemaDrift, `table public."Ta ble"`), 1)
	require.Error(t, backend.Refuse(findings))
}

// testPreflightPairFacts covers what cannot be had here: servers of two versions, packages that one lacks.
func testPreflightPairFacts(t *testing.T, p *testPair) {
	ctx := t.Context()
	conn := p.fresh(t).a
	from := serverFacts{systemIdentifier: "1", major: 16, collationVersion: "2.36", bytes: 1 << 60,
		extensions: []extensionFact{{"no such extension", "1.0"}, {"hstore", "9.9"}}}
	to := serverFacts{systemIdentifier: "2", major: 15, collationVersion: "2.31"}
	findings, err := examine(ctx, conn, serverMirror, func(e *examination) {
		e.sameDatabase(from, to)
		e.sameText(from, to)
		e.hasExtensions(from, to)
		e.receivingSpace(from, to, MirrorEmpty)
	})
	require.NoError(t, err)
	var got []string
	for _, f := range findings {
		got = append(got, fmt.Sprintf("%s %s", f.Severity, f.Code))
	}
	require.Equal(t, []string{"fatal version", "warning collation", "fatal extension", "warning extension_version", "fatal space"}, got)
	from.major, to.major = 15, 16
	e := &examination{name: serverMirror}
	e.sameDatabase(from, to)
	require.Equal(t, Warning, e.findings[0].Severity)
	require.Equal(t, "CREATE DATABASE \"d\" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'de'",
		createDatabase(serverFacts{encoding: "UTF8", collate: "C", ctype: "C", provider: "i", icu: "de"}, serverFacts{database: "d"}))
}
