package mirrortest

import (
	"fmt"
	"slices"

	"github.com/f19126b3/dbmirror/mirror"
)

// healingRounds bounds how long healed servers may take to be SYNCHRONIZED again, in ticks of every one of them.
const healingRounds = 40

// heal checks L3: whatever has happened, once all servers are up and hear each other, one partner serves and the session
// is SYNCHRONIZED again, or SUSPENDED or without safety as the record says. What was in flight is lost; every message
// from now on arrives at once. So what follows rests on the sites alone, and worlds that differ in the rest heal alike.
func (x *explorer) heal(w *world) string {
	t := x.tables
	t.broken = ""
	n := &x.healing
	n.copyFrom(w)
	n.lose()
	var passed []uint64
	for range healingRounds {
		if t.whole(n) {
			x.sound.addAll(passed)
			return ""
		}
		t.round(n)
		if t.broken != "" {
			return "while healing: " + t.broken
		}
		if x.sound.has(n.core()) {
			x.sound.addAll(passed)
			return ""
		}
		passed = append(passed, n.core())
		if rule := t.check(n); rule != "" {
			return "while healing: " + rule
		}
	}
	return fmt.Sprintf("L3: does not heal: %s", t.portrait(n))
}

// round: every server ticks, everything that is sent arrives in order, and mirrors follow.
func (t *tables) round(w *world) {
	for s := range t.slots() {
		if s.server() == mirror.Witness && s != t.witness(w) {
			continue
		}
		t.act(w, s, action{kind: rounds})
		t.exchange(w)
		t.flush(w)
		if k := t.sites[w.site[s]]; t.follows(k.duty) && t.behind(w, s) {
			t.apply(w, s, t.do(w.site[s], t.following(w, s)))
			t.flush(w)
		}
	}
}

// exchange delivers a ping from each server to each other one, and its answer.
func (t *tables) exchange(w *world) {
	for from := range t.slots() {
		for to := range t.slots() {
			if from.server() == to.server() || !t.present(w, from) || !t.present(w, to) {
				continue
			}
			d := t.do(w.site[to], uint32(t.ping(w.site[from], to)))
			t.apply(w, to, d)
			if d.answer != 0 {
				t.apply(w, from, t.do(w.site[from], uint32(d.answer-1)))
			}
		}
	}
}

// present says whether a server takes part in healing: of two witnesses, only one is where the partners look for it.
func (t *tables) present(w *world, s slot) bool {
	return s.server() != mirror.Witness || s == t.witness(w)
}

// witness is where the witness of the newest record stands; where that has none, the new one.
func (t *tables) witness(w *world) slot {
	if !t.space.NewWitness {
		return slotWitness
	}
	r := t.sites[w.site[t.newest(w)]].hard.Record
	if i := incarnation(slotWitness); r.Members[mirror.Witness] == i || r.OldWitness == i {
		return slotWitness
	}
	return slotNewWitness
}

// newest is where the newest record is.
func (t *tables) newest(w *world) slot {
	newest := slotA
	for s := range t.slots() {
		if t.sites[w.site[s]].version > t.sites[w.site[newest]].version {
			newest = s
		}
	}
	return newest
}

// flush delivers what is in flight, and what that leads to, in the order of sending as far as the world knows it.
func (t *tables) flush(w *world) {
	for range 64 {
		if len(w.packets) == 0 {
			return
		}
		arriving := slices.Clone(w.packets)
		w.lose()
		for _, id := range arriving {
			to := slot(t.to[id])
			if to == slotWitness {
				to = t.witness(w)
			}
			t.apply(w, to, t.do(w.site[to], uint32(id)))
		}
	}
}

// whole says whether one partner serves as the newest record wants it: SYNCHRONIZED, with all it has at the other one;
// suspended, and shown so; or with safety OFF.
func (t *tables) whole(w *world) bool {
	r := &t.sites[w.site[t.newest(w)]].hard.Record
	p, m := t.sites[w.site[r.Principal]], t.sites[w.site[r.Principal.Other()]]
	if p.hard.Record != *r || p.duty.Role != mirror.RolePrincipal || !p.db.open || !p.confirmed || m.duty.Role != mirror.RoleMirror || m.db.open {
		return false
	}
	switch {
	case r.Suspended:
		return p.state == mirror.StateSuspended && m.state == mirror.StateSuspended && p.db.wait == mirror.WaitNone
	case r.Safety == mirror.SafetyOff:
		return p.log == m.log && p.db.wait == mirror.WaitNone
	}
	return r.InSync && p.state == mirror.StateSynchronized && m.state == mirror.StateSynchronized && p.log == m.log &&
		p.db.wait == mirror.WaitMirror
}
