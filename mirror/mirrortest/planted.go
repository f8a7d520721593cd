package mirrortest

import (
	"fmt"
	"slices"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/internal/seeded"
)

// Mutant is an error planted on purpose. The zero value is none.
type Mutant struct {
	Name  string
	Rules seeded.Error
	World WorldError
}

// WorldError is an error planted in the world around the rules: in a host or a data path.
type WorldError uint8

// The errors of the world.
const (
	WitnessForgets   WorldError = iota + 1 // M3: the witness loses its state and votes
	KeepsTail                              // M6: a returning partner keeps what the principal never had
	TruncatesLate                          // M10: a mirror cuts its log back to a late, shorter message of the same role sequence
	GrantsUnsaved                          // N13: a voter grants before its promise is on its disk
	AcceptsUnsaved                         // N14: a server accepts a record before it is on its disk
	AsksUnsaved                            // N15: a candidate asks before its promise is on its disk
	HardensAfterHalt                       // N16: the data path of a mirror hardens on after it was told to stop
	ReportsForeign                         // N17: a mirror reports positions of its own server's log
)

// planted tries what can happen only with an error of the world.
func (t *tables) planted(w *world, try attempt) {
	switch t.space.Planted.World {
	case WitnessForgets:
		if w.restarts > 0 {
			try(func() string { return "the witness loses its state" }, func(n *world) {
				n.restarts--
				t.revive(n, mirror.Witness, firstHard(mirror.Witness))
			})
		}
	case GrantsUnsaved:
		t.answersUnsaved(w, mirror.MessageVote, try)
	case AcceptsUnsaved:
		t.answersUnsaved(w, mirror.MessagePropose, try)
	case AsksUnsaved:
		t.asksUnsaved(w, mirror.PartnerA, try)
		t.asksUnsaved(w, mirror.PartnerB, try)
	case TruncatesLate:
		t.truncates(w, mirror.PartnerA, try)
		t.truncates(w, mirror.PartnerB, try)
	}
}

// revive starts the program of a server anew with what it is said to find on its disk.
func (t *tables) revive(w *world, s mirror.Server, hard mirror.HardState) {
	w.node[s] = t.nodes.of(t.session(s, hard).Snapshot())
	if s != mirror.Witness {
		t.serve(w, s, t.nodes.ref(w.node[s]).Duty())
	}
	t.connect(w, s)
}

// answersUnsaved: the answer to a message leaves, and the server dies before what it claims is on its disk.
func (t *tables) answersUnsaved(w *world, kind mirror.MessageKind, try attempt) {
	for _, id := range w.packets {
		if m := &t.packets.values[id]; m.Kind == kind {
			t.unsaved(w, m.To, t.arrives(id), func(n *world) { t.deliver(n, id) }, try)
		}
	}
}

// asksUnsaved: a partner that has lost the other one asks for votes, and dies before its promise is on its disk.
func (t *tables) asksUnsaved(w *world, s mirror.Server, try attempt) {
	lost := []mirror.Server{s.Other()}
	t.unsaved(w, s, func() string { return tickLabel(s, lost) }, func(n *world) { t.tick(n, s, lost) }, try)
}

// unsaved does what changes the disk of a server, and puts its disk back.
func (t *tables) unsaved(w *world, s mirror.Server, label func() string, act func(*world), try attempt) {
	before, probe := t.nodes.at(w.node[s]), w.clone()
	act(&probe)
	if w.restarts == 0 || t.nodes.ref(probe.node[s]).Hard() == before.Hard() {
		return
	}
	try(func() string { return label() + "; it dies before it has saved" }, func(n *world) {
		act(n)
		n.restarts--
		t.revive(n, s, before.Hard())
	})
}

// truncates: what the principal had a while ago arrives at its mirror once more.
func (t *tables) truncates(w *world, s mirror.Server, try attempt) {
	node := t.nodes.ref(w.node[s])
	hard, own, other := node.Hard(), &w.db[s], &w.db[s.Other()]
	if !node.Duty().Ship || node.Duty().Role != mirror.RoleMirror || hard.Aligned != hard.Record.Seq {
		return
	}
	for length := range min(own.length, other.length) {
		label := func() string { return fmt.Sprintf("a late message cuts the log of %s back to %d writes", s, length) }
		try(label, func(n *world) {
			n.db[s].log, n.db[s].length = [maxLog]entry{}, 0
			for _, e := range other.entries()[:length] {
				n.db[s].add(e)
			}
		})
	}
}

// follows says whether a mirror's data path takes in log now.
func (t *tables) follows(d mirror.Duty) bool {
	return d.Role == mirror.RoleMirror && (d.Ship || t.space.Planted.World == HardensAfterHalt)
}

// rewound is the log with which a mirror begins to follow another history: what the principal has.
func (t *tables) rewound(own, other database) database {
	if t.space.Planted.World != KeepsTail {
		own.log, own.length = other.log, other.length
		return own
	}
	if own.length < other.length {
		for _, e := range slices.Clone(other.entries()[own.length:]) {
			own.add(e)
		}
	}
	return own
}
