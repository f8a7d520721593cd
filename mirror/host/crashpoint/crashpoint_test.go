package crashpoint_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
)

func TestArmedPointEndsOnce(t *testing.T) {
	ended := 0
	crashpoint.Hit(crashpoint.LogSynced)
	crashpoint.Arm(crashpoint.LogSynced, func() { ended++ })
	crashpoint.Hit(crashpoint.LogWritten)
	crashpoint.Hit(0)
	require.Zero(t, ended, "another point is not armed")
	failed := errors.New("failed")
	require.Equal(t, failed, crashpoint.After(crashpoint.LogSynced, failed))
	require.Zero(t, ended, "a step that failed was not taken")
	crashpoint.Hit(crashpoint.LogSynced)
	crashpoint.Hit(crashpoint.LogSynced)
	require.Equal(t, 1, ended)
	crashpoint.Arm(crashpoint.LogSynced, func() { ended++ })
	require.NoError(t, crashpoint.After(crashpoint.LogSynced, nil))
	require.Equal(t, 2, ended)
}

func TestUnarmedPointCostsNoMemory(t *testing.T) {
	require.Zero(t, testing.AllocsPerRun(100, func() { crashpoint.Hit(crashpoint.LogSynced) }))
}

func TestNames(t *testing.T) {
	seen := map[string]bool{"": true}
	for _, p := range crashpoint.Points() {
		require.False(t, seen[p.String()], "point %d: name %q is missing or taken", p, p)
		require.Contains(t, p.String(), ": ", "subject: what is so")
		seen[p.String()] = true
	}
	require.Equal(t, "invalid", crashpoint.Point(255).String())
}

// uses counts, in all Go files of the repository, which names of this package are used by programs and which by tests.
// The two backends of a partner take the same steps, in files of their own: what one of them has is counted for each.
func uses(t *testing.T) (program [2]map[string]int, test map[string]int) {
	t.Helper()
	program, test = [2]map[string]int{{}, {}}, map[string]int{}
	top := filepath.Join("..", "..", "..")
	require.FileExists(t, filepath.Join(top, "go.mod"))
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		count := program[:]
		switch dir := filepath.Base(filepath.Dir(path)); {
		case strings.HasSuffix(path, "_test.go"):
			count = []map[string]int{test}
		case dir == "pglog":
			count = program[:1]
		case dir == "sqlitelog":
			count = program[1:]
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if use, ok := n.(*ast.SelectorExpr); ok {
				if of, ok := use.X.(*ast.Ident); ok && of.Name == "crashpoint" {
					for _, names := range count {
						names[use.Sel.Name]++
					}
				}
			}
			return true
		})
		return nil
	})
	require.NoError(t, err)
	return program, test
}

// declared are the names of the points as Go has them.
func declared(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "points.go", nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	var all []string
	for _, d := range file.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.CONST {
			for _, spec := range g.Specs {
				for _, name := range spec.(*ast.ValueSpec).Names {
					all = append(all, name.Name)
				}
			}
		}
	}
	require.Len(t, all, len(crashpoint.Points())+1)
	return all[:len(all)-1] // the last is the number of points
}

// Each point has exactly one place in a program with PostgreSQL, and at most one in a program with SQLite, so that it
// says where the program was ended, and is met by a test. Only tests end a program.
func TestEveryPointHasItsPlace(t *testing.T) {
	program, test := uses(t)
	for _, name := range declared(t) {
		require.Equal(t, 1, program[0][name], "places of %s", name)
		require.LessOrEqual(t, program[1][name], 1, "places of %s", name)
		require.Positive(t, test[name], "tests that name %s", name)
	}
	for _, names := range program {
		require.Positive(t, names["Hit"], "programs are read")
		require.Zero(t, names["Arm"], "only a test's child process may be armed")
	}
}
