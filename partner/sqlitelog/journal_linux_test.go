package sqlitelog

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// cached is how many pages of a file the system has in memory, and how many of these are not on disk.
func cached(t *testing.T, path string) (pages, dirty uint64) {
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	var found unix.Cachestat_t
	if err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &found, 0); err != nil {
		t.Skipf("this kernel does not tell what is in its cache: %v", err)
	}
	return found.Cache, found.Dirty + found.Writeback
}

// What a killed process has written and not synced is on disk before anybody sees it.
func TestWhatAKilledProcessWroteIsPutOnDisk(t *testing.T) {
	killed := open(t, Config{})
	must(t, killed, smallTable)
	for range 20 {
		must(t, killed, "INSERT INTO t (a) VALUES (randomblob(5000))")
	}
	// A copy of its files that nobody has synced is what such a process leaves.
	left := func() string {
		path := filepath.Join(t.TempDir(), "database")
		for _, beside := range []string{"", "-wal"} {
			content, err := os.ReadFile(killed.cfg.Path + beside)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path+beside, content, 0o600))
		}
		if _, dirty := cached(t, path+"-wal"); dirty == 0 {
			t.Skip("this file system keeps nothing back from its disk, or has none")
		}
		return path
	}
	path := left()
	require.NoError(t, settleJournal(path))
	pages, dirty := cached(t, path+"-wal")
	require.Zero(t, dirty)
	require.Zero(t, pages, "it is read from the disk")

	path = left()
	db := open(t, Config{Path: path})
	_, dirty = cached(t, path+"-wal")
	require.Zero(t, dirty)
	require.Equal(t, []string{"21"}, rows(t, db, "SELECT count(*) FROM t"))

	path = left()
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(path, link))
	open(t, Config{Path: link})
	_, dirty = cached(t, path+"-wal")
	require.Zero(t, dirty)
}
