package pglog

// rights looks for what the connected role may not do. Publishing a table needs no right to read it, so a missing SELECT
// would show only in the baseline: all of it is asked for here.
func (e *examination) rights(cfg PreflightConfig) {
	var superuser bool
	e.one([]any{&superuser}, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
	if superuser || e.err != nil {
		return
	}
	e.each(Fatal, CodeRights, `SELECT quote_ident(rolname), 'the role may not read the log',
			format('ALTER ROLE %I REPLICATION', rolname)
		FROM pg_roles WHERE rolname = current_user AND NOT rolreplication`)
	e.gateRights(cfg)
	e.each(Fatal, CodeRights, `SELECT quote_ident(current_user), 'the role may not redo without firing triggers',
			format('GRANT SET ON PARAMETER session_replication_role TO %I', current_user)
		WHERE NOT has_parameter_privilege('session_replication_role', 'SET')`)
	e.each(Fatal, CodeRights, `SELECT quote_ident(current_user), 'the role ' || why || ' without ' || role,
			format('GRANT %I TO %I', role, current_user)
		FROM (VALUES ('pg_monitor', 'cannot see what other sessions wait for'),
			('pg_signal_backend', 'cannot end sessions when the database closes')) v(role, why)
		WHERE NOT pg_has_role(current_user, role, 'USAGE')`)
	e.ownerRights()
	e.each(Fatal, CodeRights, `SELECT 'publication ' || $1::text, 'only a superuser can publish all tables; let one do it once, after '
			|| 'every table has a replica identity', format('CREATE PUBLICATION %I FOR ALL TABLES', $1::text)
		WHERE NOT EXISTS (SELECT FROM pg_publication WHERE pubname = $1::text)`, Publication)
	e.each(Warning, CodeRights, `SELECT quote_ident(current_user), 'the role is no superuser: it cannot end a superuser''s '
			|| 'session, so the database does not close while there is one', format('ALTER ROLE %I SUPERUSER', current_user)`)
}

// gateRights are those that safety FULL and the gate need of the server.
func (e *examination) gateRights(cfg PreflightConfig) {
	severity := Fatal
	if cfg.SafetyOff {
		severity = Warning
	}
	e.each(severity, CodeRights, `SELECT quote_ident(current_user), 'the role may not make commits wait for the mirror',
			format('GRANT ALTER SYSTEM ON PARAMETER synchronous_standby_names TO %I', current_user)
		WHERE NOT has_parameter_privilege('synchronous_standby_names', 'ALTER SYSTEM')`)
	e.each(severity, CodeRights, `SELECT quote_ident(current_user), 'the role may not bring changed settings into force',
			format('GRANT EXECUTE ON FUNCTION pg_catalog.pg_reload_conf() TO %I', current_user)
		WHERE NOT has_function_privilege('pg_reload_conf()', 'EXECUTE')`)
}

// ownerRights: closing the database, publishing, reading and redoing are the owner's. A grant to the owner itself is
// never needed, and one that would run in a circle cannot be missing.
func (e *examination) ownerRights() {
	e.each(Fatal, CodeRights, `SELECT format('%I', current_database()), 'the role cannot close the database, whose owner is '
			|| quote_ident(r.rolname), format('GRANT %I TO %I', r.rolname, current_user)
		FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba
		WHERE d.datname = current_database() AND NOT pg_has_role(current_user, d.datdba, 'USAGE')`)
	e.each(Fatal, CodeRights, `SELECT quote_ident(r.rolname), 'the role cannot publish or redo the ' || count(*) || ' table(s) of '
			|| quote_ident(r.rolname), format('GRANT %I TO %I', r.rolname, current_user)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.oid = c.relowner
		WHERE c.relkind IN ('r', 'p') AND `+inUserSchema+` AND NOT pg_has_role(current_user, c.relowner, 'USAGE')
		GROUP BY r.rolname ORDER BY 1`)
}
