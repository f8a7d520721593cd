package mirrortest

import (
	"math/bits"

	"github.com/f19126b3/dbmirror/mirror"
)

// way is how one world leads to another: an action at a site, and whether what answers it is delivered as well.
type way struct {
	slot     slot
	action   uint32
	answered bool
	ack      uint8 // the write that is acknowledged, when there is no action
}

// steps lists the worlds that one event leads to.
type steps struct {
	*tables
	from  *world
	next  world // what the way leads to; yield must not keep it
	yield func(way) bool
	done  bool // yield has had enough
}

// firstAction is where the numbers of actions begin; below it, a packet's number stands for its arrival.
const firstAction = 1 << 16

// number numbers an action.
func (t *tables) number(a action) uint32 {
	if a.kind == arrives {
		return uint32(a.packet)
	}
	return firstAction + t.actions.of(a)
}

// action is the inverse of number.
func (t *tables) action(number uint32) action {
	if number < firstAction {
		return action{kind: arrives, packet: uint16(number)}
	}
	return t.actions.at(number - firstAction)
}

// successors calls yield for each event that changes the world, after writing into next what it leads to, until yield
// returns false.
func (t *tables) successors(s *steps) {
	for at := range t.slots() {
		if at.server().IsPartner() {
			s.clients(at)
		}
		s.programs(at)
		s.planted(at)
	}
	for _, id := range s.from.packets {
		s.arrivals(id)
	}
	for from := range t.slots() {
		for to := range t.slots() {
			if from.server() != to.server() {
				id := t.ping(s.from.site[from], to)
				s.arrival(to, id, false)
				if t.space.Leases && t.doesGrant(s.from.site[to], id) {
					s.arrival(to, id, true)
				}
			}
		}
	}
}

// try yields what an action leads to. A tick counts even where it changes nothing: others may go on when it has passed.
func (s *steps) try(w way, change func(*world)) {
	if s.done {
		return
	}
	d := s.do(s.from.site[w.slot], w.action)
	if d.idle && change == nil && !w.answered {
		return
	}
	s.broken = ""
	s.next.copyFrom(s.from)
	s.apply(&s.next, w.slot, d)
	if w.answered && d.answer != 0 {
		id := uint16(d.answer - 1)
		to := slot(s.to[id])
		s.apply(&s.next, to, s.do(s.next.site[to], uint32(id)))
	}
	if change != nil {
		change(&s.next)
	}
	s.done = !s.yield(w)
}

// apply carries out in a world what an action has led to at one of its sites.
func (t *tables) apply(w *world, at slot, d *doing) {
	if d.fault != "" {
		t.broken = d.fault
		return
	}
	if old := w.site[at]; d.to != old {
		w.place(at, d.to)
		if t.overtakes(old, d.to) {
			t.forget(w)
		}
	}
	for _, id := range d.sent {
		if !t.isSpent(w, id) {
			w.put(id)
		}
	}
	for set := d.reigned; set != 0; set &= set - 1 {
		w.reigns.add(bits.TrailingZeros8(set), at)
	}
	if d.forced {
		t.forgive(w, at)
	}
}

// forgive gives up what was acknowledged and is not at the partner that service is forced on, when the first server
// agrees to it: from then on that partner may serve.
func (t *tables) forgive(w *world, at slot) {
	r := t.sites[w.site[at]].hard.Record
	for s := range t.slots() {
		if s != at && t.sites[w.site[s]].hard.Record.Seq >= r.Seq {
			return
		}
	}
	w.acked &= t.sites[w.site[r.Principal]].holds
}

// clients write and are acknowledged.
func (s *steps) clients(at slot) {
	k := s.sites[s.from.site[at]]
	if k.db.open && int(s.from.nextID) <= s.space.Writes {
		write := s.number(action{kind: writes, id: s.from.nextID})
		s.try(way{slot: at, action: write}, func(n *world) { n.nextID++ })
	}
	for set := k.ackable &^ s.from.acked; set != 0 && !s.done; set &= set - 1 {
		id := uint8(bits.TrailingZeros8(set))
		s.broken = ""
		if k.solo&(1<<id) != 0 && !s.mayAckAlone(s.from, at) {
			s.broken = "I3: a write is acknowledged alone and no second server holds the exposure"
		}
		s.next.copyFrom(s.from)
		s.next.acked |= 1 << id
		s.done = !s.yield(way{slot: at, ack: id})
	}
}

// programs tick, lose sight of each other, follow the log, are given commands and die.
func (s *steps) programs(at slot) {
	number := s.from.site[at]
	k := s.sites[number]
	if k.ways == nil {
		k.ways = s.ways(k)
	}
	for _, w := range k.ways {
		switch a := s.actions.ref(w - firstAction); a.kind {
		case ticks:
			s.clock(at, w)
		case restarts:
			if s.from.restarts > 0 {
				s.try(way{slot: at, action: w}, func(n *world) {
					n.restarts--
					s.forget(n)
				})
			}
		case hears:
			s.try(way{slot: at, action: w}, nil)
		case asks:
			if a.command.Kind != mirror.CommandForceService {
				s.try(way{slot: at, action: w}, nil)
			} else if s.from.forces > 0 && !s.do(number, w).idle {
				s.try(way{slot: at, action: w}, func(n *world) { n.forces-- })
			}
		}
	}
	if s.follows(k.duty) && s.behind(s.from, at) {
		s.try(way{slot: at, action: s.following(s.from, at)}, nil)
	}
}

// clock lets one clock tick. Without leases clocks are of no account and anybody may tick at any time. With leases each
// of the servers ticks once in a round of ticks, in any order: at no time has one of them ticked more than once more
// than another, which is what rates that differ by little come to over as few ticks as a lease lasts.
func (s *steps) clock(at slot, tick uint32) {
	if !s.space.Leases {
		s.try(way{slot: at, action: tick}, nil)
		return
	}
	if s.from.ticked&(1<<at) != 0 {
		return
	}
	s.try(way{slot: at, action: tick}, func(n *world) {
		n.ticked |= 1 << at
		if n.ticked == 1<<slotA|1<<slotB|1<<slotWitness {
			n.ticked = 0
		}
	})
}

// ways lists what a server may do of itself.
func (t *tables) ways(k *known) []uint32 {
	list := []uint32{}
	add := func(a action) { list = append(list, t.number(a)) }
	partner := k.slot.server().IsPartner()
	if partner || t.space.Leases {
		for _, lost := range t.losses(k) {
			add(action{kind: ticks, lost: lost})
		}
		add(action{kind: restarts})
	}
	if partner {
		add(action{kind: restarts, database: true})
		add(action{kind: hears, heard: k.slot.server().Other()})
		add(action{kind: hears, heard: mirror.Witness})
		for _, c := range t.commands(k) {
			add(action{kind: asks, command: c})
		}
	}
	return list
}

// losses are the sets of servers that a server may lose sight of with a tick. With leases a principal does not need to
// lose sight of the witness: what counts there is whether its lease is renewed.
func (t *tables) losses(k *known) []uint8 {
	switch other := k.slot.server().Other(); {
	case other == mirror.Nobody:
		return []uint8{0}
	case k.duty.Role == mirror.RolePrincipal && !t.space.Leases:
		return []uint8{0, 1 << other, 1<<other | 1<<mirror.Witness}
	default:
		return []uint8{0, 1 << other}
	}
}

// commands are what an operator may ask of a partner.
func (t *tables) commands(k *known) []mirror.Command {
	var list []mirror.Command
	if k.duty.Role == mirror.RoleMirror && t.space.Forces > 0 {
		list = append(list, mirror.Command{Kind: mirror.CommandForceService, Expect: k.hard.Record.Version()})
	}
	if k.duty.Role != mirror.RolePrincipal {
		return list
	}
	if t.space.Failover {
		list = append(list, mirror.Command{Kind: mirror.CommandFailover})
	}
	if t.space.Suspends {
		list = append(list, mirror.Command{Kind: mirror.CommandSuspend}, mirror.Command{Kind: mirror.CommandResume})
	}
	if t.space.Safety {
		list = append(list, mirror.Command{Kind: mirror.CommandSetSafety, Safety: mirror.SafetyOff},
			mirror.Command{Kind: mirror.CommandSetSafety, Safety: mirror.SafetyFull})
	}
	if t.space.NewWitness {
		list = append(list, mirror.Command{Kind: mirror.CommandSetWitness, Incarnation: incarnation(slotNewWitness)})
	}
	return list
}

// behind says whether following would change anything.
func (t *tables) behind(w *world, at slot) bool {
	k := t.sites[w.site[at]]
	return k.hard.Aligned != k.hard.Record.Seq || k.log != t.sites[w.site[other(at)]].log
}

// following is the action of taking in what the other partner has.
func (t *tables) following(w *world, at slot) uint32 {
	return t.number(action{kind: follows, log: t.sites[w.site[other(at)]].log})
}

// other is the other partner's slot.
func other(at slot) slot { return slotA + slotB - at }

// arrivals lets a message arrive at whoever stands where it was sent to: either of two witnesses.
func (s *steps) arrivals(id uint16) {
	s.arrival(slot(s.to[id]), id, false)
	if s.space.NewWitness && s.to[id] == mirror.Witness {
		s.arrival(slotNewWitness, id, false)
	}
}

// arrival lets a message arrive, and the answer to it too.
func (s *steps) arrival(at slot, id uint16, answered bool) {
	s.try(way{slot: at, action: uint32(id), answered: answered}, nil)
}

// doesGrant says whether a ping would be answered with a lease.
func (t *tables) doesGrant(at uint32, ping uint16) bool { return t.do(at, uint32(ping)).answer != 0 }

// start is the first world: everybody is connected, A serves and commits wait for B.
func (t *tables) start() world {
	var w world
	w.nextID, w.restarts, w.forces = 1, uint8(t.space.Restarts), uint8(t.space.Forces)
	for s := range t.slots() {
		at := site{slot: s, node: t.nodes.of(t.snapshot(t.session(s, 0, firstHard(s)), 0))}
		if s == slotA {
			at.db.reign = 1
		}
		w.place(s, t.know(at))
	}
	for s := range t.slots() {
		t.act(&w, s, action{kind: connects})
	}
	for range 2 {
		t.exchange(&w)
	}
	w.lose()
	for range t.timing.Lease * 4 {
		t.round(&w)
	}
	return w
}

// act takes an action in a world.
func (t *tables) act(w *world, at slot, a action) {
	t.apply(w, at, t.do(w.site[at], t.number(a)))
}
