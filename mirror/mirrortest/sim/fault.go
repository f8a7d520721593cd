package sim

import (
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// faultKind is a kind of misfortune.
type faultKind struct {
	name   string
	often  float64       // share of seeds in which it strikes at all
	mean   time.Duration // between two of them
	strike func(*sim)
}

const numFaults = 38

// faults is the menu from which a plan is made.
var faults [numFaults]faultKind

func init() {
	faults = [numFaults]faultKind{
		{"one direction of a link is cut", 0.4, 25 * time.Second, (*sim).cutOneWay},
		{"a link is cut", 0.4, 25 * time.Second, (*sim).cutLink},
		{"a server is cut off", 0.35, 35 * time.Second, (*sim).cutServer},
		{"a link flaps", 0.2, 40 * time.Second, (*sim).flap},
		{"a link is clogged", 0.35, 20 * time.Second, (*sim).clog},
		{"a program dies", 0.45, 30 * time.Second, func(s *sim) { s.anyone().crashProgram() }},
		{"a program is stopped", 0.3, 40 * time.Second, (*sim).stopProgram},
		{"a program stands still", 0.35, 25 * time.Second, (*sim).pauseProgram},
		{"a database server dies", 0.4, 35 * time.Second, func(s *sim) { s.crashServer(s.anyPartner(), 15*time.Second) }},
		{"a session of a server crashes", 0.2, 40 * time.Second, func(s *sim) { s.crashServer(s.anyPartner(), 200*time.Millisecond) }},
		{"a machine crashes", 0.4, 45 * time.Second, func(s *sim) { s.crashMachine(s.anyone()) }},
		{"the principal's machine crashes", 0.3, 45 * time.Second, (*sim).crashPrincipal},
		{"something happens while a server saves", 0.4, 15 * time.Second, func(s *sim) { s.lieInWait(s.anyone()) }},
		{"all machines crash", 0.15, 80 * time.Second, (*sim).crashAll},
		{"a sync of the state fails", 0.2, 40 * time.Second, (*sim).failSaves},
		{"a sync of the log fails", 0.2, 40 * time.Second, (*sim).failSyncs},
		{"a disk is full", 0.2, 40 * time.Second, (*sim).fillDisk},
		{"a disk is slow", 0.25, 40 * time.Second, (*sim).slowDisk},
		{"a bit of the state flips", 0.3, 20 * time.Second, func(s *sim) { s.flipBit() }},
		{"a slot of the state is stale", 0.08, 90 * time.Second, func(s *sim) { s.forget(s.anyone(), (*stateFile).stale) }},
		{"the witness loses its state", 0.15, 90 * time.Second, func(s *sim) { s.forget(s.machines[mirror.Witness], nil) }},
		{"a partner loses its state", 0.08, 100 * time.Second, func(s *sim) { s.forget(s.anyPartner(), nil) }},
		{"the hardened log is damaged", 0.15, 60 * time.Second, (*sim).damageLog},
		{"the hardened log is an older copy", 0.1, 60 * time.Second, (*sim).putLogBack},
		{"the mirror's slot is dropped", 0.1, 60 * time.Second, (*sim).dropSlot},
		{"a stranger changes whom commits wait for", 0.15, 50 * time.Second, (*sim).stranger},
		{"sessions are ended or canceled", 0.3, 20 * time.Second, (*sim).cancelCommits},
		{"a server is restored from a backup", 0.12, 100 * time.Second, (*sim).restoreBackup},
		{"a clock changes its rate", 0.3, 30 * time.Second, (*sim).changeClock},
		{"a clock jumps", 0.3, 30 * time.Second, (*sim).jumpClock},
		{"the log budget is small", 0.12, 60 * time.Second, (*sim).tightenBudget},
		{"a data path fails", 0.15, 50 * time.Second, (*sim).failPath},
		{"an operator reseeds", 0.1, 70 * time.Second, (*sim).reseed},
		{"an operator asks for anything", 0.4, 8 * time.Second, (*sim).anyCommand},
		{"an operator asks for a failover", 0.35, 25 * time.Second, (*sim).askFailover},
		{"an operator forces service", 0.2, 12 * time.Second, (*sim).askForce},
		{"an operator changes his mind", 0.3, 25 * time.Second, (*sim).askChange},
		{"a fault strikes in a hand-over", 0.4, 2 * time.Second, (*sim).strikeHandover},
	}
}

// strikes lets each kind of fault of the plan strike as long as faults last.
func (s *sim) strikes() {
	for f := range faults {
		if s.plan.every[f] > 0 {
			s.strikeLater(f)
		}
	}
}

func (s *sim) strikeLater(f int) {
	s.after(s.about(s.plan.every[f]), func() {
		if s.healing {
			return
		}
		s.say("fault: %s", faults[f].name)
		faults[f].strike(s)
		s.strikeLater(f)
	})
}

func (s *sim) anyone() *machine     { return s.machines[1+s.rng.IntN(3)] }
func (s *sim) anyPartner() *machine { return s.machines[1+s.rng.IntN(2)] }

// anyLink draws two servers.
func (s *sim) anyLink() (a, b mirror.Server) {
	a = mirror.Server(1 + s.rng.IntN(3))
	b = mirror.Server(1 + (int(a)+s.rng.IntN(2))%3)
	return a, b
}

// undo ends a fault after a while, unless everything has been mended since.
func (s *sim) undo(mean time.Duration, do func()) {
	s.after(s.about(mean), func() {
		if !s.healing {
			do()
		}
	})
}

// principal is the machine that is principal as its program shows; nil when none is.
func (s *sim) principal() *machine {
	if m := s.machines[s.newest.server]; m != nil && m.program != nil && m.program.status.Role == mirror.RolePrincipal {
		return m
	}
	return nil
}

func (s *sim) cutOneWay() {
	a, b := s.anyLink()
	s.net.cut[a][b] = true
	s.say("cut %s -> %s", a, b)
	s.meet(cutOneWay)
	s.undo(8*time.Second, func() { s.net.cut[a][b] = false })
}

func (s *sim) cutLink() {
	a, b := s.anyLink()
	s.net.cut[a][b], s.net.cut[b][a] = true, true
	s.say("cut %s - %s", a, b)
	s.undo(10*time.Second, func() { s.net.cut[a][b], s.net.cut[b][a] = false, false })
}

func (s *sim) cutServer() {
	m := s.anyone()
	s.net.isolate(m.self, true)
	s.say("cut off %s", m.name())
	if m == s.principal() {
		s.meet(principalCutOff)
	}
	s.undo(12*time.Second, func() { s.net.isolate(m.self, false) })
}

func (s *sim) flap() {
	a, b := s.anyLink()
	for i := range 2 * (1 + s.rng.IntN(5)) {
		s.after(time.Duration(i)*s.between(50*time.Millisecond, 2*time.Second), func() {
			if !s.healing {
				s.net.cut[a][b], s.net.cut[b][a] = i%2 == 0, i%2 == 0
			}
		})
	}
}

func (s *sim) clog() {
	a, b := s.anyLink()
	s.net.clogged[a][b] = true
	s.undo(4*time.Second, func() { s.net.unclog(a, b) })
}

func (s *sim) stopProgram() {
	if m := s.anyone(); m.program != nil {
		m.program.stop()
	}
}

// lieInWait lets something happen to a server while it saves next: that is a moment of a few milliseconds.
func (s *sim) lieInWait(m *machine) {
	act := [...]func(){
		m.crashProgram, m.crashProgram, func() { s.crashMachine(m) }, func() { s.crashMachine(m) },
		func() { s.standStill(m) }, func() { s.damageLogOf(m) }, func() { m.file.failing = 1; s.after(20*time.Millisecond, func() { m.file.failing = 0 }) },
	}[s.rng.IntN(7)]
	m.ambush = act
}

// spring lets happen what lies in wait for a save.
func (p *program) spring(takes time.Duration) {
	if act := p.ambush; act != nil && !p.healing {
		p.ambush = nil
		p.after(time.Duration(1.3*p.rng.Float64()*float64(takes)), func() {
			if !p.healing {
				act()
			}
		})
	}
}

// pauseProgram holds a program up, as a debugger or a machine without memory does. Its database goes on.
func (s *sim) pauseProgram() { s.standStill(s.anyone()) }

func (s *sim) standStill(m *machine) {
	p := m.program
	if p == nil || p.paused {
		return
	}
	s.say("%s: its program stands still", m.name())
	p.paused = true
	if p.busy {
		s.meet(pausedWhileSaving)
	}
	s.after(s.about(4*time.Second), func() { p.resume() })
}

// resume lets a program go on that stood still.
func (p *program) resume() {
	if p.dead || !p.paused {
		return
	}
	p.say("%s: its program goes on", p.name())
	p.paused = false
	p.unwatched = p.now
	p.woken = true
	p.pump()
}

func (s *sim) crashServer(m *machine, mean time.Duration) {
	if m.db == nil || !m.db.up {
		return
	}
	m.db.crash(false)
	life := m.db.life
	s.after(s.about(mean), func() {
		if m.db.life == life {
			m.db.start()
		}
	})
}

func (s *sim) crashMachine(m *machine) {
	if !m.up {
		return
	}
	m.crash()
	life := m.lives
	s.after(s.about(12*time.Second), func() {
		if m.lives == life {
			m.boot()
		}
	})
}

func (s *sim) crashPrincipal() {
	if m := s.principal(); m != nil {
		s.crashMachine(m)
	}
}

func (s *sim) crashAll() {
	s.meet(allCrash)
	for _, m := range s.machines[1:] {
		s.crashMachine(m)
	}
}

func (s *sim) failSaves() {
	m := s.anyone()
	m.file.failing = 0.6
	s.after(s.about(5*time.Second), func() { m.file.failing = 0 })
}

func (s *sim) failSyncs() {
	m := s.anyPartner()
	s.syncFails[m.self] = 0.5
	s.after(s.about(5*time.Second), func() { s.syncFails[m.self] = 0 })
}

func (s *sim) fillDisk() {
	m := s.anyPartner()
	m.fullDisk = true
	s.undo(6*time.Second, func() { m.fullDisk = false })
}

func (s *sim) slowDisk() {
	m := s.anyone()
	m.slowDisk = s.about(1500 * time.Millisecond)
	s.undo(15*time.Second, func() { m.slowDisk = 0 })
}

func (s *sim) flipBit() {
	if m := s.anyone(); m.program != nil && !m.program.busy {
		m.file.flip()
		s.meet(bitFlipped)
	}
}

// forget makes a server lose its state, at most one of the three at a time, and not when what is left could not go on:
// no rule can help then. What starts next is another server.
func (s *sim) forget(m *machine, damage func(*stateFile)) {
	if !s.mayForget(m) {
		return
	}
	if m.program != nil {
		m.witnessCrash()
		m.program.die()
	}
	m.file.cut(false)
	if damage != nil {
		m.forgetful = true
		damage(&m.file)
	} else {
		m.wipe()
	}
	m.superviseProgram()
}

func (s *sim) mayForget(m *machine) bool {
	if !m.up || s.newest.seq == 0 {
		return false
	}
	r := s.newestRecord()
	for _, o := range s.machines[1:] {
		h := o.hard()
		if o.forgetful || h.Record.Version() != r.Version() || h.Removed || h.Promised != r.Seq || o.self != mirror.Witness && (h.Dirty || h.Aligned != r.Seq) {
			return false
		}
		if o.self.IsPartner() && !o.sound() {
			return false
		}
	}
	return r.HasWitness() && !r.Suspended && s.newest.seq == r.Seq
}

// newestRecord is the newest one that any server has on disk.
func (s *sim) newestRecord() mirror.Record {
	var r mirror.Record
	for _, m := range s.machines[1:] {
		if m.hard().Record.NewerThan(r) {
			r = m.hard().Record
		}
	}
	return r
}

// sound says whether a partner has a copy that it could serve from: nobody loses both.
func (m *machine) sound() bool {
	h := m.hard()
	if w := m.machines[mirror.Witness]; m.plan.witness && (w.forgetful || !w.hard().Record.Established()) {
		return false // it could not be forced into service
	}
	return h.Record.Established() && !h.Removed && !h.Dirty && h.Aligned > 0 && !m.forgetful && !m.restored && !m.logBack && !m.queue.damaged
}

// damageLog makes a mirror's hardened log unreadable, which its program finds when it starts.
func (s *sim) damageLog() { s.damageLogOf(s.anyPartner()) }

func (s *sim) damageLogOf(m *machine) {
	if !m.self.IsPartner() || m.program == nil || m.hard().Record.Principal == m.self && m.open() || !m.other().sound() {
		return
	}
	m.crashProgram()
	m.queue.damaged = true
	s.meet(logDamaged)
	if m.hard().Record.Principal == m.self {
		// What an elected principal has not redone yet exists nowhere else, for all that this server knows.
		m.queue.holds = nil
		for id, lacks := m.lacks(); lacks; id, lacks = m.lacks() {
			s.ledger.forgiven.add(id)
		}
	}
}

// putLogBack puts a mirror's hardened log back to what it was before the database redid the rest of it.
func (s *sim) putLogBack() {
	m := s.anyPartner()
	at := m.db.progress()
	if m.hard().Record.Principal == m.self || m.program == nil || at.Seq != m.hard().Aligned || m.hard().Dirty || at.LSN < 2 || at.Seq == 0 ||
		!m.other().sound() {
		return
	}
	m.crashProgram()
	older := mirror.Position{Seq: at.Seq, LSN: at.LSN - 1}
	m.queue.reset(older)
	m.logBack = true
}

func (s *sim) dropSlot() {
	if m := s.principal(); m != nil && m.db.up && len(m.db.slots) > 0 {
		m.db.dropSlot(m.db.slots[s.rng.IntN(len(m.db.slots))].seq)
		s.meet(slotDropped)
	}
}

func (s *sim) stranger() {
	if m := s.principal(); m != nil && m.db.up && m.db.inForce.kind == waitMirror {
		m.db.strange = true // before anybody is let go
		m.db.inForce, m.db.filed = waitFor{}, waitFor{}
		m.db.release(m.db.next)
	}
}

func (s *sim) cancelCommits() {
	d := s.anyPartner().db
	for _, c := range append([]*client(nil), d.clients...) {
		if c.waits && s.chance(s.plan.cancels) {
			s.meet(commitCanceled)
			c.unknown()
		}
	}
}

// restoreBackup puts a server back to an earlier end of its log, on another timeline and without slots. What was
// acknowledged since is lost there, which no rule can help when it was the principal.
func (s *sim) restoreBackup() {
	m := s.anyPartner()
	if !m.db.up || m.db.flushed < 2 || m.db.partial || s.newest.seq == 0 {
		return
	}
	d := m.db
	if !m.began() && !m.other().sound() {
		return // both partners would be destroyed (docs/guarantees.md, "When data can be lost"): nobody has a whole copy then
	}
	s.say("%s: its server is restored from a backup", m.name())
	d.crash(false)
	keep := max(0, d.flushed-1-s.rng.IntN(20))
	if reign, ok := d.latestReign(m.hard().Record.Seq); ok && m.hard().Record.Principal == m.self {
		// A backup from before it became principal is no backup of this principal.
		for keep < len(d.log) && d.log[keep].end <= reign.start {
			keep++
		}
	}
	d.next = d.log[max(0, keep-1)].end + 1000
	d.rebuild(keep)
	d.slots = nil
	s.ledger.reset = true
	if m.hard().Record.Principal == m.self {
		s.meet(principalRestored)
		for id, lacks := s.ledger.acked.first(s.ledger.forgiven, d.holds); lacks; id, lacks = s.ledger.acked.first(s.ledger.forgiven, d.holds) {
			s.ledger.forgiven.add(id)
		}
	} else {
		s.meet(mirrorRestored)
		m.restored = true
	}
	life := d.life
	s.after(s.about(10*time.Second), func() {
		if d.life == life {
			d.start()
		}
	})
}

// began says whether this is a principal whose database has become whole in its role sequence: only such a one serves
// from a backup.
func (m *machine) began() bool {
	r := m.hard().Record
	latest, ok := m.db.latestReign(r.Seq)
	return ok && r.Principal == m.self && latest.seq > r.Fork.Seq
}

// changeClock lets a clock run at another rate: within the bound that leases need, or not.
func (s *sim) changeClock() {
	m := s.anyone()
	if s.plan.wild {
		s.meet(wildClock)
		m.setClock(0.3+2*s.rng.Float64(), 0)
		return
	}
	m.setClock(1+0.001*(2*s.rng.Float64()-1), 0)
}

// jumpClock lets a clock of a wild seed jump ahead.
func (s *sim) jumpClock() {
	if s.plan.wild {
		m := s.anyone()
		m.setClock(m.rate, s.about(20*time.Second))
		s.meet(clockJumped)
	}
}

func (s *sim) tightenBudget() {
	s.budget = mirror.LSN(s.between(1000, 20000))
	s.undo(5*time.Second, func() { s.budget = normalBudget })
}

// failPath reports a trouble that a person has to mend.
func (s *sim) failPath() {
	reasons := [...]mirror.Reason{mirror.ReasonPreflight, mirror.ReasonIdentity, mirror.ReasonRedoError, mirror.ReasonNone, mirror.ReasonDiskFull}
	if m := s.anyPartner(); m.program != nil {
		m.program.path.failed(reasons[s.rng.IntN(len(reasons))])
	}
}
