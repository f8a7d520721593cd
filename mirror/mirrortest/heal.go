package mirrortest

import (
	"fmt"
	"hash/maphash"

	"github.com/f19126b3/dbmirror/mirror"
)

// healingRounds bounds how long a healed trio may take to be SYNCHRONIZED again, in ticks of every server.
const healingRounds = 40

// heal checks L3: whatever has happened, once all three servers are up and hear each other, one partner serves and the
// session is SYNCHRONIZED again. What was in flight is lost; every message from now on arrives at once.
func (x *explorer) heal(w *world) string {
	t := x.tables
	t.broken = ""
	n := w.clone()
	n.packets = nil
	var passed []uint64
	for range healingRounds {
		print := maphash.Bytes(x.seed, n.appendTo(nil))
		if x.healed[print] {
			break
		}
		passed = append(passed, print)
		if t.whole(&n) {
			break
		}
		t.round(&n)
		if t.broken != "" {
			return "while healing: " + t.broken
		}
		if rule := t.check(&n); rule != "" {
			return "while healing: " + rule
		}
	}
	last := maphash.Bytes(x.seed, n.appendTo(nil))
	if !x.healed[last] && !t.whole(&n) {
		return fmt.Sprintf("L3: does not heal: %s", t.portrait(&n))
	}
	for _, print := range passed {
		x.healed[print] = true
	}
	x.result.Healed = len(x.healed)
	return ""
}

// round: every server ticks, everything that is sent arrives in order, and mirrors follow.
func (t *tables) round(w *world) {
	for s := mirror.PartnerA; s <= mirror.Witness; s++ {
		t.step(w, s, mirror.Event{Kind: mirror.EventTicked})
		t.connect(w, s)
		for from := mirror.PartnerA; from <= mirror.Witness; from++ {
			for to := mirror.PartnerA; to <= mirror.Witness; to++ {
				if from != to {
					t.deliver(w, t.ping(w, from, to))
				}
			}
		}
		t.flush(w)
		if s != mirror.Witness {
			if d := t.nodes.ref(w.node[s]).Duty(); d.Role == mirror.RoleMirror && d.Ship && t.behind(w, s) {
				t.follow(w, s)
				t.flush(w)
			}
		}
	}
}

// flush delivers what is in flight, and what that leads to, in the order of sending as far as the world knows it.
func (t *tables) flush(w *world) {
	for range 64 {
		if len(w.packets) == 0 {
			return
		}
		arriving := w.packets
		w.packets = nil
		for _, id := range arriving {
			t.deliver(w, id)
		}
	}
}

// whole says whether one partner serves, the other has all it has, and both show SYNCHRONIZED.
func (t *tables) whole(w *world) bool {
	for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
		p, m := t.nodes.ref(w.node[s]), t.nodes.ref(w.node[s.Other()])
		if p.Duty().Role == mirror.RolePrincipal && w.db[s].open && p.Confirmed() && p.Hard().Record.InSync &&
			m.Duty().Role == mirror.RoleMirror && !w.db[s.Other()].open &&
			p.State() == mirror.StateSynchronized && m.State() == mirror.StateSynchronized &&
			w.db[s].log == w.db[s.Other()].log && w.db[s].wait == mirror.WaitMirror {
			return true
		}
	}
	return false
}

// portrait writes a world down for a person.
func (t *tables) portrait(w *world) string {
	out := ""
	for s := mirror.PartnerA; s <= mirror.Witness; s++ {
		n := t.nodes.ref(w.node[s])
		out += fmt.Sprintf("\n     %s promised=%d record=%s principal=%s in_sync=%t aligned=%d confirmed=%t %s duty{%s}", s, n.Hard().Promised,
			n.Hard().Record.Version(), n.Hard().Record.Principal, n.Hard().Record.InSync, n.Hard().Aligned, n.Confirmed(), n.State(), n.Duty())
		if s != mirror.Witness {
			out += " " + w.db[s].describe()
		}
	}
	return out
}
