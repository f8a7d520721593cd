package mirrortest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror/internal/seeded"
)

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

// findMutants explores with each planted error until it is found, and counts those found and the states it took.
func findMutants(t *testing.T) (found, states int) {
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
	return found, states
}
