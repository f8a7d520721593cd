package partner

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// lateBackend is a backend whose look at both databases fails in the moment in which the session is made.
type lateBackend struct {
	backend.Backend
	partner *atomic.Pointer[Partner]
	failed  *atomic.Bool
}

type lateDatabase struct {
	backend.Database
	lateBackend
}

func (l lateBackend) Open(ctx context.Context, env backend.Env) (backend.Database, error) {
	database, err := l.Backend.Open(ctx, env)
	return &lateDatabase{database, l}, err
}

// ExaminePair begins when everything is in order, and fails when there is a session.
func (d *lateDatabase) ExaminePair(ctx context.Context, pair backend.Pair) ([]backend.Finding, error) {
	p := d.partner.Load()
	if p == nil || d.failed.Load() || !p.ownNote().Ready {
		return d.Database.ExaminePair(ctx, pair)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for p.host.Status().Role == mirror.RoleNone {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
	d.failed.Store(true)
	return nil, errors.New("the connection was reset")
}

// TestLookThatEndsLate: what went wrong with the last look at both servers, before the session was made, is not shown for
// ever.
func TestLookThatEndsLate(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	late := lateBackend{partner: new(atomic.Pointer[Partner]), failed: new(atomic.Bool)}
	p.edit = func(c *Config) {
		c.Witness = ""
		if c.Self == mirror.PartnerB {
			late.Backend = c.Backend
			c.Backend = late
		}
	}
	p.exec(mirror.PartnerA, ledgerTable)
	late.partner.Store(p.start(mirror.PartnerB))
	p.start(mirror.PartnerA)
	p.awaitSynchronized(mirror.PartnerA)
	require.True(t, late.failed.Load())
	for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
		p.await(s, "out of trouble", func(st Status) bool { return st.Trouble == "" })
	}
}
