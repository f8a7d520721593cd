package sim

import (
	"errors"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// ask lets an operator ask a server for something.
func (m *machine) ask(c mirror.Command) {
	if m.program == nil {
		return
	}
	m.say("%s: an operator asks for %s %+v", m.name(), c.Kind, c)
	m.program.ask(mirror.Event{Kind: mirror.EventCommanded, Command: c}, func(err error) {
		var refused *mirror.RefusedError
		if errors.As(err, &refused) && refused.Mend == "" {
			m.fail("%s refused %s without saying what would mend it", m.name(), c.Kind)
		}
		if err == nil {
			m.noteAccepted(c)
		}
	})
}

// anyCommand is any command, right or wrong, at any server.
func (s *sim) anyCommand() {
	m := s.anyone()
	c := mirror.Command{Kind: mirror.CommandKind(s.rng.IntN(11))}
	switch s.rng.IntN(4) {
	case 0:
		c.Incarnation = s.anyone().hard().Incarnation
	case 1:
		c.Incarnation = s.newIncarnation()
	}
	if c.Kind == mirror.CommandSetSafety {
		c.Safety = mirror.Safety(s.rng.IntN(4))
	}
	if s.chance(0.8) {
		c.Expect = m.hard().Record.Version()
	}
	if c.Kind == mirror.CommandForceService && s.plan.every[forceFault] == 0 {
		c.Expect = mirror.Version{Seq: 1 << 40}
	}
	if c.Kind == mirror.CommandEstablish && !m.hard().Record.Established() {
		return // nobody establishes at both partners at once
	}
	if c.Kind == mirror.CommandSuspend && s.chance(0.5) {
		c.Reason = mirror.ReasonCommand
	}
	m.ask(c)
}

// forceFault is the index of forced service in the menu of faults.
const forceFault = 35

func (s *sim) askFailover() { s.anyPartner().ask(mirror.Command{Kind: mirror.CommandFailover}) }

func (s *sim) askForce() {
	m := s.anyPartner()
	m.ask(mirror.Command{Kind: mirror.CommandForceService, Expect: m.hard().Record.Version()})
}

// askChange suspends and resumes, changes safety, takes the witness out and in, at the right server.
func (s *sim) askChange() {
	m := s.principal()
	if m == nil {
		return
	}
	c := mirror.Command{Kind: mirror.CommandSuspend, Reason: mirror.ReasonCommand}
	switch s.rng.IntN(7) {
	case 0, 1:
		c = mirror.Command{Kind: mirror.CommandResume}
	case 2:
		c = mirror.Command{Kind: mirror.CommandSetSafety, Safety: mirror.SafetyOff}
	case 3:
		c = mirror.Command{Kind: mirror.CommandSetSafety, Safety: mirror.SafetyFull}
	case 4:
		c = mirror.Command{Kind: mirror.CommandSetWitness}
	case 5:
		c = mirror.Command{Kind: mirror.CommandSetWitness, Incarnation: s.machines[mirror.Witness].hard().Incarnation}
	}
	if c.Kind == mirror.CommandSuspend || c.Kind == mirror.CommandResume {
		m = s.anyPartner()
	}
	m.ask(c)
}

// strikeHandover asks for a failover, and soon after something happens to one of the three.
func (s *sim) strikeHandover() {
	m := s.principal()
	if m == nil || m.program.status.State != mirror.StateSynchronized || !s.chance(0.1) {
		return
	}
	m.ask(mirror.Command{Kind: mirror.CommandFailover})
	victim := s.anyone()
	if s.chance(0.4) {
		victim = m
	}
	if s.chance(0.4) {
		s.lieInWait(victim)
		return
	}
	within := 400 * time.Millisecond
	if s.chance(0.5) {
		within = 2*s.plan.gate + 10*time.Millisecond
	}
	s.after(s.between(0, within), func() {
		if s.healing {
			return
		}
		switch s.rng.IntN(5) {
		case 0:
			victim.crashProgram()
		case 1:
			s.crashMachine(victim)
		case 2:
			s.net.isolate(victim.self, true)
			s.undo(8*time.Second, func() { s.net.isolate(victim.self, false) })
		case 3:
			s.crashServer(s.anyPartner(), 20*time.Second)
		}
	})
}

func (s *sim) reseed() {
	m := s.anyPartner()
	// Only while the principal serves: until then the mirror's may be the only copy, which no server can know.
	if m.program != nil && m.program.status.Role == mirror.RoleMirror && m.other().open() && m.other() == s.principal() {
		m.program.ask(mirror.Event{Kind: mirror.EventSeeding}, func(error) {})
	}
}

// establish asks until the session exists, as a partner does that is told to.
func (s *sim) establish() {
	m := s.machines[s.plan.first]
	if s.newestRecord().Established() {
		return
	}
	s.after(300*time.Millisecond, s.establish)
	c := mirror.Command{Kind: mirror.CommandEstablish}
	if s.plan.witness {
		if c.Incarnation = s.machines[mirror.Witness].hard().Incarnation; m.program == nil {
			return
		}
	}
	m.ask(c)
}

// heal mends everything that is broken outside of the session.
func (s *sim) heal() {
	s.healing = true
	s.say("everything is mended")
	s.net.mend()
	s.plan.loss, s.plan.double, s.plan.slow = 0, 0, 0
	s.plan.huge, s.plan.poison, s.plan.abandonment = 0, 0, 0
	s.budget, s.schemaMended = normalBudget, true
	for _, m := range s.machines[1:] {
		m.slowDisk, m.fullDisk, m.file.failing, s.syncFails[m.self] = 0, false, 0, 0
		m.setClock(1, 0)
		if p := m.program; p != nil && p.paused {
			p.resume()
		}
		m.bringUp()
	}
	s.attend()
}

// bringUp starts whatever is down on a machine.
func (m *machine) bringUp() {
	switch {
	case m.held:
	case !m.up:
		m.boot()
	case m.db != nil && !m.db.up:
		m.db.startLater()
		fallthrough
	case m.program == nil:
		m.superviseProgram()
	}
}

// attend is an operator who looks every two seconds, and does what the operations page says.
func (s *sim) attend() {
	s.after(2*time.Second, s.attend)
	if s.testing {
		return // nobody helps
	}
	m := s.principal()
	if m == nil || !m.program.status.Serving {
		s.attendOutage()
		return
	}
	s.outage = 0
	o := m.other()
	if o.held {
		o.held = false
		o.bringUp()
	}
	if c, ok := s.change(m, o); ok {
		m.ask(c)
	}
}

// change is what the session needs from an operator at a serving principal.
func (s *sim) change(m, o *machine) (mirror.Command, bool) {
	st, w := &m.program.status, s.machines[mirror.Witness]
	r := st.Record
	switch {
	case s.plan.witness && r.Members[mirror.Witness] != w.hard().Incarnation && w.program != nil:
		return mirror.Command{Kind: mirror.CommandSetWitness, Incarnation: w.hard().Incarnation}, true
	case !s.plan.witness && !(r.OldWitness == 0 && !r.HasWitness()):
		return mirror.Command{Kind: mirror.CommandSetWitness}, true
	case st.Peers[o.self].Newcomer != 0:
		return mirror.Command{Kind: mirror.CommandAdmit, Incarnation: st.Peers[o.self].Newcomer}, true
	case r.Safety != mirror.SafetyFull:
		return mirror.Command{Kind: mirror.CommandSetSafety, Safety: mirror.SafetyFull}, true
	case o.program == nil || o.program.status.Role != mirror.RoleMirror:
		return mirror.Command{}, false
	}
	why := o.program.status.Failed
	if o.queue.failed || why == mirror.ReasonLogDamaged && !o.program.status.Dirty {
		o.crashProgram() // a log whose sync has failed is opened anew
		return mirror.Command{}, false
	}
	if why == mirror.ReasonNone && !r.Suspended {
		return mirror.Command{}, false
	}
	if o.program.status.Aligned && (why != mirror.ReasonNone || needsCopy(r.Why)) {
		o.program.ask(mirror.Event{Kind: mirror.EventSeeding}, func(error) {})
	}
	if !r.Suspended {
		return mirror.Command{Kind: mirror.CommandSuspend, Reason: why}, true // so that it can be resumed
	}
	return mirror.Command{Kind: mirror.CommandResume}, true
}

// needsCopy says whether a suspension for this reason ends with a new copy.
func needsCopy(why mirror.Reason) bool {
	switch why {
	case mirror.ReasonLogGap, mirror.ReasonLogBudget, mirror.ReasonLogDamaged, mirror.ReasonIdentity, mirror.ReasonDiverged:
		return true
	}
	return false
}

// attendOutage: nobody serves. After a while an operator finds out who could, and helps.
func (s *sim) attendOutage() {
	s.outage += 2 * time.Second
	r := s.newestRecord()
	if !r.Established() {
		s.establishAnew()
		return
	}
	p := s.machines[r.Principal]
	m := p.other()
	switch {
	case s.outage < s.plan.timeout()+20*time.Second:
		return
	case p.program != nil && p.program.status.Role == mirror.RolePrincipal && r.OldWitness == 0 && !r.HasWitness() && s.outage < 50*time.Second:
		p.ask(mirror.Command{Kind: mirror.CommandServe})
	case m.program != nil && m.program.status.Role == mirror.RoleMirror:
		// The principal cannot serve, whether it lost its state or its copy was not whole: it is stopped, and service forced.
		if !p.held {
			s.meet(principalGivenUp)
			p.say("%s: is stopped for good", p.name())
			p.held = true
			p.crash()
		}
		m.ask(mirror.Command{Kind: mirror.CommandForceService, Expect: m.hard().Record.Version()})
	}
}

func (s *sim) establishAnew() {
	if m := s.machines[s.plan.first]; m.program != nil {
		c := mirror.Command{Kind: mirror.CommandEstablish}
		if s.plan.witness {
			c.Incarnation = s.machines[mirror.Witness].hard().Incarnation
		}
		m.ask(c)
	}
}
