package sim

import (
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// goal is one single fault in a session that has healed, and what it may cost at most (protocol-and-reliability 1.8).
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
		{
			name: "L2: the principal's machine dies, the mirror serves", roles: 1,
			strike: func(s *sim, m *machine) { m.held = true; m.crash() },
			needs:  func(s *sim, m *machine) bool { return s.plan.witness },
			met:    func(s *sim, m *machine) bool { return m.other().open() },
			limit:  func(s *sim) time.Duration { return s.plan.timeout() + slack },
		},
		{
			name:   "L5: the mirror's machine dies, commits go on",
			strike: func(s *sim, m *machine) { m.other().held = true; m.other().crash() },
			met: func(s *sim, m *machine) bool {
				return s.ledger.lastAck > s.goalSince && m.db.inForce.kind == waitNobody
			},
			limit: func(s *sim) time.Duration { return s.plan.timeout() + 2*time.Second + 4*s.plan.think },
		},
		{
			name:   "L5: the mirror is cut off, commits go on",
			strike: func(s *sim, m *machine) { s.net.isolate(m.self.Other(), true) },
			met: func(s *sim, m *machine) bool {
				return s.ledger.lastAck > s.goalSince && m.db.inForce.kind == waitNobody
			},
			limit: func(s *sim) time.Duration { return s.plan.timeout() + 2*time.Second + 4*s.plan.think },
		},
		{
			name:   "L6: the witness dies, nothing stops",
			strike: func(s *sim, m *machine) { s.machines[mirror.Witness].held = true; s.machines[mirror.Witness].crash() },
			met:    func(s *sim, m *machine) bool { return s.now-s.goalSince > 2*s.plan.timeout() },
			limit:  func(s *sim) time.Duration { return 3 * s.plan.timeout() },
			while:  stillServing,
		},
		{
			name: "L6: the principal's program stands still for less than half a timeout",
			strike: func(s *sim, m *machine) {
				p := m.program
				p.paused = true
				s.after(s.plan.timeout()/2-s.plan.tick, p.resume)
			},
			met:   func(s *sim, m *machine) bool { return s.now-s.goalSince > 2*s.plan.timeout() },
			limit: func(s *sim) time.Duration { return 3 * s.plan.timeout() },
		},
		{
			name: "L6: every link is cut for less than half a timeout",
			strike: func(s *sim, m *machine) {
				s.net.isolate(mirror.PartnerA, true)
				s.net.isolate(mirror.Witness, true)
				s.after(s.plan.timeout()/2-s.plan.tick, s.net.mend)
			},
			met:   func(s *sim, m *machine) bool { return s.now-s.goalSince > 2*s.plan.timeout() },
			limit: func(s *sim) time.Duration { return 3 * s.plan.timeout() },
		},
		{
			name: "manual failover", roles: 1,
			strike: func(s *sim, m *machine) { m.ask(mirror.Command{Kind: mirror.CommandFailover}) },
			met:    func(s *sim, m *machine) bool { return m.other().open() },
			limit:  func(s *sim) time.Duration { return slack },
		},
		{
			name: "the principal is cut off: it closes in time, and the mirror serves", roles: 1,
			strike: func(s *sim, m *machine) { s.net.isolate(m.self, true) },
			needs:  func(s *sim, m *machine) bool { return s.plan.witness && !s.plan.options.StayAlone },
			met:    func(s *sim, m *machine) bool { return m.other().open() },
			limit:  func(s *sim) time.Duration { return s.plan.timeout() + slack },
			while: func(s *sim, m *machine, since time.Duration) string {
				if since > s.plan.long(s.plan.timing.Lease)+s.plan.fence+s.plan.tick && m.open() {
					return "it is open after lease and fence"
				}
				return ""
			},
		},
		{
			name:   "L1: everybody is cut off, then principal and witness meet",
			strike: func(s *sim, m *machine) { s.cutAll(m, mirror.Witness) },
			needs:  func(s *sim, m *machine) bool { return s.plan.witness && !s.plan.options.StayAlone },
			met:    func(s *sim, m *machine) bool { return s.now > s.goalSince && m.open() },
			limit:  func(s *sim) time.Duration { return slack },
		},
		{
			name:   "L1: everybody is cut off, then the partners meet",
			strike: func(s *sim, m *machine) { s.cutAll(m, m.self.Other()) },
			needs:  func(s *sim, m *machine) bool { return s.plan.witness && !s.plan.options.StayAlone },
			met:    func(s *sim, m *machine) bool { return s.now > s.goalSince && m.open() },
			limit:  func(s *sim) time.Duration { return slack },
		},
		{
			name: "L2: the principal's server dies, the mirror serves", roles: 1,
			strike: func(s *sim, m *machine) {
				m.db.crash(false)
				m.db.life++ // nobody starts it
			},
			needs: func(s *sim, m *machine) bool { return s.plan.witness },
			met:   func(s *sim, m *machine) bool { return m.other().open() },
			limit: func(s *sim) time.Duration { return s.plan.timeout() + slack },
		},
	}
}

func (m *machine) open() bool { return m.db.up && m.db.gate == mirror.GateOpen }

func stillServing(s *sim, m *machine, _ time.Duration) string {
	if !m.open() {
		return "the principal has stopped serving"
	}
	return ""
}

// cutAll cuts every link until the principal has closed; then it meets one of the others again, and the time counts from
// there.
func (s *sim) cutAll(m *machine, meets mirror.Server) {
	s.net.isolate(mirror.PartnerA, true)
	s.net.isolate(mirror.PartnerB, true)
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
