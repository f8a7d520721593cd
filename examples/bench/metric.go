package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// metric is a group of figures that are measured together, beside the same peers.
type metric struct {
	name    string
	measure func(context.Context, *lab) ([]row, error)
}

func metrics() []metric {
	return []metric{
		{"full", full(ordinaryDisk)},
		{"slow-full", full(slowDisk)},
		{"through", through},
		{"off", off},
		{"harden", harden},
		{"catchup", catchUp},
		{"redo", redoOnly},
		{"large", large},
		{"large-commit", largeCommit},
		{"baseline", baseline},
		{"verify", verify},
		{"failover", failover},
		{"failover-defaults", failoverDefaults},
		{"manual", manual},
		{"step", step},
		{"memory", memory},
		{"witness", manySessions},
		{"embedded", embedded(ordinaryDisk)},
		{"slow-embedded", embedded(slowDisk)},
	}
}

func names() []string {
	var all []string
	for _, m := range metrics() {
		all = append(all, m.name)
	}
	return all
}

// choose returns the metrics of a list of names, or all.
func choose(list string) ([]metric, error) {
	if list == "" {
		return metrics(), nil
	}
	var chosen []metric
	for name := range strings.SplitSeq(list, ",") {
		found := false
		for _, m := range metrics() {
			if m.name == strings.TrimSpace(name) {
				chosen, found = append(chosen, m), true
			}
		}
		if !found {
			return nil, fmt.Errorf("-only %s: there is no metric %q; there are %s", list, name, strings.Join(names(), ", "))
		}
	}
	return chosen, nil
}

// run measures each metric in a laboratory of its own. One that fails does not keep the others from being measured.
func run(ctx context.Context, chosen []metric, rounds int, progress io.Writer) ([]row, error) {
	var rows []row
	var all error
	for _, m := range chosen {
		begun := time.Now()
		found, err := measure(ctx, m, rounds, progress)
		rows = append(rows, found...)
		switch {
		case ctx.Err() != nil:
			return rows, errors.Join(all, errors.New("interrupted"))
		case err != nil:
			all = errors.Join(all, fmt.Errorf("%s: %w", m.name, err))
		}
		fmt.Fprintf(progress, "%-17s %4.0f s\n", m.name, time.Since(begun).Seconds())
	}
	return rows, all
}

func measure(ctx context.Context, m metric, rounds int, progress io.Writer) (rows []row, err error) {
	l, err := newLab(rounds, progress)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	rows, err = m.measure(ctx, l)
	for i := range rows {
		rows[i].FsyncUS = l.fsync
	}
	return rows, err
}
