package mirror

// Why nobody serves, and what an automatic failover lacks: for people.

// Condition is one thing that an automatic failover needs, as this server sees it.
type Condition struct {
	Name  string
	Met   bool
	Value string // what is there now
	Age   Tick   // how old the evidence is, in ticks
	Mend  string // what would change it, when it is not met
}

// Explain lists every condition for an automatic failover to the present mirror with its value, the age of its evidence,
// and what would change it; at a principal also every condition for its own service. So it says why nobody serves. It is
// meant for people; nothing decides by it.
func (s *Session) Explain() []Condition {
	r := s.hard.Record
	conditions := []Condition{
		{"this server is part of the session", !s.hard.Removed, membership(s.hard.Removed), 0, "admit it, or set it as the witness, at the principal"},
		{"session established", r.Established(), r.Version().String(), 0, "establish the session at the partner that is to be principal"},
	}
	if s.role() == RoleNone {
		return conditions // nothing else is known of a session that it is no part of
	}
	conditions = append(conditions,
		Condition{"safety is FULL", r.Safety == SafetyFull, r.Safety.String(), 0, "set safety FULL at the principal"},
		Condition{"witness set", r.HasWitness(), r.Mode().String(), 0, "set a witness at the principal"},
		Condition{"not suspended", !r.Suspended, suspension(r), 0, "mend the cause, then resume"},
		Condition{"mirror holds every acknowledged commit", r.InSync, inSync(r), 0, s.mendSync()})
	if s.hard.Self != Witness && r.HasWitness() {
		conditions = append(conditions, s.explainLink("witness connected", Witness, "start the witness, and see that it can be reached"))
	}
	if s.role() == RoleMirror {
		return append(conditions, s.explainMirror()...)
	}
	conditions = append(conditions, s.explainLink("mirror connected", s.mirror(), "start the mirror's partner, and see that it can be reached"))
	if s.role() == RolePrincipal {
		conditions = append(conditions, s.explainService()...)
	}
	return conditions
}

func (s *Session) explainLink(name string, p Server, mend string) Condition {
	return Condition{name, s.linked(p), connected(s.linked(p)), s.peers[p].silent, mend}
}

// explainMirror lists what a mirror alone can know: see automatic, which decides by the same facts.
func (s *Session) explainMirror() []Condition {
	p := s.hard.Record.Principal
	principal, there := s.peers[p], s.linked(p)
	fit := s.fit()
	conditions := []Condition{
		{"principal lost", !there || principal.reason == ReasonDatabaseDown, connected(there), principal.silent, "nothing: the principal is there"},
		{"principal not stopped in order", !principal.left, leaving(principal.left), principal.silent, "start it, or force service"},
		{"principal's server silent", there || s.streamIdle >= s.cfg.Timing.Timeout, "last heard", s.streamIdle, "nothing: its server is there"},
		{"promise to the principal run out", s.promise.Left == 0 && s.starting == 0, s.promise.To.String(), 0, "wait"},
		{"this mirror is fit to serve", fit == ReasonNone, fit.String(), 0, fitMend(fit)},
	}
	if s.hard.Record.HasWitness() {
		conditions = append(conditions, s.explainVoucher())
	}
	return conditions
}

func fitMend(why Reason) string {
	switch why {
	case ReasonSeeding:
		return "bring the principal back: this copy is made whole from it"
	case ReasonDatabaseDown:
		return "start the database server"
	}
	return "mend the cause, then resume"
}

// explainVoucher: a witness that hears the principal vouches for it. What one that is not connected hears is unknown.
func (s *Session) explainVoucher() Condition {
	vouched := s.witnessHears()
	c := Condition{"witness has lost the principal", !vouched, seen(vouched), s.peers[Witness].silent, "nothing: the witness hears the principal"}
	if !s.linked(Witness) {
		c.Met, c.Value, c.Mend = false, "unknown: the witness is not connected", "start the witness, and see that it can be reached"
	}
	return c
}

// explainService lists what a principal needs to serve: see principalGate, which decides by the same facts.
func (s *Session) explainService() []Condition {
	conditions := []Condition{
		{"to serve: confirmed since its start", s.standing, confirmation(s.standing), 0, s.mendConfirmation()},
		s.explainQuorum(),
		{"to serve: its database answers", s.databaseUp, answering(s.databaseUp), 0, "start the database server"},
		{"to serve: no manual failover is under way", !s.handover.Active, draining(s.handover.Active), 0, "wait until it is done or given up"},
	}
	if s.standing { // before that nothing is done for it
		conditions = append(conditions, Condition{"to serve: its database is whole", s.whole, wholeness(s.whole), 0,
			"wait; the trouble of the partner says what it fails at"})
	}
	return conditions
}

// explainQuorum: another server vouches for a principal by answering its pings, which it sends while its database answers.
func (s *Session) explainQuorum() Condition {
	c := Condition{"to serve: a server vouches for it", s.quorum(), "quorum: " + s.quorumKind().String(), s.lastHeard(),
		"bring the mirror or the witness back, and see that they hear each other both ways"}
	if !s.databaseUp {
		c.Value, c.Mend = "none is asked while its database does not answer", "start the database server"
	}
	return c
}

func (s *Session) mendConfirmation() string {
	if s.hard.Record.alone() {
		return "bring the mirror back; or, if no service was forced there meanwhile, tell this principal to serve"
	}
	return "bring the mirror or the witness back"
}

// mendSync is what helps a mirror that lacks commits: it can only wait for a principal that is there.
func (s *Session) mendSync() string {
	if s.role() == RoleMirror && !s.linked(s.hard.Record.Principal) {
		return "bring the principal back, or force service and lose what is missing here"
	}
	return "wait until the mirror has caught up, or see why it does not"
}

// lastHeard is how long ago the latest of the others was heard.
func (s *Session) lastHeard() Tick {
	age := s.cfg.Timing.Timeout
	for _, p := range s.others() {
		age = min(age, s.peers[p].silent)
	}
	return age
}

func membership(removed bool) string {
	if removed {
		return "the session went on without it"
	}
	return "not removed"
}

func confirmation(yes bool) string {
	if yes {
		return "confirmed"
	}
	return "no second server has confirmed its record"
}

func answering(yes bool) string {
	if yes {
		return "it answers"
	}
	return "it does not answer"
}

func wholeness(yes bool) string {
	if yes {
		return "whole"
	}
	return "not whole for serving yet"
}

func draining(yes bool) string {
	if yes {
		return "under way"
	}
	return "none"
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
