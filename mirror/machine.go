package mirror

import (
	"context"
	"errors"
	"fmt"

	"github.com/qmuntal/stateless"
)

// The five shown states as tables, one for each role. A state is never stored (but for suspended): it follows from the
// record and the links, and the tables say which moves exist, under which trigger and guard. They are consulted once
// for each move, never per transaction.

// Trigger is why the shown state moves.
type Trigger uint8

// The triggers.
const (
	TriggerLinked        Trigger = iota + 1 // the other partner was heard again
	TriggerLost                             // it was lost
	TriggerSuspended                        // the record says suspended
	TriggerResumed                          // it does not any more
	TriggerCaughtUp                         // the mirror has everything
	TriggerFellBehind                       // it has not any more
	TriggerFailover                         // a manual failover began
	TriggerFailoverEnded                    // it was given up
)

// String returns the trigger's name for the diagrams.
func (t Trigger) String() string {
	return nameOf([]string{"none", "linked", "lost", "suspended", "resumed", "caught up", "fell behind", "failover", "failover ended"}, uint8(t))
}

// errNoMove is returned by a table that has no row for a move: the rules contradict each other.
var errNoMove = errors.New("no such move in the state table")

// tables are those of the roles. They do not change, and serve every session: which session a move is of, and with it
// the state that is shown and the facts that the guards look at, comes in the context.
var tables = [RoleWitness + 1]*stateless.StateMachine{
	RolePrincipal: newTable(true),
	RoleMirror:    newTable(false),
	RoleWitness:   newTable(false),
}

// movingKey is the key of the session in the context of a move.
type movingKey struct{}

func (s *Session) moving() context.Context {
	return context.WithValue(context.Background(), movingKey{}, s)
}

// sessionOf is the session of a move. A diagram is drawn without one, from where every role begins.
func sessionOf(move context.Context) *Session {
	if s, ok := move.Value(movingKey{}).(*Session); ok {
		return s
	}
	return &Session{core: core{shown: StateDisconnected}}
}

// newTable: only a principal is ever PENDING_FAILOVER, the one state that the partners do not share.
func newTable(failover bool) *stateless.StateMachine {
	t := stateless.NewStateMachineWithExternalStorage(
		func(move context.Context) (stateless.State, error) { return sessionOf(move).shown, nil },
		func(move context.Context, to stateless.State) error {
			sessionOf(move).shown = to.(State)
			return nil
		},
		stateless.FiringImmediate)
	t.OnUnhandledTrigger(func(_ context.Context, from stateless.State, tr stateless.Trigger, _ []string) error {
		return fmt.Errorf("%w: %s on %s", errNoMove, from, tr)
	})

	t.Configure(StateDisconnected).
		Permit(TriggerLinked, StateSuspended, isSuspended).
		Permit(TriggerLinked, StateSynchronized, isSynchronized).
		Permit(TriggerLinked, StateSynchronizing, isSynchronizing)

	t.Configure(StateSynchronizing).
		Permit(TriggerLost, StateDisconnected).
		Permit(TriggerSuspended, StateSuspended).
		Permit(TriggerCaughtUp, StateSynchronized)

	synchronized := t.Configure(StateSynchronized).
		Permit(TriggerLost, StateDisconnected).
		Permit(TriggerSuspended, StateSuspended).
		Permit(TriggerFellBehind, StateSynchronizing)

	t.Configure(StateSuspended).
		Permit(TriggerLost, StateDisconnected).
		Permit(TriggerResumed, StateSynchronizing, isSynchronizing).
		Permit(TriggerResumed, StateSynchronized, isSynchronized)

	if failover {
		synchronized.Permit(TriggerFailover, StatePendingFailover)
		t.Configure(StatePendingFailover).
			Permit(TriggerLost, StateDisconnected).
			Permit(TriggerSuspended, StateSuspended).
			Permit(TriggerFailoverEnded, StateSynchronized, isSynchronized).
			Permit(TriggerFailoverEnded, StateSynchronizing, isSynchronizing)
	}
	return t
}

func isSuspended(move context.Context, _ ...any) bool {
	return sessionOf(move).derive() == StateSuspended
}

func isSynchronized(move context.Context, _ ...any) bool {
	return sessionOf(move).derive() == StateSynchronized
}

func isSynchronizing(move context.Context, _ ...any) bool {
	return sessionOf(move).derive() == StateSynchronizing
}

// trigger names the move from one state to another.
func trigger(from, to State) Trigger {
	switch {
	case to == StateDisconnected:
		return TriggerLost
	case from == StateDisconnected:
		return TriggerLinked
	case to == StateSuspended:
		return TriggerSuspended
	case from == StateSuspended:
		return TriggerResumed
	case to == StatePendingFailover:
		return TriggerFailover
	case from == StatePendingFailover:
		return TriggerFailoverEnded
	case to == StateSynchronized:
		return TriggerCaughtUp
	}
	return TriggerFellBehind
}

// move fires the trigger that leads to the state that the record and the links give.
func (s *Session) move(to State) error {
	if s.shown == to {
		return nil
	}
	if err := tables[s.role()].FireCtx(s.moving(), trigger(s.shown, to)); err != nil {
		return fmt.Errorf("%w: %w", ErrInvariant, err)
	}
	if s.shown != to {
		return fmt.Errorf("%w: the table leads to %s, the facts say %s", ErrInvariant, s.shown, to)
	}
	return nil
}

// Diagram returns the table of a role as a graph in the DOT language.
func Diagram(r Role) string { return tables[r].ToGraph() }
