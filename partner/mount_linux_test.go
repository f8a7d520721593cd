package partner

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// mountReadOnly lets nobody write, not even root.
const mountReadOnly = syscall.MS_RDONLY

// mountTmpfs puts a file system of its own over a directory until the test ends. It needs root.
func mountTmpfs(t *testing.T, dir string, flags uintptr, options string) {
	t.Helper()
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", flags, options))
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
}
