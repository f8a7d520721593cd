package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// What clients do. Each is a transaction of pgbench.
const (
	insert       = "\\set r random(1, 1000000)\nINSERT INTO ins(a, b) VALUES (:r, 'forty characters are what this text holds');\n"
	simpleUpdate = "simple-update"
)

// insTable is what insert writes to.
const insTable = "CREATE TABLE ins (id bigserial PRIMARY KEY, a int, b text, ts timestamptz DEFAULT now())"

// load is one run of pgbench.
type load struct {
	script  string // its text, or the name of one that pgbench has
	clients int
	lasts   time.Duration // or count
	count   int           // transactions of each client
	rate    int           // transactions a second of all clients; 0: as many as they can
	setting string        // of the sessions: name=value
}

// outcome is what pgbench has measured.
type outcome struct {
	rate    float64 // transactions a second
	latency float64 // milliseconds, the mean
}

var (
	rateLine    = regexp.MustCompile(`(?m)^tps = ([0-9.]+) \(without`)
	latencyLine = regexp.MustCompile(`(?m)^latency average = ([0-9.]+) ms`)
)

// pgbench lets clients work at a server.
func (l *lab) pgbench(ctx context.Context, s *pgtest.Server, w load) (outcome, error) {
	args := []string{"-n", "-c", strconv.Itoa(w.clients), "-j", "2"}
	switch {
	case w.count > 0:
		args = append(args, "-t", strconv.Itoa(w.count))
	default:
		args = append(args, "-T", strconv.Itoa(int(w.lasts.Seconds())))
	}
	if w.rate > 0 {
		args = append(args, "-R", strconv.Itoa(w.rate))
	}
	if w.script == simpleUpdate {
		args = append(args, "-b", w.script)
	} else {
		file := filepath.Join(l.dir, "script.sql")
		if err := os.WriteFile(file, []byte(w.script), 0o644); err != nil {
			return outcome{}, err
		}
		args = append(args, "-f", file)
	}
	dsn := s.DSN("app")
	if w.setting != "" {
		dsn += "&options=-c%20" + url.QueryEscape(w.setting)
	}
	out, err := l.command(ctx, "pgbench", append(args, dsn)...)
	if err != nil {
		return outcome{}, err
	}
	rate, latency := rateLine.FindStringSubmatch(out), latencyLine.FindStringSubmatch(out)
	if rate == nil || latency == nil {
		return outcome{}, fmt.Errorf("run pgbench: it prints no figures but %q", out)
	}
	var o outcome
	if o.rate, err = strconv.ParseFloat(rate[1], 64); err == nil {
		o.latency, err = strconv.ParseFloat(latency[1], 64)
	}
	return o, err
}

// tables makes what the clients work on: table ins, and pgbench's own of a scale (100,000 accounts each).
func (l *lab) tables(ctx context.Context, s *pgtest.Server, scale int) error {
	if err := execute(ctx, s, insTable); err != nil {
		return err
	}
	if scale == 0 {
		return nil
	}
	if _, err := l.command(ctx, "pgbench", "-i", "-q", "-s", strconv.Itoa(scale), s.DSN("app")); err != nil {
		return err
	}
	return execute(ctx, s, "ALTER TABLE pgbench_history REPLICA IDENTITY FULL") // it has no key
}
