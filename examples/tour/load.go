package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// clients is how many write at the same time.
const clients = 4

// load are clients that write until they are stopped. They know both servers by one DSN and nothing of mirroring.
type load struct {
	acks    acks
	clients [clients]*client
	end     context.CancelFunc
	running sync.WaitGroup
}

// startLoad starts the clients, at rate commits a second together.
func startLoad(dsn string, rate int) (*load, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("start clients: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{end: cancel}
	for i := range l.clients {
		c := &client{id: i, cfg: cfg.Copy(), acks: &l.acks, pause: time.Second * clients / time.Duration(rate)}
		c.cfg.OnNotice = c.notice
		l.clients[i] = c
		l.running.Go(func() { c.run(ctx.Done()) })
	}
	return l, nil
}

// stop lets every client finish what it does. It may be called again when the servers are gone, which ends any wait.
func (l *load) stop(ctx context.Context) error {
	l.end()
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.running.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("a client still waits for the answer to its COMMIT: %w", context.Cause(ctx))
	}
}

// client is one connection's worth of payments. What it was promised is its own until it has ended.
type client struct {
	id      int
	cfg     *pgx.ConnConfig
	acks    *acks
	pause   time.Duration // from one payment to the next
	conn    *pgx.Conn
	doubt   bool // the server said that it gave up waiting for the mirror
	promise promises
}

// promises are the payments of one client by what it was told, and the tickets it was given.
type promises struct {
	attempted    int64 // numbers below it
	acknowledged []int64
	unknown      []int64 // the answer to COMMIT did not come, or said that the mirror may not have it
	abandoned    []int64 // COMMIT was never sent, or answered by ROLLBACK
	tickets      []ticket
}

// ticket is a value of the sequence that a client has seen, committed or not.
type ticket struct{ number, value int64 }

const (
	// patience is for everything but COMMIT: once that is sent, only the server can say what became of it.
	patience = 5 * time.Second
	// reconnect is the time between attempts to find the principal.
	reconnect = 100 * time.Millisecond
)

func (c *client) run(stopped <-chan struct{}) {
	defer c.hangUp()
	pay, find := time.NewTicker(c.pause), time.NewTicker(reconnect)
	defer pay.Stop()
	defer find.Stop()
	for {
		next := pay
		if c.conn == nil {
			next = find
		}
		select {
		case <-stopped:
			return
		case <-next.C:
		}
		if c.conn != nil || c.connect() {
			c.pay()
		}
	}
}

func (c *client) connect() bool {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, c.cfg)
	if err == nil {
		c.conn = conn
	}
	return err == nil // while nobody serves there is nothing to do but to try again
}

func (c *client) hangUp() {
	if c.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c.conn.Close(ctx) // a broken connection is closed all the same
		c.conn = nil
	}
}

// notice hears what the server says beside its answers: a commit whose wait for the mirror was ended is acknowledged,
// but only this server is known to have it.
func (c *client) notice(_ *pgconn.PgConn, n *pgconn.Notice) {
	if n.Code == "57P01" || n.Code == "01000" && strings.Contains(n.Message, "synchronous replication") {
		c.doubt = true
	}
}

// pay makes one payment with a number that is never used again, and notes what became of it.
func (c *client) pay() {
	number := c.promise.attempted
	c.promise.attempted++
	c.doubt = false
	if err := c.write(number); err != nil {
		c.promise.abandoned = append(c.promise.abandoned, number)
		c.hangUp()
		return
	}
	// No deadline: a commit that is broken off here may still be done there.
	tag, err := c.conn.Exec(context.Background(), "COMMIT")
	switch {
	case err == nil && tag.String() == "ROLLBACK":
		c.promise.abandoned = append(c.promise.abandoned, number)
	case err != nil || c.doubt:
		c.promise.unknown = append(c.promise.unknown, number)
		c.hangUp()
	default:
		c.promise.acknowledged = append(c.promise.acknowledged, number)
		c.acks.add(c.port(), time.Now())
	}
}

// write does everything of a payment but the commit.
func (c *client) write(number int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := c.conn.Exec(ctx, "BEGIN"); err != nil {
		return err
	}
	account, amount := 1+(number*7919+int64(c.id))%accounts, 1+number%100
	var value int64
	err := c.conn.QueryRow(ctx, "INSERT INTO payment (client, number, account, amount) VALUES ($1, $2, $3, $4) RETURNING ticket",
		c.id, number, account, amount).Scan(&value)
	if err != nil {
		return err
	}
	c.promise.tickets = append(c.promise.tickets, ticket{number, value})
	paid, err := c.conn.Exec(ctx, "UPDATE account SET balance = balance + $2 WHERE id = $1", account, amount)
	if err == nil && paid.RowsAffected() != 1 {
		err = errors.New("the account is missing")
	}
	return err
}

// port is that of the server that answered.
func (c *client) port() int {
	if addr, ok := c.conn.PgConn().Conn().RemoteAddr().(*net.TCPAddr); ok {
		return addr.Port
	}
	return 0
}

// acks remembers which server acknowledged when. It may be used from any goroutine.
type acks struct {
	count atomic.Int64
	mu    struct {
		sync.Mutex
		first, last map[int]time.Time // by port
	}
}

func (a *acks) add(port int, at time.Time) {
	a.count.Add(1)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.first == nil {
		a.mu.first, a.mu.last = map[int]time.Time{}, map[int]time.Time{}
	}
	if a.mu.first[port].IsZero() {
		a.mu.first[port] = at
	}
	a.mu.last[port] = at
}

// forget makes the next acknowledgement of each server its first.
func (a *acks) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.mu.first)
}

// first is when that server acknowledged first since forget; zero: not yet.
func (a *acks) first(port int) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.first[port]
}

// last is when that server acknowledged last.
func (a *acks) last(port int) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.last[port]
}
