package mirror

import "github.com/f19126b3/dbmirror/mirror/internal/seeded"

// What a principal does.

// advance carries on what is under way; it runs after every event.
func (s *Session) advance() {
	switch {
	case s.role() == RolePrincipal && s.lead():
		s.advancePrincipal()
	case s.role() == RoleMirror:
		s.advanceMirror()
	}
}

func (s *Session) advancePrincipal() {
	if s.hard.Record.alone() && !s.confirmed && (s.standing || s.cfg.Options.ServeAtOnce) {
		s.confirm() // nobody else has a say
	}
	if !s.confirmed && !s.breaks(seeded.ChangeUnconfirmed) || s.claim.How != ElectionNone {
		return // the proposal or the election is repeated until it is answered
	}
	r := s.hard.Record
	switch {
	case s.handover.Active:
		s.advanceHandover()
	case r.InSync && s.unguarded:
		s.change(ReasonWaitLost, func(r *Record) { r.InSync = false })
	case r.InSync && s.mirrorGone():
		s.expose()
	case s.goal.Kind != 0:
		s.advanceGoal()
	case !r.InSync:
		s.advanceSync()
	}
}

// mirrorGone says whether commits can not be hardened at the mirror any more. A principal that has just started gives the
// mirror as long to be heard as one that was heard before.
func (s *Session) mirrorGone() bool {
	m := s.mirror()
	if s.starting > 0 && s.peers[m].incarnation == 0 {
		return false
	}
	switch p := s.peers[m]; {
	case !s.linked(m):
		return true
	case p.ready || p.reason == ReasonNone:
		return false
	case p.reason == ReasonStreamLost:
		// What it lost may be this principal's own server, which is down or about to be found so: then nothing is to be
		// acknowledged alone, and a mirror that has everything must stay promotable.
		return s.databaseUp && p.unready >= s.cfg.Timing.Timeout
	}
	return true
}

// tickStream counts how long a mirror that is there has not read this principal's server.
func (s *Session) tickStream() {
	if !s.lead() {
		return
	}
	p := &s.peers[s.mirror()]
	if p.ready || p.reason != ReasonStreamLost || !s.hard.Record.InSync {
		p.unready = 0
		return
	}
	p.unready = min(p.unready+1, s.cfg.Timing.Timeout)
}

// confirm notes that a second server has the present record on disk (or that none is needed).
func (s *Session) confirm() {
	if s.confirmed {
		return
	}
	s.confirmed, s.standing = true, true
	s.exposed = !s.hard.Record.InSync || s.exposed && s.breaks(seeded.RememberExposure)
	s.hard.Aligned = s.hard.Record.Seq
}

// change makes the next record of this role sequence and asks a second server to store it. From here on the session
// serves only as far as the old and the new record both allow.
func (s *Session) change(why Reason, edit func(*Record)) {
	r := s.hard.Record
	r.Change++
	edit(&r)
	s.hard.Record = r
	s.confirmed = false
	s.exposed = s.exposed && (!r.InSync || s.breaks(seeded.RememberExposure))
	s.sync, s.unguarded = syncing{}, false
	s.note(Entry{Kind: EntryRecord, Role: RolePrincipal, Seq: r.Seq, Reason: why, Version: r.Version()})
	if r.alone() {
		s.confirm()
		return
	}
	s.propose()
}

func (s *Session) propose() {
	for _, p := range s.others() {
		s.send(Message{Kind: MessagePropose, To: p, Nonce: s.now})
	}
}

// expose records that the mirror is not promotable. Only when a second server has it on disk may the principal
// acknowledge alone (I3).
func (s *Session) expose() {
	why := ReasonPartnerLost
	if m := s.peers[s.mirror()]; s.linked(s.mirror()) {
		why = m.reason
	} else if m.left {
		why = ReasonPartnerLeft
	}
	s.change(why, func(r *Record) { r.InSync = false })
}

// advanceSync goes from SYNCHRONIZING to SYNCHRONIZED: commits wait first, then everything that may have been
// acknowledged until then is hardened at the mirror, then in_sync is recorded.
func (s *Session) advanceSync() {
	m := s.peers[s.mirror()]
	if !s.canSync(m) {
		s.sync = syncing{}
		return
	}
	if !s.sync.Wanted {
		if s.nearEnd(m) {
			s.sync.Wanted = true
		}
		return
	}
	hardened := m.hardened.LSN >= s.sync.End || s.breaks(seeded.AnnounceEarly)
	if s.sync.Proven && hardened {
		s.change(ReasonCaughtUp, func(r *Record) { r.InSync = true })
	}
}

func (s *Session) canSync(m peer) bool {
	r := s.hard.Record
	return r.Safety == SafetyFull && !r.Suspended && s.whole && s.databaseUp && s.linked(s.mirror()) && m.ready &&
		m.hardened.Seq == r.Seq
}

func (s *Session) nearEnd(m peer) bool {
	lag := s.cfg.Options.SyncLag
	return lag == 0 || m.hardened.LSN+lag >= s.logEnd
}

// noteHardened takes in how far the mirror is. A mirror reports for a role sequence only when its database continues
// that log.
func (s *Session) noteHardened(m Message) {
	p := &s.peers[m.From]
	if m.Seq == s.hard.Record.Seq && m.LSN >= p.hardened.LSN {
		p.hardened = Position{m.Seq, m.LSN}
		p.redone = m.Redone
	}
}

func (s *Session) onReport(m Message) {
	if s.lead() && m.From == s.mirror() {
		s.noteHardened(m)
	}
}

// solo says whether this principal may acknowledge without the mirror (I3): exposure is on a second server's disk, and
// nobody else can be made principal by force while its lease lives.
func (s *Session) solo() bool {
	if s.breaks(seeded.AckAlone) && s.lead() && s.standing {
		return true
	}
	r := s.hard.Record
	backed := s.exposed || s.standing && s.breaks(seeded.TrustOwnExposure)
	proving := s.sync.Wanted && !s.breaks(seeded.SoloWhileSyncing)
	vouched := s.quorum() || s.breaks(seeded.SoloUnleased)
	return s.lead() && backed && vouched && !r.InSync && !proving && !s.handover.Active
}

// quorum says whether this principal may serve: another voter vouches for it, or none is needed.
func (s *Session) quorum() bool {
	r := s.hard.Record
	if r.alone() || s.cfg.Options.StayAlone && s.exposed {
		return true
	}
	for _, p := range s.others() {
		if r.Members[p] == 0 && (p != Witness || r.OldWitness == 0) {
			continue
		}
		if s.peers[p].lease > 0 || s.cfg.Timing.Lease == 0 && s.linked(p) {
			return true
		}
	}
	return false
}

func (s *Session) onWaiting(ev Event) error {
	if s.lead() && ev.Seq == s.hard.Record.Seq && s.sync.Wanted && !s.sync.Proven {
		s.sync.Proven, s.sync.End = true, ev.LSN
	}
	return nil
}

// onWaitLost: commits may have been acknowledged without the mirror. Where the record says that it has them all, that is
// put right first; then SYNCHRONIZED is proven anew. Where it was about to say so, what was proven for that is void. A
// principal that is about to be elected again has to put its next record right.
func (s *Session) onWaitLost(ev Event) error {
	if s.role() != RolePrincipal || ev.Seq != s.hard.Record.Seq {
		return nil
	}
	s.unguarded = s.hard.Record.InSync
	s.sync = syncing{}
	return nil
}

func (s *Session) onWhole(ev Event) error {
	if s.lead() && ev.Seq == s.hard.Record.Seq && s.standing {
		s.whole = true
	}
	return nil
}

// onEnded: what the server says now counts. It may be less than before, when its database was put back to an older state.
func (s *Session) onEnded(ev Event) error {
	s.logEnd = ev.LSN
	return nil
}

func (s *Session) onDatabase(ev Event) error {
	s.databaseUp = ev.Kind == EventDatabaseUp
	return nil
}
