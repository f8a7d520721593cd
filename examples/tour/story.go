package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/examples/internal/operator"
	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/pglog"
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

// chapter is a step of the story that must be done within a limit.
type chapter struct {
	title string
	limit time.Duration
	play  func(context.Context) error
}

func (s *story) chapters() []chapter {
	return []chapter{
		{"A table or two, some rows, two partners and a witness: the session is established", 40 * time.Second, s.establish},
		{fmt.Sprintf("%d clients write %d transactions a second", clients, s.rate), 20 * time.Second, s.startClients},
		{"kill -9: the principal's server and its partner", 40 * time.Second, s.automaticFailover},
		{"What was killed is started again, and comes back as mirror", 40 * time.Second, s.comeBack},
		{"The witness is stopped and started; nobody waits for it", 30 * time.Second, s.restartWitness},
		{"Manual failover: the roles are changed back", 30 * time.Second, s.manualFailover},
		{"The clients stop; both servers must hold what they were promised", 40 * time.Second, s.settle},
		{"Everything is stopped in order", 20 * time.Second, s.stopAll},
	}
}

// tour plays the story and cleans up behind it. The last line it prints is the result.
func tour(ctx context.Context, out *console, profile string, rate int) (err error) {
	pace, err := operator.Profile(profile)
	if err != nil {
		return err
	}
	out.step("A mirrored session with the %s profile (%s)", profile, describe(pace))
	st, err := newStage(ctx, out, profile)
	s := &story{stage: st, rate: rate}
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
		limited, cancel := context.WithTimeoutCause(ctx, c.limit, fmt.Errorf("not reached within %s", c.limit))
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
	if err := s.prepare(ctx); err != nil {
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
	if s.load, err = startLoad(s.dsn(), s.rate); err != nil {
		return err
	}
	if err := s.awaitCommits(ctx, 3*s.rate); err != nil {
		return err
	}
	return s.askPsql(ctx, mirror.PartnerA)
}

// automaticFailover kills the principal with everything around it, and measures how long nobody was served.
func (s *story) automaticFailover(ctx context.Context) error {
	s.load.acks.forget()
	killed := time.Now()
	if err := s.killBoth(mirror.PartnerA); err != nil {
		return err
	}
	s.out.note("killed after %d acknowledged commits", s.load.acks.count.Load())
	served, err := s.awaitService(ctx, mirror.PartnerB)
	if err != nil {
		return err
	}
	s.automatic = served.Sub(killed)
	s.out.note("automatic failover: %.2f s from the kill to the first commit acknowledged by partner-b", s.automatic.Seconds())
	if err := s.askPsql(ctx, mirror.PartnerB); err != nil {
		return err
	}
	return s.awaitCommits(ctx, 2*s.rate)
}

func (s *story) killBoth(p mirror.Server) error {
	var both sync.WaitGroup
	var program, server error
	both.Go(func() { program = s.Kill(p) })
	both.Go(func() { server = s.pg[p].Kill() })
	both.Wait()
	return errors.Join(program, server)
}

func (s *story) comeBack(ctx context.Context) error {
	if err := s.pg[mirror.PartnerA].Restart(ctx); err != nil {
		return err
	}
	if err := s.Start(mirror.PartnerA); err != nil {
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
		s.out.note("%d transactions that partner-a had committed, never acknowledged and not shipped are saved in %s",
			bytes.Count(text, []byte(`"kind":"begin"`)), filepath.Base(file))
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
	s.load.acks.forget()
	if err := s.Page(mirror.PartnerB).Command(ctx, "/failover"); err != nil {
		return fmt.Errorf("command failover: %w", err)
	}
	served, err := s.awaitService(ctx, mirror.PartnerA)
	if err != nil {
		return err
	}
	s.manual = served.Sub(s.load.acks.last(s.pg[mirror.PartnerB].Port()))
	s.out.note("manual failover: %.2f s from the last commit acknowledged by partner-b to the first by partner-a", s.manual.Seconds())
	if err := s.AwaitSynchronized(ctx, mirror.PartnerA); err != nil {
		return err
	}
	if err := s.askPsql(ctx, mirror.PartnerA); err != nil {
		return err
	}
	return s.awaitCommits(ctx, s.rate)
}

// settle lets the clients finish, waits until the mirror has redone everything, and holds both servers against the
// clients' notes and against each other.
func (s *story) settle(ctx context.Context) error {
	if err := s.load.stop(ctx); err != nil {
		return err
	}
	return s.asSuperuser(ctx, mirror.PartnerA, func(a *pgx.Conn) error {
		return s.asSuperuser(ctx, mirror.PartnerB, func(b *pgx.Conn) error {
			different := s.awaitEqual(ctx, a, b)
			return errors.Join(different, s.audit(a, b))
		})
	})
}

// awaitEqual waits for redo: from then on nothing changes any more, and what is equal stays so.
func (s *story) awaitEqual(ctx context.Context, a, b *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var c backend.Comparison
	err := s.Await(ctx, func() (done bool, now string, err error) {
		if c, err = pglog.Compare(ctx, a, b); err != nil {
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
func (s *story) audit(a, b *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	book := newLedger(s.load)
	result, err := book.check(ctx, map[string]*pgx.Conn{mirror.PartnerA.String(): a, mirror.PartnerB.String(): b})
	if err != nil {
		return err
	}
	s.acknowledged, s.lost, s.duplicated = len(book.acknowledged), len(result.lost), len(result.duplicated)
	s.out.note("%d acknowledged payments: %d lost, %d duplicated; %d with unknown outcome, of which %d are there; %d values of the sequence, %d repeated",
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

// dsn is all that the clients know: both servers, and that they want the one where they can write.
func (s *story) dsn() string {
	port := func(p mirror.Server) string { return strconv.Itoa(s.pg[p].Port()) }
	dsn := url.URL{Scheme: "postgres", User: url.User("clients"), Path: "/app",
		Host:     "127.0.0.1:" + port(mirror.PartnerA) + ",127.0.0.1:" + port(mirror.PartnerB),
		RawQuery: "target_session_attrs=read-write&connect_timeout=2&sslmode=disable&application_name=tour"}
	return dsn.String()
}

// askPsql lets libpq look for the principal with the same DSN.
func (s *story) askPsql(ctx context.Context, principal mirror.Server) error {
	port, err := s.install.Psql(ctx, s.dsn(), "SELECT inet_server_port()")
	if err != nil {
		return err
	}
	if want := strconv.Itoa(s.pg[principal].Port()); port != want {
		return fmt.Errorf("psql with %s finds the server on port %s, want that of %s on port %s", s.dsn(), port, principal, want)
	}
	s.out.note("psql with both servers in its DSN finds %s", principal)
	return nil
}
