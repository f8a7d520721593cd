package partner

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// target is what a fault takes hold of, by the roles at the beginning of the run.
type target uint16

const (
	principalProgram target = 1 << iota
	mirrorProgram
	witnessProgram
	principalServer
	mirrorServer
	slotOfMirror
	links // several faults may share the links
)

// faultKind is one way in which something goes wrong for a while.
type faultKind struct {
	name        string
	on          target // two faults of a run share none of these
	not         target // no other fault of the run is there
	least, most time.Duration
	begin       func(*chaos, *fault) (end func() error, err error)
}

// fault is one that is drawn: it begins at a time after the begin of the run and holds on for a while.
type fault struct {
	*faultKind
	at, hold time.Duration
	dice     *rand.Rand // for what the kind leaves open
}

func (f *fault) String() string {
	return fmt.Sprintf("%s at %s for %s", f.name, f.at.Round(time.Millisecond), f.hold.Round(time.Millisecond))
}

const mostFaults = 3

// draw makes a run's faults from its seed, one to three at once. The same seed among the same kinds gives the same.
func draw(seed uint64, kinds []*faultKind) []*fault {
	dice := rand.New(rand.NewPCG(seed, 0))
	var faults []*fault
	count := 1 + dice.IntN(mostFaults)
	within := []time.Duration{time.Second, 5 * time.Second}[dice.IntN(2)] // at once, or one when another has taken effect
	for _, i := range dice.Perm(len(kinds)) {
		k := kinds[i]
		if len(faults) == count || slices.ContainsFunc(faults, func(f *fault) bool { return f.clashes(k) }) {
			continue
		}
		hold := k.least
		if k.most > k.least {
			hold += time.Duration(dice.Int64N(int64(k.most - k.least)))
		}
		faults = append(faults, &fault{k, time.Duration(dice.Int64N(int64(within))), hold,
			rand.New(rand.NewPCG(seed, dice.Uint64()))})
	}
	return faults
}

func (k *faultKind) clashes(other *faultKind) bool {
	return k == other || k.on&other.on&^links != 0 || k.not&other.on != 0 || other.not&k.on != 0
}

// deal returns the seeds of some runs. They are chosen so that each kind is used before any is used again; ten runs have
// room for all of them.
func deal(seed uint64, runs int, kinds []*faultKind) (best []uint64) {
	dice := rand.New(rand.NewPCG(seed, 1))
	const tries, room = 20, 10
	fewest := len(kinds)
	for range tries { // which kinds go together shows only at the end
		seeds, left := dealOnce(dice, min(runs, room), kinds)
		if best == nil || left < fewest {
			best, fewest = seeds, left
		}
		if left == 0 || runs < room {
			break
		}
	}
	if runs > room {
		best = append(best, deal(dice.Uint64(), runs-room, kinds)...)
	}
	return best
}

func dealOnce(dice *rand.Rand, runs int, kinds []*faultKind) (seeds []uint64, left int) {
	missing := map[*faultKind]bool{}
	for _, k := range kinds {
		missing[k] = true
	}
	for range runs {
		best, most := uint64(0), -1
		for range 1000 {
			candidate := dice.Uint64() | 1 // never zero, which stands for none
			if worth := worth(draw(candidate, kinds), missing, kinds); worth > most {
				best, most = candidate, worth
			}
		}
		for _, f := range draw(best, kinds) {
			delete(missing, f.faultKind)
		}
		seeds = append(seeds, best)
	}
	return seeds, len(missing)
}

// worth counts the missing kinds among the faults, and prefers those that go with few others.
func worth(faults []*fault, missing map[*faultKind]bool, kinds []*faultKind) (sum int) {
	for _, f := range faults {
		if !missing[f.faultKind] {
			continue
		}
		sum += len(kinds)
		for _, k := range kinds {
			if f.clashes(k) {
				sum++
			}
		}
	}
	return sum
}

func describe(faults []*fault) string {
	texts := make([]string, len(faults))
	for i, f := range faults {
		texts[i] = f.String()
	}
	return strings.Join(texts, "; ")
}

// TestChaosPlan: a seed always gives the same faults, no two of a run are at odds, and ten runs use every kind.
func TestChaosPlan(t *testing.T) {
	kinds := faultKinds()
	for seed := range uint64(20) {
		used := map[*faultKind]bool{}
		for _, run := range deal(seed, 10, kinds) {
			faults := draw(run, kinds)
			require.Equal(t, describe(faults), describe(draw(run, kinds)))
			require.NotEmpty(t, faults)
			require.LessOrEqual(t, len(faults), mostFaults)
			for i, f := range faults {
				used[f.faultKind] = true
				for _, other := range faults[:i] {
					require.False(t, f.clashes(other.faultKind), "%s and %s", f, other)
				}
			}
		}
		require.Len(t, used, len(kinds), "seed %d", seed)
	}
}
