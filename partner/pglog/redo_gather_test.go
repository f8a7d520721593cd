package pglog

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRedoGathers hardens many small transactions one after the other while redo runs: it takes them together, so that
// it does not work once for each while commits wait for the same processors.
func TestRedoGathers(t *testing.T) {
	p := newRedoPair(t, 0)
	p.both("CREATE TABLE t (id int PRIMARY KEY)")
	p.redo(p.config())
	const transactions = 300
	for i := range transactions {
		p.run(p.source, fmt.Sprintf("INSERT INTO t VALUES (%d)", i))
	}
	messages := p.messages()
	p.append()
	r := p.begin(p.config())
	before, begun := r.Progress(), time.Now()
	first := 0
	for i, message := range messages {
		if _, ends := EndsTransaction(message); ends {
			p.extend(messages[first : i+1]...)
			first = i + 1
		}
	}
	require.NoError(t, r.Drain(t.Context(), p.queue.Hardened()))
	took := time.Since(begun)
	require.NoError(t, r.stop())
	p.equal()
	got := r.Progress()
	require.EqualValues(t, transactions, got.Transactions-before.Transactions)
	require.LessOrEqual(t, got.Batches-before.Batches, uint64(took/gatherFor)+2, "in %s", took)
}
