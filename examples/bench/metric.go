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

// times is how long each metric took.
type times []struct {
	name string
	took time.Duration
}

func (all times) String() string {
	var sum time.Duration
	text := "took"
	for _, one := range all {
		text += fmt.Sprintf(" %s %.0f s,", one.name, one.took.Seconds())
		sum += one.took
	}
	return fmt.Sprintf("%s all %.1f min", text, sum.Minutes())
}

// failures are what went wrong, by what was being measured.
type failures []struct {
	metrics []string
	err     error
}

// add notes an error of a metric. One that others had already is noted beside them.
func (all *failures) add(metric string, err error) {
	for i, known := range *all {
		if known.err.Error() == err.Error() {
			(*all)[i].metrics = append(known.metrics, metric)
			return
		}
	}
	*all = append(*all, failures{{[]string{metric}, err}}...)
}

// err is all of them; nil if there are none.
func (all failures) err() (joined error) {
	for _, f := range all {
		joined = errors.Join(joined, fmt.Errorf("%s: %w", strings.Join(f.metrics, ", "), f.err))
	}
	return joined
}

// run measures each metric in a laboratory of its own. One that fails does not keep the others from being measured.
func run(ctx context.Context, chosen []metric, rounds int, progress io.Writer) ([]row, times, error) {
	var rows []row
	var took times
	var failed failures
	for _, m := range chosen {
		begun := time.Now()
		found, err := measure(ctx, m, rounds, progress)
		rows = append(rows, found...)
		if ctx.Err() != nil {
			return rows, took, errors.Join(failed.err(), errors.New("interrupted"))
		}
		if err != nil {
			failed.add(m.name, err)
		}
		took = append(took, times{{m.name, time.Since(begun)}}...)
		fmt.Fprintf(progress, "%-17s %4.0f s\n", m.name, time.Since(begun).Seconds())
	}
	return rows, took, failed.err()
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
