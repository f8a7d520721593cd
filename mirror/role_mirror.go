package mirror

import "fmt"

// What a mirror does.

func (s *Session) advanceMirror() {
	if s.claim.How == ElectionNone && s.automatic() == ReasonNone {
		s.campaign(ElectionAutomatic)
	}
}

// automatic says what stands against an automatic failover now; ReasonNone begins one. Whether it is allowed is decided
// by the voters; this decides when to try.
func (s *Session) automatic() Reason {
	if why := s.orphaned(); why != ReasonNone {
		return why
	}
	if s.witnessHears() {
		return ReasonPrincipalConnected
	}
	return s.fit()
}

// orphaned says what stands against an automatic failover by what this mirror hears itself.
func (s *Session) orphaned() Reason {
	r := s.hard.Record
	principal := s.peers[r.Principal]
	switch {
	case !r.HasWitness():
		return ReasonNoWitness
	case r.Safety != SafetyFull:
		return ReasonSafetyOff
	case !r.promotable(s.hard.Self):
		return ReasonNotSynchronized
	case principal.left:
		return ReasonPartnerLeft
	case s.linked(r.Principal) && (principal.reason != ReasonDatabaseDown || s.promise.Left > 0):
		return ReasonPrincipalConnected
	case !s.linked(r.Principal) && s.streamIdle < s.cfg.Timing.Timeout:
		return ReasonPrincipalConnected // its server is alive, only its program is silent
	case s.promise.Left > 0 || s.starting > 0:
		return ReasonLease
	case !s.linked(Witness):
		return ReasonNoWitness
	}
	return ReasonNone
}

// witnessHears says whether the witness, when it was last heard, still heard a principal that is silent here.
func (s *Session) witnessHears() bool {
	principal := s.hard.Record.Principal
	return s.peers[Witness].sees&(1<<principal) != 0 && !s.linked(principal)
}

// waitsForWitness: nothing but what the witness said last stands against an automatic failover, and that may be as old as
// a ping.
func (s *Session) waitsForWitness() bool {
	return s.role() == RoleMirror && s.claim.How == ElectionNone && s.orphaned() == ReasonNone && s.fit() == ReasonNone && s.witnessHears()
}

// fit says why this mirror could not serve now.
func (s *Session) fit() Reason {
	switch {
	case s.hard.Dirty || s.hard.Aligned == 0:
		return ReasonSeeding
	case s.failed != ReasonNone:
		return s.failed
	case !s.databaseUp:
		return ReasonDatabaseDown
	}
	return ReasonNone
}

// ready says whether commits of the principal can be hardened here, and why not. A mirror that is being prepared is not
// ready and has no reason yet.
func (s *Session) ready() (bool, Reason) {
	switch {
	case s.hard.Dirty:
		return false, ReasonSeeding
	case s.failed != ReasonNone:
		return false, s.failed
	case s.hard.Promised != s.hard.Record.Seq:
		return false, ReasonPromised
	case s.hard.Aligned != s.hard.Record.Seq:
		return false, ReasonCatchingUp
	case s.streamIdle >= s.cfg.Timing.Timeout:
		return false, ReasonStreamLost
	}
	return true, ReasonNone
}

func (s *Session) onHardened(ev Event) error {
	s.takeHardened(ev)
	if s.hardened.Seq == s.hard.Record.Seq && s.claim.How == ElectionNone {
		s.send(Message{Kind: MessageReport, To: s.hard.Record.Principal, Seq: s.hardened.Seq, LSN: s.hardened.LSN, Redone: s.redone})
	}
	return nil
}

// takeHardened drops what was hardened for another role sequence than the one this database continues (I4).
func (s *Session) takeHardened(ev Event) {
	if s.role() == RoleMirror && ev.Seq == s.hard.Aligned {
		s.hardened = Position{ev.Seq, max(ev.LSN, s.hardenedIn(ev.Seq))}
	}
}

func (s *Session) hardenedIn(seq RoleSeq) LSN {
	if s.hardened.Seq == seq {
		return s.hardened.LSN
	}
	return 0
}

func (s *Session) onRedone(ev Event) error {
	if ev.Seq == s.hardened.Seq {
		s.redone = max(s.redone, ev.LSN)
	}
	return nil
}

// onAligned: the database now continues the log of Seq, from LSN on. A copy that was half done is whole.
func (s *Session) onAligned(ev Event) error {
	if s.role() != RoleMirror || ev.Seq != s.hard.Record.Seq || s.hard.Promised != ev.Seq {
		return nil
	}
	s.hard.Aligned, s.hard.Dirty = ev.Seq, false
	s.hardened, s.redone = Position{ev.Seq, ev.LSN}, ev.LSN
	s.failed, s.asked = ReasonNone, ReasonNone
	return nil
}

// onSeeding: from here on the database is of no use until it is aligned again. It is refused to a server that has become
// principal meanwhile, or may still: what it has may be the only copy.
func (s *Session) onSeeding(Event) error {
	if s.role() != RoleMirror || s.claim.How != ElectionNone || s.hard.Promised != s.hard.Record.Seq {
		return fmt.Errorf("seed %w: only a mirror that follows its principal may be overwritten; try again when it does", ErrRefused)
	}
	s.hard.Dirty, s.hard.Aligned = true, 0
	s.hardened, s.redone = Position{}, 0
	return nil
}

// onLogLost: what this mirror reported as hardened is not there any more. It says so before it says anything else, and
// wins nothing, whatever it has promised.
func (s *Session) onLogLost(Event) error {
	if s.role() == RoleMirror {
		s.claim = claim{}
		s.hard.Dirty, s.hard.Aligned = true, 0
		s.hardened, s.redone = Position{}, 0
	}
	return nil
}

func (s *Session) onStreamed(Event) error {
	s.streamIdle = 0
	return nil
}

func (s *Session) onStreamLost(Event) error {
	s.streamIdle = s.cfg.Timing.Timeout
	return nil
}

// onFailed: the data path cannot go on. A mirror asks its principal to suspend the session; a principal does.
func (s *Session) onFailed(ev Event) error {
	if ev.Reason == ReasonNone {
		return nil // not a failure that a person has to mend: the data path tries again
	}
	switch s.role() {
	case RoleMirror:
		s.failed, s.asked = ev.Reason, ev.Reason
		s.requestSuspend()
	case RolePrincipal:
		c := Command{Kind: CommandSuspend, Reason: ev.Reason}
		if s.lead() && s.goal.Kind == 0 && (!s.hard.Record.Suspended || overBudget(s.hard.Record, c)) {
			s.goal = c
		}
	}
	return nil
}

func (s *Session) requestSuspend() {
	s.send(Message{Kind: MessageRequest, To: s.hard.Record.Principal,
		Command: Command{Kind: CommandSuspend, Reason: s.asked}, Reason: s.asked})
}
