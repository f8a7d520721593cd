package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/internal/seeded"
)

// Config is what a run is made of.
type Config struct {
	Seed      uint64
	Planted   seeded.Error // rules that are broken on purpose
	KeepsTail bool         // a data path that is broken on purpose: a returning partner keeps what the principal never had
	Trace     bool         // keep the last lines of the story
}

// Result is what a run has found.
type Result struct {
	Seed        uint64
	Failure     string // empty: everything held
	Trace       []string
	Hash        uint64 // of everything that happened: equal for equal seeds
	Steps       int    // of sessions
	Virtual     time.Duration
	RoleChanges int
	Commits     int // acknowledged
	Met         [numSituations]bool
}

// String is a line for people.
func (r Result) String() string {
	end := "ok"
	if r.Failure != "" {
		end = r.Failure
	}
	return fmt.Sprintf("seed %d: %.0f virtual seconds, %d steps, %d role changes, %d commits, hash %016x: %s",
		r.Seed, r.Virtual.Seconds(), r.Steps, r.RoleChanges, r.Commits, r.Hash, end)
}

// sim is one run.
type sim struct {
	engine
	plan     plan
	machines [4]*machine // by mirror.Server
	net      *network
	ledger   ledger
	clients  []*client

	planted   seeded.Error
	keepsTail bool

	healing      bool
	testing      bool // a goal is being timed
	schemaMended bool
	quiet        bool // clients do not begin anything new
	outage       time.Duration
	goalSince    time.Duration
	budget       mirror.LSN
	barriers     uint64 // made so far
	syncFails    [4]float64

	// What the checkers remember.
	reigns      map[mirror.RoleSeq]mirror.Server
	newest      reignRecord
	saved       [4]mirror.HardState
	values      map[mirror.Version]mirror.Record
	forcedOn    mirror.Version // the record on which the witness has granted forced service
	roleChanges int
	steps       int
	met         [numSituations]bool
}

// normalBudget is more log than a run writes.
const normalBudget = mirror.LSN(1) << 40

// Run plays one seed.
func Run(cfg Config) Result {
	s := &sim{
		engine:  engine{rng: rand.New(rand.NewPCG(cfg.Seed, 0x6d6972726f72)), tracing: cfg.Trace},
		planted: cfg.Planted, keepsTail: cfg.KeepsTail, budget: normalBudget,
		reigns: map[mirror.RoleSeq]mirror.Server{}, values: map[mirror.Version]mirror.Record{},
	}
	s.ledger.values = map[uint64]uint32{}
	s.plan = s.newPlan()
	s.net = &network{sim: s}
	s.play()
	return Result{
		Seed: cfg.Seed, Failure: s.failure, Trace: s.lastLines(), Hash: s.hash, Steps: s.steps, Virtual: s.now,
		RoleChanges: s.roleChanges, Commits: s.ledger.commits, Met: s.met,
	}
}

func (e *engine) lastLines() []string {
	return e.trace[max(0, len(e.trace)-traceLimit):]
}

func (s *sim) play() {
	for self := mirror.PartnerA; self <= mirror.Witness; self++ {
		s.machines[self] = newMachine(s, self)
	}
	s.machines[s.plan.first.Other()].db.gate = mirror.GateClosed
	for _, m := range s.machines[1:] {
		m.startProgram(0)
	}
	for i := range s.plan.clients {
		c := &client{sim: s, at: mirror.Server(1 + i%2)}
		s.clients = append(s.clients, c)
		c.run()
	}
	s.establish()
	s.after(s.between(0, 20*time.Second), s.strikes)
	s.runUntil(s.plan.faulty, never)
	s.recover()
	s.runUntil(s.now+s.plan.timeout()+5*time.Second, never) // what was asked for before is asked for again for so long
	s.recover()
	s.calm()
	s.runGoal()
	s.recover()
	s.runUntil(max(s.now, virtual), never)
}

// virtual is how long a run lasts at least.
const virtual = 300 * time.Second

// recovery bounds how long a healed session may take to be whole again, copies, redo and the operator included (L3).
const recovery = 240 * time.Second

// recover requires that the session comes back, and that both databases then hold the same.
func (s *sim) recover() {
	if s.failure != "" {
		return
	}
	if !s.healing {
		s.heal()
	}
	s.runUntil(s.now+recovery, s.whole)
	if s.failure == "" && !s.whole() {
		s.fail("L3: the session does not come back: %s", s.portrait())
	}
	s.quiet = true
	s.runUntil(s.now+recovery, s.equal)
	if s.failure == "" && !s.equal() {
		s.fail("L3: the databases do not become equal: %s", s.portrait())
	}
	if s.failure == "" {
		s.checkEqual()
	}
	s.quiet = false
}

// calm lets the session run for a while without any fault.
func (s *sim) calm() {
	changes := s.roleChanges
	s.runUntil(s.now+s.plan.timeout()+time.Second, never)
	if s.failure == "" && (s.roleChanges != changes || !s.whole()) {
		s.fail("L6: something changes though nothing is wrong: %s", s.portrait())
	}
}

// whole says whether one partner serves and both show SYNCHRONIZED, with the witness that the session is to have.
func (s *sim) whole() bool {
	p := s.principal()
	if p == nil || s.machines[mirror.Witness].program == nil {
		return false
	}
	m := p.other()
	if m.program == nil || m.program.status.State != mirror.StateSynchronized || p.program.status.State != mirror.StateSynchronized {
		return false
	}
	r := p.hard().Record
	return p.open() && p.program.status.Serving && r.InSync && r.HasWitness() == s.plan.witness && r.OldWitness == 0 &&
		m.program.status.Role == mirror.RoleMirror && m.hard().Record == r && p.db.inForce.kind == waitMirror &&
		(!s.plan.witness || s.machines[mirror.Witness].hard().Record == r)
}

// equal says whether no commit is under way and everything is redone.
func (s *sim) equal() bool {
	a, b := s.machines[mirror.PartnerA], s.machines[mirror.PartnerB]
	if len(a.clients)+len(b.clients) > 0 || !s.whole() {
		return false
	}
	p := s.principal()
	m := p.other()
	_, more := m.queue.next(m.db.redone)
	return !more && p.db.flushed == len(p.db.log) && m.queue.end.LSN == p.db.end() && m.db.flushed == len(m.db.log)
}

// portrait writes the state of everything for a person.
func (s *sim) portrait() string {
	text := ""
	for _, m := range s.machines[1:] {
		text += fmt.Sprintf("\n     %s %s", m.name(), describeHard(*m.hard()))
		if p := m.program; p != nil {
			st := p.status
			text += fmt.Sprintf("\n       %s %s (%s) serving=%t confirmed=%t whole=%t electing=%t aligned=%t dirty=%t failed=%s lease=%d promise=%d starting duty{%s}",
				st.Role, st.State, st.Reason, st.Serving, st.Confirmed, st.Whole, st.Electing, st.Aligned, st.Dirty, st.Failed, st.Lease, st.PromiseLeft, st.Duty)
		} else {
			text += fmt.Sprintf("\n       no program, up=%t held=%t", m.up, m.held)
		}
		if m.db != nil {
			text += fmt.Sprintf("\n       server up=%t gate=%s commits wait for %v log %s redone %s hardened %s commits=%d waiting=%d slots=%v reigns=%v partial=%t",
				m.db.up, m.db.gate, m.db.inForce, m.db.end(), m.db.redone, m.queue.end, m.db.holds.count(), len(m.clients), m.db.slots, m.db.reigns, m.db.partial)
		}
	}
	return text
}
