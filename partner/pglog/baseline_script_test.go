package pglog

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestSplitScript(t *testing.T) {
	for _, c := range []struct {
		name, script string
		want         []string
	}{
		{"nothing", " \n-- only; a comment\n/* and; /* another; */ one */", nil},
		{"two", "SET a = 1;\n\nSELECT 2;", []string{"SET a = 1", "SELECT 2"}},
		{"strings", `SELECT 'a;''b', "c;""d", U&'e;', E'f;\';', e'\\';SELECT 1;`,
			[]string{`SELECT 'a;''b', "c;""d", U&'e;', E'f;\';', e'\\'`, "SELECT 1"}},
		{"plain backslash", `SELECT 'a\';SELECT 1;`, []string{`SELECT 'a\'`, "SELECT 1"}},
		{"name that ends in e", `SELECT type'a\';SELECT 1;`, []string{`SELECT type'a\'`, "SELECT 1"}},
		{"dollar quotes", "SELECT $$;'$$, $a1$;$$;$b$ $a1$;SELECT $1;SELECT x$y$;",
			[]string{"SELECT $$;'$$, $a1$;$$;$b$ $a1$", "SELECT $1", "SELECT x$y$"}},
		{"comments inside", "SELECT 1 -- ;'\n+ /* ; ' */ 2;", []string{"SELECT 1 -- ;'\n+ /* ; ' */ 2"}},
		{"rule", "CREATE RULE r AS ON INSERT TO t DO INSTEAD (SELECT 1; SELECT 2);SELECT 3;",
			[]string{"CREATE RULE r AS ON INSERT TO t DO INSTEAD (SELECT 1; SELECT 2)", "SELECT 3"}},
		{"body", "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END;SELECT 3;",
			[]string{"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END", "SELECT 3"}},
		{"replaced body", "CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC; END;SELECT 3;",
			[]string{"CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC; END", "SELECT 3"}},
		{"begin alone", "BEGIN;SELECT 1;", []string{"BEGIN", "SELECT 1"}},
		{"restrict", "\\restrict a1B2\n\nSELECT 1;\n\\unrestrict a1B2\n", []string{"SELECT 1"}},
		{"backslash lines in strings", "SELECT '\n\\! rm\n', $$\n\\! rm\n$$;", []string{"SELECT '\n\\! rm\n', $$\n\\! rm\n$$"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := splitScript([]byte(c.script))
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}

func TestSplitScriptRefuses(t *testing.T) {
	for script, says := range map[string]string{
		"SELECT 1":                 "a statement at byte 0 has no end",
		"SELECT 'a;":               "a quote at byte 7 has no end",
		`SELECT "a;`:               "a quote at byte 7 has no end",
		"SELECT $a$ $b$;":          "a dollar quote at byte 7 has no end",
		"/* /* */ SELECT 1;":       "a comment at byte 0 has no end",
		"\\! rm -rf /\n":           "a command of psql at byte 0 is not run",
		"SELECT 1\n\\restrict a\n": "a command of psql at byte 9 is not run",
		"\\connect other\nSET a;":  "a command of psql at byte 0 is not run",
	} {
		_, err := splitScript([]byte(script))
		require.ErrorContains(t, err, says, script)
	}
}

// TestSplitScriptJoins: statements that are put together from pieces with a semicolon in them come back as they went in.
func TestSplitScriptJoins(t *testing.T) {
	pieces := []string{"SELECT", " a ", "';'", `";"`, "$$;$$", "$x$;$$;$x$", "(;)", "/*;*/", "--;\n", "1", ",", "ü", `E'\';'`, " $1 "}
	rapid.Check(t, func(t *rapid.T) {
		var want []string
		var script strings.Builder
		for range rapid.IntRange(1, 5).Draw(t, "statements") {
			body := strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 1, 8).Draw(t, "pieces"), " ")
			want = append(want, "SELECT "+body)
			script.WriteString("SELECT " + body + ";\n")
		}
		got, err := splitScript([]byte(script.String()))
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}

func TestBuildsIndex(t *testing.T) {
	for statement, want := range map[string]bool{
		"CREATE INDEX i ON public.t USING btree (a)":                                                  true,
		"CREATE UNIQUE INDEX i ON ONLY public.t USING btree (a)":                                      true,
		"ALTER TABLE ONLY public.t\n    ADD CONSTRAINT t_pkey PRIMARY KEY (id)":                       true,
		"ALTER TABLE ONLY public.t\n    ADD CONSTRAINT \"x y\" UNIQUE NULLS NOT DISTINCT (id, a)":     true,
		"ALTER TABLE ONLY public.t\n    ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES public.u(id)":     false,
		"ALTER TABLE public.t\n    ADD CONSTRAINT c CHECK ((id < 5)) NOT VALID":                       false,
		"ALTER TABLE ONLY public.t\n    ADD CONSTRAINT \" UNIQUE (id)\" FOREIGN KEY (a) REFERENCES u": false,
		"ALTER INDEX public.p ATTACH PARTITION public.q":                                              false,
		"CREATE INDEXES": false,
	} {
		require.Equal(t, want, buildsIndex(statement), statement)
	}
}

func TestWithoutOwnEventTriggers(t *testing.T) {
	kept := withoutOwnEventTriggers([]string{
		"CREATE EVENT TRIGGER ours ON ddl_command_end\n   EXECUTE FUNCTION dbmirror.ddl()",
		"ALTER EVENT TRIGGER ours ENABLE ALWAYS",
		"ALTER EVENT TRIGGER ours OWNER TO postgres",
		"CREATE EVENT TRIGGER \"o\"\"u rs\" ON sql_drop\n         WHEN TAG IN ('DROP TABLE')\n   EXECUTE FUNCTION dbmirror.drops()",
		"COMMENT ON EVENT TRIGGER \"o\"\"u rs\" IS 'x'",
		"CREATE EVENT TRIGGER ours_not ON ddl_command_end\n   EXECUTE FUNCTION public.note()",
		"ALTER EVENT TRIGGER ours_not ENABLE ALWAYS",
		"CREATE EVENT TRIGGER trap ON ddl_command_end\n   EXECUTE FUNCTION \"dbmirror.\".ddl()",
	})
	require.Equal(t, []string{
		"CREATE EVENT TRIGGER ours_not ON ddl_command_end\n   EXECUTE FUNCTION public.note()",
		"ALTER EVENT TRIGGER ours_not ENABLE ALWAYS",
		"CREATE EVENT TRIGGER trap ON ddl_command_end\n   EXECUTE FUNCTION \"dbmirror.\".ddl()",
	}, kept)
}
