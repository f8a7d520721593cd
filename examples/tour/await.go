package main

import (
	"context"
	"fmt"
	"time"

	"github.com/f19126b3/dbmirror/examples/internal/trio"
	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
)

func (s *story) awaitQuorum(ctx context.Context, q mirror.Quorum) error {
	for p := mirror.PartnerA; p <= mirror.PartnerB; p++ {
		if err := s.AwaitReport(ctx, p, func(r trio.Report) bool { return r.Quorum == q.String() }); err != nil {
			return err
		}
	}
	return nil
}

// awaitCommits waits until the clients have got that many acknowledgements more.
func (s *story) awaitCommits(ctx context.Context, more int) error {
	from := s.load.acks.count.Load()
	return s.Await(ctx, func() (bool, string, error) {
		got := s.load.acks.count.Load() - from
		return got >= int64(more), fmt.Sprintf("%d of %d commits acknowledged", got, more), nil
	})
}

// awaitService waits until a server has acknowledged a commit since the last forget.
func (s *story) awaitService(ctx context.Context, p mirror.Server) (time.Time, error) {
	var at time.Time
	err := s.Await(ctx, func() (bool, string, error) {
		at = s.load.acks.first(p)
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
