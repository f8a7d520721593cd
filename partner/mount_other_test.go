//go:build !linux

package partner

import (
	"errors"
	"testing"

	"github.com/f19126b3/dbmirror/partner/pgtest"
)

const mountReadOnly = 1

// mountTmpfs cannot do it here.
func mountTmpfs(t *testing.T, dir string, _ uintptr, _ string) {
	t.Helper()
	t.Fatalf("a file system of its own for %s can be made on Linux only: run this test there, or as an ordinary user", dir)
}

func serverTmpfs(t *testing.T, server *pgtest.Server, _ string) (string, func(string)) {
	t.Helper()
	mountTmpfs(t, server.LogFile(), 0, "")
	return "", nil
}

func limitFiles(int, bool) error {
	return errors.New("this system cannot limit the files of a process that runs")
}
