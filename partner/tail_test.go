package partner

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// reluctant is a backend whose database can undo, which fails for a while.
type reluctant struct {
	backend.Backend
	tries *atomic.Int32
}

type reluctantDatabase struct {
	backend.Database
	reluctant
	began time.Time
}

func (r reluctant) Open(ctx context.Context, env backend.Env) (backend.Database, error) {
	database, err := r.Backend.Open(ctx, env)
	return &reluctantDatabase{Database: database, reluctant: r}, err
}

// Undo fails a few times, and for longer than two files can have the same time in their names, and then leaves it to a
// copy.
func (d *reluctantDatabase) Undo(context.Context, backend.Reign, mirror.LSN) error {
	tries := d.tries.Add(1)
	if tries == 1 {
		d.began = time.Now()
	}
	if tries <= 3 || time.Since(d.began) < 2500*time.Millisecond {
		return errors.New("the disk is full")
	}
	return backend.ErrCannotUndo
}

// TestTailIsSavedOnce: a tail that is saved over and over, because it cannot be undone yet, is one file and one line in
// the journal. What a program that was killed has left of it is taken away.
func TestTailIsSavedOnce(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	var tries atomic.Int32
	p.edit = func(c *Config) {
		if c.Self == mirror.PartnerA {
			c.Backend = reluctant{c.Backend, &tries}
		}
	}
	p.exec(mirror.PartnerA, ledgerTable)
	p.startWitness()
	b := p.start(mirror.PartnerB)
	a := p.start(mirror.PartnerA)
	p.awaitSynchronized(mirror.PartnerA)
	p.command("suspend", func() error { return a.Suspend(t.Context()) })
	p.await(mirror.PartnerA, "suspended", func(st Status) bool { return st.State == mirror.StateSuspended && st.Waiting == "" })
	p.exec(mirror.PartnerA, "INSERT INTO ledger(id) VALUES (2), (3)")
	p.halt(mirror.PartnerA)
	require.NoError(t, p.pg[mirror.PartnerA].Kill())
	p.command("force service", func() error { return b.ForceService(t.Context(), b.PlanForce().Token) })
	p.await(mirror.PartnerB, "serving by force", func(st Status) bool { return st.Serving && st.Gate == mirror.GateOpen })

	dir := filepath.Join(p.dir, mirror.PartnerA.String())
	require.NoError(t, os.WriteFile(filepath.Join(dir, "lost-transactions-2-20260101T000000.jsonl.unfinished"), []byte("{"), 0o600))
	require.NoError(t, p.pg[mirror.PartnerA].Restart(t.Context()))
	p.start(mirror.PartnerA)
	p.await(mirror.PartnerA, "suspended", func(st Status) bool { return st.State == mirror.StateSuspended && st.Gate == mirror.GateClosed })
	p.command("resume", func() error { return b.Resume(t.Context()) })
	p.awaitSynchronized(mirror.PartnerB)
	p.awaitEqual()
	require.Greater(t, tries.Load(), int32(3))

	lost, err := filepath.Glob(filepath.Join(dir, "lost-transactions-*"))
	require.NoError(t, err)
	require.Len(t, lost, 1)
	text, err := os.ReadFile(lost[0])
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(string(text), `"kind":"insert"`), "%s", text)
	journal, err := os.ReadFile(filepath.Join(dir, "journal.jsonl"))
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(journal), "1 transactions with 2 changes"))
}
