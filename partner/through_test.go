package partner

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/pglog"
)

// nowhere leads to role and database of the other side's server, and to a place where no server is.
const nowhere = "postgres://postgres@192.0.2.1:1/app?sslmode=verify-full"

// through makes the two partners reach each other's server only through each other.
func (p *pair) through() {
	p.edit = func(c *Config) {
		here, _ := c.dsns()
		made, err := pglog.New(pglog.Config{DSN: pglog.Secret(here), PeerDSN: nowhere, ThroughPartner: true})
		require.NoError(p.t, err)
		c.Backend = made
	}
	p.order = func(o *orders) {
		if o.Self.IsPartner() {
			o.Peer, o.Through = nowhere, true
		}
	}
}

// TestPairThroughPartner: no partner reaches the other's server. Copy, log, roles and the way back all go by the
// connection between the two.
func TestPairThroughPartner(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.through()
	p.exec(mirror.PartnerA, "CREATE TABLE account(id bigserial PRIMARY KEY, owner text, amount int)")
	p.exec(mirror.PartnerA, "INSERT INTO account(owner, amount) SELECT 'o' || i, i FROM generate_series(1, 20000) i")
	p.startWitness()
	p.start(mirror.PartnerB)
	p.start(mirror.PartnerA)
	p.awaitSynchronized(mirror.PartnerA)
	p.exec(mirror.PartnerA, "UPDATE account SET amount = amount + 1 WHERE id < 1000")
	p.awaitEqual()

	require.NoError(t, p.partner[mirror.PartnerA].Failover(t.Context()))
	p.awaitSynchronized(mirror.PartnerB)
	p.exec(mirror.PartnerB, "INSERT INTO account(owner, amount) VALUES ('after', 1)")
	p.awaitEqual()
	require.Positive(t, p.partner[mirror.PartnerA].clients[mirror.PartnerB].Stats().StreamBytesReceived)

	// A program that is started again finds its way again; meanwhile nothing is lost.
	p.halt(mirror.PartnerA)
	p.exec(mirror.PartnerB, "DELETE FROM account WHERE id < 100")
	p.start(mirror.PartnerA)
	p.awaitSynchronized(mirror.PartnerB)
	p.awaitEqual()
}

// TestKillThroughPartner is TestKill where log goes from partner to partner. A principal's program that dies is then the
// loss of the principal: nothing acknowledged may be lost that way either.
func TestKillThroughPartner(t *testing.T) {
	p := newPair(t)
	p.through()
	p.killEach(1)
}
