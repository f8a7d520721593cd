package mirrortest

import (
	"fmt"

	"github.com/f19126b3/dbmirror/mirror"
)

// The checkers: what must hold in every world. They know nothing of how the rules work.

// check looks at the sites and at what was acknowledged, and at nothing else of a world: worlds that differ only in what
// is in flight are judged once (see core).
func (t *tables) check(w *world) string {
	checks := [...]func(*world) string{
		t.onePrincipal, t.nothingLost, t.candidatesComplete, t.logsMatch, t.nothingTwice, t.newestComplete,
		t.oneValue, t.backed, t.persistent, t.nothingStranded, t.honest, t.oneOpen,
	}
	for _, check := range checks {
		if rule := check(w); rule != "" {
			return rule
		}
	}
	return ""
}

// core is the fingerprint of what check and healing look at.
func (w *world) core() uint64 {
	return w.sites ^ mix(uint64(w.reigns)|uint64(w.acked)<<16|uint64(w.restarts)<<24)
}

// onePrincipal is I1. The world notes who was confirmed as principal of which role sequence.
func (t *tables) onePrincipal(w *world) string {
	if both := w.reigns & (w.reigns >> 1) & 0x5555; both != 0 {
		return fmt.Sprintf("I1: two principals in one role sequence (%04x)", both)
	}
	return ""
}

// nothingLost is I2: whoever serves in the newest role sequence has everything that was acknowledged.
func (t *tables) nothingLost(w *world) string {
	newest := w.reigns.newest()
	for s := slotA; s <= slotB; s++ {
		k := t.sites[w.site[s]]
		serves := k.db.open && k.confirmed && k.leads()
		if serves && int(k.hard.Record.Seq) == newest && k.hard.Promised == k.hard.Record.Seq && w.acked&^k.holds != 0 {
			return fmt.Sprintf("I2: %s serves in role sequence %d without an acknowledged commit", s, newest)
		}
	}
	return ""
}

// candidatesComplete is I5: nobody who could win an election right now lacks an acknowledged commit.
func (t *tables) candidatesComplete(w *world) string {
	for s := slotA; s <= slotB; s++ {
		k := t.sites[w.site[s]]
		if w.acked&^k.holds == 0 || !promotable(&k.hard.Record, s.server()) {
			continue
		}
		for voter := range t.slots() {
			v := t.sites[w.site[voter]]
			serving := v.db.open && v.confirmed
			if voter != s && !serving && !v.hard.Record.NewerThan(k.hard.Record) && listed(&k.hard.Record, v) {
				return fmt.Sprintf("I5: %s could win with the vote of %s and lacks an acknowledged commit", s, voter)
			}
		}
	}
	return ""
}

// promotable restates which partner an election without force may make principal, by a record.
func promotable(r *mirror.Record, s mirror.Server) bool {
	return r.Principal == s || r.InSync && r.Safety == mirror.SafetyFull && !r.Suspended && r.HasWitness()
}

// listed says whether a record names the site's server as one whose vote counts (I16).
func listed(r *mirror.Record, v *known) bool {
	i := v.hard.Incarnation
	if v.slot.server() != mirror.Witness {
		return r.Members[v.slot.server()] == i
	}
	if r.HasWitness() {
		return r.Members[mirror.Witness] == i
	}
	return r.OldWitness == i
}

// logsMatch is I7: two logs that share an entry are equal up to it.
func (t *tables) logsMatch(w *world) string {
	a, b := &t.sites[w.site[slotA]].db.log, &t.sites[w.site[slotB]].db.log
	for i := int(min(a.length, b.length)) - 1; i >= 0; i-- {
		if a.entries[i] != b.entries[i] {
			continue
		}
		for k := range i {
			if a.entries[k] != b.entries[k] {
				return "I7: the logs share an entry and differ before it"
			}
		}
		return ""
	}
	return ""
}

// nothingTwice is the part of I9 that the model can see.
func (t *tables) nothingTwice(w *world) string {
	for s := slotA; s <= slotB; s++ {
		seen := uint8(0)
		for _, e := range t.sites[w.site[s]].db.all() {
			if seen&(1<<e.id) != 0 {
				return fmt.Sprintf("I9: %s holds write %d twice", s, e.id)
			}
			seen |= 1 << e.id
		}
	}
	return ""
}

// newestComplete: the principal of the newest record holds everything that was acknowledged and not given up (the base of
// L3).
func (t *tables) newestComplete(w *world) string {
	newest := &t.sites[w.site[t.newest(w)]].hard.Record
	if w.acked&^t.sites[w.site[newest.Principal]].holds != 0 {
		return fmt.Sprintf("L3: %s is principal of the newest record %s and lacks an acknowledged commit",
			newest.Principal, newest.Version())
	}
	return ""
}

// oneValue is I11: no version of the record has two values.
func (t *tables) oneValue(w *world) string {
	for a := range t.slots() {
		for b := a + 1; b < numSlots && w.site[b] != 0; b++ {
			k, l := t.sites[w.site[a]], t.sites[w.site[b]]
			if k.version == l.version && k.record != l.record {
				return fmt.Sprintf("I11: record %s has one value at %s and another at %s", k.hard.Record.Version(), a, b)
			}
		}
	}
	return ""
}

// sentValue is I11 for what is in flight.
func (t *tables) sentValue(w *world) string {
	for _, id := range w.packets {
		c := t.carried[id]
		for s := range t.slots() {
			if k := t.sites[w.site[s]]; k.version == c.version && k.record != c.record {
				return fmt.Sprintf("I11: record %s has one value at %s and another in flight", k.hard.Record.Version(), s)
			}
		}
	}
	return ""
}

// backed: what a principal takes for confirmed is on the disk of a second server whose vote counts, or of one that has
// gone further (I3, I16). Only a witness that loses its disk could undo it.
func (t *tables) backed(w *world) string {
	for s := slotA; s <= slotB; s++ {
		k := t.sites[w.site[s]]
		r := &k.hard.Record
		if !k.confirmed || !k.leads() || !r.HasWitness() && r.OldWitness == 0 {
			continue
		}
		found := false
		for voter := range t.slots() {
			v := t.sites[w.site[voter]]
			found = found || voter != s && v.version >= k.version && listed(r, v)
		}
		if !found {
			return fmt.Sprintf("I16: %s is confirmed in record %s, which no second voter holds", s, r.Version())
		}
	}
	return ""
}

// mayAckAlone is I3: a second server holds the exposure of the principal at s; and with leases, one whose vote counts
// promises to elect nobody else. The server that holds the exposure may be a witness that has been removed since: while
// it was one, it refused the mirror, and the mirror's record names no other. A principal without a witness needs nobody.
func (t *tables) mayAckAlone(w *world, s slot) bool {
	own := &t.sites[w.site[s]].hard.Record
	if !own.HasWitness() && own.OldWitness == 0 {
		return !own.InSync
	}
	exposed, leased := false, !t.space.Leases
	for voter := range t.slots() {
		if voter == s {
			continue
		}
		v := t.sites[w.site[voter]]
		r := &v.hard.Record
		exposed = exposed || r.Seq == own.Seq && r.Principal == s.server() && !r.InSync
		leased = leased || listed(own, v) && t.nodes.ref(v.node).Promises(s.server())
	}
	return exposed && leased && !own.InSync
}

// persistent is I15: no record lets a mirror be elected while it is suspended or OFF; and what two servers have stored of
// suspension or safety, neither of them deaf to its role sequence, the newest record knows too. What only one has stored
// was promised to nobody.
func (t *tables) persistent(w *world) string {
	newest := &t.sites[w.site[t.newest(w)]].hard.Record
	forgotten := 0
	for s := range t.slots() {
		hard := &t.sites[w.site[s]].hard
		r := &hard.Record
		if r.InSync && (r.Suspended || r.Safety != mirror.SafetyFull) {
			return fmt.Sprintf("I15: the record %s of %s is in sync though suspended or OFF", r.Version(), s)
		}
		if hard.Promised == r.Seq && (r.SuspendedSeq > newest.SuspendedSeq || r.SafetySeq > newest.SafetySeq) {
			forgotten++
		}
	}
	if forgotten > 1 {
		return fmt.Sprintf("I15: record %s forgets a change of suspension or safety", newest.Version())
	}
	return ""
}

// nothingStranded is I13: a role sequence that began by a hand-over strands nothing of the former principal's. Only a hand-over
// makes a record that follows another one's fork and is in sync at once.
func (t *tables) nothingStranded(w *world) string {
	r := &t.sites[w.site[t.newest(w)]].hard.Record
	if r.Change != 0 || !r.InSync || r.Fork.Seq == 0 || r.Fork.Seq+1 != r.Seq {
		return ""
	}
	p, former := t.sites[w.site[r.Principal]], t.sites[w.site[r.Principal.Other()]]
	if former.holds&^p.holds != 0 {
		return fmt.Sprintf("I13: the hand-over to %s left a commit behind", r.Principal)
	}
	return ""
}

// honest is I18: a record that began by force is suspended until somebody resumes.
func (t *tables) honest(w *world) string {
	if t.space.Suspends {
		return ""
	}
	for s := range t.slots() {
		if r := &t.sites[w.site[s]].hard.Record; r.Forced && (!r.Suspended || r.InSync) {
			return fmt.Sprintf("I18: forced service in record %s of %s goes on as if nothing had been lost", r.Version(), s)
		}
	}
	return ""
}

// oneOpen is I12, for clocks that keep the bound: with leases, no two databases are open at once. A program that has
// just started leaves its database as it was for as long as a lease (docs/guarantees); that is left out.
func (t *tables) oneOpen(w *world) string {
	a, b := t.sites[w.site[slotA]], t.sites[w.site[slotB]]
	if t.space.Leases && a.db.open && b.db.open && a.duty.Gate != mirror.GateKeep && b.duty.Gate != mirror.GateKeep {
		return "I12: both databases are open"
	}
	return ""
}
