package mirror

import "github.com/f19126b3/dbmirror/mirror/internal/seeded"

// Asking to become principal.

// campaign begins a candidacy. The promise is saved before anything is asked; the record that would be won is not
// (storing it early loses data: mutant M8). A mirror first stops hardening for the old role sequence, so that what it
// says it has is final.
func (s *Session) campaign(how Election) {
	seq := s.hard.Promised
	for _, p := range s.others() {
		seq = max(seq, s.peers[p].promised)
	}
	asked := s.nextSeq(seq)
	if !s.breaks(seeded.AskWithoutPromise) {
		s.hard.Promised = asked
	}
	for _, p := range s.others() {
		s.peers[p].promised = 0
	}
	s.claim = claim{How: how, Seq: asked, Left: s.cfg.Timing.Campaign}
	s.handover, s.sync = handover{}, syncing{}
	s.confirmed = false
	if s.role() == RoleMirror {
		s.claim.Halting = true
		s.fx.Halt = true
		return
	}
	s.poll()
}

// nextSeq is the role sequence after seq. Where no witness decides, the partners take turns: A the odd numbers, B the
// even ones, so that two principals made by force never share one (I1).
func (s *Session) nextSeq(seq RoleSeq) RoleSeq {
	next := seq + 1
	if s.hard.Record.alone() && (next%2 == 1) != (s.hard.Self == PartnerA) {
		next++
	}
	return next
}

// onHalted: nothing more will be hardened for the old role sequence, so the candidate can say what it has.
func (s *Session) onHalted(ev Event) error {
	s.takeHardened(ev)
	if !s.claim.Halting {
		return nil
	}
	s.claim.Halting = false
	if s.hardened.Seq == s.hard.Record.Seq {
		s.claim.LSN = s.hardened.LSN
	}
	s.poll()
	return nil
}

// poll asks the voters, or wins at once where there are none.
func (s *Session) poll() {
	if s.breaks(seeded.StoreBeforeGrant) {
		// What may not be done: the record of an election that is not won.
		defer func(r Record) { s.hard.Record = r }(s.elected())
	}
	if s.hard.Record.alone() && s.claim.How != ElectionTransfer {
		s.win()
		return
	}
	s.sendVotes()
}

func (s *Session) elected() Record {
	return s.hard.Record.elect(s.claim.Seq, s.hard.Self, s.claim.How, s.claim.LSN)
}

func (s *Session) sendVotes() {
	for _, p := range s.others() {
		if p == Witness && s.claim.How == ElectionTransfer || p != Witness && s.claim.How == ElectionForced {
			continue // only the principal can vouch that it is drained, only the witness that force is due
		}
		s.send(Message{Kind: MessageVote, To: p, Seq: s.claim.Seq, How: s.claim.How, LSN: s.claim.LSN, End: s.claim.End})
	}
}

// granted says whether the sender is a voter and stores the record that this candidate has asked for. A grant says so,
// and so does whatever is heard of a voter whose grant was lost.
func (s *Session) granted(m Message) bool {
	promised := s.hard.Promised == s.claim.Seq || s.breaks(seeded.AskWithoutPromise)
	if s.claim.How == ElectionNone || s.claim.Halting || !promised {
		return false
	}
	voter := s.hard.Record.votes(m.From, m.Incarnation) || m.From == s.hard.Record.Principal
	stored := m.Record == s.elected() || m.Kind == MessageGrant && m.Seq == s.claim.Seq && s.breaks(seeded.StandOn)
	return voter && stored
}

// win makes this server principal of the role sequence it asked for.
func (s *Session) win() {
	won, how, goal := s.elected(), s.claim.How, s.goal
	whole, unguarded := s.whole && how == ElectionAgain, s.unguarded && how == ElectionAgain
	s.adopt(won)
	s.confirm()
	s.unguarded = unguarded
	s.whole, s.goal, s.won, s.drained = whole, goal, how != ElectionAgain, how == ElectionTransfer
	if how == ElectionForced && s.breaks(seeded.ResumeForced) {
		s.goal = Command{Kind: CommandResume}
	}
	if s.cfg.Timing.Lease > 0 {
		for _, p := range s.others() {
			s.send(s.Ping(p)) // it may not serve before somebody has given it a lease
		}
	}
	s.note(Entry{Kind: EntryRole, Role: RolePrincipal, Seq: won.Seq, Reason: how.reason(), Version: won.Version(), LSN: won.Fork.LSN})
}

// tickClaim gives up a candidacy that is not answered. The promise stays.
func (s *Session) tickClaim() {
	if s.claim.How == ElectionNone {
		return
	}
	countDown(&s.claim.Left)
	if s.claim.Left == 0 {
		s.claim = claim{}
	}
}
