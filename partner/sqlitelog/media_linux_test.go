package sqlitelog

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// mounted is a small file system of its own. It needs root.
func mounted(t *testing.T) (dir string, remount func(flags uintptr, options string)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a file system needs root")
	}
	dir = t.TempDir()
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size=1m"))
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir, func(flags uintptr, options string) {
		require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|flags, options))
	}
}

func TestReadOnlyMedia(t *testing.T) {
	dir, remount := mounted(t)
	path := filepath.Join(dir, "database")
	db, err := Open(Config{Path: path})
	require.NoError(t, err)
	require.NoError(t, exec(db, smallTable))
	require.NoError(t, db.Close())
	remount(syscall.MS_RDONLY, "")
	_, err = Open(Config{Path: path})
	var file *FileError
	require.ErrorAs(t, err, &file)
	require.NotEmpty(t, file.Mend)
	remount(0, "size=1m")
	db = open(t, Config{Path: path})
	require.Equal(t, []string{"1 1"}, rows(t, db, "SELECT * FROM t"))
}

func TestFullDisk(t *testing.T) {
	dir, remount := mounted(t)
	db := open(t, Config{Path: filepath.Join(dir, "database")})
	must(t, db, smallTable)
	var err error
	for err == nil {
		err = exec(db, "INSERT INTO t (a) VALUES (randomblob(50000))")
	}
	requireFileError(t, err, "there is no room")
	kept := rows(t, db, "SELECT k, length(a) FROM t")
	remount(0, "size=8m")
	must(t, db, "INSERT INTO t (k) VALUES (1000)")
	require.Equal(t, append(kept, "1000 null"), rows(t, db, "SELECT k, length(a) FROM t"))
	requireSound(t, db)
}
