package mirrortest

import (
	"slices"

	"github.com/f19126b3/dbmirror/mirror"
)

// Which messages need not be kept: those whose arrival can never again do more than let the receiver hear that its sender
// was alive, which may happen at any time (see hear). Each rule says why that is so; TestForgetting compares what is
// reached with them and without the second kind of them.

// overtakes says whether a step from one site to another may have made messages useless.
func (t *tables) overtakes(old, now uint32) bool {
	a, b := t.sites[old], t.sites[now]
	return a.hardNumber != b.hardNumber || a.confirmed != b.confirmed || a.db.hardened != b.db.hardened
}

// forget drops the messages that are of no use any more.
func (t *tables) forget(w *world) {
	kept := w.packets[:0]
	for _, id := range w.packets {
		if t.isSpent(w, id) {
			w.mail ^= packetPrint(id)
			continue
		}
		kept = append(kept, id)
	}
	w.packets = kept
}

// isSpent says whether nobody who may receive the message can do anything with it.
func (t *tables) isSpent(w *world, id uint16) bool {
	at := slot(t.to[id])
	both := at == slotWitness && t.space.NewWitness
	if t.isSpentAt(w.site[at], id) && (!both || t.isSpentAt(w.site[slotNewWitness], id)) {
		return true
	}
	if t.keepsAll || w.restarts > 0 || t.space.Planted != (Mutant{}) {
		return false
	}
	return t.isFutile(w, at, id) && (!both || t.isFutile(w, slotNewWitness, id))
}

func (t *tables) isSpentAt(number uint32, id uint16) bool {
	const yes, no = 1, 2
	hard := t.sites[number].hardNumber
	for int(hard) >= len(t.spent) {
		t.spent = append(t.spent, nil)
	}
	row := t.spent[hard]
	if int(id) >= len(row) {
		row = slices.Concat(row, make([]uint8, max(len(t.arrival), 2*len(row))-len(row)))
		t.spent[hard] = row
	}
	if row[id] == 0 {
		row[id] = no
		if spent(t.packets.ref(uint32(id)), t.hards.at(hard)) && !t.mayForget(t.to[id]) {
			row[id] = yes
		}
	}
	return row[id] == yes
}

// spent is the first kind: the receiver has gone beyond the message, and what it has on disk only rises. (A witness that
// may lose its disk does not.)
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

// isFutile is the second kind, for worlds in which no program restarts any more: what the message says is known in memory
// too, or all it leads to is an answer of which that is so.
func (t *tables) isFutile(w *world, at slot, id uint16) bool {
	m := t.packets.ref(uint32(id))
	to := t.sites[w.site[at]]
	c := t.carried[id]
	if c.version > to.version || m.Promised > to.hard.Promised {
		return false // it tells something new
	}
	switch m.Kind {
	case mirror.MessageAccept, mirror.MessageGrant:
		// All they can do is confirm, and a confirmed record stays so until the next one is made, or for good if the
		// principal has to be elected again.
		return to.confirms(c.record)
	case mirror.MessagePropose:
		// It would be accepted again. Whoever has promised a newer role sequence refuses.
		from := t.sites[w.site[m.From]]
		return to.record == c.record && (to.hard.Promised > m.Record.Seq || from.version > c.version || from.confirms(c.record))
	case mirror.MessageVote:
		// It has been granted, and would be granted again.
		from := t.sites[w.site[m.From]]
		return to.hard.Promised == m.Seq && to.hard.Record.Seq == m.Seq && to.hard.Record.Principal == m.From &&
			(from.version > to.version || from.confirms(to.record))
	case mirror.MessageTransfer:
		// The mirror has promised a newer role sequence: it takes nothing over in this one.
		return to.hard.Promised > to.hard.Record.Seq
	case mirror.MessageReport:
		// The principal's server and session know as much, and what a mirror has of a role sequence only grows.
		return m.Seq == to.hard.Record.Seq && uint8(m.Seq) == to.db.seq && to.db.hardened > 0 && m.LSN <= origin(m.To)+mirror.LSN(to.db.hardened) &&
			(c.record != to.record || to.confirmed)
	}
	return false
}

// confirms says whether the site's server is principal by a record, and knows that a second server has it.
func (k *known) confirms(record uint32) bool { return k.confirmed && k.leads() && k.record == record }
