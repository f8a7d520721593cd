package main

import (
	"context"
	"fmt"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// sample is how long clients work in one round. Shorter ones measure the beginning of a run.
const sample = 2 * time.Second

// side is one of those that are compared: the server where its clients work.
type side struct {
	name   string
	server *pgtest.Server
}

// full measures what commits cost that wait for the mirror's disk, beside those that wait for a subscriber's and for a
// standby's.
func full(d disk) func(context.Context, *lab) ([]row, error) {
	return func(ctx context.Context, l *lab) ([]row, error) {
		sides, err := l.waiting(ctx, d)
		if err != nil {
			return nil, err
		}
		prefix := map[disk]string{ordinaryDisk: "full", slowDisk: "slow-full"}[d]
		var rows []row
		for _, clients := range []int{1, 8, 32} {
			got, err := l.turns(ctx, sides, load{script: insert, clients: clients, lasts: sample})
			if err != nil {
				return rows, err
			}
			for i, peer := range sides[1:] {
				name := fmt.Sprintf("%s-c%d", prefix, clients)
				if clients == 1 {
					rows = append(rows, beside(name+" latency", "ms", latencies(got[0]), peer.name, latencies(got[i+1]), atMost(1)))
					continue
				}
				rows = append(rows, beside(name+" inserts", "tx/s", rates(got[0]), peer.name, rates(got[i+1]), fullGoal(d, clients, i)))
			}
		}
		return rows, nil
	}
}

// fullGoal is what inserts are to reach beside logical (0) and physical (1) replication.
func fullGoal(d disk, clients, peer int) goal {
	type key struct {
		disk
		clients, peer int
	}
	return map[key]goal{
		{ordinaryDisk, 8, 0}: atLeast(1.3), {ordinaryDisk, 32, 0}: atLeast(1.8),
		{slowDisk, 8, 0}: atLeast(4), {slowDisk, 32, 0}: atLeast(7),
		{ordinaryDisk, 8, 1}: atLeast(0.8), {ordinaryDisk, 32, 1}: atLeast(0.75),
		{slowDisk, 8, 1}: atLeast(0.8), {slowDisk, 32, 1}: atLeast(0.75),
	}[key{d, clients, peer}]
}

// waiting makes three pairs of servers whose commits wait: ours, native logical replication, physical replication.
func (l *lab) waiting(ctx context.Context, d disk) ([]side, error) {
	s, err := l.start(ctx, d, "ours-a", "ours-b", "logical-a", "logical-b", "physical-a", "physical-b")
	if err != nil {
		return nil, err
	}
	for _, from := range []*pgtest.Server{s[0], s[2], s[3], s[4]} {
		if err := l.tables(ctx, from, 0); err != nil {
			return nil, err
		}
	}
	err = l.subscribe(ctx, s[2], s[3], subscription{sync: true})
	if err == nil {
		err = waitFor(ctx, s[2], "sub")
	}
	if err != nil {
		return nil, fmt.Errorf("set up logical replication: %w", err)
	}
	if err := l.standby(ctx, s[4], s[5]); err != nil {
		return nil, fmt.Errorf("set up physical replication: %w", err)
	}
	if _, err := l.newPair(ctx, d, "default", s[0], s[1]); err != nil {
		return nil, err
	}
	return []side{{"ours", s[0]}, {"logical, synchronous", s[2]}, {"physical, on", s[4]}}, nil
}

// turns lets the clients work at each side in every round, beginning with another side each time. The first round warms
// up and is left out.
func (l *lab) turns(ctx context.Context, sides []side, w load) ([][]outcome, error) {
	got := make([][]outcome, len(sides))
	for round := range l.rounds + 1 {
		for k := range sides {
			i := (round + k) % len(sides)
			run := w
			if round == 0 {
				run.lasts = time.Second
			}
			o, err := l.pgbench(ctx, sides[i].server, run)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", sides[i].name, err)
			}
			if round > 0 {
				got[i] = append(got[i], o)
			}
		}
	}
	return got, nil
}

func rates(all []outcome) (v []float64) {
	for _, o := range all {
		v = append(v, o.rate)
	}
	return v
}

func latencies(all []outcome) (v []float64) {
	for _, o := range all {
		v = append(v, o.latency)
	}
	return v
}

// off measures what mirroring costs a principal whose commits do not wait, beside asynchronous logical replication.
func off(ctx context.Context, l *lab) ([]row, error) {
	s, err := l.start(ctx, ordinaryDisk, "ours-a", "ours-b", "logical-a", "logical-b")
	if err != nil {
		return nil, err
	}
	for _, from := range []*pgtest.Server{s[0], s[2]} {
		if err := l.tables(ctx, from, 5); err != nil {
			return nil, err
		}
	}
	if err := l.copyDefinitions(ctx, s[2], s[3]); err != nil {
		return nil, err
	}
	if err := l.subscribe(ctx, s[2], s[3], subscription{copy: true}); err != nil {
		return nil, fmt.Errorf("set up logical replication: %w", err)
	}
	p, err := l.newPair(ctx, ordinaryDisk, "default", s[0], s[1])
	if err != nil {
		return nil, err
	}
	if err := p.off(ctx); err != nil {
		return nil, err
	}
	sides := []side{{"ours", p.pg[mirror.PartnerA]}, {"logical, asynchronous", s[2]}}
	var rows []row
	for _, w := range []struct{ name, script string }{{"inserts", insert}, {"simple update", simpleUpdate}} {
		got, err := l.turns(ctx, sides, load{script: w.script, clients: 8, lasts: sample})
		if err != nil {
			return rows, err
		}
		rows = append(rows, beside("off-c8 "+w.name, "tx/s", rates(got[0]), sides[1].name, rates(got[1]), atLeast(0.95)))
	}
	return rows, nil
}
