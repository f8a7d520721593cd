package mirrortest

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

var update = flag.Bool("update", false, "write the traces into testdata/*.txt")

// TestStories plays testdata/*.txt. Each trace was read when it was accepted.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			got, err := Play(string(want))
			require.NoError(t, err)
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
				return
			}
			differs(t, string(want), got)
		})
	}
}

// differs fails at the first line of a trace that is another one.
func differs(t *testing.T, want, got string) {
	had := strings.Split(want, "\n")
	for i, line := range strings.Split(got, "\n") {
		if i >= len(had) || had[i] != line {
			from := max(i-10, 0)
			t.Fatalf("line %d: the story has\n%s\nand it was\n%s", i+1,
				strings.Join(had[min(from, len(had)):min(i+3, len(had))], "\n"), line)
		}
	}
	require.Len(t, had, strings.Count(got, "\n")+1)
}

// story reads the stories whose names match.
func stories(t *testing.T, pattern string) string {
	files, err := filepath.Glob("testdata/" + pattern)
	require.NoError(t, err)
	require.NotEmpty(t, files)
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		all.Write(text)
	}
	return all.String()
}

// TestEveryStateHasItsTable: the stories commands_*.txt have a table for every state that every role shows, and where a
// witness makes a difference, with one and without. A state that is added has none. A command that is added is in every
// table, or the table is an error: see attempts.
func TestEveryStateHasItsTable(t *testing.T) {
	tables := stories(t, "commands_*.txt")
	shown := regexp.MustCompile(`(?m)^> table\n(?:[abw]: .*\n(?:    and left alone: .*\n)?)+`)
	var heads string
	for _, head := range shown.FindAllString(tables, -1) {
		heads += head
	}
	for _, state := range mirror.States() {
		with := fmt.Sprintf(`(?m)^[ab]: principal %s .* members=\d+,\d+,[1-9]`, state)
		without := fmt.Sprintf(`(?m)^[ab]: principal %s .* members=\d+,\d+,0`, state)
		require.Regexp(t, with, heads, "a table in %s with a witness", state)
		require.Regexp(t, without, heads, "a table in %s without a witness", state)
		if state == mirror.StatePendingFailover {
			continue // only a principal shows it
		}
		require.Regexp(t, fmt.Sprintf(`(?m)^[ab]: mirror %s `, state), heads)
		require.Regexp(t, fmt.Sprintf(`(?m)^w: witness %s `, state), heads)
	}
	for _, none := range []string{`a: none NONE \(not established\)`, `b: none NONE \(not a member\)`, `w: none NONE `} {
		require.Regexp(t, "(?m)^"+none, heads)
	}
	for _, k := range mirror.CommandKinds() {
		for _, way := range attempts(k) {
			way = regexp.QuoteMeta(strings.Replace(way, "PARTNER", "b", 1))
			require.Regexp(t, `(?m)^a (.* \| )?`+way+`( \||:)`, tables, k.String())
		}
	}
}

// servesIn is who serves in a pattern of links in the end, from SYNCHRONIZED with a principal a: the rule of
// docs/session.md, "When links fail". Where log flows has no part in it.
func servesIn(x pattern) string {
	a, b, w := mirror.PartnerA, mirror.PartnerB, mirror.Witness
	both := func(p, q mirror.Server) bool { return x.up(p, q) && x.up(q, p) }
	switch {
	case both(a, b) || both(a, w):
		return "a" // somebody answers it
	case !x.up(a, b) && !x.up(a, w) && both(b, w):
		return "b" // nobody hears a, and mirror and witness agree
	}
	return "nobody"
}

// TestLinksFollowTheRule: each row of links.txt is what the rule says.
func TestLinksFollowTheRule(t *testing.T) {
	rows := stories(t, "links.txt")
	for x := range allLinks + 1 {
		row := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(x.String()) + `  (\w+) `)
		found := row.FindAllStringSubmatch(rows, -1)
		require.Len(t, found, 2, "%s: with log and without", x)
		for _, f := range found {
			require.Equal(t, servesIn(x), f[1], x)
		}
	}
}

// TestClaims: what a story claims and is not so is an error, which no rewriting of traces hides.
func TestClaims(t *testing.T) {
	const pair = "> timing ping=1 timeout=4 lease=2\n> start a b w\n> run 5\n> command a establish witness\n> run 4\n"
	for script, want := range map[string]string{
		"> serves b":                          "open is the database of a",
		"> cut a b\n> serves nobody":          "open is the database of a",
		"> shows a SUSPENDED":                 "a shows SYNCHRONIZED",
		"> kill w\n> shows w SYNCHRONIZED":    "w is down",
		"> kill a\n> run 8\n> serves a":       "open is the database of b",
		"> serves a b":                        "open is the database of a",
		"> shows a SYNCHRONIZED b SUSPENDED":  "b shows SYNCHRONIZED",
		"> command a suspend\n> run\n> links": "a shows SUSPENDED",
	} {
		_, err := Play(pair + script)
		require.ErrorIs(t, err, ErrUntrue, script)
		require.ErrorContains(t, err, want, script)
	}
}

// TestPlayRefuses: a story that says nothing playable is an error that names its line, never a silent pass.
func TestPlayRefuses(t *testing.T) {
	for script, want := range map[string]string{
		"> ":                                   `line 1: "> ": script: no command`,
		"# x\n> sing":                          `line 2: "> sing": script: unknown command`,
		"> start x":                            `"x" is not a, b or w`,
		"> start a\n> start a":                 "line 2: \"> start a\": script: a is up",
		"> crash a":                            "a is down",
		"> tick a 1001":                        "is no count up to 1000",
		"> timing sleep=1":                     `"sleep=1" is no timing`,
		"> timing ping=x":                      `"ping=x" is no timing`,
		"> timing ping=9 timeout=5\n> start a": "Ping of 9 ticks is not below Timeout of 5",
		"> option a fly":                       "unknown option",
		"> option a lag=1":                     "parse LSN",
		"> start a\n> wipe a":                  "a is up",
		"> deliver a b":                        "no such message is in flight",
		"> drop a b":                           "no such message is in flight",
		"> again a":                            "name two servers",
		"> wrote":                              "name a server",
		"> start a\n> wrote a 5":               "parse LSN",
		"> start a\n> wrote a @x":              "is no role sequence",
		"> start a\n> failed a tired":          "unknown reason",
		"> start a\n> command a":               "name a server and a command",
		"> start a\n> command a sing":          "unknown operator's command",
		"> start a\n> command a force 1":       "is no version of a record",
		"> show\n> explain a":                  "a is down",
		"> why a":                              "a is down",
		"> command a suspend":                  "a is down",
		"> back":                               "nothing is marked",
		"> restore a old":                      "is no copy of its disk",
		"> copy a":                             "name a server and a copy",
		"> shows a":                            "name servers, each with its state",
		"> log sideways":                       "log is linked, up or down, or lost at a server",
		"> wait a":                             "wait lost, and a server",
		"> cut a>x":                            `"x" is not a, b or w`,
		"> cut":                                "name a server or two",
		"> start a b\n> links":                 "links are tried with three servers that are up",
	} {
		t.Run(script, func(t *testing.T) {
			_, err := Play(script)
			require.ErrorContains(t, err, want)
		})
	}
}
