package backend_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// surface is the exported names of the package, and the methods of its interfaces and fields of its structs by "Type.Name".
func surface(t *testing.T) (names, members map[string]bool) {
	names, members = map[string]bool{}, map[string]bool{}
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		read(file, names, members)
	}
	return names, members
}

func read(file *ast.File, names, members map[string]bool) {
	ast.Inspect(file, func(n ast.Node) bool {
		switch d := n.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil && d.Name.IsExported() {
				names[d.Name.Name] = true
			}
			return false
		case *ast.ValueSpec:
			for _, name := range d.Names {
				names[name.Name] = name.IsExported()
			}
		case *ast.TypeSpec:
			names[d.Name.Name] = d.Name.IsExported()
			var list *ast.FieldList
			switch of := d.Type.(type) {
			case *ast.InterfaceType:
				list = of.Methods
			case *ast.StructType:
				list = of.Fields
			default:
				return true
			}
			for _, field := range list.List {
				for _, name := range field.Names {
					members[d.Name.Name+"."+name.Name] = true
				}
			}
		}
		return true
	})
}

// TestPageIsOfThisPackage: docs/backends.md names every method that a backend has, and nothing that there is not.
func TestPageIsOfThisPackage(t *testing.T) {
	names, members := surface(t)
	require.True(t, names["Database"] && members["Commits.WaitMirror"] && members["Source.Name"], "the package is read")
	raw, err := os.ReadFile("../../docs/backends.md")
	require.NoError(t, err)
	page := string(raw)
	for member := range members {
		of, name, _ := strings.Cut(member, ".")
		if interfaces := "Backend Database Probe Gate Commits Reigns Barriers Tail Follower Seeder Examiner Verifier Peer Undoer Sampler Acceptor"; strings.Contains(" "+interfaces+" ", " "+of+" ") {
			require.Regexp(t, "`"+name+"`", page, "%s is not on the page", member)
		}
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (.*?) \\|").FindAllStringSubmatch(page, -1) {
		for _, method := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(row[2], -1) {
			require.True(t, members[row[1]+"."+method[1]], "%s has no method %s", row[1], method[1])
		}
	}
	for _, word := range regexp.MustCompile("`backend\\.(\\w+)`").FindAllStringSubmatch(page, -1) {
		require.True(t, names[word[1]], "there is no backend.%s", word[1])
	}
	for _, word := range regexp.MustCompile("`(Peer|Source|Reign|Log|Stream|Redo)\\.(\\w+)`").FindAllStringSubmatch(page, -1) {
		require.True(t, members[word[1]+"."+word[2]], "there is no %s.%s", word[1], word[2])
	}
	for _, word := range regexp.MustCompile("`(Err\\w+)`").FindAllStringSubmatch(page, -1) {
		require.True(t, names[word[1]], "there is no %s", word[1])
	}
}
