package mirror

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite the diagrams in docs/session.md")

// rows is the table of a principal, written down a second time: from, trigger, and where the facts may lead. Mirror and
// witness have the same without PENDING_FAILOVER.
var rows = map[State]map[Trigger][]State{
	StateDisconnected: {
		TriggerLinked: {StateSuspended, StateSynchronized, StateSynchronizing},
	},
	StateSynchronizing: {
		TriggerLost: {StateDisconnected}, TriggerSuspended: {StateSuspended}, TriggerCaughtUp: {StateSynchronized},
	},
	StateSynchronized: {
		TriggerLost: {StateDisconnected}, TriggerSuspended: {StateSuspended}, TriggerFellBehind: {StateSynchronizing},
		TriggerFailover: {StatePendingFailover},
	},
	StateSuspended: {
		TriggerLost: {StateDisconnected}, TriggerResumed: {StateSynchronizing, StateSynchronized},
	},
	StatePendingFailover: {
		TriggerLost: {StateDisconnected}, TriggerSuspended: {StateSuspended},
		TriggerFailoverEnded: {StateSynchronized, StateSynchronizing},
	},
}

// facts returns a session in which what is known gives that state for that role.
func facts(t *testing.T, role Role, state State) *Session {
	self := map[Role]Server{RolePrincipal: PartnerA, RoleMirror: PartnerB, RoleWitness: Witness}[role]
	hard := sampleHardState()
	hard.Self, hard.Incarnation = self, hard.Record.Members[self]
	hard.Promised = hard.Record.Seq
	hard.Record.InSync = state == StateSynchronized || state == StatePendingFailover
	hard.Record.Suspended = state == StateSuspended
	s, err := New(Config{Self: self, Incarnation: hard.Incarnation}, hard)
	require.NoError(t, err)
	require.Equal(t, role, s.role())
	if state != StateDisconnected {
		for _, p := range s.others() {
			s.heard(p)
			s.peers[p].sees = 0b1110
		}
	}
	s.confirmed = role == RolePrincipal
	s.handover.Active = state == StatePendingFailover
	require.Equal(t, state, s.derive())
	return s
}

// statesOf lists the states that a role shows.
func statesOf(role Role) []State {
	return slices.DeleteFunc(States(), func(s State) bool { return s == StatePendingFailover && role != RolePrincipal })
}

// TestTables fires every trigger in every state under every value of the guards. The library panics where two guards are
// true, so that too would show here.
func TestTables(t *testing.T) {
	fired := 0
	for role := RolePrincipal; role <= RoleWitness; role++ {
		for _, to := range statesOf(role) {
			s := facts(t, role, to)
			for _, from := range statesOf(role) {
				for tr := TriggerLinked; tr <= TriggerFailoverEnded; tr++ {
					s.shown = from
					fire(t, s, role, tr, to)
					fired++
				}
			}
		}
	}
	require.Equal(t, (5*5+4*4+4*4)*8, fired)
}

func fire(t *testing.T, s *Session, role Role, tr Trigger, facts State) {
	from := s.shown
	may := slices.DeleteFunc(slices.Clone(rows[from][tr]), func(to State) bool { return to == StatePendingFailover && role != RolePrincipal })
	guarded := len(may) > 1
	err := tables[role].FireCtx(s.moving(), tr)
	what := fmt.Sprintf("%s: %s in %s, facts say %s", role, tr, from, facts)
	switch {
	case len(may) == 0:
		require.ErrorIs(t, err, errNoMove, what)
		require.Equal(t, from, s.shown, what)
	case guarded && !slices.Contains(may, facts):
		require.Error(t, err, what)
		require.Equal(t, from, s.shown, what)
	case guarded:
		require.NoError(t, err, what)
		require.Equal(t, facts, s.shown, what)
	default:
		require.NoError(t, err, what)
		require.Equal(t, may[0], s.shown, what)
	}
}

// TestMoves: every change of the facts has its row, but into PENDING_FAILOVER, where only SYNCHRONIZED leads.
func TestMoves(t *testing.T) {
	for role := RolePrincipal; role <= RoleWitness; role++ {
		for _, to := range statesOf(role) {
			for _, from := range statesOf(role) {
				s := facts(t, role, to)
				s.shown = from
				err := s.move(s.derive())
				if to == StatePendingFailover && from != StateSynchronized && from != to {
					require.ErrorIs(t, err, ErrInvariant)
					require.ErrorIs(t, err, errNoMove)
					require.Equal(t, from, s.shown)
					continue
				}
				require.NoError(t, err, "%s: from %s", role, from)
				require.Equal(t, to, s.shown)
			}
		}
	}
}

// TestTableThatContradictsFacts: a row that leads elsewhere than the facts is an error, not a state that lies.
func TestTableThatContradictsFacts(t *testing.T) {
	s := facts(t, RoleMirror, StateSynchronizing)
	s.shown = StateSuspended
	err := s.move(StateSynchronized)
	require.ErrorIs(t, err, ErrInvariant)
	require.ErrorContains(t, err, "the table leads to SYNCHRONIZING, the facts say SYNCHRONIZED")
}

// TestDeclaredStates: the library makes a destination that nobody configured without a word.
func TestDeclaredStates(t *testing.T) {
	node := regexp.MustCompile(`(?m)^\t([A-Z_]+) \[label=`)
	edge := regexp.MustCompile(`(?m)^\t([A-Z_]+) -> ([A-Z_]+) `)
	for role := RolePrincipal; role <= RoleWitness; role++ {
		var declared, drawn, left, entered []string
		for _, s := range statesOf(role) {
			declared = append(declared, s.String())
		}
		graph := Diagram(role)
		for _, m := range node.FindAllStringSubmatch(graph, -1) {
			drawn = append(drawn, m[1])
		}
		for _, m := range edge.FindAllStringSubmatch(graph, -1) {
			left, entered = append(left, m[1]), append(entered, m[2])
		}
		require.ElementsMatch(t, declared, drawn, role)
		require.Subset(t, left, declared, role)
		require.Subset(t, entered, declared, role)
	}
}

// diagrams are the tables as the page shows them: the library promises no order, and names guards as the compiler does.
func diagrams(t *testing.T) string {
	var page strings.Builder
	for _, role := range []Role{RolePrincipal, RoleMirror, RoleWitness} {
		var edges []string
		for line := range strings.Lines(Diagram(role)) {
			if line = strings.TrimSpace(strings.ReplaceAll(line, "-fm", "")); strings.Contains(line, " -> ") && !strings.HasPrefix(line, "init") {
				edges = append(edges, "  "+line)
			}
		}
		slices.Sort(edges)
		fmt.Fprintf(&page, "\nTable of the %s:\n\n```dot\ndigraph %s {\n%s\n}\n```\n", role, role, strings.Join(edges, "\n"))
	}
	return page.String()
}

func TestDiagramsAreThoseOfThePage(t *testing.T) {
	const path, from = "../docs/session.md", "<!-- diagrams: go test ./mirror -run Diagram -update -->\n"
	page, err := os.ReadFile(path)
	require.NoError(t, err)
	head, old, found := strings.Cut(string(page), from)
	require.True(t, found, "docs/session.md has lost the line %q", from)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(head+from+diagrams(t)), 0o644))
		return
	}
	require.Equal(t, diagrams(t), old, "the tables have changed: read the difference, then run with -update")
}
