package pgtest

import (
	"os"
	"path/filepath"
	"testing"
)

// New starts a server for a test, with the settings added to the defaults of [Config] and the database "app", and
// removes it when the test ends; the end of its log is shown when the test has failed. Without server binaries the test
// fails, it is never skipped.
func New(t testing.TB, settings map[string]string) *Server {
	t.Helper()
	in, err := Find(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	dir := tempDir(t)
	s, err := Start(t.Context(), in, Config{Dir: filepath.Join(dir, "server"), Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			showLog(t, s)
		}
		if err := s.Remove(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// tempDir makes a directory that the server's account can reach, and removes it when the test ends. That of
// [testing.TB.TempDir] may lie below one that is closed to others, as root's home is.
func tempDir(t testing.TB) string {
	t.Helper()
	acc, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	base := os.TempDir()
	if closed, err := acc.barrier(base); err != nil {
		t.Fatal(err)
	} else if closed != "" {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, "dbmirror-pgtest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func showLog(t testing.TB, s *Server) {
	t.Helper()
	text, err := os.ReadFile(s.LogFile())
	if err != nil {
		t.Error(err)
		return
	}
	t.Logf("the server on port %d said at last:\n%s", s.Port(), lastLines(string(text), 30))
}
