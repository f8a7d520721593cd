package mirrortest

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestForgetting: without the messages that the second kind of rule drops, the same servers, databases, acknowledged
// writes and reigns are reached as with them. Both searches share their tables, so that their numbers mean the same.
func TestForgetting(t *testing.T) {
	for _, space := range []Space{
		{Name: "failover", Seqs: 2, Changes: 1, Writes: 1, Failover: true},
		{Name: "restart", Seqs: 2, Changes: 1, Restarts: 1},
		{Name: "suspended", Seqs: 2, Changes: 2, Suspends: true},
		{Name: "forced", Seqs: 2, Forces: 1, Leases: true},
		{Name: "new witness", Seqs: 1, Changes: 3, NewWitness: true},
	} {
		t.Run(space.Name, func(t *testing.T) {
			tables, reached := newTables(space), map[uint64]bool{}
			few := search(t, space, tables, func(w *world) string {
				reached[w.core()] = true
				return ""
			})
			tables.keepsAll = true
			all := search(t, space, tables, func(w *world) string {
				if !reached[w.core()] {
					return "not reached when forgetting: " + tables.portrait(w)
				}
				return ""
			})
			require.Less(t, few, all, "nothing was forgotten")
			t.Logf("%d states instead of %d, and the same %d of servers and databases", few, all, len(reached))
		})
	}
}

// search searches a space with a further check, and returns how many worlds there are.
func search(t *testing.T, space Space, tables *tables, also func(*world) string) int {
	x := newExplorer(space)
	x.tables, x.also = tables, also
	x.search()
	require.Nil(t, x.result.Violation, "%s", x.result.Violation)
	require.True(t, x.result.Exhausted)
	return len(x.parent)
}
