package mirrortest

import (
	"fmt"

	"github.com/f19126b3/dbmirror/mirror"
)

// discipline checks what a single action of a single server must keep to. As actions are remembered, so is the verdict.
func (t *tables) discipline(before, after *known, d *doing, journalled bool) string {
	was, is := &before.hard, &after.hard
	switch {
	case t.mayForget(before.slot.server()):
		return ""
	case is.Promised < was.Promised || after.version < before.version:
		return fmt.Sprintf("I10: %s falls from %d, %s to %d, %s", before.slot, was.Promised, was.Record.Version(), is.Promised, is.Record.Version())
	case after.version == before.version && after.record != before.record:
		return fmt.Sprintf("I11: %s changes record %s in place", before.slot, was.Record.Version())
	case is.Record.Seq == was.Record.Seq && (was.Record.Suspended != is.Record.Suspended && is.Record.SuspendedSeq <= was.Record.SuspendedSeq ||
		was.Record.Safety != is.Record.Safety && is.Record.SafetySeq <= was.Record.SafetySeq):
		return fmt.Sprintf("I15: %s changes suspension or safety without counting it", before.slot)
	case is.Record.Forced && is.Record.Seq > was.Record.Seq && after.leads() && !journalled:
		return fmt.Sprintf("I18: %s serves by force and its journal does not say so", before.slot)
	case after.db.open && !before.db.open && !mayOpen(after):
		return fmt.Sprintf("I6: %s opens without being principal or whole", before.slot)
	}
	return t.grants(before, after, d)
}

// mayOpen restates I6: only a principal by its own record, with a copy that is whole and continues its own log. It may
// have promised more: that is its own election to go on, for it would have given up its record with a vote for another.
func mayOpen(k *known) bool {
	return k.leads() && !k.hard.Dirty && k.hard.Aligned == k.hard.Record.Seq
}

// grants checks each vote that was given: by a voter, on disk, and once for each role sequence (I10, I16).
func (t *tables) grants(before, after *known, d *doing) string {
	for _, id := range d.sent {
		m := t.packets.ref(uint32(id))
		if m.Kind != mirror.MessageGrant {
			continue
		}
		again := before.hard.Record == after.hard.Record
		switch {
		case after.hard.Promised != m.Seq || after.hard.Record.Seq != m.Seq || after.hard.Record.Principal != m.To:
			return fmt.Sprintf("I10: %s grants role sequence %d to %s and has not stored it", before.slot, m.Seq, m.To)
		case !again && before.hard.Promised >= m.Seq:
			return fmt.Sprintf("I10: %s grants role sequence %d after promising %d", before.slot, m.Seq, before.hard.Promised)
		case before.hard.Removed || after.hard.Removed || !listed(&after.hard.Record, after):
			return fmt.Sprintf("I16: %s grants and is no voter", before.slot)
		}
	}
	return ""
}
