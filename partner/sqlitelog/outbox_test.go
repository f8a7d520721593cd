package sqlitelog

import (
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
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
	must(t, l.a, "INSERT INTO t (a) VALUES (randomblob(3 * 8 << 20))")
	large := l.a.End()
	l.same(t, r)
	trimmed := func() bool {
		kept, err := l.a.kept(ctx)
		require.NoError(t, err)
		return kept < trimStep+1000
	}
	steps, within := 0, 0
	for ; !trimmed(); steps++ {
		require.Less(t, steps, 20, "the log is kept for ever")
		must(t, l.a, "INSERT INTO t (a) VALUES (1)")
		l.same(t, r)
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
		l.same(t, r)
	}
	require.Positive(t, within)
	r.stop(t)
}
