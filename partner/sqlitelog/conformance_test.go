package sqlitelog

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/backend/conformance"
)

// TestConformance: SQLite is a backend as any other.
func TestConformance(t *testing.T) {
	conformance.Run(t, func(t *testing.T) conformance.Pair {
		a, b := newConforming(t), newConforming(t)
		require.NoError(t, exec(a.db, "CREATE TABLE entry (id INTEGER PRIMARY KEY, body TEXT NOT NULL); INSERT INTO entry VALUES (1, 'from before')"))
		return conformance.Pair{A: a.side(), B: b.side()}
	})
}

// conforming is a side of a pair, whose database can be closed and opened again.
type conforming struct {
	t   *testing.T
	cfg Config
	db  *DB
}

func newConforming(t *testing.T) *conforming {
	c := &conforming{t: t, cfg: Config{Path: filepath.Join(t.TempDir(), "database")}}
	c.begin()
	t.Cleanup(func() { require.NoError(t, c.db.Close()) })
	return c
}

func (c *conforming) begin() {
	var err error
	c.db, err = Open(c.cfg)
	require.NoError(c.t, err)
}

func (c *conforming) side() conformance.Side {
	return conformance.Side{
		Backend: func() backend.Backend { return c.db.Backend() },
		Client:  c,
		Tamper: func(ctx context.Context, changes ...conformance.Change) error {
			return c.db.redoing(ctx, func(w *writer) error { return script(w.conn, changes) })
		},
		Restart: func() {
			require.NoError(c.t, c.db.Close())
			c.begin()
		},
	}
}

func (c *conforming) Do(ctx context.Context, changes ...conformance.Change) error {
	return c.db.Write(ctx, func(conn *sqlite.Conn) error { return script(conn, changes) })
}

func script(conn *sqlite.Conn, changes []conformance.Change) error {
	for _, change := range changes {
		if err := sqlitex.ExecuteScript(conn, change.SQL(), nil); err != nil {
			return err
		}
	}
	return nil
}

func (c *conforming) Rows(ctx context.Context) (map[int]string, error) {
	found := map[int]string{}
	err := c.db.Read(ctx, func(conn *sqlite.Conn) error {
		return sqlitex.ExecuteTransient(conn, "SELECT id, body FROM entry", &sqlitex.ExecOptions{ResultFunc: func(stmt *sqlite.Stmt) error {
			found[stmt.ColumnInt(0)] = stmt.ColumnText(1)
			return nil
		}})
	})
	return found, err
}
