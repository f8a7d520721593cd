package partner

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// haltingBackend is a backend whose redo does not go on for a while.
type haltingBackend struct {
	backend.Backend
	halted *atomic.Bool
}

type haltingDatabase struct {
	backend.Database
	halted *atomic.Bool
}

type haltingRedo struct {
	backend.Redo
	halted *atomic.Bool
}

func (h haltingBackend) Open(ctx context.Context, env backend.Env) (backend.Database, error) {
	database, err := h.Backend.Open(ctx, env)
	return &haltingDatabase{database, h.halted}, err
}

func (d *haltingDatabase) NewRedo() (backend.Redo, error) {
	r, err := d.Database.NewRedo()
	return haltingRedo{r, d.halted}, err
}

func (r haltingRedo) Progress() backend.Progress {
	p := r.Redo.Progress()
	if r.halted.Load() {
		p.Trouble = errors.New("no connection is free")
	}
	return p
}

func (r haltingRedo) Drain(ctx context.Context, to mirror.Position) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for r.halted.Load() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return r.Redo.Drain(ctx, to)
}

// TestPromotionThatWaits: an elected mirror whose redo does not go on says why it does not serve, and no longer than that
// lasts.
func TestPromotionThatWaits(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	var halted atomic.Bool
	p.edit = func(c *Config) {
		if c.Self == mirror.PartnerB {
			c.Backend = haltingBackend{c.Backend, &halted}
		}
	}
	p.exec(mirror.PartnerA, ledgerTable)
	p.startWitness()
	p.start(mirror.PartnerB)
	p.start(mirror.PartnerA)
	p.awaitSynchronized(mirror.PartnerA)
	require.NoError(t, p.pg[mirror.PartnerA].Kill())
	p.await(mirror.PartnerB, "following nobody", func(st Status) bool { return !st.Stream.Streaming })
	halted.Store(true)
	waits := func(st Status) bool { return strings.Contains(st.Trouble, tryRedoing+": no connection is free") }
	p.await(mirror.PartnerB, "principal, waiting for redo", func(st Status) bool {
		return st.Role == mirror.RolePrincipal && !st.Whole && waits(st)
	})
	halted.Store(false)
	p.await(mirror.PartnerB, "serving, out of trouble", func(st Status) bool {
		return st.Serving && st.Gate == mirror.GateOpen && !waits(st)
	})
}
