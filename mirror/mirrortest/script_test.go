package mirrortest

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
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
	} {
		t.Run(script, func(t *testing.T) {
			_, err := Play(script)
			require.ErrorContains(t, err, want)
		})
	}
}
