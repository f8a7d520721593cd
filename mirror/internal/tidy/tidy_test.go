package tidy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// listed is what go list tells of a package.
type listed struct {
	ImportPath, Dir, Doc              string
	GoFiles, CgoFiles, IgnoredGoFiles []string
	TestGoFiles, XTestGoFiles         []string
}

// files returns the names of all Go files, those for other systems included.
func (p listed) files() []string {
	return slices.Concat(p.GoFiles, p.CgoFiles, p.IgnoredGoFiles, p.TestGoFiles, p.XTestGoFiles)
}

// root is the top directory of the repository.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", "..", ".."))
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(dir, "go.mod"))
	return dir
}

func packages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Doc,GoFiles,CgoFiles,IgnoredGoFiles,TestGoFiles,XTestGoFiles", "./...")
	cmd.Dir = root(t)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		all = append(all, p)
	}
	require.NotEmpty(t, all)
	return all
}

// below returns an import path without the module before it, and whether it is one of the module's.
func below(importPath string) (string, bool) {
	return strings.CutPrefix(importPath, module+"/")
}

func edges(t *testing.T, all []listed) []edge {
	t.Helper()
	var found []edge
	for _, p := range all {
		from, ours := below(p.ImportPath)
		require.True(t, ours, "%s is not below %s", p.ImportPath, module)
		for _, name := range p.files() {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ImportsOnly)
			require.NoError(t, err)
			for _, spec := range file.Imports {
				path, err := strconv.Unquote(spec.Path.Value)
				require.NoError(t, err)
				to, ours := below(path)
				found = append(found, edge{from, name, to, ours})
			}
		}
	}
	return found
}

func TestImports(t *testing.T) {
	found := edges(t, packages(t))
	require.Contains(t, found, edge{"mirror/internal/tidy", "tidy_test.go", "go/parser", false}, "the files are read")
	for _, line := range breaches(found) {
		t.Error(line)
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.GoFiles)+len(p.CgoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment: say in one sentence what it is, above the package clause", p.ImportPath)
		}
	}
}

// misplaced returns the names that do not belong at the top of the repository. What .gitignore leaves aside there,
// test programs and profiles, may lie around.
func misplaced(names []string) []string {
	allowed := []string{"mirror", "partner", "witness", "examples", "docs", "go.mod", "go.sum", "LICENSE", "README.md"}
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		ext := filepath.Ext(name)
		return strings.HasPrefix(name, ".") || slices.Contains(allowed, name) || ext == ".test" || ext == ".prof"
	})
}

func TestTopLevel(t *testing.T) {
	entries, err := os.ReadDir(root(t))
	require.NoError(t, err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	for _, name := range misplaced(names) {
		t.Errorf("%s does not belong at the top of the repository: the layout there is fixed", name)
	}
}

// unfinished returns one line for each line of a Go file that says it is not done, or that makes a test sleep. The
// words are put together here so that this file does not hold them.
func unfinished(name, text string) []string {
	signs := map[string]string{
		"TO" + "DO":  "finish it, or open an issue",
		"FIX" + "ME": "mend it, or open an issue",
	}
	if strings.HasSuffix(name, "_test.go") {
		signs["time."+"Sleep("] = "wait on an event, a tick or testing/synctest: a test that sleeps is slow or flaky"
	}
	var found []string
	for i, line := range strings.Split(text, "\n") {
		for sign, mend := range signs {
			if strings.Contains(line, sign) {
				found = append(found, fmt.Sprintf("%s:%d: %s: %s", name, i+1, sign, mend))
			}
		}
	}
	return found
}

func TestNothingUnfinished(t *testing.T) {
	top, seen := root(t), 0
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != top && strings.HasPrefix(entry.Name(), "."):
			return filepath.SkipDir
		case entry.IsDir() || filepath.Ext(path) != ".go":
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		seen++
		for _, line := range unfinished(path, string(text)) {
			t.Error(line)
		}
		return nil
	})
	require.NoError(t, err)
	require.Positive(t, seen)
}
