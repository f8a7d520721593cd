package mirror

import (
	"cmp"

	"github.com/f19126b3/dbmirror/mirror/internal/seeded"
)

// Manual failover: the principal drains, the mirror takes over with the principal's own vote.

func (s *Session) beginHandover() {
	s.handover = handover{Active: true, Left: s.cfg.Timing.Drain}
}

// mayHandOver says why a manual failover is not possible now.
func (s *Session) mayHandOver() Reason {
	r := s.hard.Record
	synchronized := s.shown == StateSynchronized && r.InSync || s.breaks(seeded.HandOverUnsynced)
	switch {
	case r.Safety != SafetyFull:
		return ReasonSafetyOff
	case s.handover.Active:
		return ReasonBusy
	case !s.linked(s.mirror()):
		return ReasonPartnerLost
	case !synchronized || !s.confirmed || r.Suspended:
		return ReasonNotSynchronized
	case !s.whole || s.goal.Kind != 0:
		return ReasonBusy
	}
	return ReasonNone
}

func (s *Session) advanceHandover() {
	h := &s.handover
	m := s.peers[s.mirror()]
	if h.Sent && m.reason == ReasonPromised && s.linked(s.mirror()) {
		// It has promised what it was asked to: its vote is on the way, and may come after a ping that says so. It stands
		// no longer than a candidacy lasts.
		h.Left = min(h.Left, s.cfg.Timing.Campaign)
		return
	}
	if s.mirrorGone() {
		s.endHandover(cmp.Or(m.reason, ReasonPartnerLost))
		return
	}
	hardened := m.hardened.Seq == s.hard.Record.Seq && m.hardened.LSN >= h.End || s.breaks(seeded.HandOverBehind)
	if h.Drained && !h.Sent && hardened {
		h.Sent = true
		s.sendTransfer()
	}
}

func (s *Session) sendTransfer() {
	s.send(Message{Kind: MessageTransfer, To: s.mirror(), Seq: s.hard.Record.Seq, End: s.handover.End})
}

func (s *Session) onDrained(ev Event) error {
	if s.handover.Active && ev.Seq == s.hard.Record.Seq && !s.handover.Drained {
		s.handover.Drained, s.handover.End = true, ev.LSN
	}
	return nil
}

// tickHandover gives up a failover that takes too long. A vote that arrives later finds nobody draining.
func (s *Session) tickHandover() {
	if !s.handover.Active {
		return
	}
	countDown(&s.handover.Left)
	if s.handover.Left == 0 {
		s.endHandover(ReasonFailoverTimedOut)
	}
}

func (s *Session) endHandover(why Reason) {
	s.handover = handover{}
	s.note(Entry{Kind: EntryRefused, Role: RolePrincipal, Seq: s.hard.Record.Seq, Peer: s.mirror(),
		Reason: why, Version: s.hard.Record.Version()})
}

// onTransfer is the mirror's side: it asks for the role only if its own record says that it is in sync (hole (b)) and it
// has everything the principal committed.
func (s *Session) onTransfer(m Message) {
	r := s.hard.Record
	if s.role() != RoleMirror || m.From != r.Principal || m.Record != r || !r.InSync || s.claim.How != ElectionNone {
		return
	}
	hardened := s.hardened.Seq == r.Seq && s.hardened.LSN >= m.End || s.breaks(seeded.HandOverBehind)
	if s.hard.Promised != r.Seq || !hardened || s.fit() != ReasonNone {
		return
	}
	s.campaign(ElectionTransfer)
	s.claim.End = m.End
}
