package partner

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// mountReadOnly lets nobody write, not even root.
const mountReadOnly = syscall.MS_RDONLY

// mountTmpfs puts a file system of its own over a directory until the test ends. It needs root.
func mountTmpfs(t *testing.T, dir string, flags uintptr, options string) {
	t.Helper()
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", flags, options))
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
}

// serverTmpfs is a file system that a server may write in, for a tablespace. Its size can be changed.
func serverTmpfs(t *testing.T, server *pgtest.Server, size string) (dir string, resize func(size string)) {
	t.Helper()
	home := filepath.Dir(server.LogFile())
	dir = filepath.Join(home, "small")
	require.NoError(t, os.Mkdir(dir, 0o700))
	mountTmpfs(t, dir, 0, "mode=0700,size="+size)
	info, err := os.Stat(home)
	require.NoError(t, err)
	owner := info.Sys().(*syscall.Stat_t)
	require.NoError(t, os.Chown(dir, int(owner.Uid), int(owner.Gid)))
	return dir, func(size string) {
		require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size="+size))
	}
}

// limitFiles lets a process write only in the first bytes of files, or anywhere again.
func limitFiles(pid int, limited bool) error {
	limit := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if limited {
		limit.Cur = 1
	}
	return unix.Prlimit(pid, unix.RLIMIT_FSIZE, &limit, nil)
}
