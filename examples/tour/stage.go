package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/f19126b3/dbmirror/examples/internal/trio"
	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// stage is everything that the tour needs of this machine: the processes of the session, what its kind of database
// needs, and a directory for all of them. Its methods are called by one goroutine.
type stage struct {
	*trio.Trio
	out *console
	dir string
	db  kind
}

// newStage chooses the database, starts what it needs, and writes what the processes need. Close must be called also when
// it returns an error.
func newStage(ctx context.Context, out *console, o options) (*stage, error) {
	s := &stage{out: out}
	var err error
	if s.db, err = choose(ctx, s, o.backend, pgtest.Look); err != nil {
		return s, err
	}
	if s.dir, err = os.MkdirTemp("", "dbmirror-tour-"); err != nil {
		return s, fmt.Errorf("make directory: %w", err)
	}
	cfg := trio.Config{Dir: s.dir, Profile: o.profile, Heard: s.heard}
	if err := s.db.start(ctx, &cfg); err != nil {
		return s, err
	}
	if s.Trio, err = trio.New(cfg); err != nil {
		return s, err
	}
	for p := mirror.PartnerA; p <= mirror.PartnerB; p++ {
		out.note("look at %s while it runs: http://%s/status, /explain, /journal, /metrics", p, s.Page(p))
	}
	return s, nil
}

// tails returns the ends of all logs.
func (s *stage) tails() string {
	if s.Trio == nil {
		return "" // a server that does not start says why in its error
	}
	return s.Tails() + s.db.tails()
}

// close ends every process and removes every file.
func (s *stage) close() error {
	var all error
	if s.Trio != nil {
		all = s.Close()
	}
	if s.db != nil {
		all = errors.Join(all, s.db.close())
	}
	if s.dir == "" {
		return all
	}
	return errors.Join(all, os.RemoveAll(s.dir))
}
