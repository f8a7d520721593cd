package facts

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// fact is one row of the table. Exactly one of test, pinned, with and idle is set.
type fact struct {
	id    string
	claim string
	// versions says what differs between versions; empty when all are alike.
	versions string
	// relies names those who rely on it: a file of this module, and a function in it or nothing.
	relies []string

	test    func(*bench) // proves it here
	crashes bool         // the test ends or kills the server
	pinned  []string     // the tests elsewhere that prove it: package.Test, or package.Test/part
	with    string       // the row whose test proves this too
	idle    string       // why nothing relies on it
}

// how says in a word how the row is held.
func (f fact) how() string {
	switch {
	case f.test != nil:
		return "here"
	case f.with != "":
		return "here, with " + f.with
	case len(f.pinned) > 0:
		return "elsewhere"
	}
	return "not relied on"
}

func table() []fact {
	rows := slices.Concat(waiting(), waysOut(), changing(), restarts(), beyond(), closing(), slots(), keepalives(),
		large(), contents(), rights(), pitfalls())
	slices.SortStableFunc(rows, func(a, b fact) int { return cmp.Compare(order(a.id), order(b.id)) })
	return rows
}

// order puts P before T before R before O, and numbers by their value.
func order(id string) string {
	group, number, _ := strings.Cut(id[1:], ".")
	return fmt.Sprintf("%d %3s %3s", strings.IndexByte("PTRO", id[0]), group, number)
}

// TestTable checks that every row is whole, that every test and every function it names exists, and that no assumption
// that has to be answered for is missing.
func TestTable(t *testing.T) {
	seen := map[string]fact{}
	for _, f := range table() {
		require.Regexp(t, `^([PTR]\d+|O\d+\.\d+)$`, f.id)
		require.NotContains(t, seen, f.id, "two rows")
		seen[f.id] = f
		require.True(t, strings.HasSuffix(f.claim, "."), "%s: the claim is a sentence", f.id)
		answers := 0
		for _, given := range []bool{f.test != nil, len(f.pinned) > 0, f.with != "", f.idle != ""} {
			if given {
				answers++
			}
		}
		require.Equal(t, 1, answers, "%s is held in exactly one way", f.id)
		require.Equal(t, f.idle == "", len(f.relies) > 0, "%s: who relies on it, or why nobody does", f.id)
		require.False(t, f.crashes && f.test == nil, "%s", f.id)
		for _, place := range f.relies {
			requirePlace(t, f.id, place)
		}
		for _, name := range f.pinned {
			requireTest(t, f.id, name)
		}
	}
	for _, f := range seen {
		if f.with != "" {
			require.NotNil(t, seen[f.with].test, "%s: %s has a test", f.id, f.with)
		}
	}
	for _, id := range answered() {
		require.Contains(t, seen, id, "no row answers for it")
	}
	show(t)
}

// answered lists what must have a row.
func answered() (ids []string) {
	for n := range 17 {
		ids = append(ids, "P"+strconv.Itoa(n+1))
	}
	for _, n := range []int{2, 10, 13, 15, 16, 54, 62} {
		ids = append(ids, "T"+strconv.Itoa(n))
	}
	for group, count := range map[int]int{1: 5, 2: 4, 3: 6, 4: 4, 5: 5, 6: 6, 7: 4, 8: 5, 9: 4, 10: 4, 11: 4, 12: 3, 13: 3, 14: 2} {
		for n := range count {
			ids = append(ids, fmt.Sprintf("O%d.%d", group, n+1))
		}
	}
	return ids
}

const top = "../../.."

// requirePlace checks that a file of the module exists, and has the function, type or method that is named after it.
func requirePlace(t *testing.T, id, place string) {
	t.Helper()
	file, name, _ := strings.Cut(place, " ")
	text, err := os.ReadFile(filepath.Join(top, file))
	require.NoError(t, err, id)
	if name != "" {
		require.Regexp(t, `(?m)^(func (\([^)]*\) )?|type |const |var |\t)`+regexp.QuoteMeta(name)+`\b`, string(text), "%s: %s", id, place)
	}
}

// requireTest checks that a test exists, and that its package has the name of the part.
func requireTest(t *testing.T, id, name string) {
	t.Helper()
	at := strings.LastIndexByte(name[:strings.Index(name, ".Test")+1], '.')
	dir, test := name[:at], name[at+1:]
	test, part, _ := strings.Cut(test, "/")
	files, err := filepath.Glob(filepath.Join(top, dir, "*_test.go"))
	require.NoError(t, err)
	foundTest, foundPart := false, part == ""
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				foundTest = foundTest || n.Recv == nil && n.Name.Name == test
			case *ast.BasicLit:
				foundPart = foundPart || n.Kind == token.STRING && n.Value == strconv.Quote(part)
			}
			return true
		})
	}
	require.True(t, foundTest && foundPart, "%s: there is no test %s", id, name)
}

// show prints the table.
func show(t *testing.T) {
	count := map[string]int{}
	var text strings.Builder
	for _, f := range table() {
		how, _, _ := strings.Cut(f.how(), ",")
		count[how]++
		fmt.Fprintf(&text, "%-6s %-16s %s", f.id, f.how(), f.claim)
		for _, more := range []struct{ head, text string }{
			{"versions", f.versions}, {"relied on by", strings.Join(f.relies, ", ")},
			{"pinned by", strings.Join(f.pinned, ", ")}, {"nobody, because", f.idle},
		} {
			if more.text != "" {
				fmt.Fprintf(&text, "\n%25s %s: %s", "", more.head, more.text)
			}
		}
		text.WriteByte('\n')
	}
	t.Logf("%d assumptions: %d pinned here, %d pinned elsewhere, %d not relied on\n%s",
		len(table()), count["here"], count["elsewhere"], count["not relied on"], text.String())
}

// TestFacts proves on a server what is proven here. Those facts that end the server have one of their own.
func TestFacts(t *testing.T) {
	for _, g := range []struct {
		name    string
		crashes bool
	}{{"alive", false}, {"ended", true}} {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			server := pgtest.New(t, map[string]string{"max_prepared_transactions": "4", "max_replication_slots": "20"})
			prepare(t, server)
			for _, f := range table() {
				if f.test != nil && f.crashes == g.crashes {
					t.Run(f.id, func(t *testing.T) { f.test(lay(t, server)) })
				}
			}
		})
	}
}
