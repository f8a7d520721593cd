package pglog

import (
	"fmt"
	"strconv"
	"strings"
)

// oldestMajor and newestMajor bound what is supported, both included.
const oldestMajor, newestMajor = 15, 18

// oldestMinor returns the first minor release of a major version that carries every fix the mirroring rests on: an
// older one can acknowledge commits after a start before synchronous_standby_names is in force.
func oldestMinor(major int) int {
	switch major {
	case 15:
		return 13
	case 16:
		return 9
	case 17:
		return 5
	}
	return 0
}

// server examines what belongs to the whole server: version and settings. The settings that a finding tells to change
// take effect with a reload of the configuration, unless its text says with a restart.
func (e *examination) server(cfg PreflightConfig) {
	e.version()
	e.recovery()
	e.walLevel()
	e.room(cfg.Slots)
	e.syncNames()
	e.syncCommit(cfg)
	e.durability()
	e.slotLimits(cfg)
	e.outputPlugin()
	e.blockers(cfg)
}

func (e *examination) version() {
	var number int
	e.one([]any{&number}, "SELECT current_setting('server_version_num')::int")
	if e.err == nil {
		e.versionNumber(number)
	}
}

func (e *examination) versionNumber(number int) {
	major, minor := number/10000, number%10000
	switch {
	case major < oldestMajor || major > newestMajor:
		e.add(Fatal, CodeVersion, "", fmt.Sprintf("PostgreSQL %d.%d is not supported; use version %d to %d",
			major, minor, oldestMajor, newestMajor), "")
	case minor < oldestMinor(major):
		e.add(Warning, CodeVersion, "", fmt.Sprintf("PostgreSQL %d.%d can acknowledge commits right after a start before "+
			"they wait for the mirror; update to %d.%d or newer", major, minor, major, oldestMinor(major)), "")
	}
}

func (e *examination) recovery() {
	var in bool
	e.one([]any{&in}, "SELECT pg_is_in_recovery()")
	if in {
		e.add(Fatal, CodeRecovery, "", "the server is in recovery (a physical standby) and cannot be a partner; "+
			"use the DSN of a server of its own", "")
	}
}

func (e *examination) walLevel() {
	e.each(Fatal, CodeWALLevel, `SELECT 'wal_level', 'wal_level is ' || setting
		|| ' and logical decoding needs logical; it takes effect with a restart', 'ALTER SYSTEM SET wal_level = logical'
		FROM pg_settings WHERE name = 'wal_level' AND setting <> 'logical'`)
}

// room looks for free replication slots and WAL senders. More than are free may be configured: what another user of the
// server needs at the same time is not known here.
func (e *examination) room(need int) {
	const query = `SELECT name, 'of ' || setting || ' only ' || setting::int - used || ' are free and ' || $1::int
			|| ' are needed; the change takes effect with a restart',
			format('ALTER SYSTEM SET %I = %s', name, used + $1::int)
		FROM pg_settings, LATERAL (`
	e.each(Fatal, CodeSlots, query+`SELECT count(*)::int AS used FROM pg_replication_slots) u
		WHERE name = 'max_replication_slots' AND setting::int - used < $1::int`, need)
	e.each(Fatal, CodeSenders, query+`SELECT count(*)::int AS used FROM pg_stat_activity WHERE backend_type = 'walsender') u
		WHERE name = 'max_wal_senders' AND setting::int - used < $1::int`, need)
}

// syncNames reports what is already in synchronous_standby_names, and a value that ALTER SYSTEM cannot change because
// it was given on the command line.
func (e *examination) syncNames() {
	e.each(Fatal, CodeSyncNames, `SELECT name, 'it is fixed on the server''s command line, so commits cannot be made to wait '
			|| 'for the mirror; remove it there', ''
		FROM pg_settings WHERE name = 'synchronous_standby_names' AND source IN ('command line', 'environment variable')`)
	e.each(Warning, CodeSyncNames, `SELECT name, 'commits of the whole server already wait for ' || setting
			|| '; these names are kept and each of them is waited for beside the mirror', ''
		FROM pg_settings WHERE name = 'synchronous_standby_names' AND setting NOT IN ('', '*')
			AND position('dbmirror' IN setting) = 0 AND source NOT IN ('command line', 'environment variable')`)
	e.each(Fatal, CodeSyncNames, `SELECT name, 'it is *, which lets any replication client release commits in the mirror''s '
			|| 'place', 'ALTER SYSTEM SET synchronous_standby_names = '''''
		FROM pg_settings WHERE name = 'synchronous_standby_names' AND setting = '*'`)
}

// syncCommit looks for settings that let commits be acknowledged without the mirror. That of the role that looks is
// left out: its own sessions run with local on purpose.
func (e *examination) syncCommit(cfg PreflightConfig) {
	severity := Fatal
	if cfg.SafetyOff {
		severity = Warning
	}
	if value := e.serverSyncCommit(); value == "off" || value == "local" {
		e.add(severity, CodeSyncCommit, "synchronous_commit", "it is "+value+" for the server, so commits are acknowledged before "+
			"the mirror has them", "ALTER SYSTEM SET synchronous_commit = 'on'")
	}
	e.each(Warning, CodeSyncCommit, `SELECT concat_ws(' in ', quote_ident(r.rolname), quote_ident(d.datname)),
			'its commits run with ' || c.setting || ', so they are acknowledged before the mirror has them',
			CASE WHEN r.oid IS NULL THEN format('ALTER DATABASE %I RESET synchronous_commit', d.datname)
				WHEN d.oid IS NULL THEN format('ALTER ROLE %I RESET synchronous_commit', r.rolname)
				ELSE format('ALTER ROLE %I IN DATABASE %I RESET synchronous_commit', r.rolname, d.datname) END
		FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) c(setting)
		LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase
		WHERE c.setting IN ('synchronous_commit=off', 'synchronous_commit=local')
			AND (s.setdatabase = 0 OR d.datname = current_database()) AND r.rolname IS DISTINCT FROM current_user`)
}

// serverSyncCommit returns what sessions get that set nothing themselves, as far as this role may know it: this session
// may have set it.
func (e *examination) serverSyncCommit() (value string) {
	var source string
	var mayRead bool
	e.one([]any{&source, &value, &mayRead}, `SELECT source, setting,
			has_function_privilege('pg_show_all_file_settings()', 'EXECUTE')
		FROM pg_settings WHERE name = 'synchronous_commit'`)
	switch {
	case source == "default", source == "configuration file", source == "command line", source == "environment variable":
		return value
	case !mayRead:
		return ""
	}
	e.one([]any{&value}, `SELECT coalesce((SELECT setting FROM pg_file_settings
		WHERE name = 'synchronous_commit' AND applied), 'on')`)
	return value
}

func (e *examination) durability() {
	e.each(Warning, CodeDurability, `SELECT name, name || ' is off: a crash of the server can destroy the database',
			format('ALTER SYSTEM SET %I = ''on''', name)
		FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'`)
}

// slotLimits compares what the server itself does to slots with what the session needs of them.
func (e *examination) slotLimits(cfg PreflightConfig) {
	e.each(Info, CodeMaxSlotWALKeepSize, `SELECT name, 'without a limit only the session''s own log budget keeps a slot from '
			|| 'filling the disk', ''
		FROM pg_settings WHERE name = 'max_slot_wal_keep_size' AND setting = '-1'`)
	e.each(Warning, CodeMaxSlotWALKeepSize, `SELECT name, 'the server drops the log the mirror needs after ' || setting
			|| ' MB, before the session''s log budget of ' || $1::bigint || ' MB is used',
			format('ALTER SYSTEM SET max_slot_wal_keep_size = %L', (($1::bigint + 1) * 5 / 4)::text || 'MB')
		FROM pg_settings WHERE name = 'max_slot_wal_keep_size' AND setting <> '-1'
			AND setting::bigint < $1::bigint`, cfg.LogBudget>>20)
	e.each(Warning, CodeIdleSlotTimeout, `SELECT name, 'the server drops the slot of a mirror that is away for ' || setting
			|| ' ' || coalesce(unit, 's') || '; the mirror then needs a new baseline',
			'ALTER SYSTEM SET idle_replication_slot_timeout = 0'
		FROM pg_settings WHERE name = 'idle_replication_slot_timeout' AND setting <> '0'`)
}

// outputPlugin reads the list of allowed plugins that newer releases have.
func (e *examination) outputPlugin() {
	for _, row := range queryRows[struct{ Setting string }](e,
		"SELECT setting FROM pg_settings WHERE name = 'output_plugin_libraries'") {
		e.outputPlugins(row.Setting)
	}
}

func (e *examination) outputPlugins(allowed string) {
	for plugin := range strings.SplitSeq(allowed, ",") {
		if strings.Trim(plugin, ` "`) == "pgoutput" {
			return
		}
	}
	e.add(Fatal, CodeOutputPlugin, "output_plugin_libraries", "it does not allow pgoutput, by which the log is read",
		"ALTER SYSTEM SET output_plugin_libraries = 'pgoutput'")
}

// blockers looks for what holds up the making of a slot, in every database of the server.
func (e *examination) blockers(cfg PreflightConfig) {
	e.each(Fatal, CodePrepared, `SELECT quote_ident(database) || ' ' || quote_literal(gid),
			'a prepared transaction holds up the making of the slot until it ends, and the mirror never sees it as prepared',
			format('ROLLBACK PREPARED %L', gid)
		FROM pg_prepared_xacts`)
	e.each(Info, CodePrepared, `SELECT name, 'prepared transactions reach the mirror only when they commit; one that is still '
			|| 'prepared at a failover is lost', ''
		FROM pg_settings WHERE name = 'max_prepared_transactions' AND setting <> '0'`)
	e.each(Warning, CodeLongTransaction, `SELECT 'pid ' || pid, 'a transaction of ' || coalesce(quote_ident(usename), '?')
			|| ' that began ' || xact_start || ' holds up the making of the slot until it ends',
			format('SELECT pg_terminate_backend(%s)', pid)
		FROM pg_stat_activity
		WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() AND clock_timestamp() - xact_start >= $1::interval`,
		strconv.FormatInt(cfg.LongTransaction.Microseconds(), 10)+" microseconds")
}
