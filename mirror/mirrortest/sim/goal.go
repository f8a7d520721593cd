package sim

import (
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// goal is one single fault in a session that has healed, and what it may cost at most.
type goal struct {
	name   string
	strike func(*sim, *machine)                       // the machine is the principal's
	met    func(*sim, *machine) bool                  // the session has got over it
	limit  func(*sim) time.Duration                   // within
	roles  int                                        // role changes that it costs, exactly
	needs  func(*sim, *machine) bool                  // nil: nothing
	while  func(*sim, *machine, time.Duration) string // asked after each step: what is wrong
}

// slack is what saves, votes, pings and statements take beside the timeouts.
const slack = 3 * time.Second

const numGoals = 11

var goals [numGoals]goal

func init() {
	goals = [numGoals]goal{
		{name: "L2: the principal's machine dies, the mirror serves", roles: 1, needs: aWitness,
			strike: func(s *sim, m *machine) { m.keepDown() }, met: mirrorServes, limit: timeoutAnd(slack)},
		{name: "L2: the principal's server dies, the mirror serves", roles: 1, needs: aWitness,
			strike: func(s *sim, m *machine) { m.db.crash(false); m.db.life++ /* nobody starts it */ }, met: mirrorServes, limit: timeoutAnd(slack)},
		{name: "L5: the mirror's machine dies, commits go on",
			strike: func(s *sim, m *machine) { m.other().keepDown() }, met: acknowledgesAlone, limit: timeoutAndClients},
		{name: "L5: the mirror is cut off, commits go on",
			strike: func(s *sim, m *machine) { s.net.isolate(m.self.Other(), true) }, met: acknowledgesAlone, limit: timeoutAndClients},
		{name: "L6: the witness dies, nothing stops",
			strike: func(s *sim, m *machine) { s.machines[mirror.Witness].keepDown() }, met: twoTimeouts, limit: timeoutAnd(30 * time.Second), while: stillServing},
		{name: "L6: the principal's program stands still for less than half a timeout",
			strike: func(s *sim, m *machine) { m.program.paused = true; s.after(s.shortStall(), m.program.resume) }, met: twoTimeouts, limit: timeoutAnd(30 * time.Second)},
		{name: "L6: every link is cut for less than half a timeout",
			strike: func(s *sim, m *machine) { s.cutEverything(); s.after(s.shortStall(), s.net.mend) }, met: twoTimeouts, limit: timeoutAnd(30 * time.Second)},
		{name: "a manual failover within the slack", roles: 1,
			strike: func(s *sim, m *machine) { m.ask(mirror.Command{Kind: mirror.CommandFailover}) }, met: mirrorServes,
			limit: func(*sim) time.Duration { return slack }},
		{name: "the principal is cut off: it closes in time, and the mirror serves", roles: 1, needs: aBoundPrincipal,
			strike: func(s *sim, m *machine) { s.net.isolate(m.self, true) }, met: mirrorServes, limit: timeoutAnd(slack), while: closesInTime},
		{name: "L1: everybody is cut off, then principal and witness meet", needs: aBoundPrincipal,
			strike: func(s *sim, m *machine) { s.meetAgain(m, mirror.Witness) }, met: servesAgain, limit: func(*sim) time.Duration { return slack }},
		{name: "L1: everybody is cut off, then the partners meet", needs: aBoundPrincipal,
			strike: func(s *sim, m *machine) { s.meetAgain(m, m.self.Other()) }, met: servesAgain, limit: func(*sim) time.Duration { return slack }},
	}
}

func aWitness(s *sim, _ *machine) bool        { return s.plan.witness }
func aBoundPrincipal(s *sim, _ *machine) bool { return s.plan.witness && !s.plan.options.StayAlone }
func mirrorServes(_ *sim, m *machine) bool    { return m.other().open() }
func servesAgain(s *sim, m *machine) bool     { return m.open() }
func acknowledgesAlone(s *sim, m *machine) bool {
	return s.ledger.lastAck > s.goalSince && m.db.inForce.kind == waitNobody
}
func twoTimeouts(s *sim, _ *machine) bool { return s.now-s.goalSince > 2*s.plan.timeout() }

func timeoutAnd(more time.Duration) func(*sim) time.Duration {
	return func(s *sim) time.Duration { return s.plan.timeout() + more }
}

// timeoutAndClients: the clients must have come around to commit something, too.
func timeoutAndClients(s *sim) time.Duration {
	return s.plan.timeout() + 2*time.Second + 8*s.plan.think
}

// shortStall is a stall that is no failure.
func (s *sim) shortStall() time.Duration { return s.plan.timeout()/2 - s.plan.tick }

// stillServing: the principal does not stop.
func stillServing(s *sim, m *machine, _ time.Duration) string {
	if !m.open() {
		return "the principal has stopped serving"
	}
	return ""
}

// closesInTime: a principal that reaches nobody is closed after lease and fence.
func closesInTime(s *sim, m *machine, since time.Duration) string {
	if since > s.plan.long(s.plan.timing.Lease)+s.plan.fence+s.plan.tick && m.open() {
		return "it is open after lease and fence"
	}
	return ""
}

// keepDown crashes a machine that nobody starts again.
func (m *machine) keepDown() {
	m.held = true
	m.crash()
}

func (m *machine) open() bool { return m.db.up && m.db.gate == mirror.GateOpen }

func (s *sim) cutEverything() {
	s.net.isolate(mirror.PartnerA, true)
	s.net.isolate(mirror.PartnerB, true)
}

// meetAgain cuts every link until the principal has closed; then it meets one of the others again, and the time counts
// from there.
func (s *sim) meetAgain(m *machine, meets mirror.Server) {
	s.cutEverything()
	s.runUntil(s.now+s.plan.timeout(), func() bool { return !m.open() })
	if m.open() {
		s.fail("a principal that reaches nobody is open after %s", s.plan.timeout())
	}
	s.runUntil(s.now+s.between(0, 10*time.Second), never)
	s.net.cut[m.self][meets], s.net.cut[meets][m.self] = false, false
	s.goalSince = s.now
}

// runGoal strikes once and times what comes of it.
func (s *sim) runGoal() {
	number := s.rng.IntN(len(goals))
	g := &goals[number]
	m := s.principal()
	if m == nil || g.needs != nil && !g.needs(s, m) {
		return
	}
	s.say("goal: %s", g.name)
	s.goalSince = s.now
	before := s.roleChanges
	s.testing = true
	g.strike(s, m)
	since, wrong := s.goalSince, ""
	limit := g.limit(s)
	s.runUntil(since+limit, func() bool {
		if g.while != nil && wrong == "" {
			wrong = g.while(s, m, s.now-since)
		}
		return wrong != "" || g.met(s, m)
	})
	switch {
	case s.failure != "":
	case wrong != "":
		s.fail("%s: %s after %s", g.name, wrong, s.now-since)
	case !g.met(s, m):
		s.fail("%s: not within %s", g.name, limit)
	case s.roleChanges != before+g.roles:
		s.fail("%s: %d role changes", g.name, s.roleChanges-before)
	default:
		s.meet(goalsMet + situation(number))
	}
	s.mendAfterGoal()
}

// mendAfterGoal starts and joins everything again.
func (s *sim) mendAfterGoal() {
	s.testing = false
	s.net.mend()
	for _, m := range s.machines[1:] {
		m.held = false
		m.bringUp()
	}
}
