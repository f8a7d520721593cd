package mirror

import "github.com/f19126b3/dbmirror/mirror/internal/seeded"

// What every server does as a voter, with the same code on all three.

func (s *Session) onMessage(ev Event) error {
	m := ev.Message
	if m.To != s.hard.Self || m.From == s.hard.Self || m.From == Nobody || m.From >= numServers {
		return nil
	}
	s.heard(m.From)
	if p := &s.peers[m.From]; p.incarnation != m.Incarnation {
		// What was known of its former self says nothing of this one: a mirror with a new disk has hardened nothing.
		*p = peer{incarnation: m.Incarnation}
	}
	if !s.member(m) && !s.breaks(seeded.CountStrangers) {
		s.meet(m)
		return nil
	}
	s.learn(m)
	switch m.Kind {
	case MessagePing:
		s.onPing(m)
	case MessagePong:
		s.onPong(m)
	case MessagePropose:
		s.onPropose(m)
	case MessageVote:
		s.onVote(m)
	case MessageTransfer:
		s.onTransfer(m)
	case MessageReport:
		s.onReport(m)
	case MessageRefuse:
		s.onRefuse(m)
	case MessageRequest:
		s.onRequest(m)
	case MessageBye:
		s.peers[m.From].left = true
	}
	return nil
}

// member says whether sender and receiver are of the same session: the newer of their records lists both. A voter that
// lost its state, or one that was removed, is not listed (I16).
func (s *Session) member(m Message) bool {
	own := s.hard.Record
	if !m.Record.Established() || m.Record.Version().Compare(own.Version()) <= 0 {
		return own.lists(m.From, m.Incarnation)
	}
	if !m.Record.lists(m.From, m.Incarnation) {
		return false
	}
	return own.Established() || m.Record.lists(s.hard.Self, s.hard.Incarnation)
}

// meet answers a server that is no member: it lets it know that this one is here, and a candidate that it is refused.
func (s *Session) meet(m Message) {
	s.peers[m.From].taken = m.Record.Established()
	switch m.Kind {
	case MessagePing:
		s.send(Message{Kind: MessagePong, To: m.From, Sees: s.sees()})
	case MessageVote:
		s.refuse(m, ReasonNotMember)
	}
}

// learn takes in what the sender has on disk: a newer record is adopted, an equal one confirms this principal's.
func (s *Session) learn(m Message) {
	p := &s.peers[m.From]
	if m.Promised > s.hard.Promised {
		p.promised = max(p.promised, m.Promised)
	}
	if s.granted(m) {
		s.win()
		return
	}
	if m.Record.NewerThan(s.hard.Record) {
		restored := s.role() == RolePrincipal && m.Record.Seq == s.hard.Record.Seq
		asked := s.claim
		s.adopt(m.Record)
		if s.breaks(seeded.StandOn) {
			s.claim = asked
		}
		// Only this server changes the record of its own role sequence. One that it does not remember having made says that
		// its state was put back to an older copy, promises included: it is another server from now on, and no member
		// until it is admitted.
		if restored {
			s.hard.Incarnation++
			s.hard.Removed = true
		}
		return
	}
	if !s.lead() {
		return
	}
	if s.deafened() {
		s.campaign(ElectionAgain)
		return
	}
	if s.backed(m) {
		s.confirm()
	}
}

// backed says whether the sender has this principal's present record on disk, is a voter, and has promised nothing newer.
func (s *Session) backed(m Message) bool {
	same := m.Record == s.hard.Record || m.Record.Seq == s.hard.Record.Seq && s.breaks(seeded.AcceptOlder)
	bound := m.Promised == s.hard.Promised || s.breaks(seeded.IgnorePromised)
	voter := s.hard.Record.votes(m.From, m.Incarnation) || s.breaks(seeded.CountStrangers)
	return same && bound && voter && s.answers(m)
}

// answers says whether a message answers one that this server sent since it started. What was said to a former life
// confirms nothing now. Exploration, which has no clock, lets everything count.
func (s *Session) answers(m Message) bool {
	if s.cfg.Timing.Lease == 0 {
		return true
	}
	return (m.Kind == MessagePong || m.Kind == MessageAccept) && m.Nonce != 0 && m.Nonce-s.cfg.Clock <= s.now-s.cfg.Clock
}

// deafened says whether a voter has promised a newer role sequence than this principal's, and so hears it no more: only
// an election to a newer one can win it back. While a hand-over waits for its answer that is what was asked for. A
// principal whose database is down has nothing to win it back for: it would outbid the mirror that is to take over, and
// be outbid again, without end.
func (s *Session) deafened() bool {
	if s.handover.Sent || !s.databaseUp || s.breaks(seeded.IgnorePromised|seeded.GrantUndrained) {
		return false
	}
	for _, p := range s.others() {
		if s.peers[p].promised > s.hard.Promised {
			return true
		}
	}
	return false
}

// adopt stores a newer record. Whatever this server was doing for an older one ends in the same step (hole (c)).
func (s *Session) adopt(r Record) {
	old := s.hard.Record
	s.passing = passing{}
	if r.Seq > old.Seq && s.shipping() {
		s.fx.Halt = true
	}
	s.drop()
	s.hard.Record = r
	s.hard.Promised = max(s.hard.Promised, r.Seq)
	s.hard.Removed = !r.lists(s.hard.Self, s.hard.Incarnation)
	if old.Suspended && !r.Suspended || r.Principal != old.Principal {
		s.failed, s.asked = ReasonNone, ReasonNone // resumed, or in another role: the data path tries again
	}
	if r.Principal != old.Principal {
		s.forgoLeases()
	}
	if r.Seq > old.Seq {
		same := old.Principal == r.Principal || s.breaks(seeded.KeepAligned)
		if s.hard.Aligned == old.Seq && same && old.Established() {
			s.hard.Aligned = r.Seq // the same log goes on
			s.hardened.Seq = r.Seq
		}
		s.forget()
	}
}

// drop ends what a principal or a candidate holds in memory only.
func (s *Session) drop() {
	s.confirmed, s.standing, s.exposed, s.whole, s.won, s.drained = false, false, false, false, false, false
	s.sync, s.handover, s.claim, s.goal, s.unguarded = syncing{}, handover{}, claim{}, Command{}, false
}

// forget drops evidence about the data path of an older role sequence.
func (s *Session) forget() {
	for p := range s.peers {
		s.peers[p].hardened, s.peers[p].redone, s.peers[p].logEnd, s.peers[p].ready, s.peers[p].unready = Position{}, 0, 0, false, 0
	}
	s.logEnd = 0
}

// forgoLeases: what a voter promised in an earlier reign of this server it may have promised to the other one since.
func (s *Session) forgoLeases() {
	for p := range s.peers {
		s.peers[p].lease = 0
	}
}

func (s *Session) onPropose(m Message) {
	if m.From != m.Record.Principal || m.Record != s.hard.Record || s.hard.Promised > m.Record.Seq {
		s.send(Message{Kind: MessageRefuse, To: m.From, Seq: m.Record.Seq, Reason: ReasonStale})
		return
	}
	s.send(Message{Kind: MessageAccept, To: m.From, Nonce: m.Nonce})
}

// onVote decides an election. Reachability is never a permission: what counts are versions, promises and leases.
func (s *Session) onVote(m Message) {
	basis := m.Record
	elected := basis.elect(m.Seq, m.From, m.How, m.LSN)
	if !s.hard.Removed && s.hard.Promised == m.Seq && s.hard.Record == elected {
		s.send(Message{Kind: MessageGrant, To: m.From, Seq: m.Seq}) // the first grant was lost
		return
	}
	if why := s.objection(m); why != ReasonNone {
		s.refuse(m, why)
		return
	}
	if s.shipping() {
		s.fx.Halt = true
	}
	s.hard.Promised = m.Seq
	s.adopt(elected)
	s.note(Entry{Kind: EntryRole, Role: s.role(), Seq: m.Seq, Peer: m.From, Reason: m.How.reason(), Version: basis.Version(), LSN: m.LSN})
	s.send(Message{Kind: MessageGrant, To: m.From, Seq: m.Seq})
}

// objection says why a vote is refused; ReasonNone grants it.
func (s *Session) objection(m Message) Reason {
	own, basis := s.hard.Record, m.Record
	if s.hard.Removed || !basis.lists(s.hard.Self, s.hard.Incarnation) || !m.From.IsPartner() {
		return ReasonNotMember
	}
	if s.hard.Self == Witness && m.Seq == s.hard.Promised && s.breaks(seeded.VoteTwice) {
		return ReasonNone
	}
	if m.Seq <= s.hard.Promised {
		return ReasonPromised
	}
	if s.hard.Self == Witness && s.breaks(seeded.IgnoreVersions) {
		return ReasonNone
	}
	if own.NewerThan(basis) && m.How != ElectionForced && !s.breaks(seeded.TrustBasis) {
		return ReasonStale
	}
	switch m.How {
	case ElectionTransfer:
		drained := s.handover.Drained && s.handover.End == m.End || s.breaks(seeded.GrantUndrained)
		if !drained || own != basis {
			return ReasonNotDraining
		}
		return ReasonNone
	case ElectionForced:
		if s.hard.Self != Witness || m.From == basis.Principal {
			return ReasonWrongRole // service is forced on a mirror
		}
	case ElectionAutomatic, ElectionAgain:
		if !basis.promotable(m.From) {
			return ReasonNotPromotable
		}
		if s.lead() && s.standing && s.databaseUp {
			return ReasonServing
		}
	default:
		return ReasonWrongRole
	}
	leased := s.promise.Left > 0 && s.promise.To != m.From && !(m.How == ElectionForced && s.breaks(seeded.ForceDespiteLease))
	forgotten := s.starting > 0 && basis.Principal != m.From && !s.breaks(seeded.VoteAfterRestart)
	if leased || forgotten {
		return ReasonLease
	}
	return ReasonNone
}

func (s *Session) refuse(m Message, why Reason) {
	s.note(Entry{Kind: EntryRefused, Role: s.role(), Seq: m.Seq, Peer: m.From, Reason: why, Version: s.hard.Record.Version()})
	s.send(Message{Kind: MessageRefuse, To: m.From, Seq: m.Seq, Reason: why})
}

// onPing answers, and gives the principal its lease: a promise to vote for nobody else for a while.
func (s *Session) onPing(m Message) {
	p := &s.peers[m.From]
	p.sees = m.Sees
	switch {
	case m.From == s.hard.Record.Principal && s.hard.Self != Witness:
		p.reason, p.logEnd = m.Reason, m.End
	case s.lead() && m.From == s.mirror():
		p.ready, p.reason = m.Ready, m.Reason
		p.hardened, p.redone = Position{}, 0 // a mirror that lost log has less than it said before
		s.noteHardened(m)
	}
	pong := Message{Kind: MessagePong, To: m.From, Sees: s.sees()}
	if m.Nonce > 0 && s.givesLease(m) {
		s.promise = promise{m.From, s.cfg.Timing.Timeout}
		pong.Nonce = m.Nonce
	}
	s.send(pong)
}

// givesLease: only to the principal of the newest record, only while nothing newer is promised, only by a voter.
func (s *Session) givesLease(m Message) bool {
	return m.From == m.Record.Principal && m.Record.Seq == s.hard.Record.Seq && s.hard.Promised == m.Record.Seq &&
		m.Promised == m.Record.Seq && !s.hard.Removed
}

// onPong renews the lease, counted from when it was asked for.
func (s *Session) onPong(m Message) {
	s.peers[m.From].sees = m.Sees
	if m.Nonce == 0 || !s.lead() || m.Promised != s.hard.Promised || !s.hard.Record.votes(m.From, m.Incarnation) {
		return
	}
	age := s.now - m.Nonce
	if age < s.cfg.Timing.Lease {
		s.peers[m.From].lease = max(s.peers[m.From].lease, s.cfg.Timing.Lease-age)
	}
}

// shipping says whether log is being hardened here for an older role sequence than the one that is about to begin.
func (s *Session) shipping() bool { return s.duty.Role == RoleMirror && s.duty.Ship }
