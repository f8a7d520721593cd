package mirrortest

import (
	"fmt"

	"github.com/f19126b3/dbmirror/mirror"
)

// The checkers: what must hold in every world (protocol-and-reliability 1.7). They know nothing of how the rules work.

func (t *tables) check(w *world) string {
	checks := []func(*world) string{t.onePrincipal, t.nothingLost, t.candidatesComplete, logsMatch, nothingTwice, t.newestComplete, t.nothingStranded}
	for _, check := range checks {
		if rule := check(w); rule != "" {
			return rule
		}
	}
	return ""
}

// onePrincipal is I1. The world notes who was confirmed as principal of which role sequence; two mark it as nobody's.
func (t *tables) onePrincipal(w *world) string {
	for seq, who := range w.reigns {
		if who == mirror.Witness {
			return fmt.Sprintf("I1: two principals in role sequence %d", seq)
		}
	}
	return ""
}

// nothingLost is I2: whoever serves in the newest role sequence has everything that was acknowledged.
func (t *tables) nothingLost(w *world) string {
	newest := 0
	for seq, who := range w.reigns {
		if who != mirror.Nobody {
			newest = seq
		}
	}
	for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
		n := t.nodes.ref(w.node[s])
		hard := n.Hard()
		serves := w.db[s].open && n.Confirmed() && hard.Record.Principal == s
		if serves && int(hard.Record.Seq) == newest && hard.Promised == hard.Record.Seq && !holdsAll(w, s) {
			return fmt.Sprintf("I2: %s serves in role sequence %d without an acknowledged commit", s, newest)
		}
	}
	return ""
}

func holdsAll(w *world, s mirror.Server) bool {
	for id := uint8(0); id < 8; id++ {
		if w.acked&(1<<id) != 0 && !w.db[s].has(id) {
			return false
		}
	}
	return true
}

// candidatesComplete is I5: nobody who could win an election right now lacks an acknowledged commit.
func (t *tables) candidatesComplete(w *world) string {
	for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
		own := t.nodes.ref(w.node[s]).Hard().Record
		promotable := own.Principal == s || own.InSync && own.Safety == mirror.SafetyFull && !own.Suspended && own.HasWitness()
		if !promotable || holdsAll(w, s) {
			continue
		}
		for _, voter := range []mirror.Server{mirror.Witness, s.Other()} {
			v := t.nodes.ref(w.node[voter])
			serving := voter != mirror.Witness && w.db[voter].open && v.Confirmed()
			if !serving && !v.Hard().Record.NewerThan(own) {
				return fmt.Sprintf("I5: %s could win with the vote of %s and lacks an acknowledged commit", s, voter)
			}
		}
	}
	return ""
}

// logsMatch is I7: two logs that share an entry are equal up to it.
func logsMatch(w *world) string {
	a, b := w.db[mirror.PartnerA].entries(), w.db[mirror.PartnerB].entries()
	for i := min(len(a), len(b)) - 1; i >= 0; i-- {
		if a[i] != b[i] {
			continue
		}
		for k := range i {
			if a[k] != b[k] {
				return "I7: the logs share an entry and differ before it"
			}
		}
		return ""
	}
	return ""
}

// nothingTwice is the part of I9 that the model can see.
func nothingTwice(w *world) string {
	for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
		seen := [16]bool{}
		for _, e := range w.db[s].entries() {
			if seen[e.id] {
				return fmt.Sprintf("I9: %s holds write %d twice", s, e.id)
			}
			seen[e.id] = true
		}
	}
	return ""
}

// newestComplete: the principal of the newest record holds everything that was acknowledged (the base of L3).
func (t *tables) newestComplete(w *world) string {
	var newest mirror.Record
	for _, n := range w.node[1:] {
		if r := t.nodes.ref(n).Hard().Record; r.NewerThan(newest) {
			newest = r
		}
	}
	if w.forces == 0 && !holdsAll(w, newest.Principal) {
		return fmt.Sprintf("L3: %s is principal of the newest record %s and lacks an acknowledged commit",
			newest.Principal, newest.Version())
	}
	return ""
}

// nothingStranded is I13: a principal that took over drained has everything that the former one ever committed.
func (t *tables) nothingStranded(w *world) string {
	for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
		d := t.nodes.ref(w.node[s]).Duty()
		if d.Role != mirror.RolePrincipal || !d.Drained {
			continue
		}
		for _, e := range w.db[s.Other()].entries() {
			if e.seq < uint8(d.Seq) && !w.db[s].has(e.id) {
				return fmt.Sprintf("I13: write %d of role sequence %d was left behind by the hand-over to %s", e.id, e.seq, s)
			}
		}
	}
	return ""
}
