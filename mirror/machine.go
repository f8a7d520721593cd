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

// machine holds a table for each role over the one state that the session shows.
type machine struct {
	byRole [RoleWitness + 1]*stateless.StateMachine
}

func newMachine(s *Session) *machine {
	return &machine{[RoleWitness + 1]*stateless.StateMachine{
		RolePrincipal: s.table(true),
		RoleMirror:    s.table(false),
		RoleWitness:   s.table(false),
	}}
}

// table: only a principal is ever PENDING_FAILOVER, the one state that the partners do not share.
func (s *Session) table(failover bool) *stateless.StateMachine {
	t := stateless.NewStateMachineWithExternalStorage(
		func(context.Context) (stateless.State, error) { return s.shown, nil },
		func(_ context.Context, to stateless.State) error { s.shown = to.(State); return nil },
		stateless.FiringImmediate)
	t.OnUnhandledTrigger(func(_ context.Context, from stateless.State, tr stateless.Trigger, _ []string) error {
		return fmt.Errorf("%w: %s on %s", errNoMove, from, tr)
	})

	t.Configure(StateDisconnected).
		Permit(TriggerLinked, StateSuspended, s.isSuspended).
		Permit(TriggerLinked, StateSynchronized, s.isSynchronized).
		Permit(TriggerLinked, StateSynchronizing, s.isSynchronizing)

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
		Permit(TriggerResumed, StateSynchronizing, s.isSynchronizing).
		Permit(TriggerResumed, StateSynchronized, s.isSynchronized)

	if failover {
		synchronized.Permit(TriggerFailover, StatePendingFailover)
		t.Configure(StatePendingFailover).
			Permit(TriggerLost, StateDisconnected).
			Permit(TriggerSuspended, StateSuspended).
			Permit(TriggerFailoverEnded, StateSynchronized, s.isSynchronized).
			Permit(TriggerFailoverEnded, StateSynchronizing, s.isSynchronizing)
	}
	return t
}

func (s *Session) isSuspended(context.Context, ...any) bool { return s.derive() == StateSuspended }
func (s *Session) isSynchronized(context.Context, ...any) bool {
	return s.derive() == StateSynchronized
}
func (s *Session) isSynchronizing(context.Context, ...any) bool {
	return s.derive() == StateSynchronizing
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
	if err := s.machine.byRole[s.role()].Fire(trigger(s.shown, to)); err != nil {
		return fmt.Errorf("%w: %w", ErrInvariant, err)
	}
	if s.shown != to {
		return fmt.Errorf("%w: the table leads to %s, the facts say %s", ErrInvariant, s.shown, to)
	}
	return nil
}

// Diagram returns the table of a role as a graph in the DOT language.
func (s *Session) Diagram(r Role) string { return s.machine.byRole[r].ToGraph() }
