package main

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// The loads of backlogs, in transactions.
const (
	backlogClients      = 4
	backlogTransactions = 100_000
)

// updates fills the backlog with pgbench's simple updates: three of a row by key, and an insert.
func (b *backlog) updates(ctx context.Context) error {
	b.reset = []string{"TRUNCATE pgbench_history", "VACUUM pgbench_accounts, pgbench_tellers, pgbench_branches"}
	return b.fill(ctx, func() error { return b.load(ctx, simpleUpdate) })
}

// inserts fills it with inserts of one row.
func (b *backlog) inserts(ctx context.Context) error {
	b.reset = []string{"TRUNCATE ins"}
	if err := execute(ctx, b.principal, "TRUNCATE ins"); err != nil {
		return err
	}
	return b.fill(ctx, func() error { return b.load(ctx, insert) })
}

func (b *backlog) load(ctx context.Context, script string) error {
	_, err := b.lab.pgbench(ctx, b.principal, load{
		script: script, clients: backlogClients, count: backlogTransactions / backlogClients, setting: "synchronous_commit=off",
	})
	return err
}

// decoding is the limit for which a reader stands that throws everything away.
const decoding = "decoding by one walsender"

// timing is one of the ways to deal with a backlog.
type timing struct {
	name string
	run  func(context.Context) (time.Duration, error)
}

// times takes each way in every round, beginning with another one each time, and returns the seconds.
func (l *lab) times(ctx context.Context, ways []timing) ([][]float64, error) {
	got := make([][]float64, len(ways))
	for round := range l.rounds {
		for k := range ways {
			i := (round + k) % len(ways)
			took, err := ways[i].run(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", ways[i].name, err)
			}
			got[i] = append(got[i], took.Seconds())
		}
	}
	return got, nil
}

// perSecond turns seconds for a number of things into things a second.
func perSecond(things float64, seconds []float64) []float64 {
	v := make([]float64, len(seconds))
	for i, s := range seconds {
		v[i] = things / s
	}
	return v
}

// harden measures how fast a backlog is hardened, beside a reader that throws it away: the limit that one walsender sets.
func harden(ctx context.Context, l *lab) ([]row, error) {
	b, err := l.newBacklog(ctx, 5)
	if err == nil {
		err = b.updates(ctx)
	}
	if err != nil {
		return nil, err
	}
	got, err := l.times(ctx, []timing{{"ours", b.hardenOnly}, {"bare reader", b.bare}})
	if err != nil {
		return nil, err
	}
	r := beside("harden backlog", "tx/s", perSecond(backlogTransactions, got[0]), "pg_recvlogical", perSecond(backlogTransactions, got[1]), atLeast(0.9))
	return []row{r.within(decoding)}, nil
}

// catchUp measures how fast a mirror follows that was away, while hardening and redo run at the same time.
func catchUp(ctx context.Context, l *lab) ([]row, error) {
	b, err := l.newBacklog(ctx, 5)
	if err == nil {
		err = b.updates(ctx)
	}
	if err != nil {
		return nil, err
	}
	got, err := l.times(ctx, []timing{
		{"ours", b.ours},
		{"logical", func(ctx context.Context) (time.Duration, error) { return b.native(ctx, false) }},
		{"logical, durable", func(ctx context.Context) (time.Duration, error) { return b.native(ctx, true) }},
		{"bare reader", b.bare},
	})
	if err != nil {
		return nil, err
	}
	if _, err := b.ours(ctx); err != nil {
		return nil, err
	}
	if err := b.equal(ctx); err != nil {
		return nil, err
	}
	speed := func(i int) []float64 { return perSecond(backlogTransactions, got[i]) }
	return []row{
		beside("catch-up live", "tx/s", speed(0), "logical, asynchronous", speed(1), atLeast(1.2)),
		beside("catch-up durable", "tx/s", speed(0), "logical, synchronous", speed(2), atLeast(4)),
		beside("catch-up, of the decode limit", "tx/s", speed(0), "pg_recvlogical", speed(3), goal{}).within(decoding),
	}, nil
}

// redoOnly measures redo from the local log: the mirror's database was away, its partner was not. The peer has no local
// log, so its figure holds decoding too.
func redoOnly(ctx context.Context, l *lab) ([]row, error) {
	b, err := l.newBacklog(ctx, 5)
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, w := range []struct {
		name string
		fill func(context.Context) error
		goal goal
	}{{"updates", b.updates, atLeast(2.5)}, {"inserts", b.inserts, atLeast(3)}} {
		if err := w.fill(ctx); err != nil {
			return rows, err
		}
		got, err := l.times(ctx, []timing{
			{"ours", b.redoOnly},
			{"logical", func(ctx context.Context) (time.Duration, error) { return b.native(ctx, false) }},
		})
		if err != nil {
			return rows, err
		}
		rows = append(rows, beside("redo of "+w.name, "tx/s", perSecond(backlogTransactions, got[0]), "logical, end to end", perSecond(backlogTransactions, got[1]), w.goal))
	}
	return rows, nil
}

// The sizes of large transactions, in rows.
const (
	largeInsert = 1_000_000
	largeUpdate = 500_000
)

// large measures how long one large transaction takes from the log to the other's table.
func large(ctx context.Context, l *lab) ([]row, error) {
	b, err := l.newBacklog(ctx, 5)
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, w := range []struct{ name, sql, reset string }{
		{"insert of 1M rows", "INSERT INTO ins (a, b) SELECT g, 'forty characters are what this text holds' FROM generate_series(1, " + strconv.Itoa(largeInsert) + ") g", "TRUNCATE ins"},
		{"update of 500k rows", "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid <= " + strconv.Itoa(largeUpdate), "VACUUM pgbench_accounts"},
	} {
		b.reset = []string{w.reset}
		if err := b.fill(ctx, func() error { return execute(ctx, b.principal, w.sql) }); err != nil {
			return rows, err
		}
		got, err := l.times(ctx, []timing{
			{"ours", b.ours},
			{"logical", func(ctx context.Context) (time.Duration, error) { return b.native(ctx, false) }},
			{"bare reader", b.bare},
		})
		if err != nil {
			return rows, err
		}
		rows = append(rows, beside(w.name, "s", got[0], "logical, asynchronous", got[1], atMost(0.75)),
			beside(w.name+", of the decode limit", "s", got[0], "pg_recvlogical", got[2], goal{}).within(decoding))
	}
	return rows, nil
}
