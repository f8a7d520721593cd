package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
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

// awaitAck waits until a commit was acknowledged after a moment.
func awaitAck(ctx context.Context, probe *prober, since time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for probe.after(since).IsZero() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("no commit was acknowledged within %s", patience)
		}
	}
	return nil
}

// without returns the seconds for which nobody acknowledges a commit when kill is called. Somebody serves when it is.
func without(ctx context.Context, dsn string, kill func() error) (float64, error) {
	probe := startProber(dsn)
	defer probe.end()
	if err := awaitAck(ctx, probe, time.Now()); err != nil {
		return 0, err
	}
	killed := time.Now()
	if err := kill(); err != nil {
		return 0, err
	}
	gone := time.Now()
	if err := awaitAck(ctx, probe, gone); err != nil {
		return 0, err
	}
	return probe.after(gone).Sub(killed).Seconds(), nil
}
