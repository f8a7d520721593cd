package pglog

import (
	"fmt"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// testPair is two servers that many tests share, each with databases of its own.
type testPair struct {
	principal, mirror *pgtest.Server
	count             int
}

// testDatabases is a new database on either server, of the same name.
type testDatabases struct {
	name              string
	principal, mirror string // connection strings
	a, b              *pgx.Conn
}

// ownerRole makes the role that testdata/baseline.sql uses.
const ownerRole = `DO $$ BEGIN CREATE ROLE "Owner ""quoted"""; EXCEPTION WHEN duplicate_object THEN END $$`

func (p *testPair) fresh(t *testing.T) testDatabases {
	t.Helper()
	p.count++
	d := testDatabases{name: fmt.Sprintf("test_%d", p.count)}
	for _, server := range []*pgtest.Server{p.principal, p.mirror} {
		script(t, dial(t, server.DSN("postgres")), "CREATE DATABASE "+d.name)
	}
	d.principal, d.mirror = p.principal.DSN(d.name), p.mirror.DSN(d.name)
	d.a, d.b = dial(t, d.principal), dial(t, d.mirror)
	return d
}

// everything is a schema that holds whatever a schema can hold, and rows.
func everything(t *testing.T) string {
	t.Helper()
	schema, err := os.ReadFile("testdata/baseline.sql")
	require.NoError(t, err)
	return ownerRole + ";" + string(schema)
}

// TestPair runs the tests of preflight, baseline, drift and comparison that need no server of their own.
func TestPair(t *testing.T) {
	// Nothing here is about crashes.
	p := &testPair{principal: pgtest.New(t, map[string]string{"max_prepared_transactions": "3", "fsync": "off"}),
		mirror: pgtest.New(t, map[string]string{"fsync": "off"})}
	for _, c := range []struct {
		name string
		test func(*testing.T, *testPair)
	}{
		{"baseline", testBaseline},
		{"baseline replaces", testBaselineReplaces},
		{"baseline fails and is repeated", testBaselineFailsAndIsRepeated},
		{"baseline refuses rewritten table", testBaselineRefusesRewritten},
		{"baseline yields to exclusive lock", testBaselineYieldsToExclusiveLock},
		{"baseline with matview that fails", testBaselineMatviewThatFails},
		{"baseline with extensions", testBaselineExtensions},
		{"baseline shows no secret", testBaselineShowsNoSecret},
		{"type formats", testTypeFormats},
		{"drift", testDrift},
		{"catalog", testCatalogSeesEveryKind},
		{"compare", testCompare},
		{"compare sees all", testCompareSeesAll},
		{"preflight pair", testPreflightPair},
		{"preflight pair, text", testPreflightPairText},
		{"preflight pair, content", testPreflightPairContent},
		{"preflight pair, facts", testPreflightPairFacts},
		{"preflight database", testPreflightDatabase},
		{"preflight own schema", testPreflightOwnSchemaAndTemporary},
		{"preflight rights", testPreflightRights},
		{"preflight blockers", testPreflightBlockers},
		{"preflight hostile names", testPreflightHostileNames},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, p) })
	}
}
