package sqlitelog

import (
	"context"
	"io"
	"runtime"
	"runtime/metrics"
	"testing"

	"github.com/stretchr/testify/require"
	"zombiezen.com/go/sqlite"

	"github.com/f19126b3/dbmirror/mirror"
)

// A transaction that is larger than what is deleted at once is given back in steps, and all of it: the log goes on, for a
// mirror that connects anew, and to be read, while a part of the transaction is still there.
func TestLogOfALargeTransactionIsGivenBack(t *testing.T) {
	ctx := context.Background()
	l := newLink(t, Config{})
	must(t, l.a, smallTable)
	l.seed(t)
	r := l.follow(t)
	begin := l.a.End()
	must(t, l.a, "INSERT INTO t (a) VALUES (zeroblob(20 << 20))")
	large := l.a.End()
	redone := func(r *running) {
		require.NoError(t, r.redo.Drain(ctx, mirror.Position{Seq: first, LSN: l.a.End()}))
		l.reported(t) // or the next transaction finds nothing to give back
	}
	redone(r)
	trimmed := func() bool {
		kept, err := l.a.kept(ctx)
		require.NoError(t, err)
		return kept < trimStep+1000
	}
	steps, within := 0, 0
	for ; !trimmed(); steps++ {
		require.Less(t, steps, 20, "the log is kept for ever")
		must(t, l.a, "INSERT INTO t (a) VALUES (1)")
		redone(r)
		l.a.mu.Lock()
		at := l.a.mu.trimmed
		l.a.mu.Unlock()
		if at <= begin || at >= large {
			continue
		}
		within++
		r.stop(t)
		end := l.a.End()
		must(t, l.a, "INSERT INTO t (a) VALUES (2)")
		tail, err := l.a.Tail(ctx, end, io.Discard)
		require.NoError(t, err)
		require.EqualValues(t, 1, tail.Transactions)
		r = l.follow(t)
		redone(r)
	}
	require.Positive(t, within)
	l.same(t, r)
	r.stop(t)
}

// A tail may be as large as the log that is kept for a mirror. It is taken back with one transaction in memory at a time.
func TestUndoOfALargeTailTakesLittleMemory(t *testing.T) {
	const count, size = 12, 4 << 20
	ctx := context.Background()
	undoing, looks, most := false, 0, uint64(0)
	look := func(sqlite.Context, []sqlite.Value) (sqlite.Value, error) {
		if undoing {
			looks++
			runtime.GC()
			live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
			metrics.Read(live)
			most = max(most, live[0].Value.Uint64())
		}
		return sqlite.IntegerValue(1), nil
	}
	// An index on it has it called for each row that comes or goes, by whoever is at work: nothing comes in between.
	p := newPair(t, Config{Prepare: func(conn *sqlite.Conn) error {
		return conn.CreateFunction("look", &sqlite.FunctionImpl{NArgs: 1, Scalar: look, Deterministic: true, AllowIndirect: true})
	}})
	must(t, p.a, smallTable+"; CREATE INDEX looked ON t (look(k))")
	p.equal(t)
	fork := p.a.End()
	for range count {
		must(t, p.a, "INSERT INTO t (a) VALUES (zeroblob(4 << 20))")
	}
	undoing = true
	require.NoError(t, p.a.Undo(ctx, fork))
	undoing = false
	requireEqual(t, p.a, p.b)
	require.GreaterOrEqual(t, looks, count)
	t.Logf("at most %d bytes for %d in the tail", most, count*size)
	require.Positive(t, most)
	require.Less(t, most, uint64(count*size/2), "of %d in the tail", count*size)
}
