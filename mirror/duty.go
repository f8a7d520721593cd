package mirror

import "github.com/f19126b3/dbmirror/mirror/internal/seeded"

// wanted is what the data path has to do, as a function of what the session knows.
func (s *Session) wanted() Duty {
	switch s.role() {
	case RolePrincipal:
		return s.principalDuty()
	case RoleMirror:
		return s.mirrorDuty()
	case RoleWitness:
		return Duty{Role: RoleWitness, Seq: s.hard.Record.Seq}
	}
	if s.hard.Self != Witness && s.hard.Removed {
		return Duty{Gate: GateClosed, Wait: WaitMirror}
	}
	return Duty{}
}

func (s *Session) principalDuty() Duty {
	r := s.hard.Record
	d := Duty{
		Role: RolePrincipal, Seq: r.Seq, Gate: s.principalGate(), Wait: WaitMirror,
		Ship: !r.Suspended || r.Why != ReasonLogBudget, Principal: r.Principal, Fork: r.Fork,
	}
	if s.solo() {
		d.Wait = WaitNone
	}
	d.Prove, d.Drained = s.sync.Wanted && !s.sync.Proven, s.drained
	switch {
	case s.handover.Active:
		d.Work = WorkDrain
	case s.standing && !s.whole:
		d.Work = WorkPromote
	}
	return d
}

// principalGate: open only when whole, confirmed since the start, and vouched for (I6, I12). A principal that has just
// started leaves the gate as it finds it until the lease of its former life must have run out: the restart of a program
// does not end its database's sessions.
func (s *Session) principalGate() Gate {
	undisputed := s.lead() && s.claim.How == ElectionNone
	draining := s.handover.Active && !s.breaks(seeded.OpenWhileDraining)
	vouched := s.quorum() || s.breaks(seeded.ServeWithoutQuorum)
	switch {
	case undisputed && s.keeping() && !s.won && !(s.standing && s.whole && s.quorum()):
		return GateKeep
	case undisputed && s.cfg.Timing.Lease == 0 && !s.standing:
		return GateKeep
	case !s.standing || draining || !vouched:
		return GateClosed
	case !s.whole && s.won && !s.breaks(seeded.OpenBeforeWhole):
		return GateClosed
	case !s.whole && !s.won:
		return GateKeep
	}
	return GateOpen
}

// keeping says whether this principal started so recently that a lease of its former life may still be alive. Without
// leases, as in exploration, it does not close before it has been confirmed once.
func (s *Session) keeping() bool {
	if !s.lead() || s.claim.How != ElectionNone || s.handover.Active || s.won {
		return false
	}
	if s.cfg.Timing.Lease == 0 {
		return !s.standing
	}
	return s.starting > s.cfg.Timing.Timeout-s.cfg.Timing.Lease
}

func (s *Session) mirrorDuty() Duty {
	r := s.hard.Record
	bound := s.hard.Promised == r.Seq || s.breaks(seeded.HardenAfterPromise)
	d := Duty{
		Role: RoleMirror, Seq: r.Seq, Gate: GateClosed, Wait: WaitNone, Principal: r.Principal, Fork: r.Fork,
		Ship: bound && s.claim.How == ElectionNone && !r.Suspended && s.failed == ReasonNone,
	}
	if s.hard.Aligned == r.Seq && !s.hard.Dirty && !s.cfg.Options.MirrorClosed {
		d.Gate = GateReadOnly
	}
	return d
}
