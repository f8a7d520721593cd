package partner

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
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
	pace   chan time.Time // a write for each value; nil: as fast as possible
	stop   chan struct{}
	closed context.CancelFunc
	done   sync.WaitGroup
	note   func(id, seq int64, at mirror.Server)
	ports  map[int]mirror.Server
	unsure atomic.Int64 // commits that were answered with the warning that they may not be mirrored

	mu        sync.Mutex
	next      int64
	acked     map[int64]int64 // id to the sequence value that came back
	tried     map[int64]bool
	by        [3][]int64      // ids, by the server that acknowledged them
	settled   int64           // the newest id when another server began to acknowledge
	at        mirror.Server   // who acknowledged last
	moves     []time.Duration // the pauses after which another server acknowledged
	last      time.Time       // of the latest acknowledgement
	worstGap  time.Duration   // between two acknowledgements
	ackedFrom chan struct{}   // closed at the next acknowledgement
}

// multiHost is how clients find the principal: by asking who lets them write.
func multiHost(a, b *pgtest.Server) string {
	return fmt.Sprintf("host=127.0.0.1,127.0.0.1 port=%d,%d user=postgres dbname=app sslmode=disable connect_timeout=2 target_session_attrs=read-write",
		a.Port(), b.Port())
}

const ledgerTable = "CREATE TABLE ledger(seq bigserial PRIMARY KEY, id bigint NOT NULL)"

// load begins to write with some clients, as fast as they can.
func (p *pair) load(clients int) *ledger {
	return p.begin(load{dsns: []string{multiHost(p.pg[mirror.PartnerA], p.pg[mirror.PartnerB])}, clients: clients})
}

// loadAt begins to write at a rate per second.
func (p *pair) loadAt(clients, rate int) *ledger {
	return p.begin(load{dsns: []string{multiHost(p.pg[mirror.PartnerA], p.pg[mirror.PartnerB])}, clients: clients, rate: rate})
}

// loadOnly begins to write at one server.
func (p *pair) loadOnly(clients int, s mirror.Server) *ledger {
	return p.begin(load{dsns: []string{p.pg[s].DSN("app")}, clients: clients})
}

// load is what clients do.
type load struct {
	dsns    []string // each client has one of them, in turn
	clients int
	first   int64                                 // identity, less one
	rate    int                                   // per second; 0: as fast as they can
	hasty   time.Duration                         // half of the clients wait no longer for a commit; 0: all wait as long as it takes
	note    func(id, seq int64, at mirror.Server) // is told what is acknowledged
}

func (p *pair) begin(o load) *ledger {
	ctx, cancel := context.WithCancel(context.Background())
	l := &ledger{t: p.t, stop: make(chan struct{}), closed: cancel, note: o.note, next: o.first, ports: map[int]mirror.Server{},
		acked: map[int64]int64{}, tried: map[int64]bool{}, last: time.Now(), ackedFrom: make(chan struct{})}
	for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
		l.ports[p.pg[s].Port()] = s
	}
	if o.rate > 0 {
		l.pace = make(chan time.Time)
		l.done.Go(func() { l.beat(time.Second / time.Duration(o.rate)) })
	}
	for i := range o.clients {
		limit := time.Duration(0)
		if i/len(o.dsns)%2 == 1 {
			limit = o.hasty
		}
		l.done.Go(func() { l.client(ctx, o.dsns[i%len(o.dsns)], limit) })
	}
	return l
}

// client writes until the load ends, reconnecting as often as it must.
func (l *ledger) client(ctx context.Context, dsn string, limit time.Duration) {
	for !l.over() {
		cfg, err := pgx.ParseConfig(dsn)
		if err != nil {
			panic(err)
		}
		unsure := false // the server said that a commit may not be mirrored
		cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
			unsure = unsure || endsWait(n)
		}
		conn, err := pgx.ConnectConfig(ctx, cfg)
		if err != nil {
			l.pause()
			continue
		}
		at := l.ports[conn.PgConn().Conn().RemoteAddr().(*net.TCPAddr).Port]
		for !l.over() {
			l.turn()
			unsure = false
			id := l.try()
			seq, err := enter(ctx, conn, id, limit)
			if err != nil {
				break
			}
			if unsure {
				l.unsure.Add(1)
			} else {
				l.ack(id, seq, at)
			}
		}
		conn.Close(ctx)
	}
}

// enter writes one line of the ledger, within a time if one is given.
func enter(ctx context.Context, conn *pgx.Conn, id int64, limit time.Duration) (seq int64, err error) {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	return seq, conn.QueryRow(ctx, "INSERT INTO ledger(id) VALUES ($1) RETURNING seq", id).Scan(&seq)
}

// endsWait says whether a notice tells that a commit no longer waits for the mirror, which may not have it.
func endsWait(n *pgconn.Notice) bool { return n.Code == "01000" || n.Code == "57P01" }

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

// server is who acknowledged last.
func (l *ledger) server() mirror.Server {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at
}

// mark is the newest id that was tried.
func (l *ledger) mark() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

// ackedBy returns what a server has acknowledged beyond a mark.
func (l *ledger) ackedBy(s mirror.Server, mark int64) (ids []int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range l.by[s] {
		if id > mark {
			ids = append(ids, id)
		}
	}
	return ids
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

func (l *ledger) ack(id, seq int64, at mirror.Server) {
	now := time.Now()
	if l.note != nil {
		l.note(id, seq, at)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked[id] = seq
	l.by[at] = append(l.by[at], id)
	if l.at != at && id > l.settled { // else it was under way when the server was lost, which says so only now
		if l.at != mirror.Nobody {
			l.moves = append(l.moves, now.Sub(l.last))
		}
		l.at, l.settled = at, l.next
	}
	l.worstGap = max(l.worstGap, now.Sub(l.last))
	l.last = now
	close(l.ackedFrom)
	l.ackedFrom = make(chan struct{})
}

// awaitAck waits for the next acknowledgement.
func (l *ledger) awaitAck() {
	l.t.Helper()
	l.awaitAckWithin(patience)
}

// awaitAckWithin is awaitAck where commits may not hang for longer.
func (l *ledger) awaitAckWithin(limit time.Duration) {
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

// awaitServer waits until a server acknowledges what was tried after another one had done so.
func (l *ledger) awaitServer(s mirror.Server) {
	l.t.Helper()
	for l.server() != s {
		l.awaitAck()
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

// count is how many commits were acknowledged.
func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// audit is what is wrong with a ledger.
type audit struct {
	lost       []int64 // acknowledged and not there
	duplicated []int64 // there more than once
	phantom    []int64 // there and never tried
}

// check compares what is in a database with what was promised.
func (l *ledger) check(server *pgtest.Server) {
	l.t.Helper()
	found, err := l.audit(server)
	require.NoError(l.t, err)
	require.Empty(l.t, found.lost, "acknowledged and lost")
	require.Empty(l.t, found.duplicated, "there more than once")
	require.Empty(l.t, found.phantom, "there and never tried")
	given := map[int64]bool{}
	for _, seq := range l.acked {
		require.False(l.t, given[seq], "sequence value %d was handed out twice", seq)
		given[seq] = true
	}
}

// audit compares what is in a database with what was promised, when the clients have ended.
func (l *ledger) audit(server *pgtest.Server) (a audit, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, server.DSN("app"))
	if err != nil {
		return a, err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "SELECT id, count(*) FROM ledger GROUP BY id ORDER BY id")
	if err != nil {
		return a, err
	}
	present := map[int64]bool{}
	var id, count int64
	_, err = pgx.ForEachRow(rows, []any{&id, &count}, func() error {
		present[id] = true
		if count != 1 {
			a.duplicated = append(a.duplicated, id)
		}
		if !l.tried[id] {
			a.phantom = append(a.phantom, id)
		}
		return nil
	})
	for id := range l.acked {
		if !present[id] {
			a.lost = append(a.lost, id)
		}
	}
	return a, err
}
