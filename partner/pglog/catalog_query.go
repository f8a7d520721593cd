package pglog

// Each query returns kind, object and definition. The functions that write definitions qualify every name that is not
// in search_path, which is pg_catalog alone here. notOfExtension leaves out what CREATE EXTENSION makes.
const (
	catalogQuery = tableLines + union + columnLines + union + constraintLines + union + indexLines + union +
		identityLines + union + typeLines + union + enumLines + union + routineLines + union + aggregateLines + union +
		viewLines + union + triggerLines + union + ruleLines + union + policyLines + union + sequenceLines + union +
		schemaLines + union + extensionLines + union + statisticsLines + union + eventTriggerLines

	union = "\nUNION ALL\n"

	notOfExtension = ` AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.deptype = 'e'
		AND e.objid = c.oid AND e.classid = c.tableoid)`

	tableLines = `SELECT 'table', name, concat_ws(' ', CASE c.relkind WHEN 'p' THEN 'partitioned by ' || pg_get_partkeydef(c.oid)
				WHEN 'f' THEN 'foreign' END, CASE c.relpersistence WHEN 'u' THEN 'unlogged' END,
			CASE WHEN c.relrowsecurity THEN 'row security' END, CASE WHEN c.relforcerowsecurity THEN 'forced' END,
			'of ' || nullif(c.reloftype, 0)::regtype::text, 'inherits ' || (SELECT string_agg(i.inhparent::regclass::text, ', '
				ORDER BY i.inhseqno) FROM pg_inherits i WHERE i.inhrelid = c.oid), pg_get_expr(c.relpartbound, c.oid))` +
		userRelations + `WHERE c.relkind IN ('r', 'p', 'f')` + notOfExtension

	// Generated columns of views and matviews do not exist; their columns follow from their definition.
	columnLines = `SELECT 'column', name || '.' || quote_ident(a.attname), concat_ws(' ', format_type(a.atttypid, a.atttypmod),
			'collate ' || (SELECT format('%I.%I', cn.nspname, l.collname) FROM pg_collation l JOIN pg_namespace cn
				ON cn.oid = l.collnamespace WHERE l.oid = a.attcollation AND l.oid <> 100),
			CASE WHEN a.attnotnull THEN 'not null' END, 'identity ' || nullif(a.attidentity::text, ''),
			'generated ' || nullif(a.attgenerated::text, ''), 'default ' || pg_get_expr(d.adbin, d.adrelid))` +
		userRelations + `JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
			LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
		WHERE c.relkind IN ('r', 'p', 'f')` + notOfExtension

	// Version 18 stores NOT NULL as constraints; the column has it in every version.
	constraintLines = `SELECT CASE WHEN k.contype IN ('p', 'u', 'x') THEN 'key' ELSE 'constraint' END,
			name || '.' || quote_ident(k.conname), pg_get_constraintdef(k.oid)` +
		userRelations + `JOIN pg_constraint k ON k.conrelid = c.oid
		WHERE k.contype NOT IN ('t', 'n') AND c.relkind IN ('r', 'p', 'f')` + notOfExtension

	indexLines = `SELECT CASE WHEN i.indisunique THEN 'unique index' ELSE 'index' END, i.indexrelid::regclass::text,
			pg_get_indexdef(i.indexrelid)` + userRelations + `JOIN pg_index i ON i.indrelid = c.oid
		WHERE c.relkind IN ('r', 'p', 'm')` + notOfExtension

	identityLines = `SELECT 'replica identity', name, concat_ws(' ', c.relreplident, (SELECT i.indexrelid::regclass::text
			FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident))` + userRelations + `
		WHERE c.relkind IN ('r', 'p')` + notOfExtension

	typeLines = `SELECT 'type', format_type(c.oid, NULL), concat_ws(' ', c.typtype, 'over ' || nullif(c.typbasetype, 0)::regtype::text,
			CASE WHEN c.typbasetype <> 0 THEN format_type(c.typbasetype, c.typtypmod) END,
			CASE WHEN c.typnotnull THEN 'not null' END, 'default ' || c.typdefault,
			(SELECT string_agg(pg_get_constraintdef(k.oid), ', ' ORDER BY k.conname) FROM pg_constraint k
				WHERE k.contypid = c.oid AND k.contype <> 'n'),
			(SELECT string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum)
				FROM pg_attribute a WHERE a.attrelid = r.oid AND NOT a.attisdropped),
			(SELECT g.rngsubtype::regtype FROM pg_range g WHERE g.rngtypid = c.oid))
		FROM pg_type c JOIN pg_namespace n ON n.oid = c.typnamespace AND ` + inUserSchema + `
			LEFT JOIN pg_class r ON r.oid = c.typrelid
		WHERE c.typtype IN ('d', 'c', 'r', 'b', 'e') AND coalesce(r.relkind, 'c') = 'c' AND c.typcategory <> 'A'` + notOfExtension

	enumLines = `SELECT 'type', format_type(c.oid, NULL) || ' labels', string_agg(quote_literal(l.enumlabel), ', '
			ORDER BY l.enumsortorder) FROM pg_type c JOIN pg_namespace n ON n.oid = c.typnamespace AND ` + inUserSchema + `
			JOIN pg_enum l ON l.enumtypid = c.oid WHERE true` + notOfExtension + ` GROUP BY c.oid`

	routineLines = `SELECT 'routine', c.oid::regprocedure::text, pg_get_functiondef(c.oid)
		FROM pg_proc c JOIN pg_namespace n ON n.oid = c.pronamespace AND ` + inUserSchema + `
		WHERE c.prokind <> 'a'` + notOfExtension

	aggregateLines = `SELECT 'aggregate', c.oid::regprocedure::text, concat_ws(' ', a.aggtransfn::regproc, a.aggfinalfn::regproc,
			a.aggtranstype::regtype, a.agginitval)
		FROM pg_proc c JOIN pg_namespace n ON n.oid = c.pronamespace AND ` + inUserSchema + `
			JOIN pg_aggregate a ON a.aggfnoid = c.oid WHERE true` + notOfExtension

	viewLines = `SELECT CASE c.relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END, name, pg_get_viewdef(c.oid)` +
		userRelations + `WHERE c.relkind IN ('v', 'm')` + notOfExtension

	triggerLines = `SELECT 'trigger', name || '.' || quote_ident(t.tgname), pg_get_triggerdef(t.oid) || ' ' || t.tgenabled::text` +
		userRelations + `JOIN pg_trigger t ON t.tgrelid = c.oid WHERE NOT t.tgisinternal` + notOfExtension

	ruleLines = `SELECT 'rule', name || '.' || quote_ident(r.rulename), pg_get_ruledef(r.oid) || ' ' || r.ev_enabled::text` +
		userRelations + `JOIN pg_rewrite r ON r.ev_class = c.oid WHERE r.rulename <> '_RETURN'` + notOfExtension

	policyLines = `SELECT 'policy', name || '.' || quote_ident(p.polname), concat_ws(' ', p.polcmd, p.polpermissive,
			(SELECT string_agg(CASE o WHEN 0 THEN 'public' ELSE o::regrole::text END, ', ' ORDER BY o::regrole::text)
				FROM unnest(p.polroles) o),
			pg_get_expr(p.polqual, p.polrelid), 'check ' || pg_get_expr(p.polwithcheck, p.polrelid))` +
		userRelations + `JOIN pg_policy p ON p.polrelid = c.oid WHERE true` + notOfExtension

	sequenceLines = `SELECT 'sequence', name, concat_ws(' ', s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmin, s.seqmax,
			s.seqcache, s.seqcycle)` + userRelations + `JOIN pg_sequence s ON s.seqrelid = c.oid WHERE true` + notOfExtension

	schemaLines = `SELECT 'schema', quote_ident(nspname), '' FROM pg_namespace c
		WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'dbmirror')` + notOfExtension

	extensionLines = `SELECT 'extension', quote_ident(extname), extversion || ' ' || extnamespace::regnamespace::text FROM pg_extension`

	statisticsLines = `SELECT 'statistics', format('%I.%I', n.nspname, c.stxname), pg_get_statisticsobjdef(c.oid)
		FROM pg_statistic_ext c JOIN pg_namespace n ON n.oid = c.stxnamespace AND ` + inUserSchema + ` WHERE true` + notOfExtension

	eventTriggerLines = `SELECT 'event trigger', quote_ident(c.evtname), concat_ws(' ', c.evtevent, c.evtenabled, c.evttags,
			c.evtfoid::regprocedure)
		FROM pg_event_trigger c JOIN pg_proc p ON p.oid = c.evtfoid JOIN pg_namespace n ON n.oid = p.pronamespace
		WHERE n.nspname <> 'dbmirror'` + notOfExtension
)
