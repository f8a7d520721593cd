// Command bench measures this library beside the alternatives on the machine it runs on, and prints one table.
//
//	go run ./examples/bench [-only name,name] [-rounds n] [-json]
//
// It starts its own throwaway PostgreSQL servers. Everything is measured in rounds: in each, ours and its peers take
// turns, and what is printed is the median of the ratios within a round, because machines differ and change their mind
// while absolute figures are of little use elsewhere. How long the disk takes for one fdatasync is measured beside each
// group, as the ratios depend on it; the metrics named slow- make every sync of every process take 1 ms longer.
//
// The peers are PostgreSQL's own: logical replication, asynchronous and synchronous; physical replication; a bare reader
// of the log; and pg_auto_failover where its programs are installed (Debian's packages pg-auto-failover-cli and
// postgresql-15-auto-failover). An embedded pair is measured beside SQLite without mirroring.
//
// A row of the table: ours and the peer's figure, each the median of the rounds; the median of the ratios within a round,
// and their spread; the goal and whether it is met; the rounds; what fdatasync took, in microseconds; what bounds the
// figure, where that is known. With -json a row is an object with name, unit, ours, peer, peer_name, ratio, ratio_low,
// ratio_high, goal, met, limit, rounds and fsync_us; without a goal it is met. How long each metric took is printed to
// standard error. Close everything else before you measure: on a busy machine only the spread is true.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/f19126b3/dbmirror/examples/internal/trio"
)

func main() {
	if settings, ok := trio.Child(os.Args); ok {
		os.Exit(trio.RunProgram(settings, inserts))
	}
	if status, ok := slowChild(os.Args); ok {
		os.Exit(status)
	}
	if status, ok := witnessChild(os.Args); ok {
		os.Exit(status)
	}
	if status, ok := plainChild(os.Args); ok {
		os.Exit(status)
	}
	os.Exit(start(os.Args[1:], os.Stdout, os.Stderr))
}

// start reads the flags and measures until it is done or interrupted. It returns the exit status: 1 when something
// could not be measured; a goal that is not met is told in the table, and no failure.
func start(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	only := flags.String("only", "", "metrics to measure, separated by commas: "+strings.Join(names(), ", ")+" (default: all)")
	rounds := flags.Int("rounds", 3, "rounds of each comparison, 1 to 100")
	asJSON := flags.Bool("json", false, "print the rows as a list of JSON objects")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	chosen, err := choose(*only)
	switch {
	case err != nil:
	case *rounds < 1 || *rounds > 100:
		err = fmt.Errorf("-rounds %d: want 1 to 100", *rounds)
	case flags.NArg() > 0:
		err = fmt.Errorf("%q is not a flag; see -help", flags.Arg(0))
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	rows, took, err := run(ctx, chosen, *rounds, stderr)
	if *asJSON {
		err = errors.Join(err, writeJSON(stdout, rows))
	} else {
		writeTable(stdout, rows)
	}
	fmt.Fprintln(stderr, took)
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}
