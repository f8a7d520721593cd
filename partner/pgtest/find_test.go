package pgtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// programs makes a directory with executable shell scripts.
func programs(t *testing.T, scripts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, body := range scripts {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+body+"\n"), 0o755))
	}
	return dir
}

func TestFindTakesTheNamedDirectoryOnly(t *testing.T) {
	bin := programs(t, map[string]string{"initdb": "", "postgres": "echo 'postgres (PostgreSQL) 17.2'"})
	t.Setenv(EnvBin, bin)
	in, err := Find(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, Install{Bin: bin, Version: 17}, in)
}

func TestFindOnPathFollowsTheLink(t *testing.T) {
	bin := programs(t, map[string]string{"initdb": "", "postgres": "echo 'postgres (PostgreSQL) 16.4 (Debian 16.4-1)'"})
	links := t.TempDir()
	require.NoError(t, os.Symlink(filepath.Join(bin, "postgres"), filepath.Join(links, "postgres")))
	t.Setenv(EnvBin, "")
	t.Setenv("PATH", links+":"+os.Getenv("PATH"))
	in, err := Find(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, Install{Bin: bin, Version: 16}, in)
}

func TestFindPassesOverWhatItCannotUse(t *testing.T) {
	old := programs(t, map[string]string{"initdb": "", "postgres": "echo 'postgres (PostgreSQL) 13.9'"})
	good := programs(t, map[string]string{"initdb": "", "postgres": "echo 'postgres (PostgreSQL) 18beta1'"})
	asked := programs(t, map[string]string{"pg_config": "echo " + good})
	t.Setenv(EnvBin, "")
	t.Setenv("PATH", old+":"+asked+":"+os.Getenv("PATH"))
	in, err := Find(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, Install{Bin: good, Version: 18}, in)
}

func TestFindSaysWhatIsWrongWithTheNamedDirectory(t *testing.T) {
	plain := programs(t, map[string]string{"initdb": "", "postgres": ""})
	require.NoError(t, os.Chmod(filepath.Join(plain, "postgres"), 0o644))
	for _, c := range []struct{ bin, want string }{
		{filepath.Join(t.TempDir(), "missing"), "no postgres there"},
		{programs(t, map[string]string{"postgres": ""}), "no initdb there"},
		{plain, "postgres there is not a program"},
		{programs(t, map[string]string{"initdb": "", "postgres": "echo 'postgres (PostgreSQL) 13.9'"}), "PostgreSQL 13 is too old"},
		{programs(t, map[string]string{"initdb": "", "postgres": "echo hello"}), `"hello" is not PostgreSQL's answer`},
		{programs(t, map[string]string{"initdb": "", "postgres": "exit 3"}), "exit status 3"},
	} {
		t.Setenv(EnvBin, c.bin)
		_, err := Find(t.Context(), nil)
		require.ErrorContains(t, err, c.want)
		require.ErrorContains(t, err, EnvBin+"="+c.bin, "the cause is named")
		require.ErrorContains(t, err, "set it to the directory that holds postgres and initdb", "and the mend")
		require.NotContains(t, err.Error(), "\n", "in one line")
	}
}

func TestNewestVersionComesFirst(t *testing.T) {
	dir := t.TempDir()
	for _, version := range []string{"9", "18", "15"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, version, "bin"), 0o755))
	}
	var order []string
	for _, path := range newestFirst(filepath.Join(dir, "*", "bin")) {
		order = append(order, filepath.Base(filepath.Dir(path)))
	}
	require.Equal(t, "18 15 9", strings.Join(order, " "))
}
