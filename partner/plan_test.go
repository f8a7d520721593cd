package partner

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

// TestPlanForce: what forced service would rest on is told by a mirror whose program was started after the principal was
// lost, too. A former principal that does not follow the present one says that, and compares no positions of two logs.
func TestPlanForce(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.edit = func(c *Config) { c.Witness = "" }
	p.exec(mirror.PartnerA, ledgerTable)
	p.start(mirror.PartnerB)
	p.start(mirror.PartnerA)
	p.awaitSynchronized(mirror.PartnerA)
	p.exec(mirror.PartnerA, "INSERT INTO ledger(id) VALUES (1)")
	p.halt(mirror.PartnerA)
	require.NoError(t, p.pg[mirror.PartnerA].Kill())
	p.halt(mirror.PartnerB)
	b := p.start(mirror.PartnerB)
	hardened := b.queue.Hardened()
	p.await(mirror.PartnerB, "aware of what it has", func(st Status) bool {
		return st.Hardened == hardened && st.Redone == hardened.LSN
	})
	plan := b.PlanForce()
	require.Equal(t, ForcePlan{Token: plan.Token, Hardened: hardened, Follows: true, InSync: true}, plan)

	require.Eventually(t, func() bool { return b.ForceService(t.Context(), b.PlanForce().Token) == nil }, patience, 50*time.Millisecond)
	p.await(mirror.PartnerB, "serving", func(st Status) bool { return st.Serving && st.Gate == mirror.GateOpen })
	p.exec(mirror.PartnerB, "INSERT INTO ledger(id) VALUES (2)")
	require.NoError(t, p.pg[mirror.PartnerA].Restart(t.Context()))
	a := p.start(mirror.PartnerA)
	p.await(mirror.PartnerA, "the mirror of the new principal", func(st Status) bool {
		return st.Role == mirror.RoleMirror && st.State == mirror.StateSuspended && st.EndOfLog > 0
	})
	plan = a.PlanForce()
	require.Equal(t, ForcePlan{Token: plan.Token, Hardened: plan.Hardened}, plan)
}
