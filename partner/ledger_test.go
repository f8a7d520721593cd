package partner

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// ledger is a client load that knows what it was promised: every id that was acknowledged must be there in the end,
// once, and nothing may be there that was never tried.
type ledger struct {
	t      *testing.T
	dsn    string
	pace   chan time.Time // a write for each value; nil: as fast as possible
	stop   chan struct{}
	closed context.CancelFunc
	done   sync.WaitGroup

	mu        sync.Mutex
	next      int64
	acked     map[int64]int64 // id to the sequence value that came back
	tried     map[int64]bool
	last      time.Time     // of the latest acknowledgement
	worstGap  time.Duration // between two acknowledgements
	ackedFrom chan struct{} // closed at the next acknowledgement
}

// multiHost is how clients find the principal: by asking who lets them write.
func multiHost(a, b *pgtest.Server) string {
	return fmt.Sprintf("host=127.0.0.1,127.0.0.1 port=%d,%d user=postgres dbname=app sslmode=disable connect_timeout=2 target_session_attrs=read-write",
		a.Port(), b.Port())
}

const ledgerTable = "CREATE TABLE ledger(seq bigserial PRIMARY KEY, id bigint NOT NULL)"

// load begins to write with some clients, as fast as they can.
func (p *pair) load(clients int) *ledger {
	return p.begin(clients, multiHost(p.pg[mirror.PartnerA], p.pg[mirror.PartnerB]), 0)
}

// loadAt begins to write at a rate per second.
func (p *pair) loadAt(clients, rate int) *ledger {
	return p.begin(clients, multiHost(p.pg[mirror.PartnerA], p.pg[mirror.PartnerB]), rate)
}

// loadOnly begins to write at one server.
func (p *pair) loadOnly(clients int, s mirror.Server) *ledger {
	return p.begin(clients, p.pg[s].DSN("app"), 0)
}

func (p *pair) begin(clients int, dsn string, rate int) *ledger {
	ctx, cancel := context.WithCancel(context.Background())
	l := &ledger{t: p.t, dsn: dsn, stop: make(chan struct{}), closed: cancel,
		acked: map[int64]int64{}, tried: map[int64]bool{}, last: time.Now(), ackedFrom: make(chan struct{})}
	if rate > 0 {
		l.pace = make(chan time.Time)
		l.done.Go(func() { l.beat(time.Second / time.Duration(rate)) })
	}
	for range clients {
		l.done.Go(func() { l.client(ctx) })
	}
	return l
}

// client writes until the load ends, reconnecting as often as it must.
func (l *ledger) client(ctx context.Context) {
	for !l.over() {
		cfg, err := pgx.ParseConfig(l.dsn)
		if err != nil {
			panic(err)
		}
		unsure := false // the server said that a commit may not be mirrored
		cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
			unsure = unsure || n.Code == "01000" || n.Code == "57P01"
		}
		conn, err := pgx.ConnectConfig(ctx, cfg)
		if err != nil {
			l.pause()
			continue
		}
		for !l.over() {
			l.turn()
			unsure = false
			id := l.try()
			var seq int64
			err := conn.QueryRow(ctx, "INSERT INTO ledger(id) VALUES ($1) RETURNING seq", id).Scan(&seq)
			if err != nil {
				break
			}
			if !unsure {
				l.ack(id, seq)
			}
		}
		conn.Close(ctx)
	}
}

// beat lets one client write at each tick; while none is ready the ticks are lost.
func (l *ledger) beat(every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case now := <-t.C:
			select {
			case l.pace <- now:
			case <-l.stop:
				return
			}
		case <-l.stop:
			return
		}
	}
}

// turn waits until the next write is due.
func (l *ledger) turn() {
	if l.pace != nil {
		select {
		case <-l.pace:
		case <-l.stop:
		}
	}
}

// latest is when the last commit was acknowledged.
func (l *ledger) latest() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

func (l *ledger) over() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

// pause lets a client that finds no principal ask again a little later.
func (l *ledger) pause() {
	t := time.NewTimer(20 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.stop:
	}
}

func (l *ledger) try() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next++
	l.tried[l.next] = true
	return l.next
}

func (l *ledger) ack(id, seq int64) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked[id] = seq
	l.worstGap = max(l.worstGap, now.Sub(l.last))
	l.last = now
	close(l.ackedFrom)
	l.ackedFrom = make(chan struct{})
}

// awaitAck waits for the next acknowledgement.
func (l *ledger) awaitAck(limit time.Duration) {
	l.t.Helper()
	l.mu.Lock()
	next := l.ackedFrom
	l.mu.Unlock()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-next:
	case <-t.C:
		l.t.Fatalf("no commit was acknowledged for %s", limit)
	}
}

// gap returns the longest time without an acknowledgement since it was last asked.
func (l *ledger) gap() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.worstGap
	l.worstGap = 0
	return g
}

// end stops the clients. One that hangs in a commit is cut off: its outcome is unknown.
func (l *ledger) end() {
	close(l.stop)
	done := make(chan struct{})
	go func() { l.done.Wait(); close(done) }()
	t := time.NewTimer(5 * time.Second)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
	l.closed()
	<-done
}

// check compares what is in a database with what was promised.
func (l *ledger) check(server *pgtest.Server) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, server.DSN("app"))
	require.NoError(l.t, err)
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "SELECT id, count(*), min(seq) FROM ledger GROUP BY id")
	require.NoError(l.t, err)
	present := map[int64]bool{}
	var id, count, seq int64
	_, err = pgx.ForEachRow(rows, []any{&id, &count, &seq}, func() error {
		present[id] = true
		require.EqualValues(l.t, 1, count, "id %d is there %d times", id, count)
		require.True(l.t, l.tried[id], "id %d was never tried", id)
		return nil
	})
	require.NoError(l.t, err)
	lost := []int64{}
	given := map[int64]bool{}
	for id, seq := range l.acked {
		if !present[id] {
			lost = append(lost, id)
		}
		require.False(l.t, given[seq], "sequence value %d was handed out twice", seq)
		given[seq] = true
	}
	require.Empty(l.t, lost, "acknowledged and lost")
}
