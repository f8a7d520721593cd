package mirrortest

import (
	"flag"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	long    = flag.Bool("explore.long", false, "explore the spaces that take many minutes too")
	states  = flag.Int("explore.states", 100_000_000, "end the search of a space at so many states; 40 bytes of memory each")
	minutes = flag.Float64("explore.minutes", 0, "end the search of a space after so many minutes; 0: never")
)

// spaces are searched each time. T, K, N, R and F are the bounds of role sequences, changes of the record in each,
// writes, restarts and forced services.
var spaces = []Space{
	{Name: "T2 K1 N1 R0", Seqs: 2, Changes: 1, Writes: 1, Failover: true},
	{Name: "T2 K1 N1 R0 suspended", Seqs: 2, Changes: 1, Writes: 1, Suspends: true},
	{Name: "T2 K1 N1 R0 safety", Seqs: 2, Changes: 1, Writes: 1, Safety: true},
	{Name: "T2 K0 N1 R0 F1 leases", Seqs: 2, Writes: 1, Forces: 1, Leases: true},
	{Name: "T1 K3 N1 R0 new witness", Seqs: 1, Changes: 3, Writes: 1, NewWitness: true},
	{Name: "T2 K2 N2 R0", Seqs: 2, Changes: 2, Writes: 2},
	{Name: "T2 K1 N1 R1", Seqs: 2, Changes: 1, Writes: 1, Restarts: 1, Failover: true},
	{Name: "T3 K1 N1 R0", Seqs: 3, Changes: 1, Writes: 1, Failover: true},
}

// longSpaces take minutes to hours; the last of them may reach a limit.
var longSpaces = []Space{
	{Name: "T2 K2 N1 R0 suspended", Seqs: 2, Changes: 2, Writes: 1, Suspends: true},
	{Name: "T2 K2 N1 R0 safety", Seqs: 2, Changes: 2, Writes: 1, Safety: true},
	{Name: "T2 K2 N1 R0 suspended and safety", Seqs: 2, Changes: 2, Writes: 1, Suspends: true, Safety: true},
	{Name: "T2 K1 N1 R0 F1 leases", Seqs: 2, Changes: 1, Writes: 1, Forces: 1, Leases: true},
	{Name: "T2 K1 N2 R1", Seqs: 2, Changes: 1, Writes: 2, Restarts: 1, Failover: true},
	{Name: "T3 K1 N1 R1", Seqs: 3, Changes: 1, Writes: 1, Restarts: 1},
	{Name: "T2 K3 N1 R0 new witness", Seqs: 2, Changes: 3, Writes: 1, NewWitness: true},
	{Name: "T2 K1 N1 R1 F1 leases", Seqs: 2, Changes: 1, Writes: 1, Restarts: 1, Forces: 1, Leases: true, Failover: true},
	{Name: "T2 K3 N1 R1 new witness", Seqs: 2, Changes: 3, Writes: 1, Restarts: 1, NewWitness: true},
}

// TestExplore exhausts the spaces and finds every planted error. A space that reaches a limit says how far it came.
func TestExplore(t *testing.T) {
	start, begun, total := time.Now(), cpuSeconds(), 0
	searched := spaces
	if *long {
		searched = slices.Concat(spaces, longSpaces)
	} else {
		t.Logf("%d larger spaces are explored with -explore.long", len(longSpaces))
	}
	t.Run("spaces", func(t *testing.T) {
		for _, space := range searched {
			t.Run(space.Name, func(t *testing.T) {
				space.Limit = Limit{States: *states, Time: time.Duration(*minutes * float64(time.Minute))}
				begun := cpuSeconds()
				r := Explore(space)
				used := cpuSeconds() - begun
				t.Logf("%s; %.1f CPU seconds, %.0f states each", r, used, float64(r.States)/used)
				total += r.States
				require.Nil(t, r.Violation, "%s", r.Violation)
				require.True(t, r.Exhausted || *long, "the limit is too low for a space that is searched each time")
			})
		}
	})
	used := cpuSeconds() - begun
	t.Logf("%d states in %.1f CPU seconds: %.0f each", total, used, float64(total)/used)
	found, planted := findMutants(t)
	fmt.Printf("explored spaces=%d states=%d seconds=%.0f violations=0 mutants=%d/%d\n",
		len(searched), total+planted, time.Since(start).Seconds(), found, len(mutants))
}

// cpuSeconds is what this process has used of the processors, in and out of the kernel.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // the kernel does not know its own call
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
