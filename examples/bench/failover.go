package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/mirror"
)

// eitherDSN is a connection string with two servers, of which the one that can be written to is wanted.
func eitherDSN(a, b int, user string) string {
	return fmt.Sprintf("postgres://%s@127.0.0.1:%d,127.0.0.1:%d/app?sslmode=disable&connect_timeout=2&target_session_attrs=read-write", user, a, b)
}

// prober inserts a row every few milliseconds, on a new connection each time the last one failed.
type prober struct {
	dsn  string
	acks []time.Time
	stop context.CancelFunc
	done chan struct{}
	mu   sync.Mutex
}

// probeEvery is the pause between two inserts of a prober.
const probeEvery = 5 * time.Millisecond

func startProber(dsn string) *prober {
	ctx, stop := context.WithCancel(context.Background())
	p := &prober{dsn: dsn, stop: stop, done: make(chan struct{})}
	go p.run(ctx)
	return p
}

func (p *prober) run(ctx context.Context) {
	defer close(p.done)
	var conn *pgx.Conn
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		conn = p.probe(ctx, conn)
		select {
		case <-tick.C:
		case <-ctx.Done():
			if conn != nil {
				conn.Close(context.Background())
			}
			return
		}
	}
}

// probe tries one insert and returns the connection if it is of use still.
func (p *prober) probe(ctx context.Context, conn *pgx.Conn) *pgx.Conn {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var err error
	if conn == nil {
		if conn, err = pgx.Connect(ctx, p.dsn); err != nil {
			return nil
		}
	}
	if _, err = conn.Exec(ctx, "INSERT INTO probe VALUES (DEFAULT)"); err != nil {
		conn.Close(ctx)
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.acks = append(p.acks, time.Now())
	return conn
}

// after is when the first commit after t was acknowledged; zero if none was yet.
func (p *prober) after(t time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, at := range p.acks {
		if at.After(t) {
			return at
		}
	}
	return time.Time{}
}

// outage is the longest time between two acknowledged commits.
func (p *prober) outage() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	longest := time.Duration(0)
	for i := 1; i < len(p.acks); i++ {
		longest = max(longest, p.acks[i].Sub(p.acks[i-1]))
	}
	return longest
}

func (p *prober) end() {
	p.stop()
	<-p.done
}

// failover measures how long nobody acknowledges a commit after a server and everything beside it was killed, with the
// fast profile, beside pg_auto_failover at its fastest sane settings, where that is installed.
func failover(ctx context.Context, l *lab) ([]row, error) {
	return l.failover(ctx, "failover, fast profile", "fast", l.rounds, []goal{atMostOf(4, "s"), atMost(0.5)}, fastestSane())
}

// failoverDefaults measures the same once, for it takes pg_auto_failover a minute, at the defaults of both.
func failoverDefaults(ctx context.Context, l *lab) ([]row, error) {
	return l.failover(ctx, "failover, defaults", "default", 1, []goal{atMostOf(13, "s"), {}}, autoFailoverSettings{name: "defaults"})
}

// failover makes a row of ours alone and one beside the peer; each has its goal.
func (l *lab) failover(ctx context.Context, name, profile string, rounds int, goals []goal, set autoFailoverSettings) ([]row, error) {
	ours, err := l.killed(ctx, profile, rounds)
	if err != nil {
		return nil, err
	}
	rows := []row{alone(name, "s", ours, goals[0])}
	peer, err := l.autoFailover(ctx, set, rounds)
	switch {
	case errors.Is(err, errNotInstalled):
		fmt.Fprintln(l.progress, "pg_auto_failover is not installed and not measured: "+err.Error())
		return rows, nil
	case err != nil:
		return rows, fmt.Errorf("pg_auto_failover: %w", err)
	}
	return append(rows, beside(name, "s", ours, "pg_auto_failover, "+set.name, peer, goals[1])), nil
}

const probeTable = "CREATE TABLE probe (id bigserial PRIMARY KEY)"

// clientRole is who probes: an ordinary user, whom a closed database keeps out.
const clientRole = "CREATE ROLE client LOGIN; GRANT ALL ON SCHEMA public TO client"

// probed is a pair that somebody writes to.
func (l *lab) probed(ctx context.Context, profile string) (*pair, *prober, error) {
	s, err := l.start(ctx, ordinaryDisk, "a-"+profile, "b-"+profile)
	if err != nil {
		return nil, nil, err
	}
	for _, server := range s {
		if err := execute(ctx, server, clientRole); err != nil {
			return nil, nil, err
		}
	}
	if err := execute(ctx, s[0], "SET ROLE client", probeTable, insTable); err != nil {
		return nil, nil, err
	}
	p, err := l.newPair(ctx, ordinaryDisk, profile, s[0], s[1])
	if err != nil {
		return nil, nil, err
	}
	return p, startProber(eitherDSN(s[0].Port(), s[1].Port(), "client")), nil
}

// killed kills the principal's server and program in each round, and returns the seconds until the other serves.
func (l *lab) killed(ctx context.Context, profile string, rounds int) ([]float64, error) {
	p, probe, err := l.probed(ctx, profile)
	if err != nil {
		return nil, err
	}
	defer probe.end()
	var took []float64
	principal := mirror.PartnerA
	for i := range rounds {
		seconds, err := p.killOnce(ctx, probe, principal, i < rounds-1)
		if err != nil {
			return nil, errors.Join(err, errors.New(p.Tails()))
		}
		took = append(took, seconds)
		principal = principal.Other()
	}
	return took, nil
}

// killOnce returns the seconds without an acknowledged commit. With again it returns when both are there for the next
// kill.
func (p *pair) killOnce(ctx context.Context, probe *prober, principal mirror.Server, again bool) (float64, error) {
	if err := awaitAck(ctx, probe, time.Now()); err != nil {
		return 0, err
	}
	killed := time.Now()
	var both sync.WaitGroup
	var program, server error
	both.Go(func() { program = p.Kill(principal) })
	both.Go(func() { server = p.pg[principal].Kill() })
	both.Wait()
	if err := errors.Join(program, server); err != nil {
		return 0, err
	}
	gone := time.Now()
	if err := awaitAck(ctx, probe, gone); err != nil {
		return 0, err
	}
	took := probe.after(gone).Sub(killed).Seconds()
	if !again {
		return took, nil
	}
	if err := p.pg[principal].Restart(ctx); err != nil {
		return 0, err
	}
	if err := p.Start(principal); err != nil {
		return 0, err
	}
	return took, p.synchronized(ctx, principal.Other())
}

// manualTimes is how often the roles are changed by command in each round.
const manualTimes = 5

// manual measures how long writes stop when the roles are changed by command, while clients commit 1,000 times a second.
func manual(ctx context.Context, l *lab) ([]row, error) {
	p, first, err := l.probed(ctx, "default")
	if err != nil {
		return nil, err
	}
	first.end()
	dsn := eitherDSN(p.pg[mirror.PartnerA].Port(), p.pg[mirror.PartnerB].Port(), "client")
	var outages []float64
	principal := mirror.PartnerA
	for range l.rounds * manualTimes {
		outage, err := l.changeRoles(ctx, p, principal, dsn)
		if err != nil {
			return nil, errors.Join(err, errors.New(p.Tails()))
		}
		outages = append(outages, outage.Seconds())
		principal = principal.Other()
	}
	r := alone("manual failover, write outage", "s", outages, atMostOf(1, "s"))
	r.Name += " (worst of " + fmt.Sprint(len(outages)) + ")"
	r.Ours = slices.Max(outages)
	return []row{r}, nil
}

func (l *lab) changeRoles(ctx context.Context, p *pair, principal mirror.Server, dsn string) (time.Duration, error) {
	probe := startProber(dsn)
	defer probe.end()
	if err := awaitAck(ctx, probe, time.Now()); err != nil {
		return 0, err
	}
	loading, stop := context.WithCancel(ctx)
	loaded := make(chan struct{})
	go func() {
		defer close(loaded)
		// Its connections end when the database closes, and so does it: what counts is that it works until then.
		_, _ = l.pgbench(loading, p.pg[principal], load{script: insert, clients: 8, lasts: time.Minute, rate: 1000})
	}()
	defer func() { stop(); <-loaded }()
	begun := time.Now()
	for range 200 { // a second of load
		if err := awaitAck(ctx, probe, begun); err != nil {
			return 0, err
		}
		begun = probe.after(begun)
	}
	if err := p.Page(principal).Command(ctx, "/failover"); err != nil {
		return 0, err
	}
	if err := p.synchronized(ctx, principal.Other()); err != nil {
		return 0, err
	}
	if err := awaitAck(ctx, probe, time.Now()); err != nil {
		return 0, err
	}
	return probe.outage(), nil
}
