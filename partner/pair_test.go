package partner

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
	"github.com/f19126b3/dbmirror/mirror/host/loopback"
	"github.com/f19126b3/dbmirror/partner/pglog"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// pair is a whole session on this machine: two PostgreSQL servers, a partner beside each, and a witness.
type pair struct {
	t       *testing.T
	session string
	dir     string
	addr    [4]string
	control [4]string // of the processes
	pg      [3]*pgtest.Server
	timing  host.Timing
	edit    func(*Config)
	order   func(*orders) // edit, for processes
	// witnessSees are addresses at which the witness reaches the partners, where they are not their own.
	witnessSees [4]string

	mu      sync.Mutex
	partner [3]*Partner
	stop    [4]func()
	process [4]*process
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{t: t, session: "0123456789abcdef0123456789abcdef", dir: t.TempDir(), timing: host.Fast()}
	for s := mirror.PartnerA; s <= mirror.Witness; s++ {
		p.addr[s], p.control[s] = loopback.Addr(t), loopback.Addr(t)
	}
	var servers sync.WaitGroup
	for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
		servers.Go(func() { p.pg[s] = pgtest.New(t, nil) })
	}
	servers.Wait()
	t.Cleanup(p.close)
	return p
}

func (p *pair) close() {
	for s := mirror.PartnerA; s <= mirror.Witness; s++ {
		p.halt(s)
		p.kill(s)
	}
	p.tail()
}

// log shows what the servers say when the test is verbose.
func (p *pair) log() *slog.Logger {
	if testing.Verbose() {
		return testLogger(os.Stderr)
	}
	return testLogger(io.Discard)
}

func testLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func (p *pair) config(s mirror.Server) Config {
	cfg := Config{
		Session: p.session, Self: s, Dir: filepath.Join(p.dir, s.String()),
		Backend: between(p.t, p.pg[s].DSN("app"), p.pg[s.Other()].DSN("app")),
		Listen:  p.addr[s], Peer: p.addr[s.Other()], Witness: p.addr[mirror.Witness],
		Credentials: endpoint.Credentials{Plaintext: true}, Establish: s == mirror.PartnerA,
		Timing: p.timing, Logger: p.log(),
	}
	if p.edit != nil {
		p.edit(&cfg)
	}
	return cfg
}

// start runs a partner until halt.
func (p *pair) start(s mirror.Server) *Partner {
	p.t.Helper()
	made, err := New(p.config(s))
	require.NoError(p.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- made.Run(ctx) }()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.partner[s] = made
	p.stop[s] = func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Errorf("%s: %v", s, err)
		}
	}
	return made
}

func (p *pair) startWitness() {
	p.t.Helper()
	addr := p.addr
	for s, other := range p.witnessSees {
		if other != "" {
			addr[s] = other
		}
	}
	w, err := newWitness(p.session, filepath.Join(p.dir, "witness"), addr, p.timing)
	require.NoError(p.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.run(ctx) }()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stop[mirror.Witness] = func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Errorf("witness: %v", err)
		}
	}
}

// halt stops a server's program in order.
func (p *pair) halt(s mirror.Server) {
	p.mu.Lock()
	stop := p.stop[s]
	p.stop[s] = nil
	p.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// patience is how long a test waits for what must happen. It only ends one that hangs: nothing takes so long, even on a
// machine that does other work.
const patience = 90 * time.Second

// await waits until a partner's status is as wanted.
func (p *pair) await(s mirror.Server, what string, ok func(Status) bool) Status {
	p.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		st := p.partner[s].Status()
		if ok(st) {
			return st
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			p.t.Fatalf("%s is not %s after %s: %s %s (%s) trouble=%q duty={%s} findings=%v", s, what, patience, st.Role, st.State, st.Reason, st.Trouble, st.Duty, st.Findings)
		}
	}
}

func (p *pair) awaitSynchronized(principal mirror.Server) {
	p.t.Helper()
	p.await(principal, "the serving principal, SYNCHRONIZED", func(st Status) bool {
		return st.Role == mirror.RolePrincipal && st.State == mirror.StateSynchronized && st.Serving && st.Gate == mirror.GateOpen
	})
	p.await(principal.Other(), "the mirror, SYNCHRONIZED", func(st Status) bool {
		return st.Role == mirror.RoleMirror && st.State == mirror.StateSynchronized && st.Gate == mirror.GateReadOnly
	})
}

// exec runs SQL on a server's database as a client.
func (p *pair) exec(s mirror.Server, sql string, args ...any) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.pg[s].DSN("app"))
	require.NoError(p.t, err)
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql, args...)
	require.NoError(p.t, err, sql)
}

// awaitEqual waits until redo has caught up and both databases hold the same.
func (p *pair) awaitEqual() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	different := "they were never compared"
	for {
		found := p.compare(ctx)
		if found == "" {
			return
		}
		if ctx.Err() == nil { // or it says only that there was no time to look
			different = found
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			p.t.Fatalf("the databases differ: %s", different)
		}
	}
}

func (p *pair) compare(ctx context.Context) string {
	a, err := pgx.Connect(ctx, p.pg[mirror.PartnerA].DSN("app"))
	if err != nil {
		return err.Error()
	}
	defer a.Close(ctx)
	b, err := pgx.Connect(ctx, p.pg[mirror.PartnerB].DSN("app"))
	if err != nil {
		return err.Error()
	}
	defer b.Close(ctx)
	c, err := pglog.Compare(ctx, a, b)
	if err != nil {
		return err.Error()
	}
	if !c.Equal() {
		return c.String()
	}
	return ""
}

func TestPair(t *testing.T) {
	p := newPair(t)
	p.exec(mirror.PartnerA, "CREATE TABLE account(id bigserial PRIMARY KEY, owner text, amount int)")
	p.exec(mirror.PartnerA, "INSERT INTO account(owner, amount) SELECT 'o' || i, i FROM generate_series(1, 1000) i")
	p.startWitness()
	p.start(mirror.PartnerB)
	p.start(mirror.PartnerA)
	p.awaitSynchronized(mirror.PartnerA)
	p.exec(mirror.PartnerA, "UPDATE account SET amount = amount + 1 WHERE id < 100")
	p.awaitEqual()

	p.await(mirror.PartnerA, "keeping log", func(st Status) bool { return st.Retained > 0 })
	require.NoError(t, p.partner[mirror.PartnerA].Failover(t.Context()))
	p.awaitSynchronized(mirror.PartnerB)
	require.Zero(t, p.partner[mirror.PartnerA].Status().Retained, "a mirror keeps no log")
	p.exec(mirror.PartnerB, "INSERT INTO account(owner, amount) VALUES ('after', 1)")
	p.awaitEqual()

	require.NoError(t, p.partner[mirror.PartnerA].Failover(t.Context()), "a mirror passes the wish on")
	p.awaitSynchronized(mirror.PartnerA)
	p.exec(mirror.PartnerA, "DELETE FROM account WHERE id < 10")
	p.awaitEqual()
	for side := mirror.PartnerA; side <= mirror.PartnerB; side++ {
		for _, line := range p.partner[side].Journal() {
			require.NotEqual(t, mirror.ReasonWaitLost, line.Entry.Reason, "nobody touched the setting: %s", line.Entry)
		}
	}
}
