package partner

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/f19126b3/dbmirror/mirror"
)

// What the clients of chaos work on. Everything belongs to an ordinary role, whom a closed database refuses.
const chaosTables = `
	CREATE TABLE ledger(seq bigserial PRIMARY KEY, id bigint NOT NULL);
	CREATE TABLE register(key int PRIMARY KEY, value bigint NOT NULL, looks bigint NOT NULL);
	CREATE TABLE bank(account int PRIMARY KEY, balance bigint NOT NULL);
	CREATE TABLE beat(one int PRIMARY KEY, n bigint NOT NULL);
	CREATE SEQUENCE ticket;
	INSERT INTO register SELECT k, 0, 0 FROM generate_series(0, 5) k;
	INSERT INTO bank SELECT a, 1000 FROM generate_series(0, 7) a;
	INSERT INTO beat VALUES (1, 0);
	ALTER TABLE ledger OWNER TO client; ALTER TABLE register OWNER TO client; ALTER TABLE bank OWNER TO client;
	ALTER TABLE beat OWNER TO client; ALTER SEQUENCE ticket OWNER TO client`

const (
	registers = 6
	accounts  = 8
	wealth    = accounts * 1000
)

// work is all that clients do in one run.
type work struct {
	c       *chaos
	ledger  *ledger
	start   time.Time
	ctx     context.Context
	cancel  context.CancelFunc
	stop    chan struct{}
	clients sync.WaitGroup

	mu       sync.Mutex
	written  int64 // values of registers: each is written once
	ops      []operation
	beats    []beat // rising, as acknowledged
	readings []reading
	tickets  []int64
	done     map[string]int // operations with an outcome, by workload
}

// beat is a number that was acknowledged to be there.
type beat struct {
	n  int64
	at time.Time
}

// reading is what a reader found at one server that let it write.
type reading struct {
	at    mirror.Server
	begun time.Time
	n     int64
}

// startWork starts the clients. Half of them wait as long as a commit takes, half give up after a while; half try the
// servers in one order, half in the other.
func (c *chaos) startWork() *work {
	ctx, cancel := context.WithCancel(context.Background())
	w := &work{c: c, start: time.Now(), ctx: ctx, cancel: cancel, stop: make(chan struct{}), done: map[string]int{}}
	w.ledger = c.begin(load{dsns: []string{c.dsn(0), c.dsn(1)}, clients: 4, rate: 300, hasty: time.Second, note: c.history.ack})
	for i := range 4 {
		w.clients.Go(func() { w.register(i) })
	}
	for i := range 2 {
		w.clients.Go(func() { w.transfer(i) })
	}
	w.clients.Go(w.takeTickets)
	w.clients.Go(w.pulse)
	for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
		w.clients.Go(func() { w.probe(s) })
	}
	return w
}

// dsn is how clients find the principal, with one server or the other first.
func (c *chaos) dsn(first int) string {
	a, b := c.pg[1+first%2], c.pg[2-first%2]
	return asClient(multiHost(a, b))
}

func asClient(dsn string) string { return dsn + " user=client" }

func asClientURL(dsn string) string { return dsn + "&user=client&connect_timeout=2" }

// finish ends the clients. One that hangs is cut off: the outcome of what it did is unknown.
func (w *work) finish() {
	close(w.stop)
	w.ledger.end()
	done := make(chan struct{})
	go func() { w.clients.Wait(); close(done) }()
	t := time.NewTimer(5 * time.Second)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
	w.cancel()
	<-done
}

// next waits for the next turn of a client; false: the run is over.
func (w *work) next(every time.Duration) bool {
	t := time.NewTimer(every/2 + rand.N(every))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-w.stop:
		return false
	}
}

// outcome is what a client knows of what it did.
type outcome int

const (
	undone  outcome = iota // it is not there
	unknown                // it may be there, or come to be
	sure
)

// session is a client's connection, made again when it was lost.
type session struct {
	w      *work
	dsn    string
	hasty  time.Duration // how long it waits for anything; 0: as long as it takes
	conn   *pgx.Conn
	unsure bool // the server said that a commit may not be mirrored
}

func (w *work) session(i int) *session {
	s := &session{w: w, dsn: w.c.dsn(i)}
	if i/2%2 == 1 {
		s.hasty = time.Second
	}
	return s
}

// connected makes the connection if there is none.
func (s *session) connected() bool {
	if s.conn != nil {
		return true
	}
	cfg, err := pgx.ParseConfig(s.dsn)
	if err != nil {
		panic(err)
	}
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { s.unsure = s.unsure || endsWait(n) }
	ctx, cancel := context.WithTimeout(s.w.ctx, 5*time.Second)
	defer cancel()
	s.conn, err = pgx.ConnectConfig(ctx, cfg)
	return err == nil
}

// do does something and says what came of it.
func (s *session) do(something func(context.Context, *pgx.Conn) error) outcome {
	ctx := s.w.ctx
	if s.hasty > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.hasty)
		defer cancel()
	}
	s.unsure = false
	err := something(ctx, s.conn)
	if err == nil && !s.unsure {
		return sure
	}
	if err != nil {
		s.close()
	}
	// An error ends a transaction before its commit. One about a cancel may be of a commit that was waiting.
	var server *pgconn.PgError
	if errors.As(err, &server) && server.Severity == "ERROR" && server.Code != "57014" {
		return undone
	}
	return unknown
}

func (s *session) close() {
	if s.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.conn.Close(ctx)
		s.conn = nil
	}
}

// transfer moves money between accounts.
func (w *work) transfer(i int) {
	s := w.session(2*i + 1)
	defer s.close()
	for w.next(50 * time.Millisecond) {
		if !s.connected() {
			continue
		}
		from, to, amount := rand.IntN(accounts), rand.IntN(accounts), 1+rand.IntN(100)
		outcome := s.do(func(ctx context.Context, conn *pgx.Conn) error {
			return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
				moves := map[int]int{from: -amount}
				moves[to] += amount
				for _, a := range []int{min(from, to), max(from, to)} {
					if _, err := tx.Exec(ctx, "UPDATE bank SET balance = balance + $2 WHERE account = $1", a, moves[a]); err != nil {
						return err
					}
					moves[a] = 0 // from and to may be the same
				}
				return nil
			})
		})
		w.count("bank", outcome)
	}
}

// takeTickets takes numbers from a sequence, beside the ledger's, whose numbers stand in rows.
func (w *work) takeTickets() {
	s := w.session(2)
	defer s.close()
	for w.next(40 * time.Millisecond) {
		if !s.connected() {
			continue
		}
		var n int64
		outcome := s.do(func(ctx context.Context, conn *pgx.Conn) error {
			return conn.QueryRow(ctx, "SELECT nextval('ticket')").Scan(&n)
		})
		w.count("tickets", outcome)
		if outcome == sure {
			w.mu.Lock()
			w.tickets = append(w.tickets, n)
			w.mu.Unlock()
		}
	}
}

// pulse counts up, so that a reader can tell how old what it reads is.
func (w *work) pulse() {
	s := w.session(2)
	defer s.close()
	for w.next(40 * time.Millisecond) {
		if !s.connected() {
			continue
		}
		var n int64
		outcome := s.do(func(ctx context.Context, conn *pgx.Conn) error {
			return conn.QueryRow(ctx, "UPDATE beat SET n = n + 1 RETURNING n").Scan(&n)
		})
		w.count("beats", outcome)
		if outcome == sure {
			w.mu.Lock()
			w.beats = append(w.beats, beat{n, time.Now()})
			w.mu.Unlock()
		}
	}
}

// probe reads at one server whatever its role is. Money is complete wherever it can be read; where the server lets it
// write, what it reads must be new.
func (w *work) probe(at mirror.Server) {
	s := &session{w: w, dsn: asClientURL(w.c.pg[at].DSN("app")), hasty: time.Second}
	defer s.close()
	for w.next(40 * time.Millisecond) {
		if !s.connected() {
			continue
		}
		var n, sum int64
		var readOnly string
		begun := time.Now()
		outcome := s.do(func(ctx context.Context, conn *pgx.Conn) error {
			return conn.QueryRow(ctx, `SELECT (SELECT n FROM beat), (SELECT sum(balance) FROM bank),
				current_setting('default_transaction_read_only')`).Scan(&n, &sum, &readOnly)
		})
		if outcome != sure {
			continue
		}
		w.count("reads with default_transaction_read_only="+readOnly, outcome)
		if sum != wealth {
			w.c.t.Errorf("%s: the accounts hold %d, not %d", at, sum, wealth)
		}
		if readOnly == "off" {
			w.mu.Lock()
			w.readings = append(w.readings, reading{at, begun, n})
			w.mu.Unlock()
		}
	}
}

// stale returns the readings that were older than what had been acknowledged when they began, and that nothing excuses.
func (w *work) stale() (found []string) {
	for _, l := range w.readings {
		for _, b := range w.beats {
			if b.n > l.n && b.at.Before(l.begun) && !w.c.excused(l.at, l.begun) {
				found = append(found, fmt.Sprintf("%s read %d at %s, %s after %d was acknowledged",
					l.at, l.n, l.begun.Sub(w.start), l.begun.Sub(b.at), b.n))
				break
			}
		}
	}
	return found
}

func (w *work) count(what string, o outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if o == sure {
		w.done[what]++
	}
}

// awaitAll waits until every workload has got something done: nothing hangs.
func (w *work) awaitAll(limit time.Duration) error {
	before := w.counts()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		now, stuck := w.counts(), ""
		for _, what := range []string{"registers", "bank", "tickets", "beats", "ledger"} {
			if now[what] == before[what] {
				stuck = what
			}
		}
		if stuck == "" {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return fmt.Errorf("nothing was acknowledged for %s: %s", limit, stuck)
		}
	}
}

func (w *work) counts() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string]int{"ledger": w.ledger.count()}
	for what, n := range w.done {
		all[what] = n
	}
	return all
}
