package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/f19126b3/dbmirror/examples/internal/trio"
	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// synchronizing is how long a session may take to be SYNCHRONIZED, its first copy included.
const synchronizing = time.Minute

// pair is ours: two servers, two partners and a witness, each a process of its own.
type pair struct {
	*trio.Trio
	pg [3]*pgtest.Server // by mirror.Server
}

// newPair mirrors what is at principal to mirrored, and returns when the session is SYNCHRONIZED.
func (l *lab) newPair(ctx context.Context, d disk, profile string, principal, mirrored *pgtest.Server) (*pair, error) {
	return l.newPairOf(ctx, d, trio.Config{Profile: profile}, principal, mirrored)
}

// newPairOf is newPair with more to say of the session.
func (l *lab) newPairOf(ctx context.Context, d disk, cfg trio.Config, principal, mirrored *pgtest.Server) (*pair, error) {
	p := &pair{pg: [3]*pgtest.Server{mirror.PartnerA: principal, mirror.PartnerB: mirrored}}
	dir := filepath.Join(l.dir, fmt.Sprintf("session-%d", principal.Port()))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if cfg.Via, err = l.via(d); err != nil {
		return nil, err
	}
	cfg.Dir = dir
	cfg.DSN = [3]string{mirror.PartnerA: principal.DSN("app"), mirror.PartnerB: mirrored.DSN("app")}
	if p.Trio, err = trio.New(cfg); err != nil {
		return nil, err
	}
	l.atClose(p.Close)
	for s := mirror.PartnerA; s <= mirror.Witness; s++ {
		if err := p.Start(s); err != nil {
			return nil, err
		}
	}
	return p, p.synchronized(ctx, mirror.PartnerA)
}

// synchronized waits until the session is SYNCHRONIZED with that principal.
func (p *pair) synchronized(ctx context.Context, principal mirror.Server) error {
	ctx, cancel := context.WithTimeoutCause(ctx, synchronizing, fmt.Errorf("not SYNCHRONIZED within %s", synchronizing))
	defer cancel()
	if err := p.AwaitSynchronized(ctx, principal); err != nil {
		return errors.Join(err, errors.New(p.Tails()))
	}
	return nil
}

// off sets safety OFF and waits until commits go on alone.
func (p *pair) off(ctx context.Context) error {
	page := p.Page(mirror.PartnerA)
	if err := page.Command(ctx, "/safety?level=OFF"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, synchronizing)
	defer cancel()
	return p.Await(ctx, func() (bool, string, error) {
		names, err := text(ctx, p.pg[mirror.PartnerA], "SHOW synchronous_standby_names")
		return names == "", "waiting for " + names, err
	})
}
