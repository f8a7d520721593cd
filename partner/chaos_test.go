package partner

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/partner/internal/testflag"
)

// chaos is a pair of real servers and programs under fire.
type chaos struct {
	*pair
	roads     *roads
	history   *history
	kinds     []*faultKind
	principal mirror.Server
	sequences map[string]map[int64]bool // every number that was handed out, by sequence

	guard    sync.Mutex
	held     [4]bool       // programs that a fault keeps down
	missing  [4]int        // how many faults keep a program or its server from running
	gaps     [4][]interval // when a partner's program and server did not both run
	closings [4][]interval // when a partner was closing its database

	total tally
}

// interval is from the first to the last moment; an open one has no last.
type interval struct{ from, to time.Time }

// tally is what the runs have come to.
type tally struct {
	runs, acknowledged, lost, duplicated, different, unknown int
	failovers                                                int
	slowest                                                  time.Duration
	used, missed                                             map[string]int // faults
	restarts                                                 int            // programs that ended by themselves
	slowToClose                                              int            // databases, beyond the fence time
	commands                                                 map[string]int // that healing took, with their reason
	operations                                               map[string]int // acknowledged, by workload; what readers saw
}

func newChaos(t *testing.T) *chaos {
	c := &chaos{pair: newPair(t), kinds: faultKinds(), sequences: map[string]map[int64]bool{}}
	c.total = tally{used: map[string]int{}, missed: map[string]int{}, commands: map[string]int{}, operations: map[string]int{}}
	c.roads = newRoads(c.pair)
	c.history = newHistory(t, c.dir)
	c.order = func(o *orders) {
		c.roads.lead(o)
		o.Limits.RedoQueue = 8 << 20
	}
	c.limitDisks()
	t.Cleanup(c.keep) // before the disks go
	for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
		c.exec(s, "CREATE ROLE client LOGIN")
	}
	c.exec(mirror.PartnerA, chaosTables)
	for s := mirror.PartnerA; s <= mirror.Witness; s++ {
		c.launch(s)
	}
	c.principal = c.settle()
	return c
}

// TestChaos lets a pair of real servers and programs, under load, meet faults of every kind, one to three at once. What
// was acknowledged must be there in the end, once; what clients saw must make sense; both databases must be equal; and
// the session must heal when the faults are over.
func TestChaos(t *testing.T) {
	t.Parallel()
	c := newChaos(t)
	seed := *testflag.ChaosSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	seeds := deal(seed, *testflag.ChaosRuns, c.kinds)
	if *testflag.ChaosSeed != 0 && len(seeds) > 0 {
		seeds[0] = seed
	}
	defer c.report()
	for i, seed := range seeds {
		begun := time.Now()
		err := c.once(seed)
		c.total.runs++
		require.NoError(t, err, "run %d, -chaos.seed=%d: %s", i+1, seed, describe(draw(seed, c.kinds)))
		require.False(t, t.Failed(), "run %d, -chaos.seed=%d: %s", i+1, seed, describe(draw(seed, c.kinds)))
		t.Logf("run %d in %s, -chaos.seed=%d: %s", i+1, time.Since(begun).Round(100*time.Millisecond), seed, describe(draw(seed, c.kinds)))
	}
}

// report says what the runs have come to.
func (c *chaos) report() {
	r := &c.total
	for _, part := range []struct {
		what   string
		counts map[string]int
	}{{"faults", r.used}, {"faults that found nothing to strike", r.missed}, {"commands to heal", r.commands}, {"operations", r.operations}} {
		var texts []string
		for _, name := range slices.Sorted(maps.Keys(part.counts)) {
			texts = append(texts, fmt.Sprintf("%s %d", name, part.counts[name]))
		}
		fmt.Printf("chaos %s: %s\n", part.what, strings.Join(texts, ", "))
	}
	fmt.Printf("chaos programs that ended by themselves: %d; databases closed later than the fence time: %d\n", r.restarts, r.slowToClose)
	fmt.Printf("chaos runs=%d acknowledged=%d lost=%d duplicated=%d different=%d unknown=%d failovers=%d slowest_failover=%.1f s\n",
		r.runs, r.acknowledged, r.lost, r.duplicated, r.different, r.unknown, r.failovers, r.slowest.Seconds())
}

// once is one run: work, faults, healing, and the reckoning.
func (c *chaos) once(seed uint64) error {
	faults := draw(seed, c.kinds)
	c.history.add("run", fmt.Sprintf("seed %d, %s is principal: %s", seed, c.principal, describe(faults)), nil)
	c.guard.Lock()
	clear(c.gaps[:])
	clear(c.closings[:])
	c.guard.Unlock()
	w := c.startWork()
	finish := sync.OnceFunc(w.finish)
	defer finish()
	if err := w.awaitAll(20 * time.Second); err != nil {
		return err
	}
	stop := c.supervise()
	defer stop()
	if err := c.strike(faults); err != nil {
		return err
	}
	if err := c.heal(); err != nil {
		return err
	}
	if err := w.awaitAll(20 * time.Second); err != nil {
		return fmt.Errorf("after healing: %w", err)
	}
	w.readRegisters()
	finish()
	c.history.add("reckoning", fmt.Sprint(w.counts()), nil)
	return c.reckon(w)
}

// strike carries out the faults and waits until all are over.
func (c *chaos) strike(faults []*fault) error {
	errs := make([]error, len(faults))
	struck := make([]bool, len(faults))
	var all sync.WaitGroup
	for i, f := range faults {
		all.Go(func() { struck[i], errs[i] = c.carryOut(f) })
	}
	all.Wait()
	for i, f := range faults {
		if struck[i] {
			c.total.used[f.name]++
		} else {
			c.total.missed[f.name]++
		}
	}
	return errors.Join(errs...)
}

// reckon compares what is there with what was promised.
func (c *chaos) reckon(w *work) error {
	r := &c.total
	for what, n := range w.counts() {
		r.operations[what] += n
	}
	r.acknowledged += w.ledger.count()
	r.failovers += len(w.ledger.moves)
	for _, pause := range w.ledger.moves {
		r.slowest = max(r.slowest, pause)
	}
	var errs []error
	if different := c.differ(20 * time.Second); different != "" {
		r.different++
		errs = append(errs, fmt.Errorf("the databases differ: %s", different))
	}
	for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
		found, err := w.ledger.audit(c.pg[s])
		r.lost += len(found.lost)
		r.duplicated += len(found.duplicated)
		if err != nil || len(found.lost)+len(found.duplicated)+len(found.phantom) > 0 {
			errs = append(errs, fmt.Errorf("ledger of %s: lost %v, duplicated %v, never tried %v: %w", s, found.lost, found.duplicated, found.phantom, err))
		}
	}
	switch linearizable(w.ops, time.Minute) {
	case porcupine.Illegal:
		errs = append(errs, errors.New("the registers' history cannot have happened in any order"))
	case porcupine.Unknown:
		r.unknown++
	}
	errs = append(errs, c.handedOut("ticket", w.tickets), c.handedOut("ledger", slices.Collect(maps.Values(w.ledger.acked))))
	for _, s := range w.stale() {
		errs = append(errs, fmt.Errorf("stale read: %s", s))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	c.exec(c.principal, "TRUNCATE ledger")
	c.exec(c.principal, "UPDATE register SET value = 0")
	return nil
}

// handedOut notes the numbers that a sequence gave, and finds those that it had given before.
func (c *chaos) handedOut(sequence string, numbers []int64) error {
	if c.sequences[sequence] == nil {
		c.sequences[sequence] = map[int64]bool{}
	}
	var again []int64
	for _, n := range numbers {
		if c.sequences[sequence][n] {
			again = append(again, n)
		}
		c.sequences[sequence][n] = true
	}
	if len(again) > 0 {
		return fmt.Errorf("sequence %s handed out again: %v", sequence, again)
	}
	return nil
}

// away says that a fault keeps a server, or the program beside it, from running.
func (c *chaos) away(s mirror.Server) {
	c.guard.Lock()
	defer c.guard.Unlock()
	if c.missing[s]++; c.missing[s] == 1 {
		c.gaps[s] = append(c.gaps[s], interval{from: time.Now()})
	}
}

// back is the end of away.
func (c *chaos) back(s mirror.Server) {
	c.guard.Lock()
	defer c.guard.Unlock()
	if c.missing[s]--; c.missing[s] == 0 {
		c.gaps[s][len(c.gaps[s])-1].to = time.Now()
	}
}

// excused says whether a server may have shown old data: while its program or itself did not run, and for lease and
// fence after both did again (guarantees, reads). A program needs a moment to start. A database that was told to close in
// time may be slow to do so, which the fence time is meant to bound: where the machine broke that, it is counted, and
// excused up to ten times that long.
func (c *chaos) excused(s mirror.Server, at time.Time) bool {
	const start = time.Second
	timing := host.Fast()
	c.guard.Lock()
	defer c.guard.Unlock()
	return slices.ContainsFunc(c.gaps[s], func(gap interval) bool {
		return at.After(gap.from) && (gap.to.IsZero() || at.Before(gap.to.Add(timing.Lease+timing.Fence+start)))
	}) || slices.ContainsFunc(c.closings[s], func(closing interval) bool {
		return at.After(closing.from) && at.Before(closing.from.Add(10*timing.Fence)) && (closing.to.IsZero() || at.Before(closing.to))
	})
}
