package mirrortest

import (
	"fmt"

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
	RemovedForgets                         // W2: a witness that was removed forgets the session, but not who it is
)

// planted tries what can happen at a server only with an error of the world.
func (s *steps) planted(at slot) {
	k := s.sites[s.from.site[at]]
	switch s.space.Planted.World {
	case WitnessForgets:
		if at == slotWitness && s.from.restarts > 0 {
			s.try(way{slot: at, action: s.number(action{kind: loses})}, func(n *world) { n.restarts-- })
		}
	case RemovedForgets:
		if s.sites[s.from.site[at]].hard.Removed && !at.server().IsPartner() {
			s.try(way{slot: at, action: s.number(action{kind: forgets})}, nil)
		}
	case GrantsUnsaved:
		s.answersUnsaved(at, mirror.MessageVote)
	case AcceptsUnsaved:
		s.answersUnsaved(at, mirror.MessagePropose)
	case AsksUnsaved:
		if at.server().IsPartner() {
			s.unsaved(k, action{kind: dies, lost: 1 << at.server().Other()})
		}
	case TruncatesLate:
		if at.server().IsPartner() {
			s.truncates(k)
		}
	}
}

// answersUnsaved: the answer to a message leaves, and the server dies before what it claims is on its disk.
func (s *steps) answersUnsaved(at slot, kind mirror.MessageKind) {
	for _, id := range s.from.packets {
		if m := s.packets.ref(uint32(id)); m.Kind == kind && slot(m.To) == at {
			s.unsaved(s.sites[s.from.site[at]], action{kind: dies, packet: id})
		}
	}
}

// unsaved does what changes the disk of a server, and puts its disk back: a message arrives, or it loses the other
// partner.
func (s *steps) unsaved(k *known, a action) {
	saving := action{kind: arrives, packet: a.packet}
	if a.lost != 0 {
		saving = action{kind: ticks, lost: a.lost}
	}
	saved := s.sites[s.do(k.number, s.number(saving)).to]
	if s.from.restarts > 0 && saved.hardNumber != k.hardNumber {
		s.try(way{slot: k.slot, action: s.number(a)}, func(n *world) { n.restarts-- })
	}
}

// die does something, and starts the program again from the disk as it was before.
func (a *actor) die(lost uint8, packet uint16) {
	before := a.snapshot().Hard()
	if lost != 0 {
		a.tick(lost)
	} else {
		a.arrive(packet)
	}
	a.revive(before)
}

// truncates: what the principal had a while ago arrives at its mirror once more.
func (s *steps) truncates(k *known) {
	if !k.duty.Ship || k.duty.Role != mirror.RoleMirror || k.hard.Aligned != k.hard.Record.Seq {
		return
	}
	principal := s.sites[s.from.site[other(k.slot)]].db.log
	for length := range min(k.db.length, principal.length) {
		var late log
		for _, e := range principal.all()[:length] {
			late.add(e)
		}
		s.try(way{slot: k.slot, action: s.number(action{kind: truncates, log: s.logs.of(late)})}, nil)
	}
}

// describePlanted writes down what only an error of the world makes possible.
func (t *tables) describePlanted(s slot, a action) string {
	switch a.kind {
	case truncates:
		l := t.logs.at(a.log)
		return fmt.Sprintf("a late message cuts the log of %s back to %d writes", s, l.length)
	case dies:
		what := action{kind: arrives, packet: a.packet}
		if a.lost != 0 {
			what = action{kind: ticks, lost: a.lost}
		}
		return t.label(s, what) + "; it dies before it has saved"
	}
	if a.kind == forgets {
		return fmt.Sprintf("%s forgets the session", s)
	}
	return fmt.Sprintf("%s loses its state", s)
}

// follows says whether a mirror's data path takes in log now.
func (t *tables) follows(d mirror.Duty) bool {
	return d.Role == mirror.RoleMirror && (d.Ship || t.space.Planted.World == HardensAfterHalt)
}

// rewind is how a mirror begins to follow another history: with what the principal has.
func (a *actor) rewind(other log) {
	if a.t.space.Planted.World == KeepsTail {
		a.append(other)
		return
	}
	a.db.log = other
}

// mayForget says whether what a server has on disk may fall.
func (t *tables) mayForget(s mirror.Server) bool {
	switch t.space.Planted.World {
	case WitnessForgets, RemovedForgets:
		return s == mirror.Witness
	case GrantsUnsaved, AcceptsUnsaved, AsksUnsaved:
		return true
	}
	return false
}
