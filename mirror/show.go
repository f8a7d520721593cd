package mirror

import "slices"

// derive gives the state to show: from links first, then from the record.
func (s *Session) derive() State {
	r := s.hard.Record
	switch {
	case !s.partnersLinked():
		return StateDisconnected
	case r.Suspended:
		return StateSuspended
	case s.role() == RolePrincipal && s.handover.Active:
		return StatePendingFailover
	case s.caughtUp():
		return StateSynchronized
	}
	return StateSynchronizing
}

// partnersLinked: a witness shows the partners' link as they tell it.
func (s *Session) partnersLinked() bool {
	if s.role() != RoleWitness {
		return s.linked(s.hard.Self.Other())
	}
	p, m := s.hard.Record.Principal, s.mirror()
	return s.linked(p) && s.linked(m) && s.peers[p].sees&(1<<m) != 0
}

// caughtUp: in FULL it is the recorded fact; in OFF what was last heard, for nothing rests on it.
func (s *Session) caughtUp() bool {
	r := s.hard.Record
	if r.Safety == SafetyFull {
		return r.InSync && (s.role() != RolePrincipal || s.confirmed)
	}
	switch s.role() {
	case RolePrincipal:
		m := s.peers[s.mirror()].hardened
		return m.Seq == r.Seq && m.LSN >= s.logEnd && m.LSN > 0
	case RoleMirror:
		return s.hardened.Seq == r.Seq && s.hardened.LSN >= s.peers[r.Principal].logEnd && s.hardened.LSN > 0
	}
	return false
}

// show moves the shown state and writes down what changed. A server that changed its role begins DISCONNECTED, as it
// knows nothing of the new role yet.
func (s *Session) show(before HardState) error {
	if s.role() == RoleNone {
		s.shown, s.reason = StateNone, ReasonNotEstablished
		if s.hard.Removed {
			s.reason = ReasonNotMember
		}
		return nil
	}
	if s.shown == StateNone || before.Record.Principal != s.hard.Record.Principal {
		s.shown = StateDisconnected
		s.noteRole(Entry{Kind: EntryRole, Role: s.role(), Seq: s.hard.Record.Seq, Reason: s.roleReason(before),
			Version: s.hard.Record.Version(), LSN: s.hard.Record.Fork.LSN})
	}
	from := s.shown
	if err := s.move(s.derive()); err != nil {
		return err
	}
	s.reason = s.why()
	if s.shown != from {
		s.note(Entry{Kind: EntryState, Role: s.role(), Seq: s.hard.Record.Seq, From: from, To: s.shown, Reason: s.reason,
			Version: s.hard.Record.Version()})
	}
	return nil
}

// noteRole writes down a change of role that the step has not written down itself, with what it knew of the cause.
func (s *Session) noteRole(e Entry) {
	if !slices.ContainsFunc(s.fx.Journal, func(o Entry) bool { return o.Kind == EntryRole && o.Seq == e.Seq }) {
		s.note(e)
	}
}

// roleReason is what a record that was learned from others says of the cause.
func (s *Session) roleReason(before HardState) Reason {
	switch {
	case !before.Record.Established():
		return ReasonEstablished
	case s.hard.Record.Forced:
		return ReasonForcedService
	case s.role() == RoleMirror:
		return ReasonDeposed
	case s.hard.Record.InSync:
		return ReasonManualFailover
	}
	return ReasonAutomaticFailover
}

// why gives the reason for the shown state.
func (s *Session) why() Reason {
	r := s.hard.Record
	switch s.shown {
	case StateDisconnected:
		for p := PartnerA; p <= PartnerB; p++ {
			if s.peers[p].left {
				return ReasonPartnerLeft
			}
		}
		return ReasonPartnerLost
	case StateSuspended:
		return r.Why
	case StatePendingFailover:
		return ReasonFailover
	case StateSynchronized:
		return ReasonCaughtUp
	}
	if m := s.peers[s.mirror()]; s.role() == RolePrincipal && !m.ready && m.reason != ReasonNone {
		return m.reason
	}
	if ok, why := s.ready(); s.role() == RoleMirror && !ok {
		return why
	}
	return ReasonCatchingUp
}
