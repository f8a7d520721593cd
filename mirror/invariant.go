package mirror

import (
	"errors"
	"fmt"

	"github.com/f19126b3/dbmirror/mirror/internal/seeded"
)

// check asserts after each step what must hold whatever happened. A broken invariant is
// an error of these rules: the host fences and stops the session, it does not crash the program it lives in.
func (s *Session) check(before HardState) error {
	now := s.hard
	switch {
	case now.Promised < before.Promised:
		return broken("I10", "promised fell from %d to %d", before.Promised, now.Promised)
	case before.Record.NewerThan(now.Record):
		return broken("I10", "record fell from %s to %s", before.Record.Version(), now.Record.Version())
	case now.Record.Version() == before.Record.Version() && now.Record != before.Record:
		return broken("I11", "record %s has two values", now.Record.Version())
	case now.Record.Seq > now.Promised:
		return broken("I10", "record %s is newer than the promise %d", now.Record.Version(), now.Promised)
	case s.duty.Wait == WaitNone && s.duty.Role == RolePrincipal && !s.mayAckAlone():
		return broken("I3", "acknowledges alone with record %s", now.Record.Version())
	case s.duty.Gate == GateOpen && !(s.whole && s.standing && !now.Dirty && s.role() == RolePrincipal):
		return broken("I6", "serves without being whole")
	case s.duty.Ship && s.duty.Role == RoleMirror && now.Promised != s.duty.Seq:
		return broken("I4", "hardens for %d after promising %d", s.duty.Seq, now.Promised)
	case now.Record.InSync && (now.Record.Suspended || now.Record.Safety == SafetyOff):
		return broken("I15", "record %s is in sync though suspended or OFF", now.Record.Version())
	case now.Record.Forced && now.Record.Change == 0 && !now.Record.Suspended:
		return broken("I18", "forced service of %s is not suspended", now.Record.Version())
	}
	return nil
}

// mayAckAlone restates I3 apart from the rule that decides it.
func (s *Session) mayAckAlone() bool {
	if s.breaks(seeded.AckAlone | seeded.TrustOwnExposure | seeded.RememberConfirm | seeded.RememberExposure | seeded.SoloUnleased) {
		return true
	}
	return s.exposed && !s.hard.Record.InSync && s.lead() && s.quorum() && s.standing
}

func broken(id, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrInvariant, id, fmt.Sprintf(format, args...))
}

func asRefused(err error, target **RefusedError) bool { return errors.As(err, target) }
