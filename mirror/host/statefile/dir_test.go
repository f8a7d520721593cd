package statefile

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMakeDir(t *testing.T) {
	root := t.TempDir()
	deep := filepath.Join(root, "a", "b", "c")
	var synced []string
	note := func(dir string) error {
		_, err := os.Stat(deep)
		synced = append(synced, dir)
		require.Equal(t, dir == filepath.Dir(deep), err == nil, "a name is on disk before anything is made under it")
		return nil
	}
	require.NoError(t, makeDir(deep, note))
	require.Equal(t, []string{root, filepath.Join(root, "a"), filepath.Join(root, "a", "b")}, synced)
	info, err := os.Stat(deep)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())

	synced = nil
	require.NoError(t, makeDir(deep, note))
	require.Empty(t, synced, "it is there")
	require.NoError(t, MakeDir(deep+"/d/"))
	require.DirExists(t, deep+"/d")
	require.NoError(t, os.WriteFile(filepath.Join(root, "file"), nil, 0o600))
	require.ErrorContains(t, MakeDir(filepath.Join(root, "file")), "not a directory")
	require.ErrorIs(t, MakeDir(filepath.Join(root, "file", "x")), syscall.ENOTDIR)
}

// A directory whose name could not be put on disk is not there: it would pass for one the next time.
func TestMakeDirThatIsNotSynced(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "a", "b")
	for fails := range 2 {
		calls := 0
		err := makeDir(dir, func(string) error {
			calls++
			if calls-1 == fails {
				return syscall.EIO
			}
			return nil
		})
		require.ErrorIs(t, err, syscall.EIO)
		require.NoDirExists(t, dir)
	}
	require.NoError(t, MakeDir(dir))
}
