package pglog

import (
	"context"
	"errors"
	"fmt"

	"github.com/f19126b3/dbmirror/partner/backend"
)

// Config says where the two databases are. Both are required.
type Config struct {
	// DSN leads to the database that is mirrored, on this side; PeerDSN to the one on the other side, as reachable from
	// here. Both roles must be superusers.
	DSN, PeerDSN Secret
	// ThroughPartner is for partners that do not reach each other's server, only each other. Everything, log included, goes
	// by the connection between the two partners, each of which connects the other one to its own server. Of PeerDSN only
	// role, password and database count; the role's way in is that of DSN: what pg_hba.conf says of connections from this
	// machine. Set it on both sides.
	ThroughPartner bool
}

// ErrConfig is wrapped by errors about a Config.
var ErrConfig = errors.New("invalid PostgreSQL configuration")

func (c Config) validate() error {
	for _, dsn := range []struct {
		name, side string
		value      Secret
	}{{"DSN", "this", c.DSN}, {"PeerDSN", "the other", c.PeerDSN}} {
		if dsn.value == "" {
			return fmt.Errorf("%s is empty: give the connection string of the database on %s side", dsn.name, dsn.side)
		}
		if err := dsn.value.CheckDSN(); err != nil {
			return fmt.Errorf("%s: %w", dsn.name, err)
		}
	}
	if c.ThroughPartner {
		if err := checkLending(c.DSN); err != nil {
			return fmt.Errorf("DSN: %w", err)
		}
		return nil
	}
	if c.DSN == c.PeerDSN {
		return errors.New("DSN and PeerDSN lead to the same database: DSN is for this side, PeerDSN for the other")
	}
	return nil
}

// Backend is a PostgreSQL database as partner.Config takes it.
type Backend struct{ cfg Config }

var _ backend.Backend = (*Backend)(nil)

// New makes a backend of a PostgreSQL database. It checks the configuration and connects to nothing.
func New(cfg Config) (*Backend, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return &Backend{cfg}, nil
}

// Open connects to the server of this side.
func (b *Backend) Open(ctx context.Context, env backend.Env) (backend.Database, error) {
	d := &database{cfg: b.cfg, env: env}
	if b.cfg.ThroughPartner {
		if err := d.openTunnel(); err != nil {
			return nil, err
		}
	}
	var err error
	if d.server, err = Dial(ctx, d.cfg.DSN, env.Short()); err != nil {
		d.closeTunnel()
		return nil, err
	}
	d.peer = &peer{dsn: d.cfg.PeerDSN, env: env}
	return d, nil
}

// Unreachable says what in the DSN, or at the server, has to change.
func (b *Backend) Unreachable(server string, err error) backend.Finding {
	return ConnectFinding(server, err)
}

// Settings are the names of the fields of Config.
func (b *Backend) Settings() (here, there string) { return "DSN", "PeerDSN" }
