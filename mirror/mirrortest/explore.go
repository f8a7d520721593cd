package mirrortest

import (
	"fmt"
	"hash/maphash"
	"strings"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// Space is what an exploration exhausts: every order of every event within these bounds. Messages are kept for ever and
// may arrive at any time and any number of times, so loss, doubling, delay and reordering are all part of it. Timeouts
// strike at any moment: what holds here holds for every clock.
type Space struct {
	Name     string
	Seqs     int // role sequences 1 to Seqs
	Changes  int // changes of the record within each
	Writes   int
	Restarts int  // of a partner's program, with or without its database server
	Failover bool // manual failover
	Witness  bool // the witness may lose its state (with WorldError WitnessForgets)

	Planted Mutant
	// MaxStates ends a search that would grow beyond it; 0 is no bound.
	MaxStates int
}

// Result is what an exploration found.
type Result struct {
	Space       Space
	States      int
	Transitions int
	Depth       int
	Healed      int // distinct worlds from which a healed trio was seen to serve and be SYNCHRONIZED
	Exhausted   bool
	Elapsed     time.Duration
	Violation   *Violation
}

// String is one line of figures.
func (r Result) String() string {
	end := "cut short"
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

// explorer searches one space breadth first.
type explorer struct {
	space  Space
	tables *tables
	seed   maphash.Seed
	seen   map[uint64]uint32 // fingerprint of a world to its number
	parent []uint32
	action []uint32 // index into labels, for traces
	labels []string
	label  map[string]uint32
	healed map[uint64]bool
	result Result
}

// Explore searches a space to its end, to the first violation, or to its bound.
func Explore(space Space) Result {
	x := newExplorer(space)
	start := time.Now()
	x.search()
	x.result.States = len(x.parent)
	x.result.Elapsed = time.Since(start)
	return x.result
}

func newExplorer(space Space) *explorer {
	x := &explorer{
		space: space, tables: newTables(space), seed: maphash.MakeSeed(),
		seen: map[uint64]uint32{}, label: map[string]uint32{}, healed: map[uint64]bool{},
	}
	x.result.Space = space
	return x
}

// job is a world whose successors are still to be found.
type job struct {
	number uint32
	key    []byte
}

func (x *explorer) search() {
	first := x.tables.start()
	frontier := []job{{0, first.appendTo(nil)}}
	x.visit(&first, 0, func() string { return "start" })
	for depth := 0; len(frontier) > 0 && x.result.Violation == nil; depth++ {
		x.result.Depth = depth
		var next []job
		for _, j := range frontier {
			w := readWorld(j.key)
			x.tables.successors(&w, func(n *world, label func() string) bool {
				x.result.Transitions++
				if rule := x.tables.broken; rule != "" {
					x.fail(rule, j.number, label())
					return false
				}
				if !x.within(n) {
					return true
				}
				number, key, fresh := x.visit(n, j.number, label)
				if !fresh {
					return true
				}
				if rule := x.judge(n); rule != "" {
					x.fail(rule, j.number, label())
					return false
				}
				next = append(next, job{number, key})
				return true
			})
			if x.result.Violation != nil || x.space.MaxStates > 0 && len(x.parent) > x.space.MaxStates {
				return
			}
		}
		frontier = next
	}
	x.result.Exhausted = x.result.Violation == nil
}

// visit numbers a world that was not seen before.
func (x *explorer) visit(w *world, parent uint32, name func() string) (uint32, []byte, bool) {
	key := w.appendTo(nil)
	print := maphash.Bytes(x.seed, key)
	if number, ok := x.seen[print]; ok {
		return number, nil, false
	}
	number := uint32(len(x.parent))
	x.seen[print] = number
	x.parent = append(x.parent, parent)
	label := name()
	id, ok := x.label[label]
	if !ok {
		id = uint32(len(x.labels))
		x.label[label], x.labels = id, append(x.labels, label)
	}
	x.action = append(x.action, id)
	return number, key, true
}

func (x *explorer) fail(rule string, parent uint32, label string) {
	trace := []string{label}
	for n := parent; n != 0; n = x.parent[n] {
		trace = append(trace, x.labels[x.action[n]])
	}
	for i, j := 0, len(trace)-1; i < j; i, j = i+1, j-1 {
		trace[i], trace[j] = trace[j], trace[i]
	}
	x.result.Violation = &Violation{rule, trace}
}

// within says whether a world is inside the space's bounds.
func (x *explorer) within(w *world) bool {
	for _, n := range w.node[1:] {
		hard := x.tables.nodes.ref(n).Hard()
		if hard.Promised > mirror.RoleSeq(x.space.Seqs) || hard.Record.Change > uint64(x.space.Changes) {
			return false
		}
	}
	return true
}

// judge applies the checkers to a new world, and lets it heal.
func (x *explorer) judge(w *world) string {
	if rule := x.tables.check(w); rule != "" {
		return rule
	}
	if x.space.Planted != (Mutant{}) {
		return ""
	}
	return x.heal(w)
}
