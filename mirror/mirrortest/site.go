package mirrortest

import (
	"errors"
	"fmt"
	"slices"

	"github.com/f19126b3/dbmirror/mirror"
)

// site is one server of a world with its database. What an event leads to there depends on nothing else, so it is found
// once and remembered: a world takes its steps by looking them up.
type site struct {
	slot slot
	node uint32 // the session's snapshot, by number
	db   database
}

// known is a site with all that is asked of it again and again.
type known struct {
	site
	number uint32
	hard   mirror.HardState
	state  mirror.State
	duty   mirror.Duty

	hardNumber uint32 // of what is on disk
	record     uint32 // number of the record
	version    uint32 // of the record, in order
	log        uint32 // number of the database's log

	confirmed bool
	holds     uint8 // writes in the log, a bit each
	ackable   uint8 // writes that it may acknowledge to its client
	solo      uint8 // those of them that rest on exposure alone
	inside    bool  // within the bounds of the space

	ways  []uint32        // what this server may do of itself, as numbers of actions; nil until asked for
	pings [numSlots]int32 // the ping to each slot, plus one; zero until asked for
}

// leads says whether the server is principal by its own record.
func (k *known) leads() bool { return k.hard.Record.Principal == k.slot.server() && !k.hard.Removed }

// carried is a record that a packet carries: its number, and its version in order.
type carried struct{ record, version uint32 }

func order(r mirror.Record) uint32 { return uint32(r.Seq)<<16 | uint32(r.Change) }

// doing is what one action of one site led to.
type doing struct {
	to      uint32   // the site afterwards
	sent    []uint16 // the packets that may arrive later, sorted
	answer  int32    // the packet that answers a ping with a lease, plus one; zero: none
	reigned uint8    // bit per role sequence in which the server was confirmed as principal on the way
	idle    bool     // nothing has changed
	forced  bool     // a role sequence that began by force was adopted
	fault   string   // what was broken
}

// outcome is what one event led to at one session.
type outcome struct {
	node   uint32
	halt   bool
	duty   mirror.Duty
	sent   []uint16
	answer int32
	forced bool // the journal says that service was forced
	fault  string
}

// tables drive the sessions of a space and remember what they did.
type tables struct {
	space    Space
	timing   mirror.Timing
	sessions [numSlots][]*mirror.Session // by life of the program; one where lives do not differ
	nodes    *table[mirror.Snapshot]
	packets  *table[mirror.Message]
	events   *table[mirror.Event]
	actions  *table[action]
	hards    *table[mirror.HardState]
	records  *table[mirror.Record]
	logs     *table[log]
	arrival  []uint32        // by packet: its event's number
	to       []mirror.Server // by packet: its receiver
	carried  []carried       // by packet: the record it carries
	spent    [][]uint8       // by number of what is on disk and packet: whether it can still do anything
	steps    map[uint64]*outcome
	numbers  map[site]uint32
	sites    []*known // the first is nobody
	taken    memo     // by site and action
	doings   []*doing
	broken   string // an invariant that an action found broken
	keepsAll bool   // messages are kept also when what they say is known in memory
}

func newTables(space Space) *tables {
	t := &tables{
		space: space, timing: space.timing(), nodes: newTable[mirror.Snapshot](), packets: newTable[mirror.Message](),
		events: newTable[mirror.Event](), actions: newTable[action](), hards: newTable[mirror.HardState](),
		records: newTable[mirror.Record](), logs: newTable[log](),
		steps: map[uint64]*outcome{}, numbers: map[site]uint32{}, sites: []*known{nil},
	}
	lives := 1
	if space.Leases {
		lives += space.Restarts
	}
	for s := range t.slots() {
		for life := range lives {
			t.sessions[s] = append(t.sessions[s], t.session(s, life, firstHard(s)))
		}
	}
	return t
}

// slots are the places of the space in which somebody stands.
func (t *tables) slots() func(func(slot) bool) {
	last := slotWitness
	if t.space.NewWitness {
		last = slotNewWitness
	}
	return func(yield func(slot) bool) {
		for s := slotA; s <= last && yield(s); s++ {
		}
	}
}

// clock is where a life of a program begins to count ticks. Lives differ only where leases do.
func (t *tables) clock(life int) mirror.Tick {
	if !t.space.Leases {
		return 0
	}
	return mirror.Tick(lifetime * (life + 1))
}

const lifetime = 1000

func (t *tables) session(s slot, life int, hard mirror.HardState) *mirror.Session {
	session, err := mirror.New(mirror.Config{
		Self: s.server(), Incarnation: incarnation(s), Timing: t.timing, Clock: t.clock(life), Seeded: t.space.Planted.Rules,
	}, hard)
	if err != nil {
		panic(err) // the harness itself is wrong
	}
	return session
}

// snapshot is what a session knows, its count of ticks put back: one tick after its life began. With leases it would
// count for ever; only differences matter to it, and no answer to a ping outlives the tick in which it was given.
func (t *tables) snapshot(session *mirror.Session, life int) mirror.Snapshot {
	n := session.Snapshot()
	if t.space.Leases {
		n = n.At(t.clock(life) + 1)
	}
	return n
}

func (t *tables) life(node uint32) int {
	if !t.space.Leases {
		return 0
	}
	return int(t.nodes.ref(node).Now())/lifetime - 1
}

func incarnation(s slot) mirror.Incarnation { return mirror.Incarnation(10 + s) }

// firstHard is a session in its first role sequence: A is principal, B in sync, W the witness. A new witness has nothing.
func firstHard(s slot) mirror.HardState {
	if s == slotNewWitness {
		return mirror.HardState{Self: mirror.Witness, Incarnation: incarnation(s)}
	}
	r := mirror.Record{Seq: 1, Principal: mirror.PartnerA, InSync: true, Safety: mirror.SafetyFull}
	for m := slotA; m <= slotWitness; m++ {
		r.Members[m] = incarnation(m)
	}
	hard := mirror.HardState{Self: s.server(), Incarnation: incarnation(s), Promised: 1, Record: r}
	if s != slotWitness {
		hard.Aligned = 1
	}
	return hard
}

// know numbers a site.
func (t *tables) know(at site) uint32 {
	if n, ok := t.numbers[at]; ok {
		return n
	}
	n := uint32(len(t.sites))
	node := t.nodes.ref(at.node)
	k := &known{
		site: at, number: n, hard: node.Hard(), state: node.State(), duty: node.Duty(), confirmed: node.Confirmed(),
		log: t.logs.of(at.db.log), holds: at.db.holds(),
	}
	k.hardNumber, k.record = t.hards.of(k.hard), t.records.of(k.hard.Record)
	k.version = order(k.hard.Record)
	k.inside = k.hard.Promised <= mirror.RoleSeq(t.space.Seqs) && k.hard.Record.Change <= uint64(t.space.Changes)
	for i, e := range at.db.all() {
		if at.db.reign == 0 || e.src != at.slot.server() || e.seq < at.db.reign {
			continue
		}
		if at.db.hardened > uint8(i) {
			k.ackable |= 1 << e.id
		} else if at.db.wait == mirror.WaitNone {
			k.ackable |= 1 << e.id
			k.solo |= 1 << e.id
		}
	}
	t.numbers[at], t.sites = n, append(t.sites, k)
	return n
}

// do takes an action at a site, or remembers what it led to.
func (t *tables) do(number, action uint32) *doing {
	key := uint64(number)<<32 | uint64(action)
	if i, ok := t.taken.get(key); ok {
		return t.doings[i]
	}
	before := t.sites[number]
	a := actor{t: t, site: before.site}
	a.act(t.action(action))
	d := &doing{to: t.know(a.site), sent: sorted(a.sent), answer: a.answer, reigned: a.reigned, fault: a.fault}
	after := t.sites[d.to]
	if d.fault == "" {
		d.fault = t.discipline(before, after, d, a.forced)
	}
	d.idle = d.to == number && len(d.sent) == 0 && d.fault == ""
	d.forced = after.hard.Record.Forced && after.hard.Record.Seq > before.hard.Record.Seq
	t.taken.put(key, uint32(len(t.doings)))
	t.doings = append(t.doings, d)
	return d
}

// take gives an event to a session, or remembers what that led to. A step is a pure function.
func (t *tables) take(node uint32, s slot, event uint32) *outcome {
	key := uint64(node)<<32 | uint64(event)
	if o, ok := t.steps[key]; ok {
		return o
	}
	life := t.life(node)
	session := t.sessions[s][life]
	session.Restore(t.nodes.at(node))
	fx, err := session.Step(t.events.at(event))
	o := &outcome{node: node, duty: t.nodes.ref(node).Duty()}
	switch {
	case err == nil:
		now := session.Snapshot()
		o.node, o.halt, o.duty = t.nodes.of(t.snapshot(session, life)), fx.Halt, fx.Duty
		for _, m := range fx.Send {
			switch {
			case m.Kind == mirror.MessagePropose:
				m.Nonce -= now.Now() - t.nodes.ref(o.node).Now() // put back as the count itself is
				o.sent = append(o.sent, t.packet(m))
			case kept(m.Kind):
				o.sent = append(o.sent, t.packet(m))
			case m.Kind == mirror.MessagePong && m.Nonce != 0:
				m.Sees = 0
				o.answer = int32(t.packet(m)) + 1
			}
		}
		o.forced = slices.ContainsFunc(fx.Journal, func(e mirror.Entry) bool {
			return e.Kind == mirror.EntryRole && e.Reason == mirror.ReasonForcedService
		})
	case !errors.Is(err, mirror.ErrRefused):
		o.fault = err.Error()
	}
	t.steps[key] = o
	return o
}

// kept says which messages stay in the world. Pings and their answers carry nothing but what their sender has on disk
// and its evidence: a fresh one, delivered at any time, does all that an old one can, but for what it does not say (see
// hear). With leases, an old ping would be granted a lease that has run for longer, and an old answer a shorter one: both
// only make the principal serve less.
func kept(k mirror.MessageKind) bool {
	switch k {
	case mirror.MessagePropose, mirror.MessageAccept, mirror.MessageVote, mirror.MessageGrant, mirror.MessageTransfer, mirror.MessageReport:
		return true
	}
	return false
}

// packet numbers a message and its arrival.
func (t *tables) packet(m mirror.Message) uint16 {
	id := t.packets.of(m)
	if int(id) >= 1<<16 {
		panic("more messages than a packet's number holds") // the space is too large for this harness
	}
	if int(id) == len(t.arrival) {
		t.arrival = append(t.arrival, t.events.of(mirror.Event{Kind: mirror.EventReceived, Message: m}))
		t.to = append(t.to, m.To)
		t.carried = append(t.carried, carried{t.records.of(m.Record), order(m.Record)})
	}
	return uint16(id)
}

// ping is the ping that a site would send to a slot now. Whom it sees is a hint without weight, so it is left out;
// and why a mirror is not ready weighs the same for all reasons but a lost stream and its database.
func (t *tables) ping(from uint32, to slot) uint16 {
	k := t.sites[from]
	if id := k.pings[to]; id != 0 {
		return uint16(id - 1)
	}
	session := t.sessions[k.slot][t.life(k.node)]
	session.Restore(t.nodes.at(k.node))
	m := session.Ping(to.server())
	m.Sees = 0
	if m.Reason != mirror.ReasonNone && m.Reason != mirror.ReasonStreamLost && m.Reason != mirror.ReasonDatabaseDown {
		m.Reason = mirror.ReasonCatchingUp
	}
	id := t.packet(m)
	k.pings[to] = int32(id) + 1
	return id
}

// portrait writes a world down for a person.
func (t *tables) portrait(w *world) string {
	out := ""
	for s := range t.slots() {
		k := t.sites[w.site[s]]
		r := k.hard.Record
		out += fmt.Sprintf("\n     %s promised=%d record=%s principal=%s in_sync=%t", s, k.hard.Promised, r.Version(), r.Principal, r.InSync)
		if r.Suspended {
			out += " suspended"
		}
		if r.Safety == mirror.SafetyOff {
			out += " OFF"
		}
		if t.space.NewWitness {
			out += fmt.Sprintf(" witness=%d,%d", r.Members[mirror.Witness], r.OldWitness)
		}
		out += fmt.Sprintf(" aligned=%d confirmed=%t %s duty{%s}", k.hard.Aligned, k.confirmed, k.state, k.duty)
		if s.server().IsPartner() {
			out += " " + k.db.describe()
		}
	}
	return out
}
