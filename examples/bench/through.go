package main

import (
	"context"
	"fmt"

	"github.com/f19126b3/dbmirror/examples/internal/trio"
)

// relayed is the limit for which the same pair without a relay stands.
const relayed = "the same commits without the way through the partners"

// through measures what commits cost that wait for the mirror's disk when log goes from partner to partner, beside log
// that the mirror reads at the principal's server.
func through(ctx context.Context, l *lab) ([]row, error) {
	s, err := l.start(ctx, ordinaryDisk, "through-a", "through-b", "direct-a", "direct-b")
	if err != nil {
		return nil, err
	}
	sides := []side{{"through the partners", s[0]}, {"direct", s[2]}}
	for i, from := range sides {
		if err := l.tables(ctx, from.server, 0); err != nil {
			return nil, err
		}
		cfg := trio.Config{Profile: "default", ThroughPartner: i == 0}
		if _, err := l.newPairOf(ctx, ordinaryDisk, cfg, from.server, s[2*i+1]); err != nil {
			return nil, fmt.Errorf("%s: %w", from.name, err)
		}
	}
	var rows []row
	for _, clients := range []int{1, 8, 32} {
		got, err := l.turns(ctx, sides, load{script: insert, clients: clients, lasts: sample})
		if err != nil {
			return rows, err
		}
		name := fmt.Sprintf("through-c%d", clients)
		if clients == 1 {
			rows = append(rows, beside(name+" latency", "ms", latencies(got[0]), sides[1].name, latencies(got[1]), goal{}).within(relayed))
			continue
		}
		rows = append(rows, beside(name+" inserts", "tx/s", rates(got[0]), sides[1].name, rates(got[1]), goal{}).within(relayed))
	}
	return rows, nil
}
