package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// program is one life of the program that runs a session: package mirror/host, with time that a save takes made visible.
// It does one thing after the other; while it saves or is held up, events wait.
type program struct {
	*machine
	session  *mirror.Session
	inbox    []request
	taken    int          // of inbox
	due      int          // ticks of the turn under way
	next     request      // its event, after them
	halted   mirror.Event // comes before everything else
	woken    bool         // the ticker has struck
	busy     bool         // a save is under way
	dead     bool
	broken   bool // the session is over; only the data path still works, to close the database
	paused   bool
	forcing  bool          // an operator has asked it to force service
	returned bool          // it started as principal, and has not been confirmed since
	counted  time.Duration // the clock at the last tick that was counted
	expiry   time.Duration // on the clock: when the lease served by must have been renewed; zero: none
	duty     mirror.Duty
	wishes   uint64
	status   mirror.Status
	path     *path // partners
}

// request is an event, and what to do when its effects are carried out.
type request struct {
	event  mirror.Event
	answer func(error)
	wish   uint64 // evidence that is good only as long as this is the wish; zero: any
}

// inboxLimit bounds the events that wait, as a host does.
const inboxLimit = 256

func newProgram(m *machine, hard mirror.HardState) *program {
	clock := mirror.Tick(m.rng.Uint32())
	if m.chance(0.1) {
		clock = ^mirror.Tick(0) - mirror.Tick(m.rng.IntN(100)) // about to begin anew
		m.after(m.plan.long(100), func() { m.meet(clockWrapped) })
	}
	session, err := mirror.New(mirror.Config{
		Self: m.self, Incarnation: hard.Incarnation, Timing: m.plan.timing, Options: m.plan.options,
		Clock: clock, Seeded: m.planted,
	}, hard)
	if err != nil {
		m.fail("%s: %v", m.name(), err)
	}
	p := &program{machine: m, session: session, counted: m.clock()}
	m.unwatched = m.now
	p.status = session.Status()
	p.returned = p.status.Role == mirror.RolePrincipal
	return p
}

func (p *program) start() {
	p.say("%s: its program starts with %s", p.name(), describeHard(p.session.Hard()))
	p.mix(uint64(p.self), uint64(p.now))
	if p.db != nil {
		p.path = newPath(p)
		p.path.checkLog()
	}
	p.publish()
	p.wish(p.status.Duty)
	p.strike()
	if p.path != nil {
		p.path.beat()
	}
}

// strike is the ticker: a wake-up for each tick.
func (p *program) strike() {
	if p.dead {
		return
	}
	p.after(time.Duration(float64(p.plan.tick)/p.rate), p.strike)
	p.woken = true
	p.pump()
}

// tell gives an event to the session; false when it is overloaded.
func (p *program) tell(ev mirror.Event) bool { return p.put(request{event: ev}) }

// tellUnder gives evidence that was found while wish was the number of the duty.
func (p *program) tellUnder(wish uint64, ev mirror.Event) bool {
	return p.put(request{event: ev, wish: wish})
}

func (p *program) put(r request) bool {
	if p.dead || p.broken || len(p.inbox)-p.taken >= inboxLimit {
		return false
	}
	p.inbox = append(p.inbox, r)
	p.pump()
	return true
}

// ask gives an event to the session and hears when its effects are carried out.
func (p *program) ask(ev mirror.Event, answer func(error)) {
	p.inbox = append(p.inbox, request{event: ev, answer: answer})
	p.pump()
}

// pump does what can be done now. In each turn time comes first: what was heard before a pause must not be believed as
// if it were fresh.
func (p *program) pump() {
	for !p.busy && !p.paused && !p.dead && !p.broken && p.failure == "" {
		switch {
		case p.halted.Kind != 0:
			r := request{event: p.halted}
			p.halted = mirror.Event{}
			p.step(&r)
		case p.due > 0:
			p.due--
			p.step(&ticked)
		case p.next.event.Kind != 0:
			r := p.next
			p.next.event.Kind = 0
			if r.wish == 0 || r.wish == p.wishes {
				p.step(&r)
			}
		case !p.turn():
			return
		}
	}
}

var ticked = request{event: mirror.Event{Kind: mirror.EventTicked}}

// turn begins one: with the ticks that have passed, and with an event if one waits. It says whether there was a reason.
func (p *program) turn() bool {
	switch {
	case p.woken:
		p.woken = false
	case p.taken < len(p.inbox):
		p.next = p.inbox[p.taken]
		p.inbox[p.taken].answer = nil
		if p.taken++; p.taken == len(p.inbox) {
			p.inbox, p.taken = p.inbox[:0], 0
		}
	default:
		return false
	}
	due := (p.clock() - p.counted) / p.plan.tick
	p.counted += due * p.plan.tick
	if due > time.Duration(p.plan.timing.Timeout) {
		p.meet(pauseCounted)
	}
	p.due = int(min(due, time.Duration(p.plan.timing.Timeout)+1))
	return true
}

// step takes one step and carries out its effects in order.
func (p *program) step(r *request) {
	fx, err := p.session.Step(r.event)
	p.steps++
	if err != nil {
		p.mix(uint64(p.self), 1)
		if !errors.Is(err, mirror.ErrRefused) {
			p.fail("%s: %s: %v", p.name(), r.event, err)
			return
		}
		p.refused(r, err)
		return
	}
	p.mix(uint64(p.self)<<8|uint64(r.event.Kind), uint64(p.now), uint64(fx.Duty.Gate)<<8|uint64(fx.Duty.Wait))
	now := p.session.Status()
	p.describe(r.event, fx, &now)
	p.noteStep(r.event, fx, &now)
	halted := false
	var end mirror.Position
	if fx.Halt && p.path != nil {
		end, halted = p.path.halt(), true
		p.duty = mirror.Duty{}
	}
	if !fx.Saved {
		p.carry(r, fx, &now, halted, end)
		return
	}
	p.busy = true
	asked := *r
	p.mix(uint64(fx.State.Promised), uint64(fx.State.Record.Seq)<<16|fx.State.Record.Change)
	takes := p.latency(p.plan.save)
	p.spring(takes)
	p.file.save(fx.State, takes, func(err error) {
		if p.dead {
			return
		}
		p.busy = false
		if err != nil {
			p.fence(err)
			return
		}
		p.checkSaved(&p.status, fx.State)
		p.carry(&asked, fx, &now, halted, end)
		p.pump()
	})
}

// carry does what comes after the save.
func (p *program) carry(r *request, fx mirror.Effects, now *mirror.Status, halted bool, end mirror.Position) {
	for _, m := range fx.Send {
		p.net.send(m)
	}
	p.status = *now
	p.publish()
	p.wish(fx.Duty)
	if halted {
		p.halted = mirror.Event{Kind: mirror.EventHalted, Seq: end.Seq, LSN: end.LSN}
	}
	if r.answer != nil {
		r.answer(nil)
	}
}

// publish notes until when the lease lasts that this principal serves by.
func (p *program) publish() {
	p.expiry = 0
	left, kept := p.status.Lease, p.status.Duty.Gate == mirror.GateKeep
	if kept {
		left = max(left, p.status.Keep)
	}
	if left > 0 && (kept || p.status.Serving) {
		p.expiry = p.counted - time.Duration(p.due)*p.plan.tick + time.Duration(left)*p.plan.tick
	}
	p.checkReign()
}

// overdue says whether the lease has run out although the session, held up, still has it serve.
func (p *program) overdue() bool { return p.expiry > 0 && p.clock() > p.expiry }

func (p *program) refused(r *request, err error) {
	p.meet(commandRefused)
	p.say("%s: %v", p.name(), err)
	if r.answer != nil {
		r.answer(err)
	}
}

// fence closes the database: a session that cannot save cannot prove its role. The program then ends.
func (p *program) fence(err error) {
	p.say("%s: session stopped: %v", p.name(), err)
	p.meet(saveFailed)
	if p.status.Serving {
		p.meet(saveFailedServing)
	}
	p.broken = true
	p.wish(mirror.Duty{Gate: mirror.GateClosed, Wait: mirror.WaitMirror})
	p.after(5*time.Second, p.end)
	if p.path == nil {
		p.end()
	}
}

// end is the end of a program that cannot go on; somebody starts it again.
func (p *program) end() {
	if p.dead {
		return
	}
	p.die()
	p.superviseProgram()
}

func (p *program) die() {
	if p.dead {
		return
	}
	p.dead, p.unwatched = true, p.now
	if p.path != nil {
		p.path.stop()
	}
	p.machine.program = nil
}

// stop ends the program in order: it says good-bye.
func (p *program) stop() {
	if p.busy || p.paused || p.broken {
		p.crashProgram()
		return
	}
	p.step(&request{event: mirror.Event{Kind: mirror.EventStopping}})
	p.say("%s: its program is stopped", p.name())
	p.meet(stoppedInOrder)
	p.die()
	p.superviseProgram()
}

// wish tells the data path its duty when it has changed.
func (p *program) wish(d mirror.Duty) {
	if p.path == nil || d == p.duty && p.wishes > 0 {
		return
	}
	p.duty = d
	p.wishes++
	p.path.want(d, p.wishes)
}

// describe writes a step that led to something.
func (p *program) describe(ev mirror.Event, fx mirror.Effects, st *mirror.Status) {
	if !p.tracing {
		return
	}
	was := &p.status
	changed := was.State != st.State || was.Role != st.Role || was.Serving != st.Serving || was.Electing != st.Electing
	quiet := true
	for _, m := range fx.Send {
		quiet = quiet && (m.Kind == mirror.MessagePing || m.Kind == mirror.MessagePong || m.Kind == mirror.MessageReport)
	}
	if quiet && !changed && !fx.Saved && !fx.Halt && fx.Duty == was.Duty {
		return
	}
	p.say("%s: %s", p.name(), ev)
	if fx.Halt {
		p.say("   halt")
	}
	if fx.Saved {
		p.say("   save %s", describeHard(fx.State))
	}
	for _, m := range fx.Send {
		if m.Kind != mirror.MessagePing && m.Kind != mirror.MessagePong {
			p.say("   send %s", m)
		}
	}
	if fx.Duty != was.Duty {
		p.say("   duty %s prove=%t", fx.Duty, fx.Duty.Prove)
	}
	for _, e := range fx.Journal {
		p.say("   note %s", e)
	}
	if changed {
		p.say("   %s %s (%s) quorum=%s serving=%t exposed=%t electing=%t lease=%d", st.Role, st.State, st.Reason, st.Quorum, st.Serving, st.Exposed, st.Electing, st.Lease)
	}
}

func describeHard(h mirror.HardState) string {
	r := h.Record
	return fmt.Sprintf("promised=%d record=%s principal=%s in_sync=%t %s suspended=%t(%s) forced=%t fork=%s members=%04x,%04x,%04x old=%04x aligned=%d dirty=%t removed=%t self=%04x",
		h.Promised, r.Version(), r.Principal, r.InSync, r.Safety, r.Suspended, r.Why, r.Forced, r.Fork,
		uint16(r.Members[1]), uint16(r.Members[2]), uint16(r.Members[3]), uint16(r.OldWitness), h.Aligned, h.Dirty, h.Removed, uint16(h.Incarnation))
}
