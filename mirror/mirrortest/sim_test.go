package mirrortest

import (
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror/internal/seeded"
	"github.com/f19126b3/dbmirror/mirror/mirrortest/sim"
)

var (
	simSeeds = flag.Int("sim.seeds", 1500, "how many seeds to simulate")
	simSeed  = flag.Uint64("sim.seed", 1, "the first of them")
)

// TestSimulate plays seeds, each a story of minutes with three servers and everything that goes wrong.
func TestSimulate(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // little lives long
	var total sim.Result
	var mu sync.Mutex
	failures, played := 0, 0
	next := *simSeed
	end := next + uint64(*simSeeds)
	var workers sync.WaitGroup
	began, used := time.Now(), cpu()
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for {
				mu.Lock()
				seed := next
				next++
				stop := seed >= end || failures >= 10
				mu.Unlock()
				if stop {
					return
				}
				r := sim.Run(sim.Config{Seed: seed, Trace: *simSeeds == 1})
				if r.Failure != "" && *simSeeds > 1 {
					r = sim.Run(sim.Config{Seed: seed, Trace: true})
				}
				mu.Lock()
				played++
				total.RoleChanges += r.RoleChanges
				total.Commits += r.Commits
				total.Steps += r.Steps
				total.Virtual += r.Virtual
				for i, met := range r.Met {
					total.Met[i] = total.Met[i] || met
				}
				if r.Failure != "" {
					failures++
					t.Errorf("%s\n%s\nagain: go test ./mirror/mirrortest -run Simulate -sim.seed=%d -sim.seeds=1 -v", r, strings.Join(r.Trace, "\n"), seed)
				} else if *simSeeds == 1 {
					t.Log(r)
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	used = cpu() - used
	met := 0
	for i, name := range sim.Situations() {
		if total.Met[i] {
			met++
		} else if *simSeeds >= 20000 {
			t.Errorf("not reached: %s", name)
		} else {
			t.Logf("not reached: %s", name)
		}
	}
	t.Logf("%d steps, %.0f virtual hours in %s, CPU %s: %.0f seeds an hour of CPU", total.Steps, total.Virtual.Hours(), time.Since(began), used, float64(played)/used.Hours())
	fmt.Printf("simulated seeds=%d failures=%d role_changes=%d commits=%d situations=%d/%d\n",
		played, failures, total.RoleChanges, total.Commits, met, len(sim.Situations()))
}

func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// simMutants are rules, or one thing in the world around them, that are broken on purpose, and how simulation finds
// them: nothing of a failed recovery counts where an invariant can be seen to break.
var simMutants = []struct {
	name   string
	found  string
	config sim.Config
}{
	{"M1: the principal acknowledges alone without recording it", "L3", sim.Config{Planted: seeded.AckAlone}},
	{"M2: the witness ignores versions", "I", sim.Config{Planted: seeded.IgnoreVersions}},
	{"M4: SYNCHRONIZED before the mirror has everything", "I5", sim.Config{Planted: seeded.AnnounceEarly}},
	{"M5: a mirror hardens on after a newer promise", "I4", sim.Config{Planted: seeded.HardenAfterPromise}},
	{"M6: a returning partner keeps its tail", "I", sim.Config{KeepsTail: true}},
	{"M7: confirmed survives a restart", "I", sim.Config{Planted: seeded.RememberConfirm}},
	{"M8: a candidate stores the record before the grant", "I", sim.Config{Planted: seeded.StoreBeforeGrant}},
	{"M13: the principal acts on its own exposure alone", "I3", sim.Config{Planted: seeded.TrustOwnExposure}},
	{"N1: an answer to an older change confirms", "I", sim.Config{Planted: seeded.AcceptOlder}},
	{"N3: exposed survives SYNCHRONIZED", "I3", sim.Config{Planted: seeded.RememberExposure}},
	{"N5: a deposed partner takes its own log for the new principal's", "I", sim.Config{Planted: seeded.KeepAligned}},
	{"N6: clients write while the principal hands over", "I", sim.Config{Planted: seeded.OpenWhileDraining}},
	{"N7: an elected principal opens before its database is whole", "I6", sim.Config{Planted: seeded.OpenBeforeWhole}},
	{"N9: the principal hands over to a mirror that lacks commits", "I", sim.Config{Planted: seeded.HandOverBehind}},
	{"N20: a principal without quorum stays open", "after lease and fence", sim.Config{Planted: seeded.ServeWithoutQuorum}},
	{"N22: safety FULL records in_sync at once", "I", sim.Config{Planted: seeded.SyncWithSafety}},
	{"W1: a witness is replaced in one step", "I", sim.Config{Planted: seeded.ReplaceWitnessAtOnce}},
}

// TestSimulateFinds: errors planted on purpose are found within a bounded number of seeds.
func TestSimulateFinds(t *testing.T) {
	const bound = 3000
	for _, m := range simMutants {
		t.Run(m.name, func(t *testing.T) {
			for seed := uint64(1); seed <= bound; seed++ {
				m.config.Seed = seed
				r := sim.Run(m.config)
				what, _, _ := strings.Cut(r.Failure, "\n")
				if strings.HasPrefix(what, m.found) || strings.Contains(what, "invariant broken: "+m.found) || len(m.found) > 2 && strings.Contains(what, m.found) {
					require.Empty(t, sim.Run(sim.Config{Seed: seed}).Failure, "without the planted error")
					t.Logf("seed %d: %s", seed, what)
					return
				}
			}
			t.Errorf("not found within %d seeds", bound)
		})
	}
}

// TestSimulateTwice: the same seed is the same story.
func TestSimulateTwice(t *testing.T) {
	for seed := range uint64(5) {
		a, b := sim.Run(sim.Config{Seed: seed}), sim.Run(sim.Config{Seed: seed, Trace: true})
		require.Equal(t, a.Hash, b.Hash)
		require.Equal(t, a.Steps, b.Steps)
		require.Equal(t, a.Failure, b.Failure)
	}
}
