package pglog

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// testDrift changes one definition after the other at the mirror and looks for exactly that.
func testDrift(t *testing.T, p *testPair) {
	ctx := t.Context()
	d := p.fresh(t)
	a, b := d.a, d.b
	definitions, _, found := strings.Cut(everything(t), "\nINSERT INTO")
	require.True(t, found)
	script(t, a, definitions)
	script(t, b, definitions)
	script(t, b, "CREATE SCHEMA dbmirror; CREATE TABLE dbmirror.t (a integer); CREATE TEMP TABLE tmp (a integer)")
	before, err := ReadCatalog(ctx, b)
	require.NoError(t, err)
	for _, c := range []struct {
		change, undo, object string
		severity             Severity
		says                 string
	}{
		{"CREATE TABLE extra (a integer)", "DROP TABLE extra", "table public.extra", Fatal, "the principal does not have it"},
		{"ALTER TABLE egg RENAME TO eggs", "ALTER TABLE eggs RENAME TO egg", "table public.egg", Fatal, "it is missing at the mirror"},
		{"ALTER TABLE big ALTER id TYPE bigint", "ALTER TABLE big ALTER id TYPE integer", "column public.big.id", Fatal,
			`it is "bigint not null" at the mirror and "integer not null" at the principal`},
		{"ALTER TABLE big ALTER filler SET DEFAULT 'x'", "ALTER TABLE big ALTER filler DROP DEFAULT", "column public.big.filler", Fatal, "default"},
		{`ALTER TABLE big ALTER filler TYPE text COLLATE "my C"`, "ALTER TABLE big ALTER filler TYPE text", "column public.big.filler", Fatal, "my C"},
		{"ALTER TABLE tree DROP CONSTRAINT later", "ALTER TABLE tree ADD CONSTRAINT later CHECK (id < 5) NOT VALID", "constraint public.tree.later", Fatal, "missing"},
		{"ALTER TABLE big DROP CONSTRAINT big_pkey", "ALTER TABLE big ADD PRIMARY KEY (id)", "key public.big.big_pkey", Fatal, "missing"},
		{"ALTER TYPE mood ADD VALUE 'new'", "", "type public.mood labels", Fatal, "'new'"},
		{`ALTER DOMAIN "select".positive DROP CONSTRAINT positive_check`, `ALTER DOMAIN "select".positive ADD CHECK (VALUE > 0)`,
			`type "select".positive`, Fatal, "VALUE > 0"},
		{"ALTER TYPE pair ADD ATTRIBUTE z integer", "ALTER TYPE pair DROP ATTRIBUTE z", "type public.pair", Fatal, "z integer"},
		{"ALTER TABLE big REPLICA IDENTITY FULL", "ALTER TABLE big REPLICA IDENTITY DEFAULT", "replica identity public.big", Fatal, `it is "f" at the mirror`},
		{"DROP INDEX partial", "CREATE UNIQUE INDEX partial ON child (extra) WHERE extra IS NOT NULL", "unique index public.partial", Fatal, "missing"},
		{"DROP INDEX trigram", "CREATE INDEX trigram ON tree USING gin (label gin_trgm_ops)", "index public.trigram", Warning, "missing"},
		{"ALTER TABLE part DETACH PARTITION part_rest", "ALTER TABLE part ATTACH PARTITION part_rest DEFAULT", "table public.part_rest", Fatal, "DEFAULT"},
		{"CREATE OR REPLACE FUNCTION sql_body(integer) RETURNS integer LANGUAGE sql AS 'SELECT 3'", "", "routine public.sql_body(integer)", Warning, "SELECT 3"},
		{"ALTER TABLE child ENABLE TRIGGER always", "ALTER TABLE child ENABLE ALWAYS TRIGGER always", "trigger public.child.always", Warning, "at the mirror"},
		{`ALTER SEQUENCE "odd seq" CACHE 4`, `ALTER SEQUENCE "odd seq" CACHE 3`, `sequence public."odd seq"`, Warning, "4 f"},
		{"DROP POLICY own ON guarded", `CREATE POLICY own ON guarded TO "Owner ""quoted""" USING (owner = current_user) WITH CHECK (owner <> ';')`,
			"policy public.guarded.own", Warning, "missing"},
		{"ALTER EVENT TRIGGER noted DISABLE", "ALTER EVENT TRIGGER noted ENABLE", "event trigger noted", Warning, "D "},
		{"CREATE OR REPLACE VIEW v AS SELECT id, 'x'::text AS p FROM parent", "", "view public.v", Warning, "'x'"},
	} {
		hash, err := ReadCatalog(ctx, b)
		require.NoError(t, err)
		script(t, b, c.change)
		findings, err := Drift(ctx, a, b)
		require.NoError(t, err)
		found := find(findings, CodeSchemaDrift, c.object)
		require.Len(t, found, 1, "%s: %v", c.change, findings)
		require.Equal(t, c.severity, found[0].Severity)
		require.Contains(t, found[0].Text, c.says)
		changed, err := ReadCatalog(ctx, b)
		require.NoError(t, err)
		require.Equal(t, c.severity == Fatal, changed.Hash() != hash.Hash(), c.change)
		if c.undo != "" {
			script(t, b, c.undo)
			findings, err = Drift(ctx, a, b)
			require.NoError(t, err)
			require.Empty(t, find(findings, CodeSchemaDrift, c.object), c.undo)
		}
	}
	require.Len(t, before.Hash(), 64)
}

// testCatalogSeesEveryKind: a query that finds nothing would find no drift either.
func testCatalogSeesEveryKind(t *testing.T, p *testPair) {
	conn := p.fresh(t).a
	script(t, conn, everything(t))
	catalog, err := ReadCatalog(t.Context(), conn)
	require.NoError(t, err)
	kinds := map[string]int{}
	for _, line := range catalog.Lines {
		kinds[line.Kind]++
		require.NotContains(t, line.Object, "citext_cmp", "what an extension brings is the extension's")
	}
	for _, kind := range []string{"table", "column", "key", "constraint", "unique index", "index", "replica identity", "type",
		"routine", "aggregate", "view", "materialized view", "trigger", "rule", "policy", "sequence", "schema", "extension",
		"statistics", "event trigger"} {
		require.Positive(t, kinds[kind], kind)
	}
	require.Equal(t, 4, kinds["extension"])
}
