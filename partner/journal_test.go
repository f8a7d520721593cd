package partner

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestJournalThatWasTorn: an entry that was cut off, by a crash or for want of room, spoils no entry after it.
func TestJournalThatWasTorn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.jsonl")
	j, err := openJournal(path)
	require.NoError(t, err)
	j.note(line{Kind: "first", Note: "kept"})
	j.close()
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	for cut := range len(whole) + 1 {
		require.NoError(t, os.WriteFile(path, append(whole[:len(whole):len(whole)], whole[:cut]...), 0o600))
		j, err := openJournal(path)
		require.NoError(t, err)
		j.note(line{Kind: "second"})
		j.note(line{Kind: "third"})
		j.close()
		lines := readLines(t, path)
		var found []string
		for _, text := range lines {
			var l line
			if json.Unmarshal([]byte(text), &l) == nil {
				found = append(found, l.Kind)
			}
		}
		want := []string{"first", "second", "third"}
		if cut >= len(whole)-1 {
			want = []string{"first", "first", "second", "third"}
		}
		var last line
		require.NoError(t, json.Unmarshal([]byte(lines[len(lines)-1]), &last))
		_, err = time.Parse(journalTime, last.Time)
		require.NoError(t, err, "an entry says when")
		require.Equal(t, want, found, "cut after %d bytes", cut)
		require.NotContains(t, lines, "", "no empty line")
	}
}

// TestJournalOfAFullDisk: the journal is on a disk that takes half of an entry, then nothing, then has room again.
func TestJournalOfAFullDisk(t *testing.T) {
	if !mayMount() {
		t.Skip("only root on Linux can give the journal a file system of its own")
	}
	dir := t.TempDir()
	mountTmpfs(t, dir, 0, "size=8k")
	path := filepath.Join(dir, "journal.jsonl")
	j, err := openJournal(path)
	require.NoError(t, err)
	defer j.close()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "filling"), make([]byte, 4096), 0o600))
	for range 3 {
		j.note(line{Kind: "before", Note: strings.Repeat("x", 2000)})
	}
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.EqualValues(t, 4096, info.Size(), "half of an entry is there")
	require.NoError(t, os.Remove(filepath.Join(dir, "filling")))
	j.note(line{Kind: "after"})
	lines := readLines(t, path)
	var l line
	require.NoError(t, json.Unmarshal([]byte(lines[len(lines)-1]), &l))
	require.Equal(t, "after", l.Kind)
}

func readLines(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(string(b), "\n"))
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}
