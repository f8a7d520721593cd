package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// step measures one step of a session: a tick, which is the most frequent event, of a principal.
func step(context.Context, *lab) ([]row, error) {
	session, err := newPrincipal()
	if err != nil {
		return nil, err
	}
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := session.Step(mirror.Event{Kind: mirror.EventTicked}); err != nil {
				b.Fatal(err)
			}
		}
	})
	return []row{
		alone("control step", "us", []float64{float64(result.NsPerOp()) / 1000}, atMostOf(2, "us")),
		alone("control step", "allocations", []float64{float64(result.AllocsPerOp())}, atMostOf(5, "")),
	}, nil
}

// newPrincipal is a session with a witness in its first role sequence.
func newPrincipal() (*mirror.Session, error) {
	record := mirror.Record{Seq: 1, Principal: mirror.PartnerA, Safety: mirror.SafetyFull}
	for m := mirror.PartnerA; m <= mirror.Witness; m++ {
		record.Members[m] = mirror.Incarnation(10 + m)
	}
	return mirror.New(mirror.Config{
		Self: mirror.PartnerA, Incarnation: record.Members[mirror.PartnerA],
		Timing: mirror.Timing{Ping: 5, Timeout: 50, Lease: 35, Campaign: 10, Drain: 50},
	}, mirror.HardState{Self: mirror.PartnerA, Incarnation: record.Members[mirror.PartnerA], Promised: 1, Aligned: 1, Record: record})
}

// memory measures what the partners' programs hold in memory while clients commit 5,000 times a second.
func memory(ctx context.Context, l *lab) ([]row, error) {
	s, err := l.start(ctx, ordinaryDisk, "ours-a", "ours-b")
	if err != nil {
		return nil, err
	}
	if err := l.tables(ctx, s[0], 0); err != nil {
		return nil, err
	}
	p, err := l.newPair(ctx, ordinaryDisk, "default", s[0], s[1])
	if err != nil {
		return nil, err
	}
	type result struct {
		outcome
		err error
	}
	done := make(chan result, 1)
	go func() {
		o, err := l.pgbench(ctx, s[0], load{script: insert, clients: 32, lasts: 10 * time.Second, rate: 5000})
		done <- result{o, err}
	}()
	var most [3]float64
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case r := <-done:
			if r.err != nil {
				return nil, r.err
			}
			name := fmt.Sprintf("memory of a partner at %.0f commits/s", r.rate)
			return []row{
				alone(name+", principal", "MiB", most[mirror.PartnerA:mirror.PartnerB], atMostOf(64, "MiB")),
				alone(name+", mirror", "MiB", most[mirror.PartnerB:], atMostOf(64, "MiB")),
			}, nil
		case <-tick.C:
			for side := mirror.PartnerA; side <= mirror.PartnerB; side++ {
				now, err := resident(p.Pid(side))
				if err != nil {
					return nil, err
				}
				most[side] = max(most[side], now)
			}
		}
	}
}

// resident is the memory of a process, in MiB.
func resident(pid int) (float64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read memory of a process: %w", err)
	}
	lines := strings.Split(string(raw), "\n")
	i := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "VmRSS:") })
	if i < 0 {
		return 0, fmt.Errorf("read memory of process %d: it has ended", pid)
	}
	kib, err := strconv.ParseFloat(strings.Fields(lines[i])[1], 64)
	return kib / 1024, err
}
