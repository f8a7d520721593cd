package mirrortest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

// made is a world that is changed by hand, as no step would change it.
type made struct {
	t *tables
	w world
}

func newMade(space Space) *made {
	t := newTables(space)
	return &made{t, t.start()}
}

// data changes the database beside a server.
func (m *made) data(s slot, edit func(*database)) {
	at := m.t.sites[m.w.site[s]].site
	edit(&at.db)
	m.w.place(s, m.t.know(at))
}

// disk changes what a server has on disk; it starts anew with it.
func (m *made) disk(s slot, edit func(*mirror.HardState)) {
	at := m.t.sites[m.w.site[s]].site
	hard := m.t.sites[m.w.site[s]].hard
	edit(&hard)
	at.node = m.t.nodes.of(m.t.snapshot(m.t.session(s, 0, hard), 0))
	m.w.place(s, m.t.know(at))
}

// store lets servers have a record on disk.
func (m *made) store(r mirror.Record, servers ...slot) {
	for _, s := range servers {
		m.disk(s, func(h *mirror.HardState) { h.Record, h.Promised = r, max(h.Promised, r.Seq) })
	}
}

// first is the record of the first world.
func first() mirror.Record { return firstHard(slotA).Record }

// handedOver is the record of a hand-over from it.
func handedOver() mirror.Record {
	r := first()
	r.Seq, r.Principal, r.Fork = 2, mirror.PartnerB, mirror.Position{Seq: 1, LSN: origin(mirror.PartnerA)}
	return r
}

func commit(id uint8) entry { return entry{seq: 1, src: mirror.PartnerA, id: id} }

// TestCheckers: each checker finds, in a world made for it, what it is there for; and nothing in the first world.
func TestCheckers(t *testing.T) {
	second := handedOver()
	for name, c := range map[string]struct {
		space Space
		edit  func(*made)
		check func(*made) string
	}{
		"I1: two principals": {
			edit:  func(m *made) { m.w.reigns.add(1, slotB) },
			check: func(m *made) string { return m.t.onePrincipal(&m.w) },
		},
		"I2: partner-a serves": {
			edit:  func(m *made) { m.w.acked = 1 << 1 },
			check: func(m *made) string { return m.t.nothingLost(&m.w) },
		},
		"I3: ": {
			edit: func(m *made) {
				m.data(slotA, func(d *database) { d.add(commit(1)); d.wait = mirror.WaitNone })
			},
			check: func(m *made) string {
				if m.t.mayAckAlone(&m.w, slotA) {
					return ""
				}
				return "I3: "
			},
		},
		"I5: partner-b could win": {
			edit: func(m *made) {
				m.data(slotA, func(d *database) { d.add(commit(1)) })
				m.w.acked = 1 << 1
			},
			check: func(m *made) string { return m.t.candidatesComplete(&m.w) },
		},
		"I7: the logs": {
			edit: func(m *made) {
				m.data(slotA, func(d *database) { d.add(commit(1)); d.add(commit(3)) })
				m.data(slotB, func(d *database) { d.add(commit(2)); d.add(commit(3)) })
			},
			check: func(m *made) string { return m.t.logsMatch(&m.w) },
		},
		"I9: partner-b holds write 1 twice": {
			edit:  func(m *made) { m.data(slotB, func(d *database) { d.add(commit(1)); d.add(commit(1)) }) },
			check: func(m *made) string { return m.t.nothingTwice(&m.w) },
		},
		"I11: record 1.0 has one value at partner-a and another at partner-b": {
			edit: func(m *made) {
				r := first()
				r.InSync = false
				m.store(r, slotB)
			},
			check: func(m *made) string { return m.t.oneValue(&m.w) },
		},
		"I12: both databases are open": {
			space: Space{Leases: true},
			edit:  func(m *made) { m.data(slotB, func(d *database) { d.open = true }) },
			check: func(m *made) string { return m.t.oneOpen(&m.w) },
		},
		"I13: the hand-over to partner-b": {
			edit: func(m *made) {
				m.data(slotA, func(d *database) { d.add(commit(1)) })
				m.store(second, slotB)
			},
			check: func(m *made) string { return m.t.nothingStranded(&m.w) },
		},
		"I15: the record 1.1 of witness": {
			edit: func(m *made) {
				r := first()
				r.Change, r.Suspended = 1, true
				m.store(r, slotWitness)
			},
			check: func(m *made) string { return m.t.persistent(&m.w) },
		},
		"I15: record 2.0 forgets": {
			edit: func(m *made) {
				r := first()
				r.Change, r.Suspended, r.SuspendedSeq, r.InSync = 1, true, 1, false
				m.store(r, slotA, slotWitness)
				m.store(second, slotB)
			},
			check: func(m *made) string { return m.t.persistent(&m.w) },
		},
		"I16: partner-a is confirmed": {
			edit: func(m *made) {
				for _, s := range []slot{slotB, slotWitness} {
					m.disk(s, func(h *mirror.HardState) { h.Record, h.Promised = mirror.Record{}, 0 })
				}
			},
			check: func(m *made) string { return m.t.backed(&m.w) },
		},
		"I18: forced service in record 2.0": {
			edit: func(m *made) {
				r := second
				r.Forced = true
				m.store(r, slotB)
			},
			check: func(m *made) string { return m.t.honest(&m.w) },
		},
		"L3: partner-b is principal of the newest record 2.0": {
			edit: func(m *made) {
				m.data(slotA, func(d *database) { d.add(commit(1)) })
				m.w.acked = 1 << 1
				m.store(second, slotB)
			},
			check: func(m *made) string { return m.t.newestComplete(&m.w) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMade(c.space)
			c.edit(m)
			require.Contains(t, c.check(m), name)
		})
	}
	m := newMade(Space{})
	require.Empty(t, m.t.check(&m.w))
}

// TestDiscipline: each way in which one step of one server could go wrong is found.
func TestDiscipline(t *testing.T) {
	grant := func(seq mirror.RoleSeq) mirror.Message {
		return mirror.Message{Kind: mirror.MessageGrant, From: mirror.PartnerB, To: mirror.PartnerA, Seq: seq}
	}
	for name, c := range map[string]struct {
		before, after func(*mirror.HardState)
		open          bool
		sent          mirror.Message
	}{
		"I10: partner-b falls": {
			before: func(h *mirror.HardState) { h.Promised = 3 },
			after:  func(h *mirror.HardState) { h.Promised = 2 },
		},
		"I11: partner-b changes record 1.0 in place": {
			after: func(h *mirror.HardState) { h.Record.InSync = false },
		},
		"I15: partner-b changes suspension": {
			after: func(h *mirror.HardState) { h.Record.Change, h.Record.Suspended, h.Record.InSync = 1, true, false },
		},
		"I18: partner-b serves by force": {
			after: func(h *mirror.HardState) {
				h.Record, h.Promised = handedOver(), 2
				h.Record.Forced, h.Record.Suspended, h.Record.InSync = true, true, false
			},
		},
		"I6: partner-b opens": {
			after: func(h *mirror.HardState) { h.Record, h.Promised = handedOver(), 2 },
			open:  true,
		},
		"I10: partner-b grants role sequence 2 to partner-a and has not stored it": {
			sent: grant(2),
		},
		"I10: partner-b grants role sequence 2 after promising 2": {
			before: func(h *mirror.HardState) { h.Promised = 2 },
			after:  func(h *mirror.HardState) { h.Promised, h.Record.Seq = 2, 2 },
			sent:   grant(2),
		},
		"I16: partner-b grants and is no voter": {
			before: func(h *mirror.HardState) { h.Removed = true },
			after:  func(h *mirror.HardState) { h.Promised, h.Record.Seq = 2, 2 },
			sent:   grant(2),
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMade(Space{})
			if c.before != nil {
				m.disk(slotB, c.before)
			}
			before := m.t.sites[m.w.site[slotB]]
			if c.after != nil {
				m.disk(slotB, c.after)
			}
			m.data(slotB, func(d *database) { d.open = c.open })
			var d doing
			if c.sent.Kind != 0 {
				d.sent = []uint16{m.t.packet(c.sent)}
			}
			require.Contains(t, m.t.discipline(before, m.t.sites[m.w.site[slotB]], &d, false), name)
		})
	}
}
