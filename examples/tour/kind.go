package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/f19126b3/dbmirror/examples/internal/trio"
	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// kind is what differs between the kinds of database that the tour is played with. One goroutine calls its methods.
type kind interface {
	// start starts what there has to be beside the processes of the session, and adds what these need to know.
	start(ctx context.Context, cfg *trio.Config) error
	// prepare makes what the clients have before mirroring begins.
	prepare(ctx context.Context) error
	// payer makes the connection of a new client.
	payer(client int) (payer, error)

	// whole is the principal with everything that is lost with it, in words; kill ends it like a power cut.
	whole() string
	kill(ctx context.Context, p mirror.Server) (at time.Time, err error)
	restart(ctx context.Context, p mirror.Server) error
	// ask shows how others than the clients find who serves.
	ask(ctx context.Context, principal mirror.Server) error

	compare(ctx context.Context) (backend.Comparison, error)
	// payments reads what one partner holds, and tells whether the balances are the sum of the payments.
	payments(ctx context.Context, p mirror.Server) (there map[payment]found, balanced bool, err error)

	// tails returns the ends of the logs of what start has started; close ends it.
	tails() string
	close() error
}

// choose makes the kind of database that is wanted by name: by default PostgreSQL where look finds its server programs,
// else SQLite. It says which.
func choose(ctx context.Context, s *stage, name string, look func(context.Context) (pgtest.Install, error)) (kind, error) {
	var install pgtest.Install
	var err error
	switch name {
	case "sqlite":
		s.out.note("backend: SQLite, embedded in the partners' processes")
		return &embedded{stage: s}, nil
	case "postgres":
		install, err = pgtest.Find(ctx, s.out)
	default:
		install, err = look(ctx)
		if errors.Is(err, pgtest.ErrNotFound) {
			s.out.note("backend: SQLite, embedded in the partners' processes: no server programs of PostgreSQL are found here")
			return &embedded{stage: s}, nil
		}
	}
	if err != nil {
		return nil, err
	}
	s.out.note("backend: PostgreSQL %d from %s; -backend sqlite takes an embedded database", install.Version, install.Bin)
	return &postgres{stage: s, install: install}, nil
}

// checkBackend refuses names of backends that there are not.
func checkBackend(name string) error {
	switch name {
	case "", "postgres", "sqlite":
		return nil
	}
	return fmt.Errorf("-backend %s: want postgres or sqlite, or leave it out", name)
}
