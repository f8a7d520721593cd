package mirrortest

import (
	"fmt"
	"slices"

	"github.com/f19126b3/dbmirror/mirror"
)

// actionKind is what may happen at one site.
type actionKind uint8

const (
	arrives actionKind = iota + 1
	writes
	ticks
	rounds // a tick of healing: everybody is heard
	follows
	asks
	restarts
	hears
	connects
	loses // only with errors of the world; so are the next three
	dies
	forgets
	truncates
)

// action is something that happens at one site.
type action struct {
	kind     actionKind
	packet   uint16
	id       uint8 // writes
	lost     uint8 // ticks: bit per server that is not heard any more
	heard    mirror.Server
	log      uint32 // follows: the other's log; by number
	database bool   // restarts: with the database server
	command  mirror.Command
}

func (t *tables) label(s slot, a action) string {
	switch a.kind {
	case arrives:
		m := t.packets.at(uint32(a.packet))
		if t.space.NewWitness && m.To == mirror.Witness {
			return fmt.Sprintf("arrives at %s: %s", s, m)
		}
		return "arrives: " + m.String()
	case writes:
		return fmt.Sprintf("write %d at %s", a.id, s)
	case ticks:
		label := fmt.Sprintf("%s ticks", s)
		for p := mirror.PartnerA; p <= mirror.Witness; p++ {
			if a.lost&(1<<p) != 0 {
				label += fmt.Sprintf(", loses %s", p)
			}
		}
		return label
	case hears:
		return fmt.Sprintf("%s hears something old of %s", s, a.heard)
	case follows:
		return fmt.Sprintf("%s follows the principal's log", s)
	case asks:
		return fmt.Sprintf("%s is asked for at %s", describeCommand(a.command), s)
	case restarts:
		if a.database {
			return fmt.Sprintf("program and database of %s restart", s)
		}
		return fmt.Sprintf("the program of %s restarts", s)
	}
	return t.describePlanted(s, a)
}

func describeCommand(c mirror.Command) string {
	switch c.Kind {
	case mirror.CommandSetSafety:
		return "safety " + c.Safety.String()
	case mirror.CommandForceService:
		return "forced service of record " + c.Expect.String()
	}
	return c.Kind.String()
}

// actor is a site while it acts, and what it has sent and become on the way.
type actor struct {
	t *tables
	site
	sent    []uint16
	answer  int32
	reigned uint8
	forced  bool
	fault   string
}

func sorted(packets []uint16) []uint16 {
	slices.Sort(packets)
	return slices.Clip(slices.Compact(packets))
}

func (a *actor) act(do action) {
	switch do.kind {
	case arrives:
		a.arrive(do.packet)
	case writes:
		a.db.add(entry{a.db.seq, a.slot.server(), do.id})
	case ticks:
		a.tick(do.lost)
	case rounds:
		a.step(mirror.Event{Kind: mirror.EventTicked})
		a.connect()
	case follows:
		a.follow(a.t.logs.at(do.log))
	case asks:
		a.step(mirror.Event{Kind: mirror.EventCommanded, Command: do.command})
	case restarts:
		a.restart(do.database)
	case hears:
		a.hear(do.heard)
	case connects:
		a.connect()
	case loses:
		a.revive(firstHard(a.slot))
	case forgets:
		a.revive(mirror.HardState{Self: mirror.Witness, Incarnation: incarnation(a.slot)})
	case dies:
		a.die(do.lost, do.packet)
	case truncates:
		a.db.log = a.t.logs.at(do.log)
	}
}

// snapshot is what the session knows.
func (a *actor) snapshot() *mirror.Snapshot { return a.t.nodes.ref(a.node) }

// step gives one event to the session and carries out what it asks for, at once.
func (a *actor) step(ev mirror.Event) { a.stepNumbered(a.t.events.of(ev)) }

func (a *actor) stepNumbered(event uint32) {
	o := a.t.take(a.node, a.slot, event)
	if a.fault != "" || o.fault != "" {
		a.fault = max(a.fault, o.fault)
		return
	}
	a.node = o.node
	a.sent = append(a.sent, o.sent...)
	a.answer, a.forced = max(a.answer, o.answer), a.forced || o.forced
	a.noteReign()
	if !a.slot.server().IsPartner() {
		return
	}
	if o.halt {
		hard := a.snapshot().Hard()
		a.step(mirror.Event{Kind: mirror.EventHalted, Seq: hard.Aligned, LSN: a.lsn()})
		return
	}
	a.serve(o.duty)
}

func (a *actor) noteReign() {
	n := a.snapshot()
	hard := n.Hard()
	if n.Confirmed() && hard.Record.Principal == a.slot.server() && hard.Promised == hard.Record.Seq && hard.Record.Seq <= maxSeq {
		a.reigned |= 1 << hard.Record.Seq
	}
}

// connect lets a server that has just started reach the others and find its own log.
func (a *actor) connect() {
	self := a.slot.server()
	for p := mirror.PartnerA; p <= mirror.Witness; p++ {
		if p != self {
			a.step(mirror.Event{Kind: mirror.EventLinked, Peer: p})
		}
	}
	if self == mirror.Witness {
		return
	}
	a.step(mirror.Event{Kind: mirror.EventStreamed})
	hard := a.snapshot().Hard()
	if hard.Record.Principal != self && hard.Aligned > 0 {
		a.step(mirror.Event{Kind: mirror.EventHardened, Seq: hard.Aligned, LSN: a.lsn()})
	}
}

// origin is where the log of a partner's server begins, in its own numbers: the two servers' positions are unrelated.
func origin(s mirror.Server) mirror.LSN {
	if s == mirror.PartnerB {
		return 9000
	}
	return 100
}

// lsn is the end of what the site has, as a position of the principal it follows.
func (a *actor) lsn() mirror.LSN {
	of := a.snapshot().Hard().Record.Principal
	if a.t.space.Planted.World == ReportsForeign {
		of = a.slot.server()
	}
	return origin(of) + mirror.LSN(a.db.length)
}

// serve brings a database where its server wants it, and answers with what that proves.
func (a *actor) serve(d mirror.Duty) {
	db := &a.db
	if d.Gate != mirror.GateKeep {
		db.open = d.Gate == mirror.GateOpen
	}
	if d.Role != mirror.RolePrincipal {
		db.wait, db.seq, db.hardened, db.reign = mirror.WaitNone, 0, 0, 0
		return
	}
	if db.reign == 0 {
		db.reign = uint8(d.Seq)
	}
	if db.seq != uint8(d.Seq) {
		db.seq, db.hardened = uint8(d.Seq), 0
	}
	db.wait = d.Wait
	switch {
	case d.Work == mirror.WorkPromote:
		a.step(mirror.Event{Kind: mirror.EventWhole, Seq: d.Seq})
	case d.Prove:
		a.step(mirror.Event{Kind: mirror.EventWaiting, Seq: d.Seq, LSN: a.lsn()})
	case d.Work == mirror.WorkDrain && !a.drained():
		a.step(mirror.Event{Kind: mirror.EventDrained, Seq: d.Seq, LSN: a.lsn()})
	}
}

// drained says whether the drain has been reported: reporting it once more would change nothing.
func (a *actor) drained() bool {
	hard := a.snapshot().Hard()
	event := a.t.events.of(mirror.Event{Kind: mirror.EventDrained, Seq: hard.Record.Seq, LSN: a.lsn()})
	return a.t.take(a.node, a.slot, event).node == a.node
}

// arrive takes in a message; what the mirror reports reaches the principal's database too.
func (a *actor) arrive(id uint16) {
	m := a.t.packets.at(uint32(id))
	if m.Kind == mirror.MessageReport {
		a.release(m)
	}
	a.stepNumbered(a.t.arrival[id])
	if m.From.IsPartner() && m.To.IsPartner() {
		a.step(mirror.Event{Kind: mirror.EventStreamed})
	}
}

// hear is the arrival of a message that says nothing which is not known: only that its sender was alive once.
func (a *actor) hear(p mirror.Server) {
	a.step(mirror.Event{Kind: mirror.EventLinked, Peer: p})
	if p.IsPartner() {
		a.step(mirror.Event{Kind: mirror.EventStreamed})
	}
}

// release lets the principal's database know how far the mirror of the role sequence it waits for is.
func (a *actor) release(m mirror.Message) {
	if m.To == mirror.Witness || uint8(m.Seq) != a.db.seq || m.Record.Principal != m.To {
		return
	}
	if m.LSN > origin(m.To) {
		a.db.hardened = max(a.db.hardened, uint8(min(m.LSN-origin(m.To), maxLog)))
	}
}

// tick lets time pass at one server while it does not hear those that are lost. They stay lost until something of theirs
// arrives; the others are heard on.
func (a *actor) tick(lost uint8) {
	var heard [4]bool
	for p := range heard {
		heard[p] = a.snapshot().Hears(mirror.Server(p))
	}
	for p := mirror.PartnerA; p <= mirror.Witness; p++ {
		if lost&(1<<p) == 0 {
			continue
		}
		heard[p] = false
		a.step(mirror.Event{Kind: mirror.EventUnlinked, Peer: p})
		if p.IsPartner() {
			a.step(mirror.Event{Kind: mirror.EventStreamLost})
		}
	}
	a.step(mirror.Event{Kind: mirror.EventTicked})
	for p := mirror.PartnerA; p <= mirror.Witness; p++ {
		if p == a.slot.server() || !heard[p] {
			continue
		}
		a.step(mirror.Event{Kind: mirror.EventLinked, Peer: p})
		if p.IsPartner() {
			a.step(mirror.Event{Kind: mirror.EventStreamed})
		}
	}
}

// follow takes in what the principal's database holds. A log of another history is first put back to what the principal
// has; one that continues only grows.
func (a *actor) follow(other log) {
	hard := a.snapshot().Hard()
	if hard.Promised > hard.Record.Seq {
		a.fault = fmt.Sprintf("I4: %s hardens for role sequence %d after it promised %d", a.slot, hard.Record.Seq, hard.Promised)
		return
	}
	if hard.Aligned != hard.Record.Seq {
		a.rewind(other)
		a.step(mirror.Event{Kind: mirror.EventAligned, Seq: hard.Record.Seq, LSN: a.lsn()})
	} else {
		a.append(other)
	}
	a.step(mirror.Event{Kind: mirror.EventHardened, Seq: hard.Record.Seq, LSN: a.lsn()})
}

// append takes over what the other log has beyond the length of this one.
func (a *actor) append(other log) {
	for _, e := range other.all()[min(a.db.length, other.length):] {
		a.db.add(e)
	}
}

// restart ends a server's program and starts it again from its disk. A database server that restarts too waits for
// somebody again: what it did alone was never written down.
func (a *actor) restart(database bool) {
	if database {
		a.db.hardened = 0
		if a.db.reign > 0 {
			a.db.wait = mirror.WaitMirror
		}
	}
	a.revive(a.snapshot().Hard())
}

// revive starts the program of a server anew with what it is said to find on its disk.
func (a *actor) revive(hard mirror.HardState) {
	life := a.t.life(a.node)
	if a.t.space.Leases {
		life++
	}
	a.node = a.t.nodes.of(a.t.snapshot(a.t.session(a.slot, life, hard), life))
	if a.slot.server().IsPartner() {
		a.serve(a.snapshot().Duty())
	}
	a.connect()
}
