package facts

import (
	"fmt"
	"strings"

	"github.com/stretchr/testify/require"
)

// What a role that is no superuser may not do, whatever it is granted.
func onlySuperusersMay(b *bench) {
	b.role("granted", "LOGIN REPLICATION CREATEROLE CREATEDB")
	b.exec("ALTER DATABASE "+b.name+" OWNER TO granted", "ALTER TABLE t OWNER TO granted", "GRANT pg_signal_backend, pg_monitor TO granted")
	b.t.Cleanup(func() {
		run(b.t, b.connect(b.name, "synchronous_commit", "local"), "REASSIGN OWNED BY granted TO postgres")
	})
	conn := b.connect(b.name, "user", "granted")
	super := b.connect(b.name)
	for _, statement := range []string{
		"CREATE PUBLICATION everything FOR ALL TABLES",
		fmt.Sprintf("SELECT pg_terminate_backend(%d)", super.PgConn().PID()),
		"ALTER SYSTEM SET synchronous_standby_names = ''",
		"SELECT pg_reload_conf()",
		"SET session_replication_role = replica",
	} {
		_, err := conn.Exec(b.t.Context(), statement)
		require.Equal(b.t, "42501", pgError(err), statement)
	}
	run(b.t, super, "SELECT 1")
	run(b.t, conn, "CREATE PUBLICATION one FOR TABLE t")
	b.exec("GRANT ALTER SYSTEM ON PARAMETER synchronous_standby_names TO granted", "GRANT SET ON PARAMETER session_replication_role TO granted",
		"GRANT EXECUTE ON FUNCTION pg_reload_conf() TO granted")
	run(b.t, conn, "ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()", "SET session_replication_role = replica")
	b.exec("REVOKE ALL ON PARAMETER synchronous_standby_names FROM granted", "REVOKE ALL ON PARAMETER session_replication_role FROM granted",
		"REVOKE ALL ON FUNCTION pg_reload_conf() FROM granted")
}

// Newer releases list the plugins that may decode; pgoutput is in the list unless somebody takes it out.
func pgoutputIsAllowed(b *bench) {
	oldest := map[int]int{15: 19, 16: 15, 17: 11, 18: 6}
	allowed := value[string](b, "SELECT coalesce((SELECT setting FROM pg_settings WHERE name = 'output_plugin_libraries'), 'none')")
	b.t.Logf("output_plugin_libraries of %d.%d: %s", b.major(), b.version%10000, allowed)
	if first, known := oldest[b.major()]; !known || b.version%10000 < first {
		require.Equal(b.t, "none", allowed)
		return
	}
	require.Contains(b.t, strings.Split(strings.ReplaceAll(allowed, " ", ""), ","), "pgoutput")
}

// With row_security off a copy fails where it would be cut by a policy; without, rows are missing in silence.
func rowSecurityFails(b *bench) {
	b.role("reader", "LOGIN")
	b.exec(insert, "ALTER TABLE t ENABLE ROW LEVEL SECURITY", "GRANT SELECT ON t TO reader")
	for setting, want := range map[string]string{"on": "0", "off": "42501"} {
		var seen string
		err := b.connect(b.name, "user", "reader", "row_security", setting).QueryRow(b.t.Context(), "SELECT count(*)::text FROM t").Scan(&seen)
		require.Equal(b.t, want, seen+pgError(err), setting)
	}
	require.Equal(b.t, 1, b.rows(), "a superuser sees all")
}
