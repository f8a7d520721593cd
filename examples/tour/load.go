package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// clients is how many write at the same time.
const clients = 4

// accounts is the number of rows in table account.
const accounts = 1000

// load are clients that write until they are stopped.
type load struct {
	acks    acks
	clients [clients]*client
	end     context.CancelFunc
	running sync.WaitGroup
}

// startLoad starts the clients, at rate commits a second together.
func startLoad(db kind, rate int) (*load, error) {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{end: cancel}
	for i := range l.clients {
		p, err := db.payer(i)
		if err != nil {
			cancel()
			return nil, err
		}
		l.clients[i] = &client{id: i, payer: p, acks: &l.acks, pause: time.Second * clients / time.Duration(rate)}
	}
	for _, c := range l.clients {
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

// payer is the connection of one client. One goroutine uses it.
type payer interface {
	connected() bool
	connect() bool // tells whether it has found somebody who may serve
	pay(order) receipt
	hangUp()
}

// order is a payment to be made, with a number that is never used again.
type order struct {
	Client                  int
	Number, Account, Amount int64
}

// receipt is what became of an order, as far as the client was told.
type receipt struct {
	fate   fate
	by     mirror.Server // who acknowledged it
	told   bool          // a ticket was given, committed or not
	ticket int64
}

// fate is what a client knows of its payment.
type fate uint8

const (
	abandoned    fate = iota // COMMIT was never sent, or answered by ROLLBACK
	unknown                  // the answer to COMMIT did not come, or said that the mirror may not have it
	acknowledged             // committed, and hardened at the mirror where the session is SYNCHRONIZED
)

// client is one connection's worth of payments. What it was promised is its own until it has ended.
type client struct {
	id      int
	payer   payer
	acks    *acks
	pause   time.Duration // from one payment to the next
	promise promises
}

// promises are the payments of one client by what it was told, and the tickets it was given.
type promises struct {
	attempted    int64 // numbers below it
	acknowledged []int64
	unknown      []int64
	abandoned    []int64
	tickets      []ticket
}

// ticket is a number that the database has given to a payment.
type ticket struct{ number, value int64 }

// reconnect is the time between attempts to find the principal.
const reconnect = 100 * time.Millisecond

func (c *client) run(stopped <-chan struct{}) {
	defer c.payer.hangUp()
	pay, find := time.NewTicker(c.pause), time.NewTicker(reconnect)
	defer pay.Stop()
	defer find.Stop()
	for {
		next := pay
		if !c.payer.connected() {
			next = find
		}
		select {
		case <-stopped:
			return
		case <-next.C:
		}
		if c.payer.connected() || c.payer.connect() {
			c.pay()
		}
	}
}

// pay makes one payment and notes what became of it.
func (c *client) pay() {
	number := c.promise.attempted
	c.promise.attempted++
	r := c.payer.pay(order{Client: c.id, Number: number, Account: 1 + (number*7919+int64(c.id))%accounts, Amount: 1 + number%100})
	if r.told {
		c.promise.tickets = append(c.promise.tickets, ticket{number, r.ticket})
	}
	switch r.fate {
	case acknowledged:
		c.promise.acknowledged = append(c.promise.acknowledged, number)
		c.acks.add(r.by, time.Now())
	case unknown:
		c.promise.unknown = append(c.promise.unknown, number)
	default:
		c.promise.abandoned = append(c.promise.abandoned, number)
	}
}

// acks remembers which server acknowledged when. It may be used from any goroutine.
type acks struct {
	count atomic.Int64
	mu    struct {
		sync.Mutex
		first, last [3]time.Time // by mirror.Server
	}
}

func (a *acks) add(by mirror.Server, at time.Time) {
	a.count.Add(1)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.first[by].IsZero() {
		a.mu.first[by] = at
	}
	a.mu.last[by] = at
}

// forget makes the next acknowledgement of each server its first.
func (a *acks) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.mu.first[:])
}

// first is when that server acknowledged first since forget; zero: not yet.
func (a *acks) first(p mirror.Server) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.first[p]
}

// last is when that server acknowledged last.
func (a *acks) last(p mirror.Server) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.last[p]
}
