package tidy

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Each rule is broken by the edges on its left and by none on its right.
func TestRulesOnMadeUpImports(t *testing.T) {
	ours := func(from, file, to string) edge { return edge{from, file, to, true} }
	foreign := func(from, file, to string) edge { return edge{from, file, to, false} }
	cases := map[string]struct{ bad, good []edge }{
		"partner does not import witness": {
			[]edge{ours("partner", "p.go", "witness"), ours("partner/redo", "r_test.go", "witness/vote")},
			[]edge{ours("partner/cmd/dbmirror", "main.go", "witness"), ours("examples/tour", "main.go", "witness")},
		},
		"witness does not import partner": {
			[]edge{ours("witness", "w.go", "partner"), ours("witness", "w_test.go", "partner/pgtest")},
			[]edge{ours("witness", "w.go", "mirror/host"), foreign("witness", "w.go", "example.org/partner")},
		},
		"nothing imports examples": {
			[]edge{ours("partner", "p_test.go", "examples/tour"), ours("mirror", "m.go", "examples")},
			[]edge{ours("examples/bench", "main.go", "examples/tour")},
		},
		"imports go down only": {
			[]edge{
				ours("mirror/host", "h.go", "partner/redo"), ours("mirror", "m_test.go", "mirror/host"),
				ours("mirror/host", "h.go", "partner/pgtest"), ours("partner", "p.go", "partner/cmd/dbmirror"),
			},
			[]edge{
				ours("mirror/host", "h_test.go", "partner/pgtest"), ours("mirror/host", "h.go", "mirror"),
				ours("mirror", "m_test.go", "mirror/mirrortest"), ours("partner", "p.go", "mirror/host/endpoint"),
			},
		},
		"Prometheus stays in mirror/host/metrics": {
			[]edge{
				foreign("partner", "p.go", prometheus+"/client_golang/prometheus"),
				foreign("examples/tour", "main.go", prometheus+"/client_golang/prometheus/promauto"),
				foreign("witness", "w_test.go", prometheus+"/client_golang/prometheus/testutil"),
			},
			[]edge{
				foreign("mirror/host/metrics", "m.go", prometheus+"/client_golang/prometheus"),
				foreign("examples/tour", "main.go", prometheus+"/client_golang/prometheus/promhttp"),
			},
		},
		"pgx and pglogrepl stay under partner and examples": {
			[]edge{foreign("mirror/host", "h.go", pgx+"/pgxpool"), foreign("witness", "w_test.go", pglogrepl)},
			[]edge{foreign("partner/pglog", "p.go", pgx), foreign("examples/bench", "b.go", pglogrepl)},
		},
		"the seam knows no database": {
			[]edge{foreign("partner/backend", "b.go", pgx), ours("partner/backend", "b.go", "partner/pglog"), ours("partner/backend", "b_test.go", "partner")},
			[]edge{ours("partner/backend", "b.go", "partner/redo"), ours("partner/pglog", "p.go", "partner/backend"), foreign("partner/backend", "b.go", "net")},
		},
		"partner knows no backend": {
			[]edge{foreign("partner", "p.go", pgx+"/pgconn"), ours("partner", "p.go", "partner/pglog"), ours("partner", "p.go", "partner/sqlitelog")},
			[]edge{ours("partner", "p.go", "partner/backend"), ours("partner", "p_test.go", "partner/pglog"), ours("examples/partner", "main.go", "partner/pglog")},
		},
		"backends know neither partner nor each other": {
			[]edge{ours("partner/pglog", "p.go", "partner"), ours("partner/sqlitelog", "s.go", "partner/pglog"), ours("partner/pglog/x", "p.go", "partner/sqlitelog")},
			[]edge{ours("partner/pglog", "p.go", "partner/backend"), ours("partner/pglog", "p_test.go", "partner"), ours("partner/pglog", "p.go", "partner/pglog/facts")},
		},
		"stateless stays in mirror/machine.go": {
			[]edge{foreign("mirror", "session.go", stateless), foreign("mirror/host", "machine.go", stateless)},
			[]edge{foreign("mirror", "machine.go", stateless)},
		},
		"mirror only computes": {
			[]edge{
				foreign("mirror", "m.go", "time"), foreign("mirror", "m.go", "log/slog"), foreign("mirror", "m.go", "os"),
				foreign("mirror", "m.go", "crypto/sha256"), foreign("mirror", "m.go", "example.org/x"),
				ours("mirror", "m.go", "mirror/wire"), foreign("mirror", "m.go", "mirror/internal/x"),
			},
			[]edge{
				foreign("mirror", "m.go", "fmt"), foreign("mirror", "m_test.go", "time"), ours("mirror", "m.go", "mirror/internal/x"),
				foreign("mirror/host", "h.go", "time"),
			},
		},
		"mirrortest needs no host and no net": {
			[]edge{foreign("mirror/mirrortest", "s_test.go", "net/http"), ours("mirror/mirrortest", "s.go", "mirror/host/statefile")},
			[]edge{ours("mirror/mirrortest", "s.go", "mirror"), foreign("mirror/mirrortest", "s.go", "example.org/net")},
		},
		"mirrortest does no I/O but in its own tests": {
			[]edge{foreign("mirror/mirrortest", "s.go", "os"), foreign("mirror/mirrortest", "s.go", "os/exec")},
			[]edge{foreign("mirror/mirrortest", "s_test.go", "os"), foreign("mirror/mirrortest", "s.go", "fmt")},
		},
	}
	for _, r := range rules() {
		c, ok := cases[r.name]
		require.True(t, ok, "rule %q has no case here", r.name)
		require.NotEmpty(t, r.why)
		for _, e := range c.bad {
			require.True(t, r.broken(e), "%s: %+v must break it", r.name, e)
		}
		for _, e := range c.good {
			require.False(t, r.broken(e), "%s: %+v must not break it", r.name, e)
		}
		delete(cases, r.name)
	}
	require.Empty(t, cases, "cases of rules that do not exist")
}

func TestBreachesNameFileRuleAndReason(t *testing.T) {
	found := breaches([]edge{
		{"mirror", "clock.go", "time", false},
		{"mirror", "clock.go", "fmt", false},
		{"witness", "vote.go", "mirror/host", true},
	})
	require.Len(t, found, 1)
	require.Regexp(t, `^mirror/clock\.go imports time: mirror only computes, because the core has no clock`, found[0])
}

func TestChecksOfFilesOnMadeUpText(t *testing.T) {
	for _, c := range []struct {
		name, text, want string
	}{
		{"a_test.go", "package a\n\nfunc f() {\n\ttime." + "Sleep(1)\n}\n", "a_test.go:4: "},
		{"a.go", "package a\n\nfunc f() {\n\ttime." + "Sleep(1)\n}\n", ""},
		{"a.go", "package a // TO" + "DO later\n", "a.go:1: "},
		{"a.go", "package a\n// FIX" + "ME\n", "a.go:2: "},
		{"a.go", "package a // nothing to do\n", ""},
	} {
		found := unfinished(c.name, c.text)
		if c.want == "" {
			require.Empty(t, found, c.text)
			continue
		}
		require.Len(t, found, 1, c.text)
		require.Contains(t, found[0], c.want)
	}
	require.Equal(t, []string{"build", "src"},
		misplaced([]string{".ci", ".gitignore", "LICENSE", "README.md", "build", "cpu.prof", "go.mod", "mirror", "redo.test", "src"}))
}
