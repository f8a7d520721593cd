package mirror

// Counting ticks. All counters run down to zero or up to a bound, so that a session that hears nothing stays as it is.

func (s *Session) onTick(Event) error {
	t := s.cfg.Timing
	if t.Lease > 0 {
		s.now++
	}
	countDown(&s.starting)
	countDown(&s.promise.Left)
	if s.promise.Left == 0 {
		s.promise = promise{}
	}
	s.streamIdle = min(s.streamIdle+1, t.Timeout)
	for _, p := range s.others() {
		s.peers[p].silent = min(s.peers[p].silent+1, t.Timeout)
		countDown(&s.peers[p].lease)
	}
	s.tickStream()
	s.tickPassing()
	s.tickClaim()
	s.tickHandover()
	switch {
	case t.Ping <= 1 || s.now%t.Ping == 0:
		s.repeat()
	case s.waitsForWitness():
		s.send(s.Ping(Witness))
	}
	return nil
}

func countDown(t *Tick) {
	if *t > 0 {
		*t--
	}
}

// repeat sends again what may have been lost, and pings.
func (s *Session) repeat() {
	for _, p := range s.others() {
		s.send(s.Ping(p))
	}
	switch {
	case s.claim.How != ElectionNone && !s.claim.Halting:
		s.sendVotes()
	case s.lead() && s.deafened():
		s.campaign(ElectionAgain)
	case s.lead() && !s.confirmed:
		s.propose()
	case s.handover.Sent:
		s.sendTransfer()
	case s.role() == RolePrincipal && !s.lead() && s.claim.How == ElectionNone && s.databaseUp:
		s.campaign(ElectionAgain)
	}
	s.sendPassing()
	if s.asked != ReasonNone && s.role() == RoleMirror && !s.hard.Record.Suspended {
		s.requestSuspend()
	}
}

// Ping returns the ping that this server would send now. A host may also send it as soon as it reaches a peer.
func (s *Session) Ping(to Server) Message {
	m := Message{
		Kind: MessagePing, From: s.hard.Self, To: to, Incarnation: s.hard.Incarnation,
		Promised: s.hard.Promised, Record: s.hard.Record, Sees: s.sees(),
	}
	switch s.role() {
	case RolePrincipal:
		m.Ready, m.End = s.databaseUp, s.logEnd
		if !s.databaseUp {
			m.Reason = ReasonDatabaseDown
		}
		if s.lead() && s.databaseUp {
			m.Nonce = s.now
		}
	case RoleMirror:
		m.Ready, m.Reason = s.ready()
		m.Seq, m.LSN, m.Redone = s.hardened.Seq, s.hardened.LSN, s.redone
	}
	return m
}

// sees is the set of servers that this one has heard within the timeout, a bit each.
func (s *Session) sees() uint8 {
	var set uint8
	for _, p := range s.others() {
		if s.linked(p) {
			set |= 1 << p
		}
	}
	return set
}

func (s *Session) onLinked(ev Event) error {
	s.heard(ev.Peer)
	return nil
}

func (s *Session) onUnlinked(ev Event) error {
	s.peers[ev.Peer].silent = s.cfg.Timing.Timeout
	return nil
}

func (s *Session) onStopping(Event) error {
	for _, p := range s.others() {
		s.send(Message{Kind: MessageBye, To: p})
	}
	return nil
}
