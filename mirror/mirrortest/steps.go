package mirrortest

import (
	"errors"
	"fmt"
	"slices"

	"github.com/f19126b3/dbmirror/mirror"
)

// table numbers values in the order in which they are met.
type table[T comparable] struct {
	number map[T]uint32
	values []T
}

func newTable[T comparable]() *table[T] { return &table[T]{number: map[T]uint32{}} }

func (t *table[T]) of(v T) uint32 {
	if n, ok := t.number[v]; ok {
		return n
	}
	n := uint32(len(t.values))
	t.number[v], t.values = n, append(t.values, v)
	return n
}

func (t *table[T]) at(n uint32) T { return t.values[n] }

// ref is at without the copy; it holds until the next of.
func (t *table[T]) ref(n uint32) *T { return &t.values[n] }

// outcome is what one step of one server led to. A step is a pure function, so it is taken once and remembered.
type outcome struct {
	node  uint32
	halt  bool
	duty  mirror.Duty
	sent  []uint16 // the packets that may arrive later
	fault string
}

// tables drive the sessions of a space and remember what they did.
type tables struct {
	space    Space
	sessions [4]*mirror.Session
	nodes    *table[mirror.Snapshot]
	packets  *table[mirror.Message]
	events   *table[mirror.Event]
	arrival  []uint32            // by packet: its event's number plus one
	steps    map[uint64]*outcome // by server's number and event's number
	pings    map[uint64]uint16   // by server's number and receiver
	reboots  map[uint32]uint32   // what a server is after a restart
	broken   string              // an invariant that a step or the world found broken
}

// timing lets every timeout strike with the tick in which a loss is noticed, and every candidacy and hand-over end with
// the next one.
var timing = mirror.Timing{Ping: 1, Timeout: 2, Campaign: 2, Drain: 1}

func incarnation(s mirror.Server) mirror.Incarnation { return mirror.Incarnation(10 + s) }

func newTables(space Space) *tables {
	t := &tables{
		space: space, nodes: newTable[mirror.Snapshot](), packets: newTable[mirror.Message](),
		events: newTable[mirror.Event](), steps: map[uint64]*outcome{}, pings: map[uint64]uint16{}, reboots: map[uint32]uint32{},
	}
	for s := mirror.PartnerA; s <= mirror.Witness; s++ {
		t.sessions[s] = t.session(s, firstHard(s))
	}
	return t
}

func (t *tables) session(s mirror.Server, hard mirror.HardState) *mirror.Session {
	session, err := mirror.New(mirror.Config{
		Self: s, Incarnation: incarnation(s), Timing: timing, Seeded: t.space.Planted.Rules,
	}, hard)
	if err != nil {
		panic(err) // the harness itself is wrong
	}
	return session
}

// firstHard is a session in its first role sequence: A is principal, B in sync, W the witness.
func firstHard(s mirror.Server) mirror.HardState {
	r := mirror.Record{Seq: 1, Principal: mirror.PartnerA, InSync: true, Safety: mirror.SafetyFull}
	for m := mirror.PartnerA; m <= mirror.Witness; m++ {
		r.Members[m] = incarnation(m)
	}
	hard := mirror.HardState{Self: s, Incarnation: incarnation(s), Promised: 1, Record: r}
	if s != mirror.Witness {
		hard.Aligned = 1
	}
	return hard
}

// start is the first world: everybody is connected, A serves and commits wait for B.
func (t *tables) start() world {
	var w world
	w.nextID, w.restarts = 1, uint8(t.space.Restarts)
	for s := mirror.PartnerA; s <= mirror.Witness; s++ {
		w.node[s] = t.nodes.of(t.sessions[s].Snapshot())
	}
	w.db[mirror.PartnerA].reign = 1
	for s := mirror.PartnerA; s <= mirror.Witness; s++ {
		t.connect(&w, s)
	}
	for range 2 {
		for from := mirror.PartnerA; from <= mirror.Witness; from++ {
			for to := mirror.PartnerA; to <= mirror.Witness; to++ {
				if from != to {
					t.deliver(&w, t.ping(&w, from, to))
				}
			}
		}
	}
	w.packets = nil
	return w
}

// connect lets a server that has just started reach the others and find its own log.
func (t *tables) connect(w *world, s mirror.Server) {
	for p := mirror.PartnerA; p <= mirror.Witness; p++ {
		if p != s {
			t.step(w, s, mirror.Event{Kind: mirror.EventLinked, Peer: p})
		}
	}
	if s == mirror.Witness {
		return
	}
	t.step(w, s, mirror.Event{Kind: mirror.EventStreamed})
	hard := t.nodes.ref(w.node[s]).Hard()
	if hard.Record.Principal != s && hard.Aligned > 0 {
		t.step(w, s, mirror.Event{Kind: mirror.EventHardened, Seq: hard.Aligned, LSN: t.lsn(w, s)})
	}
}

// lsn is the end of what s has, as a position of the principal it follows: the two servers' positions are unrelated.
func (t *tables) lsn(w *world, s mirror.Server) mirror.LSN {
	of := t.nodes.ref(w.node[s]).Hard().Record.Principal
	if t.space.Planted.World == ReportsForeign {
		of = s
	}
	return origin(of) + mirror.LSN(w.db[s].length)
}

// origin is where the log of a partner's server begins, in its own numbers.
func origin(s mirror.Server) mirror.LSN {
	if s == mirror.PartnerB {
		return 9000
	}
	return 100
}

// step gives one event to one server and carries out what it asks for, at once.
func (t *tables) step(w *world, s mirror.Server, ev mirror.Event) {
	t.stepNumbered(w, s, t.events.of(ev))
}

func (t *tables) stepNumbered(w *world, s mirror.Server, event uint32) {
	o := t.take(w.node[s], s, event)
	if o.fault != "" {
		t.broken = o.fault
		return
	}
	w.node[s] = o.node
	for _, id := range o.sent {
		w.put(id)
	}
	t.reigned(w, s)
	if s == mirror.Witness {
		return
	}
	if o.halt {
		hard := t.nodes.ref(w.node[s]).Hard()
		t.step(w, s, mirror.Event{Kind: mirror.EventHalted, Seq: hard.Aligned, LSN: t.lsn(w, s)})
		return
	}
	t.serve(w, s, o.duty)
}

// kept says which messages stay in the world. Pings and their answers carry nothing but what their sender has on disk
// and its evidence: a fresh one, delivered at any time, does all that an old one can.
func kept(k mirror.MessageKind) bool {
	switch k {
	case mirror.MessagePropose, mirror.MessageAccept, mirror.MessageVote, mirror.MessageGrant, mirror.MessageTransfer, mirror.MessageReport:
		return true
	}
	return false
}

func (t *tables) take(node uint32, s mirror.Server, event uint32) *outcome {
	key := uint64(node)<<32 | uint64(event)
	if o, ok := t.steps[key]; ok {
		return o
	}
	session := t.sessions[s]
	session.Restore(t.nodes.at(node))
	fx, err := session.Step(t.events.at(event))
	o := &outcome{node: node, duty: t.nodes.ref(node).Duty()}
	switch {
	case err == nil:
		o.node, o.halt, o.duty = t.nodes.of(session.Snapshot()), fx.Halt, fx.Duty
		for _, m := range fx.Send {
			if kept(m.Kind) {
				o.sent = append(o.sent, t.packet(m))
			}
		}
	case !errors.Is(err, mirror.ErrRefused):
		o.fault = err.Error()
	}
	t.steps[key] = o
	return o
}

// packet numbers a message and its arrival.
func (t *tables) packet(m mirror.Message) uint16 {
	id := t.packets.of(m)
	if int(id) >= 1<<16 {
		panic("more messages than a packet's number holds") // the space is too large for this harness
	}
	if int(id) == len(t.arrival) {
		t.arrival = append(t.arrival, t.events.of(mirror.Event{Kind: mirror.EventReceived, Message: m}))
	}
	return uint16(id)
}

// reigned notes who is confirmed as principal of which role sequence; a second one marks it with the witness's name.
func (t *tables) reigned(w *world, s mirror.Server) {
	n := t.nodes.ref(w.node[s])
	hard := n.Hard()
	if !n.Confirmed() || hard.Record.Principal != s || hard.Promised != hard.Record.Seq || int(hard.Record.Seq) >= len(w.reigns) {
		return
	}
	who := &w.reigns[hard.Record.Seq]
	if *who == mirror.Nobody {
		*who = s
	} else if *who != s {
		*who = mirror.Witness
	}
}

// serve brings a database where its server wants it, and answers with what that proves.
func (t *tables) serve(w *world, s mirror.Server, d mirror.Duty) {
	db := &w.db[s]
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
		t.step(w, s, mirror.Event{Kind: mirror.EventWhole, Seq: d.Seq})
	case d.Prove:
		t.step(w, s, mirror.Event{Kind: mirror.EventWaiting, Seq: d.Seq, LSN: t.lsn(w, s)})
	case d.Work == mirror.WorkDrain && !t.drained(w, s):
		t.step(w, s, mirror.Event{Kind: mirror.EventDrained, Seq: d.Seq, LSN: t.lsn(w, s)})
	}
}

// drained says whether the drain has been reported: reporting it once more would change nothing.
func (t *tables) drained(w *world, s mirror.Server) bool {
	hard := t.nodes.ref(w.node[s]).Hard()
	event := t.events.of(mirror.Event{Kind: mirror.EventDrained, Seq: hard.Record.Seq, LSN: t.lsn(w, s)})
	return t.take(w.node[s], s, event).node == w.node[s]
}

// ping is the ping that from would send now. Whom it sees is a hint without weight, so it is left out.
func (t *tables) ping(w *world, from, to mirror.Server) uint16 {
	key := uint64(w.node[from])<<8 | uint64(to)
	if id, ok := t.pings[key]; ok {
		return id
	}
	t.sessions[from].Restore(t.nodes.at(w.node[from]))
	m := t.sessions[from].Ping(to)
	m.Sees = 0
	id := t.packet(m)
	t.pings[key] = id
	return id
}

// deliver gives a message to its receiver; what the mirror reports reaches the principal's database too.
func (t *tables) deliver(w *world, id uint16) {
	m := &t.packets.values[id]
	from, to := m.From, m.To
	if m.Kind == mirror.MessageReport {
		t.release(w, *m)
	}
	t.stepNumbered(w, to, t.arrival[id])
	if from.IsPartner() && to.IsPartner() {
		t.step(w, to, mirror.Event{Kind: mirror.EventStreamed})
	}
}

// release lets the principal's database know how far the mirror of the role sequence it waits for is.
func (t *tables) release(w *world, m mirror.Message) {
	db := &w.db[m.To]
	if m.To == mirror.Witness || uint8(m.Seq) != db.seq || m.Record.Principal != m.To {
		return
	}
	if m.LSN > origin(m.To) {
		db.hardened = max(db.hardened, uint8(min(m.LSN-origin(m.To), maxLog)))
	}
}

// successors calls yield with each world that one event leads to, until yield returns false.
func (t *tables) successors(w *world, yield func(*world, func() string) bool) {
	ok := true
	try := func(label func() string, act func(*world)) {
		if !ok {
			return
		}
		t.broken = ""
		n := w.clone()
		act(&n)
		t.forget(&n)
		ok = yield(&n, label)
	}
	for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
		t.clients(w, s, try)
		t.programs(w, s, try)
	}
	for _, id := range w.packets {
		if t.packets.values[id].Kind != mirror.MessageReport && t.idle(w, id) {
			continue
		}
		try(t.arrives(id), func(n *world) { t.deliver(n, id) })
	}
	for from := mirror.PartnerA; from <= mirror.Witness; from++ {
		for to := mirror.PartnerA; to <= mirror.Witness; to++ {
			if from == to {
				continue
			}
			id := t.ping(w, from, to)
			if !t.idle(w, id) {
				try(t.arrives(id), func(n *world) { t.deliver(n, id) })
			}
		}
	}
	t.planted(w, try)
}

func (t *tables) arrives(id uint16) func() string {
	return func() string { return "arrives: " + t.packets.values[id].String() }
}

// idle says whether a message would change nothing.
func (t *tables) idle(w *world, id uint16) bool {
	to := t.packets.values[id].To
	o := t.take(w.node[to], to, t.arrival[id])
	if o.node != w.node[to] || o.halt || o.fault != "" {
		return false
	}
	return !slices.ContainsFunc(o.sent, func(id uint16) bool {
		_, found := slices.BinarySearch(w.packets, id)
		return !found
	})
}

// forget drops the messages that can never do anything again: their receiver has gone beyond them, and what it has on
// disk only rises. A witness that may lose its disk does not.
func (t *tables) forget(w *world) {
	w.packets = slices.DeleteFunc(w.packets, func(id uint16) bool {
		m := &t.packets.values[id]
		if m.To == mirror.Witness && t.space.Planted.World == WitnessForgets {
			return false
		}
		return spent(m, t.nodes.values[w.node[m.To]].Hard())
	})
}

func spent(m *mirror.Message, hard mirror.HardState) bool {
	if m.Record.NewerThan(hard.Record) || m.Promised > hard.Promised {
		return false
	}
	current := m.Record.Version() == hard.Record.Version()
	switch m.Kind {
	case mirror.MessageVote:
		return m.Seq < hard.Promised || m.Seq == hard.Promised && hard.Record.Seq != m.Seq
	case mirror.MessageGrant:
		return m.Seq < hard.Promised || hard.Record.Seq >= m.Seq && !current
	case mirror.MessageReport:
		return m.Seq < hard.Record.Seq
	case mirror.MessageAccept:
		return !current || hard.Promised > hard.Record.Seq
	}
	return !current
}

type attempt func(label func() string, act func(*world))

// clients write and are acknowledged.
func (t *tables) clients(w *world, s mirror.Server, try attempt) {
	db := &w.db[s]
	if db.open && int(w.nextID) <= t.space.Writes {
		try(func() string { return fmt.Sprintf("write %d at %s", w.nextID, s) }, func(n *world) {
			n.db[s].add(entry{n.db[s].seq, s, n.nextID})
			n.nextID++
		})
	}
	if db.reign == 0 {
		return
	}
	for i, e := range db.entries() {
		if e.src != s || e.seq < db.reign || w.acked&(1<<e.id) != 0 {
			continue
		}
		if db.wait == mirror.WaitNone || db.hardened > uint8(i) {
			try(func() string { return fmt.Sprintf("ACKNOWLEDGED: write %d at %s", e.id, s) }, func(n *world) { n.acked |= 1 << e.id })
		}
	}
}

// programs tick, lose sight of each other, follow the log, hand over and die.
func (t *tables) programs(w *world, s mirror.Server, try attempt) {
	node := t.nodes.ref(w.node[s])
	duty := node.Duty()
	losses := [][]mirror.Server{nil, {s.Other()}}
	if duty.Role == mirror.RolePrincipal {
		losses = append(losses, []mirror.Server{s.Other(), mirror.Witness})
	}
	for _, lost := range losses {
		try(func() string { return tickLabel(s, lost) }, func(n *world) { t.tick(n, s, lost) })
	}
	if t.follows(duty) && t.behind(w, s) {
		try(func() string { return fmt.Sprintf("%s follows the log of role sequence %d", s, duty.Seq) }, func(n *world) { t.follow(n, s) })
	}
	if t.space.Failover && duty.Role == mirror.RolePrincipal {
		try(func() string { return fmt.Sprintf("failover is asked for at %s", s) }, func(n *world) {
			t.step(n, s, mirror.Event{Kind: mirror.EventCommanded, Command: mirror.Command{Kind: mirror.CommandFailover}})
		})
	}
	if w.restarts > 0 {
		try(func() string { return fmt.Sprintf("the program of %s restarts", s) }, func(n *world) { t.reboot(n, s, false) })
		try(func() string { return fmt.Sprintf("program and database of %s restart", s) }, func(n *world) { t.reboot(n, s, true) })
	}
}

func tickLabel(s mirror.Server, lost []mirror.Server) string {
	label := fmt.Sprintf("%s ticks", s)
	for _, p := range lost {
		label += fmt.Sprintf(", loses %s", p)
	}
	return label
}

// tick lets time pass at one server while it does not hear those that are lost. They stay lost until something of theirs
// arrives; the others are heard on.
func (t *tables) tick(w *world, s mirror.Server, lost []mirror.Server) {
	var heard [4]bool
	for p := range heard {
		heard[p] = t.nodes.ref(w.node[s]).Hears(mirror.Server(p))
	}
	for _, p := range lost {
		heard[p] = false
		t.step(w, s, mirror.Event{Kind: mirror.EventUnlinked, Peer: p})
		if p.IsPartner() {
			t.step(w, s, mirror.Event{Kind: mirror.EventStreamLost})
		}
	}
	t.step(w, s, mirror.Event{Kind: mirror.EventTicked})
	for p := mirror.PartnerA; p <= mirror.Witness; p++ {
		if p == s || !heard[p] {
			continue
		}
		t.step(w, s, mirror.Event{Kind: mirror.EventLinked, Peer: p})
		if p.IsPartner() {
			t.step(w, s, mirror.Event{Kind: mirror.EventStreamed})
		}
	}
}

// behind says whether following would change anything.
func (t *tables) behind(w *world, s mirror.Server) bool {
	hard := t.nodes.ref(w.node[s]).Hard()
	own, other := &w.db[s], &w.db[s.Other()]
	return hard.Aligned != hard.Record.Seq || !slices.Equal(own.entries(), other.entries())
}

// follow takes in what the principal's database holds. A log of another history is first put back to what the principal
// has; one that continues only grows.
func (t *tables) follow(w *world, s mirror.Server) {
	hard := t.nodes.ref(w.node[s]).Hard()
	own, other := &w.db[s], &w.db[s.Other()]
	if hard.Promised > hard.Record.Seq {
		t.broken = fmt.Sprintf("I4: %s hardens for role sequence %d after it promised %d", s, hard.Record.Seq, hard.Promised)
	}
	if hard.Aligned != hard.Record.Seq {
		*own = t.rewound(*own, *other)
		t.step(w, s, mirror.Event{Kind: mirror.EventAligned, Seq: hard.Record.Seq, LSN: t.lsn(w, s)})
	} else {
		for _, e := range other.entries()[min(own.length, other.length):] {
			own.add(e)
		}
	}
	t.step(w, s, mirror.Event{Kind: mirror.EventHardened, Seq: hard.Record.Seq, LSN: t.lsn(w, s)})
}

// reboot ends a partner's program and starts it again from its disk. A database server that restarts too waits for
// somebody again: what it did alone was never written down.
func (t *tables) reboot(w *world, s mirror.Server, database bool) {
	w.restarts--
	again, ok := t.reboots[w.node[s]]
	if !ok {
		again = t.nodes.of(t.session(s, t.nodes.ref(w.node[s]).Hard()).Snapshot())
		t.reboots[w.node[s]] = again
	}
	w.node[s] = again
	if database {
		w.db[s].hardened = 0
		if w.db[s].reign > 0 {
			w.db[s].wait = mirror.WaitMirror
		}
	}
	t.serve(w, s, t.nodes.ref(again).Duty())
	t.connect(w, s)
}
