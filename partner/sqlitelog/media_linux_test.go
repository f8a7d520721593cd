package sqlitelog

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
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

// Whichever partner looks finds that the mirror's disk does not hold the copy, and the principal's not the log.
func TestExamineSpace(t *testing.T) {
	dir, remount := mounted(t)
	l := newLinkTo(t, Config{}, dir)
	must(t, l.a, "CREATE TABLE t (a); INSERT INTO t VALUES (zeroblob(3000000))")
	look := func(severity backend.Severity, text string) {
		t.Helper()
		for _, d := range []*database{l.p, l.m} {
			found, err := d.ExaminePair(t.Context(), backend.Pair{Principal: d == l.p, Replace: true})
			require.NoError(t, err)
			require.Len(t, found, 1)
			f := found[0]
			require.Equal(t, []any{severity, backend.CodeSpace, "mirror", dir}, []any{f.Severity, f.Code, f.Server, f.Object})
			require.Contains(t, f.Text, text)
		}
	}
	look(backend.Fatal, "0 MB are free and the principal's database has 5 MB; make room before the baseline")
	remount(0, "size=6800k")
	look(backend.Warning, "which leaves little for the log of the copy")
	remount(0, "size=64m")
	for _, d := range []*database{l.p, l.m} {
		found, err := d.ExaminePair(t.Context(), backend.Pair{Principal: d == l.p, Replace: true})
		require.NoError(t, err)
		require.Empty(t, found)
	}

	l.m.env.LogBudget = 60 << 20
	found, err := l.m.Examine(t.Context(), mirror.RolePrincipal)
	require.NoError(t, err)
	require.Empty(t, found)
	l.m.env.LogBudget = 1 << 40
	found, err = l.m.Examine(t.Context(), mirror.RolePrincipal)
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.Equal(t, backend.Warning, found[0].Severity)
	require.Contains(t, found[0].Text, "63 MB are free and the session's log budget is 1048576 MB")
	found, err = l.m.Examine(t.Context(), mirror.RoleMirror)
	require.NoError(t, err)
	require.Empty(t, found, "a mirror keeps no log")
}
