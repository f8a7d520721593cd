package pglog

// inUserSchema holds for a pg_namespace n whose objects are the users' own and therefore mirrored. Names that begin
// with pg_ are PostgreSQL's; dbmirror is ours.
const inUserSchema = `n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'dbmirror')`

// userRelations is a FROM clause of all relations of users: c is pg_class, name the quoted name.
const userRelations = ` FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND ` + inUserSchema + `
	CROSS JOIN LATERAL (SELECT format('%I.%I', n.nspname, c.relname) AS name) f `

// tables examines what is in the database: first what would harm the application or the session, then what is not
// mirrored.
func (e *examination) tables() {
	e.replicaIdentity()
	e.alwaysTriggers()
	e.each(Warning, CodeUnloggedTable, `SELECT name, 'its rows are not logged and therefore not mirrored',
			format('ALTER TABLE %s SET LOGGED', name)`+userRelations+`
		WHERE c.relkind = 'r' AND c.relpersistence = 'u' ORDER BY 1`)
	e.each(Warning, CodeLargeObjects, `SELECT '', count(*) || ' large object(s) are not in the log and therefore not mirrored; '
			|| 'keep such data in bytea columns', ''
		FROM pg_largeobject_metadata HAVING count(*) > 0`)
	e.each(Warning, CodeForeignTable, `SELECT name, 'its definition is copied, its rows live elsewhere', ''`+userRelations+`
		WHERE c.relkind = 'f' ORDER BY 1`)
	e.each(Info, CodeMaterializedView, `SELECT name, 'it is filled by the baseline and afterwards only by a REFRESH on the '
			|| 'server that serves', ''`+userRelations+`
		WHERE c.relkind = 'm' ORDER BY 1`)
	e.each(Info, CodeGeneratedColumn, `SELECT name || '.' || quote_ident(a.attname), 'its values are computed by each server',
			''`+userRelations+`JOIN pg_attribute a ON a.attrelid = c.oid AND a.attgenerated <> '' AND NOT a.attisdropped
		WHERE c.relkind IN ('r', 'p') ORDER BY 1`)
	e.each(Info, CodePartitioned, `SELECT name, 'it is mirrored partition by partition; partitions attached or detached '
			|| 'later are DDL', ''`+userRelations+`
		WHERE c.relkind = 'p' ORDER BY 1`)
	e.each(Warning, CodeSequenceCycle, `SELECT name, 'after a failover it can hand out a value a second time',
			format('ALTER SEQUENCE %s NO CYCLE', name)`+userRelations+`JOIN pg_sequence s ON s.seqrelid = c.oid
		WHERE s.seqcycle ORDER BY 1`)
}

// replicaIdentity looks for tables whose updates and deletes the server would refuse once they are published. A
// deferrable key is no identity to PostgreSQL.
func (e *examination) replicaIdentity() {
	e.each(Fatal, CodeReplicaIdentity, `SELECT name, CASE c.relreplident
				WHEN 'n' THEN 'its replica identity is NOTHING'
				WHEN 'i' THEN 'the index of its replica identity is gone'
				ELSE 'it has no primary key' || CASE WHEN EXISTS (
					SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary) THEN ' that is not deferrable' ELSE '' END
			END || ', so every UPDATE and DELETE by the application would fail once it is published; add a primary key, or let the whole row be the key',
			format('ALTER TABLE %s REPLICA IDENTITY FULL', name)`+userRelations+`
		WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.relreplident <> 'f' AND NOT EXISTS (
			SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
				AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident))
		ORDER BY 1`)
}

// alwaysTriggers looks for triggers and rules that redo would fire a second time on the mirror.
func (e *examination) alwaysTriggers() {
	const cause = `'it fires on the mirror too, where its effects have come by the log already'`
	e.each(Warning, CodeAlwaysTrigger, `SELECT name || '.' || quote_ident(t.tgname), `+cause+`,
			format('ALTER TABLE %s ENABLE TRIGGER %I', name, t.tgname)`+userRelations+`JOIN pg_trigger t ON t.tgrelid = c.oid
		WHERE t.tgenabled IN ('A', 'R') AND NOT t.tgisinternal AND t.tgparentid = 0 ORDER BY 1`)
	e.each(Warning, CodeAlwaysTrigger, `SELECT name || '.' || quote_ident(r.rulename), `+cause+`,
			format('ALTER TABLE %s ENABLE RULE %I', name, r.rulename)`+userRelations+`JOIN pg_rewrite r ON r.ev_class = c.oid
		WHERE r.ev_enabled IN ('A', 'R') AND r.rulename <> '_RETURN' ORDER BY 1`)
	e.each(Warning, CodeAlwaysTrigger, `SELECT quote_ident(t.evtname), `+cause+`,
			format('ALTER EVENT TRIGGER %I ENABLE', t.evtname)
		FROM pg_event_trigger t JOIN pg_proc p ON p.oid = t.evtfoid JOIN pg_namespace n ON n.oid = p.pronamespace
		WHERE t.evtenabled IN ('A', 'R') AND n.nspname <> 'dbmirror' ORDER BY 1`)
}
