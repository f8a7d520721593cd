package mirrortest

import (
	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/internal/seeded"
)

// Mutant is an error planted on purpose. The zero value is none.
type Mutant struct {
	Name  string
	Rules seeded.Error
	World WorldError
}

// WorldError is an error planted in the world around the rules.
type WorldError uint8

// The errors of the world.
const (
	WitnessForgets WorldError = iota + 1 // M3: the witness loses its state and votes
	KeepsTail                            // M6: a returning partner keeps what the principal never had
)

// planted tries what can happen only with an error of the world.
func (t *tables) planted(w *world, try attempt) {
	if t.space.Planted.World == WitnessForgets && w.restarts > 0 {
		try(func() string { return "the witness loses its state" }, func(n *world) {
			n.restarts--
			fresh := t.session(mirror.Witness, firstHard(mirror.Witness))
			n.node[mirror.Witness] = t.nodes.of(fresh.Snapshot())
			t.connect(n, mirror.Witness)
		})
	}
}
