package mirrortest

import (
	"flag"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror/internal/seeded"
)

var long = flag.Bool("explore.long", false, "explore the spaces that take many minutes too")

// The spaces of the protocol's reference model (protocol-and-reliability 1.9).
var spaces = []Space{
	{Name: "T2 K1 N1 R0", Seqs: 2, Changes: 1, Writes: 1, Failover: true},
	{Name: "T2 K2 N2 R0", Seqs: 2, Changes: 2, Writes: 2},
}

// These have five million states and more: minutes, not seconds.
var longSpaces = []Space{
	{Name: "T3 K1 N1 R0", Seqs: 3, Changes: 1, Writes: 1, Failover: true},
	{Name: "T2 K1 N1 R1", Seqs: 2, Changes: 1, Writes: 1, Restarts: 1, Failover: true},
}

// The planted errors, each in a space large enough to show it.
var mutants = []Space{
	{Name: "M1", Seqs: 3, Changes: 2, Writes: 2, Restarts: 1, Failover: true, Planted: Mutant{Name: "acknowledges alone without recording it", Rules: seeded.AckAlone}},
	{Name: "M2", Seqs: 3, Changes: 2, Writes: 2, Restarts: 1, Failover: true, Planted: Mutant{Name: "the witness ignores versions", Rules: seeded.IgnoreVersions}},
	{Name: "M3", Seqs: 3, Changes: 2, Writes: 2, Restarts: 1, Failover: true, Planted: Mutant{Name: "the witness loses its state and votes", World: WitnessForgets}},
	{Name: "M4", Seqs: 3, Changes: 2, Writes: 2, Restarts: 1, Failover: true, Planted: Mutant{Name: "SYNCHRONIZED before the mirror has everything", Rules: seeded.AnnounceEarly}},
	{Name: "M6", Seqs: 3, Changes: 1, Writes: 2, Planted: Mutant{Name: "a returning partner keeps its tail", World: KeepsTail}},
	{Name: "M7", Seqs: 3, Changes: 2, Writes: 2, Restarts: 1, Failover: true, Planted: Mutant{Name: "confirmed survives a restart", Rules: seeded.RememberConfirm}},
	{Name: "M8", Seqs: 3, Changes: 2, Writes: 2, Restarts: 1, Failover: true, Planted: Mutant{Name: "a candidate stores the record before the grant", Rules: seeded.StoreBeforeGrant}},
	{Name: "M13", Seqs: 3, Changes: 2, Writes: 2, Restarts: 1, Failover: true, Planted: Mutant{Name: "acts on its own exposure alone", Rules: seeded.TrustOwnExposure}},
}

// TestExplore exhausts the spaces and finds every planted error.
func TestExplore(t *testing.T) {
	start, states, found := time.Now(), 0, 0
	spaces := spaces
	if *long {
		spaces = append(longSpaces, spaces...)
	} else {
		t.Logf("%s and larger are explored with -explore.long", longSpaces[0].Name)
	}
	var mu sync.Mutex // over states and found: the spaces are searched two at a time
	t.Run("spaces", func(t *testing.T) {
		for _, space := range spaces {
			t.Run(space.Name, func(t *testing.T) {
				t.Parallel()
				r := Explore(space)
				t.Log(r)
				mu.Lock()
				states += r.States
				mu.Unlock()
				require.Nil(t, r.Violation, "%s", r.Violation)
				require.True(t, r.Exhausted)
			})
		}
	})
	for _, space := range mutants {
		t.Run(space.Name, func(t *testing.T) {
			r := Explore(space)
			states += r.States
			require.NotNil(t, r.Violation, "%s was not found in %s", space.Planted.Name, r)
			t.Logf("%s (%s)\n%s", r, space.Planted.Name, r.Violation)
			require.LessOrEqual(t, len(r.Violation.Trace), 22, "the trace is too long for a person")
			found++
		})
	}
	fmt.Printf("explored spaces=%d states=%d seconds=%.0f violations=0 mutants=%d/%d\n",
		len(spaces), states, time.Since(start).Seconds(), found, len(mutants))
}
