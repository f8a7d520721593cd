package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/f19126b3/dbmirror/examples/internal/operator"
	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// story is one run of the tour. Partner-a is principal first.
type story struct {
	*stage
	rate int
	load *load

	automatic, manual time.Duration
	acknowledged      int
	lost, duplicated  int
}

// chapter is a step of the story.
type chapter struct {
	title string
	play  func(context.Context) error
}

// limit ends a step that does not come to its end. It leaves room for a slow disk: some steps wait for hundreds of commits.
const limit = 2 * time.Minute

func (s *story) chapters() []chapter {
	return []chapter{
		{"A table or two, some rows, two partners and a witness: the session is established", s.establish},
		{fmt.Sprintf("%d clients write %d transactions a second", clients, s.rate), s.startClients},
		{"kill -9: " + s.db.whole(), s.automaticFailover},
		{"What was killed is started again, and comes back as mirror", s.comeBack},
		{"The witness is stopped and started; nobody waits for it", s.restartWitness},
		{"Manual failover: the roles are changed back", s.manualFailover},
		{"The clients stop; both sides must hold what they were promised", s.settle},
		{"Everything is stopped in order", s.stopAll},
	}
}

// tour plays the story and cleans up behind it. The last line it prints is the result.
func tour(ctx context.Context, out *console, o options) (err error) {
	pace, err := operator.Profile(o.profile)
	if err != nil {
		return err
	}
	out.step("A mirrored session with the %s profile (%s)", o.profile, describe(pace))
	st, err := newStage(ctx, out, o)
	s := &story{stage: st, rate: o.rate}
	if err == nil {
		err = s.tell(ctx)
	}
	if err != nil && ctx.Err() == nil {
		out.say("%s", s.tails())
	}
	err = errors.Join(err, s.close())
	if s.load != nil { // a client that still waited for an answer has got one now: its server is gone
		err = errors.Join(err, s.load.stop(context.Background()))
	}
	if s.acknowledged == 0 {
		return err
	}
	out.say("\nacknowledged=%d lost=%d duplicated=%d automatic_failover=%.2f s manual_failover=%.2f s",
		s.acknowledged, s.lost, s.duplicated, s.automatic.Seconds(), s.manual.Seconds())
	return err
}

func (s *story) tell(ctx context.Context) error {
	for _, c := range s.chapters() {
		s.out.step("%s", c.title)
		limited, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not reached within %s", limit))
		err := c.play(limited)
		cancel()
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		if err != nil {
			return fmt.Errorf("step %q: %w", c.title, err)
		}
	}
	return nil
}

func (s *story) establish(ctx context.Context) error {
	if err := s.db.prepare(ctx); err != nil {
		return err
	}
	for p := mirror.PartnerA; p <= mirror.Witness; p++ {
		if err := s.Start(p); err != nil {
			return err
		}
	}
	return s.AwaitSynchronized(ctx, mirror.PartnerA)
}

func (s *story) startClients(ctx context.Context) error {
	var err error
	if s.load, err = startLoad(s.db, s.rate); err != nil {
		return err
	}
	if err := s.awaitCommits(ctx, 3*s.rate); err != nil {
		return err
	}
	return s.db.ask(ctx, mirror.PartnerA)
}

// automaticFailover kills the principal with everything around it, and measures how long nobody was served.
func (s *story) automaticFailover(ctx context.Context) error {
	s.load.acks.forget()
	killed, err := s.db.kill(ctx, mirror.PartnerA)
	if err != nil {
		return err
	}
	s.out.note("killed after %d acknowledged commits", s.load.acks.count.Load())
	served, err := s.awaitService(ctx, mirror.PartnerB)
	if err != nil {
		return err
	}
	s.automatic = served.Sub(killed)
	s.out.note("automatic failover: %.2f s from the kill to the first commit acknowledged by partner-b", s.automatic.Seconds())
	if err := s.db.ask(ctx, mirror.PartnerB); err != nil {
		return err
	}
	return s.awaitCommits(ctx, 2*s.rate)
}

func (s *story) comeBack(ctx context.Context) error {
	if err := s.db.restart(ctx, mirror.PartnerA); err != nil {
		return err
	}
	if err := s.AwaitSynchronized(ctx, mirror.PartnerB); err != nil {
		return err
	}
	lost, err := filepath.Glob(filepath.Join(s.Dir(mirror.PartnerA), "lost-transactions-*"))
	if err != nil {
		return err
	}
	for _, file := range lost {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		s.out.note("%s holds the %d transactions that partner-a had committed, never acknowledged and not shipped",
			filepath.Base(file), bytes.Count(text, []byte(`"kind":"begin"`)))
	}
	return s.awaitCommits(ctx, s.rate)
}

func (s *story) restartWitness(ctx context.Context) error {
	if err := s.Stop(mirror.Witness); err != nil {
		return err
	}
	if err := s.awaitQuorum(ctx, mirror.QuorumPartners); err != nil {
		return err
	}
	if err := s.awaitCommits(ctx, s.rate/2); err != nil {
		return err
	}
	s.out.note("commits go on without the witness; it is started again with what it had on disk")
	if err := s.Start(mirror.Witness); err != nil {
		return err
	}
	return s.awaitQuorum(ctx, mirror.QuorumFull)
}

func (s *story) manualFailover(ctx context.Context) error {
	if err := s.AwaitSynchronized(ctx, mirror.PartnerB); err != nil { // otherwise it is refused
		return err
	}
	s.load.acks.forget()
	if err := s.Page(mirror.PartnerB).Command(ctx, "/failover"); err != nil {
		return fmt.Errorf("command failover: %w", err)
	}
	served, err := s.awaitService(ctx, mirror.PartnerA)
	if err != nil {
		return err
	}
	s.manual = served.Sub(s.load.acks.last(mirror.PartnerB))
	s.out.note("manual failover: %.2f s from the last commit acknowledged by partner-b to the first by partner-a", s.manual.Seconds())
	if err := s.AwaitSynchronized(ctx, mirror.PartnerA); err != nil {
		return err
	}
	if err := s.db.ask(ctx, mirror.PartnerA); err != nil {
		return err
	}
	return s.awaitCommits(ctx, s.rate)
}

// settle lets the clients finish, waits until the mirror has redone everything, and holds both sides against the
// clients' notes and against each other.
func (s *story) settle(ctx context.Context) error {
	if err := s.load.stop(ctx); err != nil {
		return err
	}
	return errors.Join(s.awaitEqual(ctx), s.audit())
}

// awaitEqual waits for redo: from then on nothing changes any more, and what is equal stays so.
func (s *story) awaitEqual(ctx context.Context) error {
	var c backend.Comparison
	err := s.Await(ctx, func() (done bool, now string, err error) {
		if c, err = s.db.compare(ctx); err != nil {
			return false, "", err
		}
		return c.Equal(), c.String(), nil
	})
	if err != nil {
		return fmt.Errorf("the databases are not the same: %w", err)
	}
	s.out.note("compared: %s", c)
	return nil
}

// audit looks for every payment. It has its own time: what was lost is to be known also when the servers differ.
func (s *story) audit() error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	book := newLedger(s.load)
	result, err := book.check(ctx, s.db)
	if err != nil {
		return err
	}
	s.acknowledged, s.lost, s.duplicated = len(book.acknowledged), len(result.lost), len(result.duplicated)
	s.out.note("%d acknowledged payments: %d lost, %d duplicated; %d with unknown outcome, of which %d are there; %d tickets given, %d of them twice",
		s.acknowledged, s.lost, s.duplicated, len(book.unknown), result.decided, len(book.tickets), book.repeated)
	return book.verdict(result)
}

func (s *story) stopAll(context.Context) error {
	var all error
	for _, p := range []mirror.Server{mirror.PartnerB, mirror.PartnerA, mirror.Witness} {
		all = errors.Join(all, s.Stop(p))
	}
	return all
}
