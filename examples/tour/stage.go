package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/f19126b3/dbmirror/examples/internal/trio"
	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// stage is everything that the tour needs of this machine: two PostgreSQL servers, the processes of the session, and a
// directory for all of them. Its methods are called by one goroutine.
type stage struct {
	*trio.Trio
	out     *console
	dir     string
	install pgtest.Install
	pg      [3]*pgtest.Server // by mirror.Server
}

// newStage finds PostgreSQL, makes two servers, and writes what the processes need. Close must be called also when it
// returns an error.
func newStage(ctx context.Context, out *console, profile string) (*stage, error) {
	s := &stage{out: out}
	var err error
	if s.install, err = pgtest.Find(ctx, out); err != nil {
		return s, err
	}
	if s.dir, err = os.MkdirTemp("", "dbmirror-tour-"); err != nil {
		return s, fmt.Errorf("make directory: %w", err)
	}
	if err := s.startServers(ctx); err != nil {
		return s, err
	}
	out.note("PostgreSQL %d from %s: partner-a's server on port %d, partner-b's on port %d", s.install.Version, s.install.Bin,
		s.pg[mirror.PartnerA].Port(), s.pg[mirror.PartnerB].Port())
	cfg := trio.Config{Dir: s.dir, Profile: profile, Heard: s.heard}
	for p := mirror.PartnerA; p <= mirror.PartnerB; p++ {
		cfg.DSN[p] = s.pg[p].DSN("app")
	}
	s.Trio, err = trio.New(cfg)
	return s, err
}

func (s *stage) startServers(ctx context.Context) error {
	var starting sync.WaitGroup
	var errs [3]error
	for p := mirror.PartnerA; p <= mirror.PartnerB; p++ {
		starting.Go(func() {
			s.pg[p], errs[p] = pgtest.Start(ctx, s.install, pgtest.Config{Dir: filepath.Join(s.dir, "postgresql-"+p.String())})
		})
	}
	starting.Wait()
	return errors.Join(errs[:]...)
}

// tails returns the ends of all logs.
func (s *stage) tails() string {
	if s.Trio == nil {
		return "" // a server that does not start says why in its error
	}
	text := s.Tails()
	for p := mirror.PartnerA; p <= mirror.PartnerB; p++ {
		text += trio.Tail("the PostgreSQL server of "+p.String(), s.pg[p].LogFile())
	}
	return text
}

// close ends every process and removes every file.
func (s *stage) close() error {
	var all error
	if s.Trio != nil {
		all = s.Close()
	}
	for _, server := range s.pg {
		if server != nil {
			all = errors.Join(all, server.Remove())
		}
	}
	if s.dir == "" {
		return all
	}
	return errors.Join(all, os.RemoveAll(s.dir))
}
