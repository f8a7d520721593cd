package statefile

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// unprivileged runs f without the superuser's right to write everywhere. The thread is thrown away afterwards.
func unprivileged(t *testing.T, uid int, f func() error) error {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := syscall.Setfsuid(uid); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// In a directory where nothing may be made, an existing state file works and a new one is refused.
func TestReadOnlyDirectory(t *testing.T) {
	uid := os.Getuid()
	if uid == 0 {
		uid = 65534
	}
	dir, err := os.MkdirTemp("", "statefile")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	old := filepath.Join(dir, "old")
	require.NoError(t, open(t, old).Close())
	require.NoError(t, os.Chown(old, uid, -1))
	require.NoError(t, os.Chmod(dir, 0o555))
	t.Cleanup(func() { _ = os.Chmod(dir, 0o755) })

	err = unprivileged(t, uid, func() error {
		_, err := Open(filepath.Join(dir, "new"), testID)
		return err
	})
	require.ErrorIs(t, err, os.ErrPermission)
	require.ErrorContains(t, err, "let the user that runs this program write")

	require.NoError(t, unprivileged(t, uid, func() error {
		f, err := Open(old, testID)
		if err != nil {
			return err
		}
		_, _, err = f.Load()
		return errors.Join(err, f.Close())
	}))
}
