package pgtest

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// stranger is an account that owns nothing of the test's files.
func stranger() account { return account{name: "stranger", uid: 4_000_000_001, gid: 4_000_000_001} }

func TestOpenWidensWhatLiesBelowTheTempDirectory(t *testing.T) {
	top := tempDir(t)
	closed := filepath.Join(top, "a", "b")
	require.NoError(t, os.MkdirAll(closed, 0o700))
	at, err := stranger().barrier(closed)
	require.NoError(t, err)
	require.Equal(t, closed, at)

	require.NoError(t, stranger().open(filepath.Join(closed, "server")))
	at, err = stranger().barrier(closed)
	require.NoError(t, err)
	require.Empty(t, at)
	info, err := os.Stat(top)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o711), info.Mode().Perm(), "search, and no more, is given")
}

func TestOpenNamesTheDirectoryThatIsNotOurs(t *testing.T) {
	top := tempDir(t)
	parent := filepath.Join(top, "parent")
	require.NoError(t, os.Mkdir(parent, 0o700))
	t.Setenv("TMPDIR", filepath.Join(top, "elsewhere"))
	err := stranger().open(filepath.Join(parent, "server"))
	require.ErrorContains(t, err, "user stranger, who may not pass through "+top+":")
	require.ErrorContains(t, err, "chmod o+x "+top)
	info, err := os.Stat(top)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm(), "it is left as it was")
}

func TestServerBelowATestsOwnDirectory(t *testing.T) {
	in, err := Find(t.Context(), nil)
	require.NoError(t, err)
	dir := filepath.Join(t.TempDir(), "a", "server")
	s, err := Start(t.Context(), in, Config{Dir: dir, Database: `odd "name" / here`})
	require.NoError(t, err)
	name, err := s.Psql(context.Background(), `odd "name" / here`, "SELECT current_database()")
	require.NoError(t, err)
	require.Equal(t, `odd "name" / here`, name)
	require.NoError(t, s.Remove())
	require.NoDirExists(t, dir)
}
