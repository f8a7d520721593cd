package sqlitelog

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"zombiezen.com/go/sqlite"
)

const benchTable = "CREATE TABLE t (k INTEGER PRIMARY KEY, a TEXT, b INT)"
const benchInsert = "INSERT INTO t (a, b) VALUES ('a value of some length', 7)"

// BenchmarkWrite is one row a transaction, alone and by eight, beside SQLite without this package.
func BenchmarkWrite(b *testing.B) {
	for _, clients := range []int{1, 8} {
		b.Run(fmt.Sprintf("plain/c=%d", clients), func(b *testing.B) {
			conn, err := sqlite.OpenConn(filepath.Join(b.TempDir(), "database"))
			require.NoError(b, err)
			defer conn.Close()
			require.NoError(b, runOnce(conn, "PRAGMA synchronous = FULL"))
			require.NoError(b, runOnce(conn, benchTable))
			var turn sync.Mutex
			benchClients(b, clients, func() error {
				turn.Lock()
				defer turn.Unlock()
				return run(conn, benchInsert)
			})
		})
		b.Run(fmt.Sprintf("recorded/c=%d", clients), func(b *testing.B) {
			db, err := Open(Config{Path: filepath.Join(b.TempDir(), "database")})
			require.NoError(b, err)
			defer db.Close()
			_, err = db.createSlot(context.Background(), session, "slot")
			require.NoError(b, err)
			require.NoError(b, exec(db, benchTable))
			benchClients(b, clients, func() error {
				return db.Write(context.Background(), func(conn *sqlite.Conn) error { return run(conn, benchInsert) })
			})
		})
	}
}

func benchClients(b *testing.B, clients int, write func() error) {
	b.ReportAllocs()
	b.ResetTimer()
	work := make(chan struct{}, clients)
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for range work {
				require.NoError(b, write())
			}
		})
	}
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	all.Wait()
}

// BenchmarkRedoAndUndo is a thousand rows, redone in another database and taken back.
func BenchmarkRedoAndUndo(b *testing.B) {
	db, err := Open(Config{Path: filepath.Join(b.TempDir(), "database")})
	require.NoError(b, err)
	defer db.Close()
	require.NoError(b, exec(db, benchTable))
	of := &table{name: "t", rowid: "k", alias: 0, columns: []string{"k", "a", "b"}}
	var forth, back []change
	for i := range 1000 {
		c := change{op: opInsert, table: of, rowid: int64(i), new: []Value{intValue(int64(i)), textValue("a value of some length"), intValue(7)}}
		forth, back = append(forth, c), append(back, c.inverse())
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, changes := range [][]change{forth, back} {
			require.NoError(b, db.redoing(context.Background(), func(w *writer) error { return newRedoer(w.conn).redo(changes) }))
		}
	}
	b.ReportMetric(2000*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
