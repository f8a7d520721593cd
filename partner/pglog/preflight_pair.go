package pglog

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// MirrorContent says what a session will do with the objects that are in the mirror's database before it starts.
type MirrorContent int

const (
	MirrorEmpty    MirrorContent = iota // there must be none: the baseline fills it
	MirrorReplaced                      // a baseline with Replace drops them first
	MirrorAdopted                       // they are a copy already and must be the principal's in every definition
)

// PreflightPair examines two databases against each other: whether the mirror's can hold an exact copy of the
// principal's. Their names may differ. content says what the mirror's database may hold; with MirrorAdopted the result
// includes that of Drift. It only reads.
func PreflightPair(ctx context.Context, principal, mirror *pgx.Conn, content MirrorContent) ([]Finding, error) {
	var from, to serverFacts
	if _, err := examine(ctx, principal, serverPrincipal, func(e *examination) { from = e.facts() }); err != nil {
		return nil, err
	}
	findings, err := examine(ctx, mirror, serverMirror, func(e *examination) {
		to = e.facts()
		e.sameDatabase(from, to)
		e.sameText(from, to)
		e.hasExtensions(from, to)
		e.hasRoles(from, to)
		e.hasTablespaces(from, to)
		e.hasSettings(from, to)
		e.hasOwnerAndGrants(from, to)
		e.content(content)
		e.receivingSpace(from, to, content)
	})
	if err != nil || content != MirrorAdopted {
		return findings, err
	}
	drift, err := Drift(ctx, principal, mirror)
	return append(findings, drift...), err
}

// serverFacts are what one database of a pair is compared by.
type serverFacts struct {
	systemIdentifier string
	major            int
	database         string
	bytes            int64 // of the database

	encoding, provider, collate, ctype, icu string
	collationVersion                        string

	owner      string
	extensions []extensionFact
	// What exists, as keys; the values are statements that make it, or the end of one.
	roles, tablespaces, databaseSettings, databaseGrants map[string]string
	// What the database uses, of the above.
	usedRoles, usedTablespaces map[string]string
}

type extensionFact struct{ Name, Version string }

// databaseGrants lists who beside the owner may do what with the database itself.
const databaseGrants = `SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
		string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type)
	FROM pg_database d CROSS JOIN aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
	WHERE d.datname = current_database() AND a.grantee <> d.datdba GROUP BY 1`

func (e *examination) facts() serverFacts {
	var f serverFacts
	e.one([]any{&f.systemIdentifier, &f.major, &f.database, &f.bytes},
		`SELECT system_identifier::text, current_setting('server_version_num')::int / 10000, current_database(),
			pg_database_size(current_database()) FROM pg_control_system()`)
	// The name of the ICU locale's column changed in version 17; a row as JSON has it under either.
	e.one([]any{&f.encoding, &f.collate, &f.ctype, &f.provider, &f.icu, &f.collationVersion, &f.owner},
		`SELECT pg_encoding_to_char(encoding), datcollate, datctype, datlocprovider::text,
			coalesce(to_jsonb(d) ->> 'daticulocale', to_jsonb(d) ->> 'datlocale', ''),
			coalesce(pg_database_collation_actual_version(oid), ''), quote_ident(pg_get_userbyid(datdba))
		FROM pg_database d WHERE datname = current_database()`)
	f.extensions = queryRows[extensionFact](e, "SELECT extname, extversion FROM pg_extension ORDER BY 1")
	f.roles = e.pairs("SELECT rolname, '' FROM pg_roles")
	f.tablespaces = e.pairs("SELECT spcname, '' FROM pg_tablespace")
	f.databaseSettings, f.databaseGrants = e.pairs(databaseSettings), e.pairs(databaseGrants)
	f.usedRoles, f.usedTablespaces = e.pairs(usedRoles), e.pairs(usedTablespaces)
	return f
}

// usedRoles lists the roles that own something in the database or are granted something in it, each with the statement
// that makes it. What the first superuser owns is not recorded as a dependency.
const usedRoles = `SELECT rolname, format('CREATE ROLE %I%s', rolname, concat(
		CASE WHEN rolcanlogin THEN ' LOGIN' END, CASE WHEN rolsuper THEN ' SUPERUSER' END,
		CASE WHEN rolcreatedb THEN ' CREATEDB' END, CASE WHEN rolcreaterole THEN ' CREATEROLE' END,
		CASE WHEN rolbypassrls THEN ' BYPASSRLS' END, CASE WHEN NOT rolinherit THEN ' NOINHERIT' END))
	FROM pg_roles r WHERE rolname !~ '^pg_' AND (
		EXISTS (SELECT FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid
			WHERE d.datname = current_database() AND s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid)
		OR EXISTS (SELECT FROM pg_class WHERE relowner = r.oid AND oid >= 16384)
		OR EXISTS (SELECT FROM pg_proc WHERE proowner = r.oid AND oid >= 16384)
		OR EXISTS (SELECT FROM pg_type WHERE typowner = r.oid AND oid >= 16384)
		OR EXISTS (SELECT FROM pg_namespace WHERE nspowner = r.oid AND oid >= 16384))`

// usedTablespaces lists those that hold something of the database beside its default one.
const usedTablespaces = `SELECT DISTINCT spcname, '' FROM pg_class c JOIN pg_tablespace t ON t.oid = c.reltablespace
	WHERE spcname !~ '^pg_'`

// databaseSettings lists what ALTER DATABASE ... SET and ALTER ROLE ... IN DATABASE ... SET left, each with the end of
// the statement that makes it. What the gate and the commit wait change by themselves is left out. The settings that
// are lists are stored as quoted as SQL wants them.
const databaseSettings = `SELECT concat_ws(' ', quote_ident(r.rolname), split_part(c.setting, '=', 1)),
		format('SET %I = %s', split_part(c.setting, '=', 1), CASE WHEN split_part(c.setting, '=', 1) IN ('search_path',
			'local_preload_libraries', 'session_preload_libraries', 'temp_tablespaces')
			THEN v.value ELSE quote_literal(v.value) END)
	FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
	CROSS JOIN unnest(s.setconfig) c(setting)
	CROSS JOIN LATERAL (SELECT substr(c.setting, position('=' IN c.setting) + 1) AS value) v
	LEFT JOIN pg_roles r ON r.oid = s.setrole
	WHERE d.datname = current_database()
		AND split_part(c.setting, '=', 1) NOT IN ('default_transaction_read_only', 'synchronous_commit')`

// pairs reads a query of two columns into a map.
func (e *examination) pairs(query string) map[string]string {
	all := map[string]string{}
	for _, row := range queryRows[struct{ Key, Value string }](e, query) {
		all[row.Key] = row.Value
	}
	return all
}

func (e *examination) sameDatabase(from, to serverFacts) {
	if from.systemIdentifier == to.systemIdentifier {
		e.add(Fatal, CodeSameServer, "", fmt.Sprintf("principal and mirror have one system identifier (%s): both DSNs lead to "+
			"the same server or to a physical copy of it; the mirror needs a server made by its own initdb", to.systemIdentifier), "")
	}
	switch {
	case to.major < from.major:
		e.add(Fatal, CodeVersion, "", fmt.Sprintf("the mirror's PostgreSQL %d is older than the principal's %d and may not "+
			"understand its schema; use the same major version", to.major, from.major), "")
	case to.major > from.major:
		e.add(Warning, CodeVersion, "", fmt.Sprintf("the mirror's PostgreSQL %d is newer than the principal's %d: after a role "+
			"switch the old principal can be kept up to date but not be seeded again", to.major, from.major), "")
	}
}

// sameText compares what decides how text is stored, compared and sorted. Indexes are built by the mirror itself, so a
// different version of the same collation only changes the order of rows, ranges and checks.
func (e *examination) sameText(from, to serverFacts) {
	if from.encoding != to.encoding {
		e.add(Fatal, CodeEncoding, to.database, fmt.Sprintf("its encoding is %s, the principal's %s; make the mirror's database "+
			"again", to.encoding, from.encoding), createDatabase(from, to))
	}
	type locale struct{ provider, collate, ctype, icu string }
	ours := locale{to.provider, to.collate, to.ctype, to.icu}
	theirs := locale{from.provider, from.collate, from.ctype, from.icu}
	switch {
	case ours != theirs:
		e.add(Fatal, CodeCollation, to.database, fmt.Sprintf("its collation is %s, the principal's %s; make the mirror's database "+
			"again", to.locale(), from.locale()), createDatabase(from, to))
	case from.collationVersion != to.collationVersion:
		e.add(Warning, CodeCollation, to.database, fmt.Sprintf("its collation has version %q, the principal's %q: text may sort "+
			"differently, so ranges of text partitions and checks may too", to.collationVersion, from.collationVersion), "")
	}
}

func (f serverFacts) locale() string {
	if f.icu != "" {
		return fmt.Sprintf("%s/%s (provider %s, %s)", f.collate, f.ctype, f.provider, f.icu)
	}
	return fmt.Sprintf("%s/%s", f.collate, f.ctype)
}

// createDatabase is the statement that makes the mirror's database fit. The old one must be dropped or renamed first,
// and that is not proposed: it may be the wrong server.
func createDatabase(from, to serverFacts) string {
	sql := fmt.Sprintf("CREATE DATABASE %s TEMPLATE template0 ENCODING %s LC_COLLATE %s LC_CTYPE %s",
		quoteIdent(to.database), quoteLiteral(from.encoding), quoteLiteral(from.collate), quoteLiteral(from.ctype))
	switch from.provider {
	case "i":
		sql += " LOCALE_PROVIDER icu ICU_LOCALE " + quoteLiteral(from.icu)
	case "b":
		sql += " LOCALE_PROVIDER builtin BUILTIN_LOCALE " + quoteLiteral(from.icu)
	}
	return sql
}

// hasExtensions compares the principal's extensions with those that the mirror has or could make.
func (e *examination) hasExtensions(from, to serverFacts) {
	installed := map[string]string{}
	for _, x := range to.extensions {
		installed[x.Name] = x.Version
	}
	available := e.pairs("SELECT name || ' ' || version, '' FROM pg_available_extension_versions")
	known := e.pairs("SELECT name, default_version FROM pg_available_extensions")
	for _, x := range from.extensions {
		version, has := installed[x.Name]
		_, same := available[x.Name+" "+x.Version]
		_, any := known[x.Name]
		switch {
		case has && version != x.Version:
			e.add(Warning, CodeExtensionVersion, x.Name, fmt.Sprintf("version %s is not the principal's %s", version, x.Version),
				fmt.Sprintf("ALTER EXTENSION %s UPDATE TO %s", quoteIdent(x.Name), quoteLiteral(x.Version)))
		case !has && !any:
			e.add(Fatal, CodeExtension, x.Name, "the mirror's server does not have it; install its package there", "")
		case !has && !same:
			e.add(Warning, CodeExtensionVersion, x.Name, fmt.Sprintf("the mirror's server does not have the principal's version %s; "+
				"the baseline will create %s", x.Version, known[x.Name]), "")
		}
	}
}

// hasRoles looks for roles that own something in the principal's database, or are granted something in it, and that the
// mirror's server lacks. Passwords are not compared: they belong to the server, not to the database.
func (e *examination) hasRoles(from, to serverFacts) {
	for _, role := range slices.Sorted(maps.Keys(from.usedRoles)) {
		if _, has := to.roles[role]; !has {
			e.add(Fatal, CodeMissingRole, role, "the principal's database uses this role and the mirror's server does not have it",
				from.usedRoles[role])
		}
	}
}

func (e *examination) hasTablespaces(from, to serverFacts) {
	for _, name := range slices.Sorted(maps.Keys(from.usedTablespaces)) {
		if _, has := to.tablespaces[name]; !has {
			e.add(Info, CodeTablespace, name, "what is in this tablespace will be in the default one of the mirror's database", "")
		}
	}
}

// hasSettings compares the settings of the two databases, which no dump of a schema carries.
func (e *examination) hasSettings(from, to serverFacts) {
	database := quoteIdent(to.database)
	for _, key := range slices.Sorted(maps.Keys(from.databaseSettings)) {
		set := from.databaseSettings[key]
		if to.databaseSettings[key] == set {
			continue
		}
		target := "ALTER DATABASE " + database
		if space := strings.LastIndexByte(key, ' '); space > 0 {
			target = "ALTER ROLE " + key[:space] + " IN DATABASE " + database
		}
		e.add(Warning, CodeDatabaseSetting, key, "the principal's database has this setting, the mirror's does not or not the same",
			target+" "+set)
	}
}

// hasOwnerAndGrants compares who may connect to the two databases and who owns them: no dump of a schema carries that
// either, and after a failover the same clients must be let in, and no others.
func (e *examination) hasOwnerAndGrants(from, to serverFacts) {
	database := quoteIdent(to.database)
	if from.owner != to.owner {
		e.add(Warning, CodeDatabaseGrants, to.owner, "it owns the mirror's database; the owner of the principal's is "+from.owner,
			"ALTER DATABASE "+database+" OWNER TO "+from.owner)
		return // the rights of owners are not listed, so the lists would differ for that alone
	}
	all := maps.Clone(from.databaseGrants)
	maps.Copy(all, to.databaseGrants)
	for _, role := range slices.Sorted(maps.Keys(all)) {
		want, has := from.databaseGrants[role], to.databaseGrants[role]
		if want == has {
			continue
		}
		sql := fmt.Sprintf("REVOKE ALL ON DATABASE %s FROM %s", database, role)
		if want != "" {
			sql += fmt.Sprintf("; GRANT %s ON DATABASE %s TO %s", want, database, role)
		}
		e.add(Warning, CodeDatabaseGrants, role, fmt.Sprintf("on the mirror's database it may do %q, on the principal's %q", has, want), sql)
	}
}

// content looks at what is in the mirror's database.
func (e *examination) content(content MirrorContent) {
	if content == MirrorAdopted {
		e.each(Fatal, CodeIncompleteBaseline, `SELECT format('%I', current_database()), 'the database is what a baseline that failed '
				|| 'has left; run the baseline again, replacing what is there', ''
			WHERE to_regclass('dbmirror.incomplete_baseline') IS NOT NULL`)
	}
	if content != MirrorEmpty {
		return
	}
	e.each(Fatal, CodeMirrorNotEmpty, `SELECT format('%I', current_database()), 'the database holds ' || count(*)
			|| ' object(s) such as ' || min(name) || '; use an empty one, or order that its content be replaced (Limits.Replace)', ''
		FROM (`+ownObjects+`) o HAVING count(*) > 0`)
}
