package sim

import (
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// machine is one of the three computers: a clock, disks, at a partner a database server, and the program that runs the
// session, which comes and goes.
type machine struct {
	*sim
	self    mirror.Server
	up      bool
	program *program
	file    stateFile
	queue   *queue    // partners: the hardened log
	barrier barrier   // partners, on disk: what the database must have if they are elected for what they had as principal
	db      *database // partners
	clients []*client // of db, that have a commit under way

	// The clock that runs while the machine sleeps: what it showed at a time, and how fast it goes.
	clockAt, clockShows time.Duration
	rate                float64

	slowDisk time.Duration // added to every save and sync
	fullDisk bool
	torn     bool // its log has lost a tail in a crash
	sampled  sequenceSample

	// When nobody looked after the database last: its program was down or stood still, or the server had just started.
	// What it serves then is outside of the promise about leases.
	unwatched time.Duration
	held      bool // it is kept down: nobody starts it by itself
	// What is known to be missing here, and found out before it is used: the server was restored as a mirror, until it is
	// copied anew, or the log was put back, until the program starts.
	restored, logBack bool
	leftOpen          bool // it lost its state with its database open: nobody closes that before the session admits it
	forgetful         bool // its state is damaged, and about to be taken away
	ambush            func()
	lives             int
}

// sequenceSample is how far the principal's sequence was when it was last looked at.
type sequenceSample struct {
	value uint64
	at    time.Duration
}

func newMachine(s *sim, self mirror.Server) *machine {
	m := &machine{sim: s, self: self, up: true, rate: s.plan.drift[self]}
	m.file.e = &s.engine
	if self.IsPartner() {
		m.db = newDatabase(m)
		m.queue = &queue{}
	}
	m.file.create(mirror.HardState{Self: self, Incarnation: s.newIncarnation()})
	return m
}

func (s *sim) newIncarnation() mirror.Incarnation { return mirror.Incarnation(s.rng.Uint64() | 1) }

func (m *machine) name() string { return [...]string{"", "a", "b", "w"}[m.self] }

func (m *machine) other() *machine { return m.machines[m.self.Other()] }

// clock is what the machine's clock shows.
func (m *machine) clock() time.Duration {
	return m.clockShows + time.Duration(float64(m.now-m.clockAt)*m.rate)
}

// setClock changes how fast the clock goes, and lets it jump ahead.
func (m *machine) setClock(rate float64, jump time.Duration) {
	m.clockShows, m.clockAt, m.rate = m.clock()+jump, m.now, rate
}

// latency is how long a write to disk takes now.
func (m *machine) latency(usual time.Duration) time.Duration {
	return usual/2 + m.about(usual/2) + m.slowDisk
}

// crashProgram ends the program as SIGKILL does.
func (m *machine) crashProgram() {
	if m.program == nil {
		return
	}
	m.say("%s: its program dies", m.name())
	m.witnessCrash()
	m.program.die()
	m.file.cut(false)
	m.superviseProgram()
}

// superviseProgram starts the program again after a while.
func (m *machine) superviseProgram() {
	m.lives++
	life := m.lives
	m.after(m.between(200*time.Millisecond, 8*time.Second), func() { m.startProgram(life) })
}

// startProgram starts the program from what is on disk. One that finds no database ends, and is started again; one whose
// state is damaged cannot start until somebody has taken the state away.
func (m *machine) startProgram(life int) {
	if !m.up || m.program != nil || m.lives != life || m.held {
		return
	}
	if m.db != nil && !m.db.up {
		m.after(time.Second, func() { m.startProgram(life) })
		return
	}
	hard, err := m.file.load()
	if err != nil {
		m.meet(stateDamaged)
		m.say("%s: %v", m.name(), err)
		m.after(m.between(2*time.Second, 20*time.Second), func() {
			if m.lives == life && m.program == nil {
				m.wipe()
				m.startProgram(life)
			}
		})
		return
	}
	if m.db != nil && m.openLog(hard) {
		m.meet(logLostAtStart)
		hard.Aligned, hard.Dirty = 0, true
		m.file.create(hard)
	}
	m.checkLoaded(hard)
	m.program = newProgram(m, hard)
	m.program.start()
}

// wipe takes the state away: what starts next is another server.
func (m *machine) wipe() {
	m.say("%s: its state is taken away", m.name())
	m.forgetful = false
	m.file.create(mirror.HardState{Self: m.self, Incarnation: m.newIncarnation()})
	if m.self.IsPartner() {
		m.queue, m.barrier = &queue{}, barrier{}
		m.leftOpen = m.db.gate == mirror.GateOpen
		m.meet(partnerForgot)
	} else {
		m.meet(witnessForgot)
	}
}

// crash takes the power away: program, server, and every byte that was not synced.
func (m *machine) crash() {
	m.say("%s: the machine crashes", m.name())
	if m.program != nil {
		m.witnessCrash()
		m.program.die()
	}
	if m.file.cut(true) {
		m.meet(stateTorn)
	}
	if m.db != nil {
		m.db.crash(true)
		if m.queue.tear(m.rng) {
			m.meet(logTorn)
			m.torn = true
		}
	}
	m.up = false
	m.lives++
}

// boot starts the machine, its server, and then its program.
func (m *machine) boot() {
	if m.up || m.held {
		return
	}
	m.say("%s: the machine starts", m.name())
	m.up = true
	if m.db != nil {
		m.db.startLater()
	}
	m.superviseProgram()
}

// hard is what the server has on disk, as far as the world knows.
func (m *machine) hard() *mirror.HardState { return &m.file.state }

// openLog reads the hardened log at the start of a program. It is lost when it is damaged or gone; then the copy is of no
// use, if it was of any. It says whether that has to be written down.
func (m *machine) openLog(hard mirror.HardState) bool {
	lost := m.queue.open()
	r := hard.Record
	return lost && r.Established() && !hard.Removed && r.Principal != m.self && hard.Aligned == r.Seq && !hard.Dirty
}
