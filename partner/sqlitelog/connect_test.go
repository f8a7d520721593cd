package sqlitelog

import (
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"zombiezen.com/go/sqlite"
)

// In one process connections open while others close, this package's and those of programs that use the driver for
// something else. Where one of them loses its authorizer, as the driver's own was lost, the next statement ends the
// process, or is allowed.
func TestConnectionsOpenWhileOthersClose(t *testing.T) {
	t.Parallel()
	db := open(t, Config{Path: filepath.Join(t.TempDir(), "database")})
	must(t, db, "CREATE TABLE t (a)")
	var all sync.WaitGroup
	repeat := func(workers int, work func() error) {
		for range workers {
			all.Go(func() {
				for range 500 {
					if err := work(); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	repeat(6, func() error {
		r, err := openReader(db.cfg)
		if err != nil {
			return err
		}
		if err := runOnce(r.conn, "ATTACH '' AS other"); err == nil || r.guard.refused == nil {
			t.Errorf("nobody was asked whether the statement is allowed: %v", err)
		}
		return r.close()
	})
	repeat(2, func() error {
		conn, err := sqlite.OpenConn(":memory:", sqlite.OpenReadWrite)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	all.Wait()
	require.NoError(t, db.Close())
}
