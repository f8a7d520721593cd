package partner

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/pglog"
)

// postgres is a backend that remembers where it leads to.
type postgres struct {
	backend.Backend
	pglog.Config
}

// between is the backend of a partner beside one database, which mirrors with another.
func between(t *testing.T, here, there string) backend.Backend {
	t.Helper()
	return postgres{}.with(t, here, there)
}

// with is the same, or leads elsewhere on this side or the other where that is not empty.
func (p postgres) with(t *testing.T, here, there string) backend.Backend {
	t.Helper()
	if here != "" {
		p.DSN = pglog.Secret(here)
	}
	if there != "" {
		p.PeerDSN = pglog.Secret(there)
	}
	var err error
	p.Backend, err = pglog.New(p.Config)
	require.NoError(t, err)
	return p
}

// dsns are where the backend leads to.
func (c *Config) dsns() (here, there string) {
	p := c.Backend.(postgres)
	return string(p.DSN), string(p.PeerDSN)
}

// redirect makes the backend lead elsewhere where that is not empty.
func (c *Config) redirect(t *testing.T, here, there string) {
	t.Helper()
	c.Backend = c.Backend.(postgres).with(t, here, there)
}
