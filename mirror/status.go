package mirror

// Status is what a session shows of itself: a value without references, safe to hand to any goroutine.
type Status struct {
	Self     Server
	Role     Role
	State    State
	Reason   Reason
	Record   Record
	Mode     Mode
	Promised RoleSeq
	Quorum   Quorum

	Serving   bool // the gate is to be open
	Exposed   bool // a principal that acknowledges without a mirror, or has not proven yet that it does not
	Confirmed bool // principal: a second server has the present record on disk
	Whole     bool // principal: the database is whole for serving
	Electing  bool // this server asks to become principal
	Aligned   bool // this database continues the principal's log
	Dirty     bool // a copy is half done
	Removed   bool // the session went on without this server
	Failed    Reason
	Duty      Duty

	Hardened    Position // mirror: the end of its hardened log; principal: what the mirror last reported
	Redone      LSN      // in the same log as Hardened
	EndOfLog    LSN      // of the principal's log, as last heard
	Lease       Tick     // principal: ticks left of the longest lease; zero: none
	Keep        Tick     // principal that has just started: ticks for which its database may stay as it was found
	PromiseLeft Tick     // ticks until this voter may vote for another than PromisedTo
	PromisedTo  Server
	StreamIdle  Tick // mirror: ticks since the principal's server was heard
	Peers       [numServers]PeerStatus
}

// PeerStatus is what is known of another server.
type PeerStatus struct {
	Connected bool
	Left      bool // its program was stopped in order
	Silent    Tick // ticks since it was heard, at most the timeout
	Ready     bool // the mirror follows the stream
	Reason    Reason
	// Newcomer is the incarnation of a server that is not part of the session and could be admitted; zero for a member.
	Newcomer Incarnation
}

// Status returns what the session shows.
func (s *Session) Status() Status {
	st := Status{
		Self: s.hard.Self, Role: s.role(), State: s.shown, Reason: s.reason, Record: s.hard.Record,
		Mode: s.hard.Record.Mode(), Promised: s.hard.Promised, Quorum: s.quorumKind(),
		Serving: s.duty.Gate == GateOpen, Exposed: s.duty.Role == RolePrincipal && (s.duty.Wait == WaitNone || s.duty.Prove),
		Confirmed: s.confirmed, Whole: s.whole, Electing: s.claim.How != ElectionNone,
		Aligned: s.hard.Record.Established() && s.hard.Aligned == s.hard.Record.Seq, Dirty: s.hard.Dirty,
		Removed: s.hard.Removed, Failed: s.failed, Duty: s.duty,
		Hardened: s.hardened, Redone: s.redone, EndOfLog: s.logEnd,
		PromiseLeft: s.promise.Left, PromisedTo: s.promise.To, StreamIdle: s.streamIdle,
	}
	if s.cfg.Timing.Lease > 0 && s.keeping() {
		st.Keep = s.starting - (s.cfg.Timing.Timeout - s.cfg.Timing.Lease)
	}
	if s.role() == RolePrincipal {
		m := s.peers[s.mirror()]
		st.Hardened, st.Redone = m.hardened, m.redone
	} else if s.role() == RoleMirror {
		st.EndOfLog = s.peers[s.hard.Record.Principal].logEnd
	}
	for _, p := range s.others() {
		q := s.peers[p]
		st.Lease = max(st.Lease, q.lease)
		st.Peers[p] = PeerStatus{Connected: s.linked(p), Left: q.left, Silent: q.silent, Ready: q.ready, Reason: q.reason}
		if !s.hard.Record.lists(p, q.incarnation) {
			st.Peers[p].Newcomer = q.incarnation
		}
	}
	return st
}

// quorumKind is the quorum as this server sees it, with what its peers say of each other.
func (s *Session) quorumKind() Quorum {
	if s.hard.Self == Witness {
		a, b := s.linked(PartnerA), s.linked(PartnerB)
		switch {
		case a && b && s.peers[PartnerA].sees&(1<<PartnerB) != 0:
			return QuorumFull
		case a || b:
			return QuorumWitness
		}
		return QuorumNone
	}
	partner, witness := s.linked(s.hard.Self.Other()), s.linked(Witness) && s.hard.Record.HasWitness()
	switch {
	case partner && witness:
		return QuorumFull
	case partner:
		return QuorumPartners
	case witness:
		return QuorumWitness
	}
	return QuorumNone
}
