package pglog

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMain runs the tests without what libpq and pgx take from the environment of whoever runs them: it would be added to
// every connection string.
func TestMain(m *testing.M) {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "PG") {
			_ = os.Unsetenv(name) // it fails for names that cannot be
		}
	}
	_ = os.Setenv("PGPASSFILE", filepath.Join(os.DevNull, "none"))
	m.Run()
}

// shortDir is a directory whose sockets have paths that are short enough, wherever TMPDIR is. It goes with the test.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "dbmirror-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}
