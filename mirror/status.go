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
	Exposed   bool // a principal that acknowledges without a mirror
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
		Serving: s.duty.Gate == GateOpen, Exposed: s.duty.Role == RolePrincipal && s.duty.Wait == WaitNone,
		Confirmed: s.confirmed, Whole: s.whole, Electing: s.claim.How != ElectionNone,
		Aligned: s.hard.Record.Established() && s.hard.Aligned == s.hard.Record.Seq, Dirty: s.hard.Dirty,
		Removed: s.hard.Removed, Failed: s.failed, Duty: s.duty,
		Hardened: s.hardened, Redone: s.redone, EndOfLog: s.logEnd,
		PromiseLeft: s.promise.Left, PromisedTo: s.promise.To, StreamIdle: s.streamIdle,
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

// Condition is one thing that an automatic failover needs, as this server sees it.
type Condition struct {
	Name  string
	Met   bool
	Value string // what is there now
	Age   Tick   // how old the evidence is, in ticks
	Mend  string // what would change it, when it is not met
}

// Explain lists every condition for an automatic failover to the present mirror with its value, the age of its evidence,
// and what would change it. It is meant for people; nothing decides by it.
func (s *Session) Explain() []Condition {
	r := s.hard.Record
	m := s.mirror()
	view := s.peers[m]
	conditions := []Condition{
		{"session established", r.Established(), r.Version().String(), 0, "establish the session at the partner that is to be principal"},
		{"safety is FULL", r.Safety == SafetyFull, r.Safety.String(), 0, "set safety FULL at the principal"},
		{"witness set", r.HasWitness(), r.Mode().String(), 0, "set a witness at the principal"},
		{"not suspended", !r.Suspended, suspension(r), 0, "mend the cause, then resume"},
		{"mirror holds every acknowledged commit", r.InSync, inSync(r), 0, "wait until the mirror has caught up, or see why it does not"},
	}
	if s.hard.Self != Witness {
		conditions = append(conditions, Condition{"witness connected", s.linked(Witness), connected(s.linked(Witness)),
			s.peers[Witness].silent, "start the witness, and see that it can be reached"})
	}
	switch s.role() {
	case RolePrincipal, RoleWitness:
		conditions = append(conditions,
			Condition{"mirror connected", s.linked(m), connected(s.linked(m)), view.silent, "start the mirror's partner, and see that it can be reached"})
	case RoleMirror:
		conditions = append(conditions, s.explainMirror()...)
	}
	return conditions
}

// explainMirror lists what a mirror alone can know: see automatic, which decides by the same facts.
func (s *Session) explainMirror() []Condition {
	p := s.hard.Record.Principal
	principal, there := s.peers[p], s.linked(p)
	fit, age := s.fit(), s.peers[Witness].silent
	vouched := !there && s.peers[Witness].sees&(1<<p) != 0
	return []Condition{
		{"principal lost", !there || principal.reason == ReasonDatabaseDown, connected(there), principal.silent, "nothing: the principal is there"},
		{"principal not stopped in order", !principal.left, leaving(principal.left), principal.silent, "start it, or force service"},
		{"principal's server silent", there || s.streamIdle >= s.cfg.Timing.Timeout, "last heard", s.streamIdle, "nothing: its server is there"},
		{"witness has lost the principal", !vouched, seen(vouched), age, "nothing: the witness hears the principal"},
		{"promise to the principal run out", s.promise.Left == 0 && s.starting == 0, s.promise.To.String(), 0, "wait"},
		{"this mirror is fit to serve", fit == ReasonNone, fit.String(), 0, "see the reason"},
	}
}

func leaving(left bool) string {
	if left {
		return "stopped in order"
	}
	return "not stopped"
}

func seen(by bool) string {
	if by {
		return "the witness hears it"
	}
	return "the witness does not hear it"
}

func suspension(r Record) string {
	if r.Suspended {
		return "suspended: " + r.Why.String()
	}
	return "not suspended"
}

func inSync(r Record) string {
	if r.InSync {
		return "in sync"
	}
	return "not in sync"
}

func connected(yes bool) string {
	if yes {
		return "connected"
	}
	return "not connected"
}
