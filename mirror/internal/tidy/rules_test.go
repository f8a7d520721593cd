package tidy

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

const module = "github.com/f19126b3/dbmirror"

// Modules whose use is bound to a place.
const (
	stateless  = "github.com/qmuntal/stateless"
	pgx        = "github.com/jackc/pgx/v5"
	pglogrepl  = "github.com/jackc/pglogrepl"
	prometheus = "github.com/prometheus"
)

// backends are the packages of one kind of database each.
func backends() []string { return []string{"partner/pglog", "partner/sqlitelog"} }

// edge is one import of one file.
type edge struct {
	from string // importing package, below the module: "mirror/host"
	file string // file name without directory
	to   string // imported package; one of ours below the module, as in from
	ours bool   // to is a package of this module
}

// inTest says whether the import is that of a test, which no user's program contains.
func (e edge) inTest() bool { return strings.HasSuffix(e.file, "_test.go") }

// rule forbids edges, for a reason.
type rule struct {
	name   string
	why    string
	broken func(edge) bool
}

// under says whether a package is one of those named, or lies below it.
func under(pkg string, roots ...string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		return pkg == root || strings.HasPrefix(pkg, root+"/")
	})
}

// program says whether a package is one of the programs, which put the runtimes together.
func program(pkg string) bool { return under(pkg, "examples", "partner/cmd") }

// imports says whether the edge leads to a package of ours under one of the roots.
func (e edge) imports(roots ...string) bool { return e.ours && under(e.to, roots...) }

// uses says whether the edge leads to a foreign package under one of the roots.
func (e edge) uses(roots ...string) bool { return !e.ours && under(e.to, roots...) }

// layer numbers the packages from the core upwards.
func layer(pkg string) int {
	switch {
	case program(pkg):
		return 4
	case under(pkg, "partner", "witness"):
		return 3
	case under(pkg, "mirror/host"):
		return 2
	default:
		return 1
	}
}

// pure are the packages that the core may import: they only compute.
func pure() []string {
	return []string{
		"cmp", "context", "encoding/binary", "encoding/hex", "encoding/json", "errors", "fmt", "hash/crc32", "slices",
		"strconv", "strings", stateless,
	}
}

func rules() []rule {
	return []rule{
		{
			"partner does not import witness",
			"a program beside a database must not carry the witness: they are separate roles on separate machines",
			func(e edge) bool { return under(e.from, "partner") && !program(e.from) && e.imports("witness") },
		},
		{
			"witness does not import partner",
			"a witness holds no data: its program must not carry a database driver, nor its users that dependency",
			func(e edge) bool { return under(e.from, "witness") && e.imports("partner") },
		},
		{
			"nothing imports examples",
			"examples show the use of the library; what something else needs of them belongs into the library",
			func(e edge) bool { return !under(e.from, "examples") && e.imports("examples") },
		},
		{
			"imports go down only",
			"examples stand on partner and witness, those on mirror/host, that on mirror; only tests may start a server with partner/pgtest",
			func(e edge) bool {
				throwaway := e.inTest() && e.imports("partner/pgtest")
				return e.ours && layer(e.to) > layer(e.from) && !throwaway
			},
		},
		{
			"Prometheus stays in mirror/host/metrics",
			"the metrics are one collector; a program only registers and serves it",
			func(e edge) bool {
				if under(e.from, "mirror/host/metrics") {
					return false
				}
				serving := program(e.from) && (e.to == prometheus+"/client_golang/prometheus" ||
					e.to == prometheus+"/client_golang/prometheus/promhttp")
				return e.uses(prometheus) && !serving
			},
		},
		{
			"pgx and pglogrepl stay under partner and examples",
			"the rules and the hosts know no database: another one must be possible without touching them",
			func(e edge) bool { return e.uses(pgx, pglogrepl) && !under(e.from, "partner", "examples") },
		},
		{
			"the seam knows no database",
			"a backend is given to a partner by the program: what all of them share must not carry one's driver to the users of another",
			func(e edge) bool {
				return under(e.from, "partner/backend") && (e.uses(pgx, pglogrepl) || e.ours && !e.imports("mirror", "partner/redo", "partner/backend"))
			},
		},
		{
			"partner knows no backend",
			"who mirrors one kind of database must not carry the driver of another: the program chooses",
			func(e edge) bool {
				return e.from == "partner" && !e.inTest() && (e.uses(pgx, pglogrepl) || e.imports(backends()...))
			},
		},
		{
			"backends know neither partner nor each other",
			"the partner calls a backend and never the other way round; what two of them share belongs into partner/backend",
			func(e edge) bool {
				return !e.inTest() && slices.ContainsFunc(backends(), func(b string) bool {
					return under(e.from, b) && e.ours && (e.to == "partner" || e.imports(backends()...) && !under(e.to, b))
				})
			},
		},
		{
			"stateless stays in mirror/machine.go",
			"the library of the tables is a detail of the tables: the rest of the core sees states and triggers only",
			func(e edge) bool { return e.uses(stateless) && (e.from != "mirror" || e.file != "machine.go") },
		},
		{
			"mirror only computes",
			"the core has no clock, net, disk, goroutine, logger or random number, so that it runs the same in production, simulated and explored",
			func(e edge) bool {
				allowed := e.imports("mirror/internal") || !e.ours && slices.Contains(pure(), e.to)
				return e.from == "mirror" && !e.inTest() && !allowed
			},
		},
		{
			"mirrortest needs no host and no net",
			"a simulated session runs on no machine: what needs one cannot be replayed from a seed",
			func(e edge) bool {
				return under(e.from, "mirror/mirrortest") && (e.imports("mirror/host") || e.uses("net"))
			},
		},
		{
			"mirrortest does no I/O but in its own tests",
			"users run it within their tests: it takes scripts and returns traces, files are their matter",
			func(e edge) bool {
				return under(e.from, "mirror/mirrortest") && !e.inTest() && e.uses("os", "syscall", "io/ioutil")
			},
		},
	}
}

// breaches returns one line for each edge that a rule forbids, with the rule's reason.
func breaches(edges []edge) []string {
	var lines []string
	for _, r := range rules() {
		for _, e := range edges {
			if r.broken(e) {
				lines = append(lines, fmt.Sprintf("%s imports %s: %s, because %s", path.Join(e.from, e.file), e.to, r.name, r.why))
			}
		}
	}
	return lines
}
