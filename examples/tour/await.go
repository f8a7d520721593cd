package main

import (
	"context"
	"fmt"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
)

// await asks look every 20 ms until it says done or fails. When ctx ends first, the error tells what was there last.
func (s *story) await(ctx context.Context, look func() (done bool, now string, err error)) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		done, now, err := look()
		if done || err != nil {
			return err
		}
		if err := s.crashed(); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w; now: %s", context.Cause(ctx), now)
		}
	}
}

// awaitReport waits until a partner reports what is wanted.
func (s *story) awaitReport(ctx context.Context, p mirror.Server, ok func(report) bool) error {
	return s.await(ctx, func() (bool, string, error) {
		r, err := s.page[p].status(ctx)
		if err != nil {
			return false, fmt.Sprintf("%s does not answer: %v", p, err), nil
		}
		return ok(r), fmt.Sprintf("%s is %s", p, r), nil
	})
}

// awaitSynchronized waits until the principal serves and both show SYNCHRONIZED.
func (s *story) awaitSynchronized(ctx context.Context, principal mirror.Server) error {
	err := s.awaitReport(ctx, principal, func(r report) bool {
		return r.Role == mirror.RolePrincipal.String() && r.State == mirror.StateSynchronized.String() && r.Serving && r.Gate == mirror.GateOpen.String()
	})
	if err != nil {
		return err
	}
	return s.awaitReport(ctx, principal.Other(), func(r report) bool {
		return r.Role == mirror.RoleMirror.String() && r.State == mirror.StateSynchronized.String() && r.Gate == mirror.GateReadOnly.String()
	})
}

func (s *story) awaitQuorum(ctx context.Context, q mirror.Quorum) error {
	for p := mirror.PartnerA; p <= mirror.PartnerB; p++ {
		if err := s.awaitReport(ctx, p, func(r report) bool { return r.Quorum == q.String() }); err != nil {
			return err
		}
	}
	return nil
}

// awaitCommits waits until the clients have got that many acknowledgements more.
func (s *story) awaitCommits(ctx context.Context, more int) error {
	from := s.load.acks.count.Load()
	return s.await(ctx, func() (bool, string, error) {
		got := s.load.acks.count.Load() - from
		return got >= int64(more), fmt.Sprintf("%d of %d commits acknowledged", got, more), nil
	})
}

// awaitService waits until a server has acknowledged a commit since the last forget.
func (s *story) awaitService(ctx context.Context, p mirror.Server) (time.Time, error) {
	var at time.Time
	err := s.await(ctx, func() (bool, string, error) {
		at = s.load.acks.first(s.pg[p].Port())
		return !at.IsZero(), fmt.Sprintf("no commit acknowledged by %s", p), nil
	})
	return at, err
}

// describe is a profile in words.
func describe(t host.Timing) string {
	if t == (host.Timing{}) {
		return "a server that is silent for 10 s is given up"
	}
	return fmt.Sprintf("a server that is silent for %s is given up", t.Timeout)
}
