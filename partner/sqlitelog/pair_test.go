package sqlitelog

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// fataler is a *testing.T or a *rapid.T.
type fataler interface {
	require.TestingT
	Helper()
}

// open opens a database of its own.
func open(t *testing.T, cfg Config) *DB {
	t.Helper()
	if cfg.Path == "" {
		cfg.Path = filepath.Join(t.TempDir(), "database")
	}
	db, err := Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// exec runs statements in one Write.
func exec(db *DB, sql string) error {
	return db.Write(context.Background(), func(conn *sqlite.Conn) error { return sqlitex.ExecuteScript(conn, sql, nil) })
}

func must(t fataler, db *DB, sql string) {
	t.Helper()
	require.NoError(t, exec(db, sql), sql)
}

// pair is a principal and a copy of it, without anything between them: its log is redone by hand.
type pair struct {
	a, b *DB
	at   mirror.LSN
}

func newPair(t *testing.T, cfg Config) *pair {
	p := &pair{a: open(t, cfg), b: open(t, cfg)}
	_, err := p.a.createSlot(context.Background(), "session", "slot")
	require.NoError(t, err)
	p.at = p.a.End()
	return p
}

// follow redoes on b what a has committed since.
func (p *pair) follow() error {
	ctx := context.Background()
	var news []logged
	err := p.a.inspect(ctx, func(conn *sqlite.Conn) error {
		return p.a.transactions(conn, p.at, func(l logged) error {
			news = append(news, l)
			return nil
		})
	})
	if err != nil || len(news) == 0 {
		return err
	}
	err = p.b.redoing(ctx, func(w *writer) error {
		r := newRedoer(w.conn)
		for _, l := range news {
			_, changes, err := parse(l.body)
			if err != nil {
				return err
			}
			if err := r.redo(changes); err != nil {
				return redoError(err, l.end)
			}
		}
		return nil
	})
	if err == nil {
		p.at = news[len(news)-1].end.LSN
	}
	return err
}

// equal requires both databases to be the same, after what a has committed was redone on b.
func (p *pair) equal(t fataler) {
	t.Helper()
	require.NoError(t, p.follow())
	requireEqual(t, p.a, p.b)
}

func requireEqual(t fataler, a, b *DB) {
	t.Helper()
	left, err := a.Sums(context.Background())
	require.NoError(t, err)
	right, err := b.Sums(context.Background())
	require.NoError(t, err)
	found := backend.Compare(left, right)
	require.True(t, found.Equal(), found.String())
	require.NotEmpty(t, left)
}

// rows reads the results of a query, with values as JSON writes them.
func rows(t fataler, db *DB, sql string) (all []string) {
	t.Helper()
	require.NoError(t, db.inspect(context.Background(), func(conn *sqlite.Conn) error {
		return query(conn, sql, func(stmt *sqlite.Stmt) error {
			line := ""
			for i := range stmt.ColumnCount() {
				text, err := columnValue(stmt, i).MarshalJSON()
				if err != nil {
					return err
				}
				if i > 0 {
					line += " "
				}
				line += string(text)
			}
			all = append(all, line)
			return nil
		})
	}))
	return all
}
