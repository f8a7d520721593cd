package pglog

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
)

// BaselineIncomplete tells whether the database that conn is connected to is the left-over of a baseline that began to
// change it and did not end.
func BaselineIncomplete(ctx context.Context, conn *pgx.Conn) (bool, error) {
	var incomplete bool
	err := conn.QueryRow(ctx, "SELECT pg_catalog.to_regclass('dbmirror.incomplete_baseline') IS NOT NULL").Scan(&incomplete)
	if err != nil {
		return false, fmt.Errorf("look for an incomplete baseline: %w", err)
	}
	return incomplete, nil
}

// clearTarget leaves the mirror's database empty, or refuses, and marks it as incomplete before the first change.
func (b *baseline) clearTarget(ctx context.Context) error {
	if err := b.refuseSameDatabase(ctx); err != nil {
		return err
	}
	var name string
	err := b.target.QueryRow(ctx, "SELECT name FROM ("+ownObjects+") o LIMIT 1").Scan(&name)
	switch {
	case err == nil && !b.cfg.Replace:
		return fmt.Errorf("%w (it holds %s)", ErrMirrorNotEmpty, name)
	case err != nil && !errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("look at the mirror's database: %w", err)
	}
	b.changed = true
	_, err = b.target.Exec(ctx, `CREATE SCHEMA IF NOT EXISTS dbmirror;
		CREATE TABLE IF NOT EXISTS dbmirror.incomplete_baseline (since timestamptz PRIMARY KEY)`, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return fmt.Errorf("mark the mirror's database as incomplete: %w", err)
	}
	crashpoint.Hit(crashpoint.CopyMarked)
	if err := b.dropOwnObjects(ctx); err != nil {
		return err
	}
	return b.resetPrivileges(ctx)
}

// refuseSameDatabase keeps a mistaken connection string from emptying the principal.
func (b *baseline) refuseSameDatabase(ctx context.Context) error {
	var identities [2]string
	for i, conn := range []*pgx.Conn{b.source, b.target} {
		err := conn.QueryRow(ctx, `SELECT format('%s/%s', system_identifier, d.oid)
			FROM pg_control_system(), pg_database d WHERE d.datname = current_database()`).Scan(&identities[i])
		if err != nil {
			return fmt.Errorf("identify database: %w", err)
		}
	}
	if identities[0] == identities[1] {
		return errors.New("both connection strings lead to the same database, or to a physical copy of it: " +
			"name the mirror's own server")
	}
	return nil
}

// ownObjects lists what users have in a database: the SQL type of object, its name, and whether it can be dropped. Parts
// of other objects (deptype i) and of extensions (e) are left out, and so is everything of schema dbmirror. Schema public
// is there from the start and is no content.
const ownObjects = `SELECT i.type, i.type || ' ' || i.identity AS name, 'DROP ' || CASE i.type
			WHEN 'function' THEN 'ROUTINE' WHEN 'procedure' THEN 'ROUTINE' WHEN 'aggregate' THEN 'ROUTINE'
			WHEN 'statistics object' THEN 'STATISTICS' WHEN 'foreign-data wrapper' THEN 'FOREIGN DATA WRAPPER'
			ELSE upper(i.type) END || ' IF EXISTS '
			|| CASE i.type WHEN 'transform' THEN replace(i.identity, ' on language ', ' language ') ELSE i.identity END
			|| ' CASCADE' AS statement
		FROM (
			SELECT t.tableoid, t.oid FROM pg_event_trigger t JOIN pg_proc p ON p.oid = t.evtfoid
				JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname <> 'dbmirror'
			UNION ALL SELECT c.tableoid, c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace AND ` + inUserSchema + `
				WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
			UNION ALL SELECT c.tableoid, c.oid FROM pg_proc c JOIN pg_namespace n ON n.oid = pronamespace AND ` + inUserSchema + `
			UNION ALL SELECT c.tableoid, c.oid FROM pg_type c JOIN pg_namespace n ON n.oid = typnamespace AND ` + inUserSchema + `
				LEFT JOIN pg_class r ON r.oid = c.typrelid
				WHERE typtype <> 'm' AND coalesce(r.relkind, 'c') = 'c'
					AND NOT EXISTS (SELECT FROM pg_type a WHERE a.typarray = c.oid)
			UNION ALL SELECT c.tableoid, c.oid FROM pg_operator c JOIN pg_namespace n ON n.oid = oprnamespace AND ` + inUserSchema + `
			UNION ALL SELECT c.tableoid, c.oid FROM pg_opclass c JOIN pg_namespace n ON n.oid = opcnamespace AND ` + inUserSchema + `
			UNION ALL SELECT c.tableoid, c.oid FROM pg_opfamily c JOIN pg_namespace n ON n.oid = opfnamespace AND ` + inUserSchema + `
			UNION ALL SELECT c.tableoid, c.oid FROM pg_collation c JOIN pg_namespace n ON n.oid = collnamespace AND ` + inUserSchema + `
			UNION ALL SELECT c.tableoid, c.oid FROM pg_conversion c JOIN pg_namespace n ON n.oid = connamespace AND ` + inUserSchema + `
			UNION ALL SELECT c.tableoid, c.oid FROM pg_ts_config c JOIN pg_namespace n ON n.oid = cfgnamespace AND ` + inUserSchema + `
			UNION ALL SELECT c.tableoid, c.oid FROM pg_ts_dict c JOIN pg_namespace n ON n.oid = dictnamespace AND ` + inUserSchema + `
			UNION ALL SELECT c.tableoid, c.oid FROM pg_ts_parser c JOIN pg_namespace n ON n.oid = prsnamespace AND ` + inUserSchema + `
			UNION ALL SELECT c.tableoid, c.oid FROM pg_ts_template c JOIN pg_namespace n ON n.oid = tmplnamespace AND ` + inUserSchema + `
			UNION ALL SELECT c.tableoid, c.oid FROM pg_statistic_ext c JOIN pg_namespace n ON n.oid = stxnamespace AND ` + inUserSchema + `
			UNION ALL SELECT tableoid, oid FROM pg_cast WHERE oid >= 16384
			UNION ALL SELECT tableoid, oid FROM pg_transform WHERE oid >= 16384
			UNION ALL SELECT tableoid, oid FROM pg_foreign_data_wrapper
			UNION ALL SELECT tableoid, oid FROM pg_foreign_server
			UNION ALL SELECT tableoid, oid FROM pg_language WHERE oid >= 16384
			UNION ALL SELECT tableoid, oid FROM pg_am WHERE oid >= 16384
			UNION ALL SELECT tableoid, oid FROM pg_namespace n WHERE ` + inUserSchema + ` AND nspname <> 'public'
				AND NOT EXISTS (SELECT FROM pg_extension WHERE extnamespace = n.oid)
		) o(class, oid), pg_identify_object(o.class, o.oid, 0) i
		WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = o.class AND d.objid = o.oid AND d.objsubid = 0
			AND d.deptype IN ('e', 'i'))`

// dropOwnObjects drops object by object, because a schema may also hold an extension, which stays. Dropping one takes
// others with it, hence IF EXISTS, and a drop that names a dropped type fails harmlessly: what counts is that a look
// afterwards finds less than before, and at last nothing.
func (b *baseline) dropOwnObjects(ctx context.Context) error {
	var failure error
	for left := -1; ; {
		rows, err := b.target.Query(ctx, "SELECT statement FROM ("+ownObjects+") o")
		if err != nil {
			return fmt.Errorf("list what to drop: %w", err)
		}
		drops, err := pgx.CollectRows(rows, pgx.RowTo[string])
		switch {
		case err != nil:
			return fmt.Errorf("list what to drop: %w", err)
		case len(drops) == 0:
			return nil
		case len(drops) == left:
			return fmt.Errorf("drop the mirror's old content: %d objects remain: %w", left, failure)
		}
		left, failure = len(drops), nil
		for _, drop := range drops {
			if _, err := b.target.Exec(ctx, drop, pgx.QueryExecModeSimpleProtocol); err != nil {
				failure = errors.Join(failure, err)
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// resetPrivileges takes schema public and default privileges back to what a new database has: the dump of the schema
// holds only what differs from that.
func (b *baseline) resetPrivileges(ctx context.Context) error {
	rows, err := b.target.Query(ctx, defaultPrivilegeResets)
	if err != nil {
		return fmt.Errorf("list privileges: %w", err)
	}
	statements, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("list privileges: %w", err)
	}
	for _, statement := range statements {
		if _, err := b.target.Exec(ctx, statement, pgx.QueryExecModeSimpleProtocol); err != nil {
			return fmt.Errorf("reset privileges: %w", err)
		}
	}
	return nil
}

// defaultPrivilegeResets lists the statements. A default privilege without a schema replaces PostgreSQL's own default,
// which is therefore granted again.
const defaultPrivilegeResets = `SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %I%s REVOKE ALL ON %s FROM %s', r.rolname,
			' IN SCHEMA ' || nullif(d.defaclnamespace, 0)::regnamespace, k.kind, string_agg(DISTINCT CASE a.grantee
				WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END, ', '))
			|| CASE WHEN d.defaclnamespace <> 0 THEN '' ELSE format(
				'; ALTER DEFAULT PRIVILEGES FOR ROLE %1$I GRANT ALL ON %2$s TO %1$I', r.rolname, k.kind)
				|| CASE WHEN k.kind IN ('FUNCTIONS', 'TYPES') THEN format(
				'; ALTER DEFAULT PRIVILEGES FOR ROLE %I GRANT ALL ON %s TO PUBLIC', r.rolname, k.kind) ELSE '' END END
		FROM pg_default_acl d JOIN pg_roles r ON r.oid = d.defaclrole CROSS JOIN aclexplode(d.defaclacl) a
		JOIN (VALUES ('r', 'TABLES'), ('S', 'SEQUENCES'), ('f', 'FUNCTIONS'), ('T', 'TYPES'), ('n', 'SCHEMAS'))
			k(type, kind) ON k.type = d.defaclobjtype::text
		GROUP BY d.oid, r.rolname, d.defaclnamespace, k.kind
	UNION ALL SELECT format('REVOKE ALL ON SCHEMA public FROM %s CASCADE', string_agg(DISTINCT CASE a.grantee
			WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END, ', '))
		FROM pg_namespace n CROSS JOIN aclexplode(n.nspacl) a WHERE n.nspname = 'public' HAVING count(*) > 0
	UNION ALL SELECT 'ALTER SCHEMA public OWNER TO pg_database_owner; GRANT ALL ON SCHEMA public TO pg_database_owner; '
			|| 'GRANT USAGE ON SCHEMA public TO PUBLIC'
		FROM pg_namespace WHERE nspname = 'public'
	UNION ALL SELECT 'CREATE SCHEMA public AUTHORIZATION pg_database_owner; GRANT USAGE ON SCHEMA public TO PUBLIC'
		WHERE NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'public')`
