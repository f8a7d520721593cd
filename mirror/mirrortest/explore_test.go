package mirrortest

import (
	"flag"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
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

// TestExplore exhausts the spaces and finds every planted error.
func TestExplore(t *testing.T) {
	start, states := time.Now(), 0
	spaces := spaces
	if *long {
		spaces = append(longSpaces, spaces...)
	} else {
		t.Logf("%s and larger are explored with -explore.long", longSpaces[0].Name)
	}
	var mu sync.Mutex // over states: the spaces are searched two at a time
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
	found, planted := findMutants(t)
	states += planted
	fmt.Printf("explored spaces=%d states=%d seconds=%.0f violations=0 mutants=%d/%d\n",
		len(spaces), states, time.Since(start).Seconds(), found, len(mutants))
}
