package mirrortest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMutants follows the shortest way to each planted error, testdata/mutants/*.txt. With the error the invariant
// breaks at the last step and not before it; without it the same steps are followed as far as the rules allow, nothing
// breaks, and the file says where they part. So each file also guards the rule that its error leaves out.
func TestMutants(t *testing.T) {
	for _, space := range mutants {
		t.Run(space.Name, func(t *testing.T) {
			file := story(space)
			if *update {
				found := Explore(space).Violation
				require.NotNil(t, found, "%s was not found", space.Planted.Name)
				require.NoError(t, os.WriteFile(file, []byte(retell(t, space, found.Trace)), 0o644))
				return
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			differs(t, string(want), retell(t, space, storedSteps(t, space)))
		})
	}
}

// TestMutantsAreTold: no file is left behind by an error that is not planted any more.
func TestMutantsAreTold(t *testing.T) {
	files, err := filepath.Glob("testdata/mutants/*.txt")
	require.NoError(t, err)
	require.Len(t, files, len(mutants))
}

func story(space Space) string { return filepath.Join("testdata", "mutants", space.Name+".txt") }

const withoutIt = "without the error"

// storedSteps reads the steps from a file: the numbered lines of its first part.
func storedSteps(t *testing.T, space Space) []string {
	file := story(space)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	told, _, found := strings.Cut(string(text), withoutIt)
	require.True(t, found, "%s has no second part", file)
	var steps []string
	for line := range strings.Lines(told) {
		var n int
		if _, err := fmt.Sscanf(line, "%d.", &n); err == nil {
			require.Equal(t, len(steps)+1, n, "the steps of %s are not in order", file)
			_, step, _ := strings.Cut(line, ". ")
			steps = append(steps, strings.TrimSpace(step))
		}
	}
	require.NotEmpty(t, steps, "%s tells no step", file)
	return steps
}

// retell follows the steps with the error and without it, and tells the story of both.
func retell(t *testing.T, space Space, steps []string) string {
	var out strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) }
	say("%s: %s", space.Name, space.Planted.Name)
	say("%s", bounds(space))
	say("")
	planted := newReplay(space)
	for i, step := range steps {
		say("%2d. %s", i+1, step)
		require.True(t, planted.follow(step), "with the error, step %d is not possible: %s", i+1, step)
		if i < len(steps)-1 {
			require.Empty(t, planted.broken, "broken at step %d already", i+1)
		}
	}
	require.NotEmpty(t, planted.broken, "nothing is broken by the planted error")
	say("broken: %s", planted.broken)
	say("")
	say(withoutIt)
	retellSound(t, space, steps, planted, say)
	return out.String()
}

// retellSound follows the steps without the error, beside the way with it.
func retellSound(t *testing.T, space Space, steps []string, planted *replay, say func(string, ...any)) {
	space.Planted = Mutant{}
	sound, parted := newReplay(space), false
	sound.x.tables.keepsAll = true // as the search with an error does
	for i, step := range steps {
		like, possible := step, sound.follow(step)
		if !possible {
			like, possible = sound.followLike(step)
		}
		require.Empty(t, sound.broken, "without the error, step %d: %s", i+1, step)
		switch {
		case !possible && sound.flies(step):
			say("%2d. changes nothing", i+1)
		case !possible:
			say("%2d. is not possible", i+1)
		case like != step:
			say("%2d. is now: %s", i+1, like)
		case parted:
			say("%2d. is possible", i+1)
		case i == len(steps)-1 && planted.fault:
			say("%2d. is no fault", i+1)
		case !sound.meets(planted, i):
			say("%2d. ends elsewhere\n%s", i+1, sound.parting(planted, i))
		default:
			continue
		}
		parted = true
	}
	require.True(t, parted, "the error makes no difference")
	say("nothing is broken")
}

func bounds(s Space) string {
	text := fmt.Sprintf("space: T%d K%d N%d R%d", s.Seqs, s.Changes, s.Writes, s.Restarts)
	if s.Forces > 0 {
		text += fmt.Sprintf(" F%d", s.Forces)
	}
	for _, what := range []struct {
		on   bool
		name string
	}{
		{s.Failover, "failover"}, {s.Suspends, "suspend and resume"}, {s.Safety, "safety"},
		{s.NewWitness, "a new witness"}, {s.Leases, "leases"},
	} {
		if what.on {
			text += ", " + what.name
		}
	}
	return text
}

// replay follows steps by their labels. Two messages may bear the same label, so it follows all the ways that the labels
// allow at once.
type replay struct {
	x      *explorer
	passed [][]place // by step, the first being the start
	broken string    // the rule that the last step broke
	fault  bool      // a server found it broken itself
}

// place is a world on the way and the place before it, by its index.
type place struct {
	world world
	from  int
}

func newReplay(space Space) *replay {
	x := newExplorer(space)
	return &replay{x: x, passed: [][]place{{{world: x.tables.start()}}}}
}

// follow takes one step in every way that it can be taken. A way that breaks something comes first.
func (r *replay) follow(step string) bool {
	var next []place
	now := r.passed[len(r.passed)-1]
	for i := range now {
		r.x.tables.each(&now[i].world, func(w *world, label func() string) bool {
			if label() != step {
				return true
			}
			rule, fault := r.x.tables.broken, r.x.tables.broken != ""
			if !fault {
				rule = r.x.judge(w)
			}
			if rule != "" {
				r.broken, r.fault = rule, fault
				next = slices.Insert(next, 0, place{copied(w), i})
				return true
			}
			next = append(next, place{copied(w), i})
			return true
		})
	}
	if next != nil {
		r.passed = append(r.passed, next)
	}
	return next != nil
}

// followLike takes a step as it is where the story has become another one: the same message with other contents, or what
// can be done without the error. A step for which there is none is passed over.
func (r *replay) followLike(step string) (string, bool) {
	now := r.passed[len(r.passed)-1]
	for i := range now {
		var like string
		r.x.tables.each(&now[i].world, func(_ *world, label func() string) bool {
			if text := label(); essence(text) == essence(step) {
				like = text
			}
			return like == ""
		})
		if like != "" {
			return like, r.follow(like)
		}
	}
	next := slices.Clone(now)
	for i := range next {
		next[i].from = i
	}
	r.passed = append(r.passed, next)
	return "", false
}

// essence is what makes a step the same one although its contents are different: of a message, kind, sender and receiver.
func essence(step string) string {
	step, _, _ = strings.Cut(step, ";")
	if words := strings.Fields(step); words[0] == "arrives:" {
		return strings.Join(words[:3], " ")
	}
	return step
}

// flies says whether a message that may arrive bears that label: then its arrival, not being a step, changes nothing.
func (r *replay) flies(step string) bool {
	t := r.x.tables
	for i := range r.passed[len(r.passed)-1] {
		w := &r.passed[len(r.passed)-1][i].world
		for at := range t.slots() {
			mail := slices.Clone(w.packets)
			for from := range t.slots() {
				if from.server() != at.server() {
					mail = append(mail, t.ping(w.site[from], at))
				}
			}
			for _, id := range mail {
				if t.to[id] == at.server() && t.label(at, action{kind: arrives, packet: id}) == step {
					return true
				}
			}
		}
	}
	return false
}

// at is where the first of the ways that lead to the end was after a step, counted from zero.
func (r *replay) at(step int) *world {
	place := 0
	for i := len(r.passed) - 1; i > step+1; i-- {
		place = r.passed[i][place].from
	}
	return &r.passed[step+1][place].world
}

// meets says whether a way without the error is where the way with it is after a step.
func (r *replay) meets(planted *replay, step int) bool {
	now := r.passed[step+1]
	return slices.ContainsFunc(now, func(p place) bool {
		return r.x.tables.equal(&p.world, planted.x.tables, planted.at(step))
	})
}

// parting shows what is different: of each server, how it is with the error and without it.
func (r *replay) parting(planted *replay, step int) string {
	with := strings.Split(planted.x.tables.portrait(planted.at(step)), "\n")
	without := strings.Split(r.x.tables.portrait(&r.passed[step+1][0].world), "\n")
	var lines []string
	for i := range with {
		if with[i] != without[i] {
			lines = append(lines, "      with     "+strings.TrimSpace(with[i]), "      without  "+strings.TrimSpace(without[i]))
		}
	}
	if len(lines) == 0 {
		return "      in memory or in flight"
	}
	return strings.Join(lines, "\n")
}

func copied(w *world) world {
	var c world
	c.copyFrom(w)
	return c
}

// equal compares worlds of two tables.
func (t *tables) equal(w *world, u *tables, v *world) bool {
	for s := range t.slots() {
		a, b := t.sites[w.site[s]], u.sites[v.site[s]]
		if t.nodes.at(a.node) != u.nodes.at(b.node) || a.db != b.db {
			return false
		}
	}
	return w.acked == v.acked && w.nextID == v.nextID && w.reigns == v.reigns &&
		w.restarts == v.restarts && slices.Equal(t.flying(w), u.flying(v))
}

// flying is what is in flight, in the order of its text.
func (t *tables) flying(w *world) []string {
	var all []string
	for _, id := range w.packets {
		all = append(all, fmt.Sprintf("%+v", t.packets.values[id]))
	}
	slices.Sort(all)
	return all
}
