package mirror

import (
	"cmp"
	"slices"

	"github.com/f19126b3/dbmirror/mirror/internal/seeded"
)

// What operators may ask for, and when.

func (s *Session) onCommand(ev Event) error {
	c := ev.Command
	switch {
	case c.Kind == 0 || c.Kind >= numCommandKinds:
		return s.deny(c, ReasonWrongRole, "the command is unknown")
	case s.hard.Removed:
		return s.deny(c, ReasonNotMember, "the session went on without this server; have the principal take it in")
	case s.role() == RoleWitness:
		return s.deny(c, ReasonWrongRole, "a witness takes no commands; ask a partner")
	case s.role() == RoleNone && c.Kind != CommandEstablish:
		return s.deny(c, ReasonNotEstablished, "establish the session first")
	}
	return commands[c.Kind](s, c)
}

var commands [numCommandKinds]func(*Session, Command) error

func init() {
	commands = [numCommandKinds]func(*Session, Command) error{
		CommandEstablish:    (*Session).establish,
		CommandFailover:     (*Session).failover,
		CommandForceService: (*Session).forceService,
		CommandSuspend:      (*Session).suspend,
		CommandResume:       (*Session).suspend,
		CommandSetSafety:    (*Session).amend,
		CommandSetWitness:   (*Session).amend,
		CommandAdmit:        (*Session).amend,
		CommandServe:        (*Session).serve,
	}
}

func (s *Session) deny(c Command, why Reason, mend string) error {
	return &RefusedError{c.Kind, why, mend}
}

// establish makes the session. Both partners, and the witness if one is wanted, must be connected, so that their
// incarnations are known and none of them belongs to a session already.
func (s *Session) establish(c Command) error {
	switch {
	case s.hard.Record.Established():
		return s.deny(c, ReasonBusy, "the session exists already; its state file says so")
	case !s.hard.Self.IsPartner():
		return s.deny(c, ReasonWrongRole, "ask the partner that is to be principal")
	}
	other := s.hard.Self.Other()
	if !s.linked(other) || s.peers[other].incarnation == 0 {
		return s.deny(c, ReasonPartnerLost, "start the other partner first; it must be reachable")
	}
	if s.peers[other].taken {
		return s.deny(c, ReasonBusy, "the other partner already belongs to a session: have it admit this server, or remove its state file if that session is over")
	}
	r := Record{Seq: 1, Principal: s.hard.Self, Safety: c.Safety}
	if c.Safety == 0 {
		r.Safety = SafetyFull
	}
	if s.hard.Self == PartnerB {
		r.Seq = 2 // the even numbers are B's
	}
	r.Members[s.hard.Self], r.Members[other] = s.hard.Incarnation, s.peers[other].incarnation
	if c.Incarnation != 0 {
		switch {
		case !s.linked(Witness) || s.peers[Witness].incarnation != c.Incarnation:
			return s.deny(c, ReasonNoWitness, "start the witness first, or establish without one")
		case s.peers[Witness].taken:
			return s.deny(c, ReasonBusy, "the witness already belongs to a session: give the new one another Session on all three servers, or remove the witness's state of it if that is over")
		}
		r.Members[Witness] = c.Incarnation
	}
	s.hard.Record, s.hard.Promised, s.hard.Aligned, s.hard.Dirty = r, r.Seq, r.Seq, false
	s.standing = r.alone()
	if s.cfg.Timing.Lease > 0 {
		s.starting = s.cfg.Timing.Timeout // the database may be in use: its clients stay until a lease was to be had
	}
	s.note(Entry{Kind: EntryRole, Role: RolePrincipal, Seq: r.Seq, Reason: ReasonEstablished, Version: r.Version()})
	s.propose()
	return nil
}

// failover exchanges the roles. A mirror passes the wish on to its principal.
func (s *Session) failover(c Command) error {
	if s.role() == RoleMirror {
		if !s.linked(s.hard.Record.Principal) {
			return s.deny(c, ReasonPartnerLost, "the principal is not connected; consider forced service")
		}
		s.pass(c)
		return nil
	}
	if !s.lead() {
		return s.deny(c, ReasonNotConfirmed, "wait until this principal is confirmed")
	}
	if why := s.mayHandOver(); why != ReasonNone {
		return s.deny(c, why, s.mendHandOver(why))
	}
	s.beginHandover()
	return nil
}

func (s *Session) mendHandOver(why Reason) string {
	switch {
	case why == ReasonSafetyOff:
		return "set safety FULL, wait for SYNCHRONIZED, then ask again"
	case why == ReasonBusy:
		return "another change is under way; ask again in a moment"
	case why == ReasonPartnerLost:
		return "bring the mirror back and wait for SYNCHRONIZED, then ask again"
	case s.hard.Record.Suspended:
		return "resume, wait for SYNCHRONIZED, then ask again"
	}
	return "wait for SYNCHRONIZED, then ask again"
}

// forceService makes this mirror serve although log may be missing. With a witness, the witness must agree that no
// promise to the principal is alive; without one nobody can, and two principals are possible.
func (s *Session) forceService(c Command) error {
	r := s.hard.Record
	switch {
	case s.role() != RoleMirror:
		return s.deny(c, ReasonWrongRole, "ask the mirror")
	case c.Expect != r.Version():
		return s.deny(c, ReasonStale, "the record has changed to "+r.Version().String()+"; look at the plan again")
	case s.linked(r.Principal) || s.streamIdle < s.cfg.Timing.Timeout:
		return s.deny(c, ReasonPrincipalConnected, "it, or its server, was heard within the timeout: use failover, or stop both and ask again when it is over")
	case s.promise.Left > 0 || s.starting > 0:
		return s.deny(c, ReasonLease, "the promise to the principal has not run out; ask again in a moment")
	case r.HasWitness() && !s.linked(Witness):
		return s.deny(c, ReasonNoWitness, "a witness is set and not connected: bring it back")
	case s.hard.Dirty || s.hard.Aligned == 0:
		return s.deny(c, ReasonSeeding, "this copy is not whole; it can not serve")
	case s.claim.How != ElectionNone:
		return s.deny(c, ReasonBusy, "an election is under way; ask again in a moment")
	}
	s.failed = ReasonNone
	s.campaign(ElectionForced)
	return nil
}

// suspend and resume. A mirror passes the wish on.
func (s *Session) suspend(c Command) error {
	if s.role() == RolePrincipal {
		return s.amend(c)
	}
	if !s.linked(s.hard.Record.Principal) {
		return s.deny(c, ReasonPartnerLost, "the principal is not connected; ask again when it is")
	}
	s.pass(c)
	return nil
}

// amend takes up a change of the record. One is carried out at a time.
func (s *Session) amend(c Command) error {
	switch {
	case s.role() == RoleMirror:
		return s.deny(c, ReasonWrongRole, "ask the principal")
	case s.goal.Kind != 0 || s.handover.Active:
		return s.deny(c, ReasonBusy, "another change is under way; ask again in a moment")
	case !s.lead() || !s.confirmed || !s.quorum():
		return s.deny(c, ReasonNotConfirmed, "no second server confirms this principal: "+s.mendConfirmation())
	case c.Kind == CommandSetSafety && c.Safety != SafetyFull && c.Safety != SafetyOff:
		return s.deny(c, ReasonCommand, "safety is FULL or OFF")
	case c.Kind == CommandSetWitness && c.Incarnation != 0 &&
		(!s.reached(Witness) || s.peers[Witness].incarnation != c.Incarnation):
		return s.deny(c, ReasonNoWitness, "the new witness is not connected; start it first")
	case c.Kind == CommandAdmit && (c.Incarnation == 0 || !s.reached(s.mirror()) || s.peers[s.mirror()].incarnation != c.Incarnation):
		return s.deny(c, ReasonPartnerLost, "the partner to be admitted is not connected; start it first")
	}
	s.goal = c
	return nil
}

// serve lets a restarted principal without a witness serve although its partner has not answered.
func (s *Session) serve(c Command) error {
	if !s.lead() || !s.hard.Record.alone() {
		return s.deny(c, ReasonWrongRole, "only a principal without a witness may be told to serve")
	}
	s.standing = true
	return nil
}

// advanceGoal takes the next step of a change; each step is confirmed before the next begins, so that no two
// majorities ever miss each other.
func (s *Session) advanceGoal() {
	edit := s.nextEdit()
	if edit == nil {
		s.goal = Command{}
		return
	}
	s.change(cmp.Or(s.goal.Reason, ReasonCommand), edit)
}

// nextEdit returns the next step of the goal, nil when it is reached.
func (s *Session) nextEdit() func(*Record) {
	r, c := s.hard.Record, s.goal
	switch c.Kind {
	case CommandSuspend:
		if !r.Suspended || overBudget(r, c) {
			return func(r *Record) {
				r.Suspended, r.Why, r.SuspendedSeq = true, c.Reason, r.SuspendedSeq+1
				r.InSync = r.InSync && s.breaks(seeded.SuspendInSync)
			}
		}
	case CommandResume:
		if r.Suspended {
			return func(r *Record) { r.Suspended, r.Why, r.SuspendedSeq = false, ReasonNone, r.SuspendedSeq+1 }
		}
	case CommandSetSafety:
		if r.Safety != c.Safety {
			return func(r *Record) {
				r.Safety, r.SafetySeq = c.Safety, r.SafetySeq+1
				r.InSync = c.Safety == SafetyFull && s.breaks(seeded.SyncWithSafety)
			}
		}
	case CommandSetWitness:
		if s.breaks(seeded.ReplaceWitnessAtOnce) && r.Members[Witness] != c.Incarnation {
			return func(r *Record) { r.Members[Witness] = c.Incarnation }
		}
		return nextWitness(r, c.Incarnation)
	case CommandAdmit:
		m := s.mirror()
		switch r.Members[m] {
		case c.Incarnation:
			return nil
		case 0:
			return func(r *Record) { r.Members[m] = c.Incarnation }
		}
		// The old identity is taken out first, with the witness's consent: what it may still believe can not win any more.
		return func(r *Record) { r.Members[m], r.InSync = 0, false }
	}
	return nil
}

// overBudget: a session that is suspended already still has to give up the log it keeps when that reaches its bound;
// it is then that log piles up.
func overBudget(r Record, c Command) bool {
	return c.Reason == ReasonLogBudget && r.Why != ReasonLogBudget
}

// nextWitness: out with the old one, its removal confirmed by a majority it belongs to; then in with the new one.
func nextWitness(r Record, want Incarnation) func(*Record) {
	switch {
	case r.Members[Witness] == want:
		if r.OldWitness == 0 {
			return nil
		}
		return func(r *Record) { r.OldWitness = 0 }
	case r.HasWitness():
		return func(r *Record) { r.OldWitness, r.Members[Witness] = r.Members[Witness], 0 }
	case r.OldWitness != 0:
		return func(r *Record) { r.OldWitness = 0 }
	}
	return func(r *Record) { r.Members[Witness] = want }
}

// passing is an operator's wish that a mirror passes on to its principal, as often as it takes for a while: the message
// may be lost, and what stands against the wish may be over in a moment.
type passing struct {
	Command Command
	Left    Tick
	Refused Reason // why the principal refused it last
}

func (s *Session) pass(c Command) {
	s.passing = passing{Command: c, Left: s.cfg.Timing.Timeout}
	s.sendPassing()
}

func (s *Session) sendPassing() {
	if s.passing.Left > 0 {
		s.send(Message{Kind: MessageRequest, To: s.hard.Record.Principal, Command: s.passing.Command})
	}
}

func (s *Session) tickPassing() {
	countDown(&s.passing.Left)
	if s.passing.Left == 0 {
		s.passing = passing{}
	}
}

// onRefuse writes down, once for each reason, why others refuse what an operator asked of this mirror, and ends a wish
// that asking again cannot help.
func (s *Session) onRefuse(m Message) {
	if s.claim.How == ElectionForced && m.Seq == s.claim.Seq {
		s.noteRefused(&s.claim.Refused, m)
	}
	if m.From != s.hard.Record.Principal || s.passing.Left == 0 {
		return
	}
	s.noteRefused(&s.passing.Refused, m)
	switch m.Reason {
	case ReasonBusy, ReasonNotSynchronized, ReasonNotConfirmed:
	default:
		s.passing = passing{}
	}
}

func (s *Session) noteRefused(last *Reason, m Message) {
	if *last != m.Reason {
		*last = m.Reason
		s.note(Entry{Kind: EntryRefused, Role: RoleMirror, Seq: m.Seq, Peer: s.hard.Self, Reason: m.Reason, Version: s.hard.Record.Version()})
	}
}

// onRequest is a wish that came through the mirror. One that can not be granted now is refused in the journal; a mirror
// that can not follow asks again.
func (s *Session) onRequest(m Message) {
	if m.From != s.mirror() || !slices.Contains([]CommandKind{CommandFailover, CommandSuspend, CommandResume}, m.Command.Kind) {
		return
	}
	if s.role() != RolePrincipal {
		return
	}
	switch r := s.hard.Record; {
	case m.Command.Kind == CommandSuspend && r.Suspended, m.Command.Kind == CommandResume && !r.Suspended,
		m.Command.Kind == CommandFailover && s.handover.Active:
		return // it is so already, or about to be: the wish was passed on more than once
	}
	var refused *RefusedError
	if err := s.onCommand(Event{Command: m.Command}); asRefused(err, &refused) {
		s.note(Entry{Kind: EntryRefused, Role: RolePrincipal, Seq: s.hard.Record.Seq, Peer: m.From, Reason: refused.Reason, Version: s.hard.Record.Version()})
		s.send(Message{Kind: MessageRefuse, To: m.From, Seq: s.hard.Record.Seq, Reason: refused.Reason})
	}
}
