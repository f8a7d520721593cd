package mirrortest

import (
	"fmt"
	"strings"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// Space is what an exploration exhausts: every order of every event within these bounds. Messages are kept for ever and
// may arrive at any time and any number of times, so loss, doubling, delay and reordering are all part of it. Without
// Leases timeouts strike at any moment: what holds there holds for every clock.
type Space struct {
	Name       string
	Seqs       int  // role sequences 1 to Seqs, at most 7
	Changes    int  // changes of the record within each
	Writes     int  // at most 6
	Restarts   int  // of a partner's program, with or without its database server; with Leases of the witness too
	Forces     int  // forced service is asked for so often
	Failover   bool // manual failover is asked for at any time
	Suspends   bool // so are suspend and resume
	Safety     bool // so are safety OFF and FULL
	NewWitness bool // a second witness is there, and the principal is asked to take it instead of the first
	Leases     bool // clocks count, and differ by at most one tick

	Planted Mutant
	Limit   Limit
}

// Limit ends a search that would grow beyond it. Zero is no bound.
type Limit struct {
	States int
	Time   time.Duration
}

// timing lets every timeout strike with the tick in which a loss is noticed, and every candidacy and hand-over end with
// the next one. With leases, a lease lasts until the principal's next tick, and a voter's promise for three of its own:
// the smallest numbers that a difference of a tick between clocks leaves room for.
func (s Space) timing() mirror.Timing {
	if s.Leases {
		return mirror.Timing{Ping: 1, Timeout: 3, Lease: 1, Campaign: 2, Drain: 1}
	}
	return mirror.Timing{Ping: 1, Timeout: 2, Campaign: 2, Drain: 1}
}

// Result is what an exploration found.
type Result struct {
	Space       Space
	States      int
	Transitions int // that change the world
	Depth       int
	Frontier    int // worlds whose successors were not looked for when the search ended
	Healed      int // distinct sets of servers and databases that were judged and seen to heal
	Exhausted   bool
	Elapsed     time.Duration
	Violation   *Violation
}

// String is one line of figures.
func (r Result) String() string {
	end := fmt.Sprintf("cut short, %d states not followed", r.Frontier)
	switch {
	case r.Violation != nil:
		end = fmt.Sprintf("VIOLATION %s at step %d", r.Violation.Rule, len(r.Violation.Trace))
	case r.Exhausted:
		end = "exhausted, no violation"
	}
	return fmt.Sprintf("%s: states=%d transitions=%d depth=%d healed=%d seconds=%.1f %s",
		r.Space.Name, r.States, r.Transitions, r.Depth, r.Healed, r.Elapsed.Seconds(), end)
}

// Violation is a state that must not be, and the shortest way to it.
type Violation struct {
	Rule  string
	Trace []string
}

// String is the story for a person: one line a step.
func (v *Violation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "broken: %s\n", v.Rule)
	for i, line := range v.Trace {
		fmt.Fprintf(&b, "%3d. %s\n", i+1, line)
	}
	return b.String()
}

// explorer searches one space breadth first. Of a world that was seen it keeps a fingerprint, from which world it was
// first reached, and by which of that one's ways; the worlds themselves only while they wait in the queue. Two worlds
// share a fingerprint by chance in one of 10^4 searches of 10^8 worlds.
type explorer struct {
	space   Space
	tables  *tables
	seen    set
	parent  []uint32 // by number of a world
	way     []uint16 // which of the parent's ways led here
	waiting queue
	sound   set // cores that have passed check and healing
	healing world
	also    func(*world) string // a further check of each new world, if not nil
	begun   time.Time
	result  Result
}

// Explore searches a space to its end, to the first violation, or to its limit.
func Explore(space Space) Result {
	x := newExplorer(space)
	x.search()
	x.result.States, x.result.Frontier = len(x.parent), x.waiting.length
	x.result.Healed = x.sound.used
	x.result.Elapsed = time.Since(x.begun)
	return x.result
}

func newExplorer(space Space) *explorer {
	return &explorer{space: space, tables: newTables(space), begun: time.Now(), result: Result{Space: space}}
}

func (x *explorer) search() {
	var w world
	first := x.tables.start()
	s := &steps{tables: x.tables, from: &w}
	ordinal, number := uint16(0), uint32(0)
	s.yield = func(way) bool {
		x.result.Transitions++
		ordinal++
		if rule := x.visit(&s.next, number, ordinal); rule != "" {
			x.fail(rule, number, ordinal)
			return false
		}
		return true
	}
	if rule := x.visit(&first, 0, 0); rule != "" {
		x.result.Violation = &Violation{Rule: rule}
		return
	}
	level := 1 // how many worlds of the present depth there are
	for depth := 0; x.waiting.length > 0; depth++ {
		x.result.Depth = depth
		for range level {
			x.waiting.pop(w.readFrom)
			ordinal, s.done = 0, false
			x.tables.successors(s)
			if x.result.Violation != nil || x.spent() {
				return
			}
			number++
		}
		level = x.waiting.length
	}
	x.result.Exhausted = true
}

// spent says whether the search has reached its limit. The clock is looked at now and then.
func (x *explorer) spent() bool {
	l := x.space.Limit
	if l.States > 0 && len(x.parent) >= l.States {
		return true
	}
	return l.Time > 0 && x.waiting.length%1024 == 0 && time.Since(x.begun) > l.Time
}

// visit judges a world that was not seen before and lets it wait for its turn.
func (x *explorer) visit(w *world, parent uint32, ordinal uint16) string {
	if rule := x.tables.broken; rule != "" {
		return rule
	}
	if !x.within(w) || !x.seen.add(w.print()) {
		return ""
	}
	x.parent, x.way = append(x.parent, parent), append(x.way, ordinal)
	x.waiting.push(w.appendTo)
	if x.also != nil {
		if rule := x.also(w); rule != "" {
			return rule
		}
	}
	return x.judge(w)
}

// within says whether a world is inside the space's bounds.
func (x *explorer) within(w *world) bool {
	for s := range x.tables.slots() {
		if !x.tables.sites[w.site[s]].inside {
			return false
		}
	}
	return true
}

// judge applies the checkers to a new world, and lets it heal. What they look at is judged once.
func (x *explorer) judge(w *world) string {
	if rule := x.tables.sentValue(w); rule != "" {
		return rule
	}
	core := w.core()
	if x.sound.has(core) {
		return ""
	}
	if rule := x.tables.check(w); rule != "" {
		return rule
	}
	if x.space.Planted == (Mutant{}) {
		if rule := x.heal(w); rule != "" {
			return rule
		}
	}
	x.sound.add(core)
	return ""
}

// fail finds the way to a violation by walking it again: the worlds on it by their numbers, the ways between them by
// their ordinals.
func (x *explorer) fail(rule string, number uint32, last uint16) {
	ways := []uint16{last}
	for n := number; n != 0; n = x.parent[n] {
		ways = append(ways, x.way[n])
	}
	v := &Violation{Rule: rule}
	t := x.tables
	w := t.start()
	for i := len(ways) - 1; i >= 0; i-- {
		ordinal := uint16(0)
		var next world
		t.each(&w, func(n *world, label func() string) bool {
			if ordinal++; ordinal < ways[i] {
				return true
			}
			v.Trace = append(v.Trace, label())
			next.copyFrom(n)
			return false
		})
		w = next
	}
	x.result.Violation = v
}

// each calls yield with each world that one event leads to, and what the event was, until yield returns false.
func (t *tables) each(from *world, yield func(next *world, label func() string) bool) {
	s := &steps{tables: t, from: from}
	s.yield = func(by way) bool {
		return yield(&s.next, func() string { return t.describe(by) })
	}
	t.successors(s)
}

// describe writes a way for a person.
func (t *tables) describe(by way) string {
	if by.ack != 0 {
		return fmt.Sprintf("ACKNOWLEDGED: write %d at %s", by.ack, by.slot)
	}
	label := t.label(by.slot, t.action(by.action))
	if by.answered {
		label += ", and the answer too"
	}
	return label
}
