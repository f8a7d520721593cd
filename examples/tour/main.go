// Command tour shows a mirrored database from its making to two failovers and back, on this machine and with nothing
// set up before.
//
//	go run ./examples/tour [-backend postgres|sqlite]
//
// Where PostgreSQL's server programs are found, it starts two throwaway servers, each with a partner process beside it, a
// witness process, and clients that never stop writing. Elsewhere Go is all it needs: the databases are SQLite files then,
// each in the process of its partner together with the application, whose clients call it over HTTP. The first lines say
// which of the two it is; -backend takes one or the other. Only -backend postgres may install PostgreSQL: see pgtest.Find.
//
// It prints every transition of every server as it happens. While clients write about 200 transactions a second, the
// principal is killed with everything around it; the mirror takes over by itself; what was killed comes back as mirror;
// the witness is stopped and started; the roles are changed back by command. In the end every row that a client was ever
// promised is looked for on both sides, and every table is compared. The last line says what was found:
//
//	acknowledged=1787 lost=0 duplicated=0 automatic_failover=3.54 s manual_failover=0.22 s
//
// automatic_failover is the time from the kill to the first commit acknowledged by the new principal, manual_failover
// that from the last commit acknowledged by the old principal to the first by the new. The exit status is not zero when
// anything was lost, doubled or different, or when a step was not reached in its time; the ends of all logs are printed
// then. Nothing is left behind.
//
// The tour starts its own binary again for the partners and the witness: examples/internal/trio/program.go is all that such
// a process needs. The application of the embedded pair is till.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/f19126b3/dbmirror/examples/internal/operator"
	"github.com/f19126b3/dbmirror/examples/internal/trio"
)

func main() {
	if settings, ok := trio.Child(os.Args); ok {
		os.Exit(trio.RunProgram(settings, till))
	}
	os.Exit(start(os.Args[1:], os.Stdout, os.Stderr))
}

// options are what is chosen on the command line.
type options struct {
	backend string // postgres, sqlite, or empty: what is found
	profile string
	rate    int // commits a second
}

// start reads the flags, and ends the tour in order when it is interrupted. It returns the exit status.
func start(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("tour", flag.ContinueOnError)
	flags.SetOutput(stderr)
	profile := flags.String("profile", "fast", "`name` of the timeouts: how soon a silent server is given up: default (10 s) or fast (3.5 s)")
	backend := flags.String("backend", "", "`kind` of database: postgres or sqlite (default: postgres where its server programs are found)")
	rate := flags.Int("rate", 200, "commits a second that the clients aim at, 4 to 2000")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	_, err := operator.Profile(*profile)
	err = errors.Join(err, checkBackend(*backend))
	switch {
	case err != nil:
	case *rate < clients || *rate > 2000:
		err = fmt.Errorf("-rate %d: want %d to 2000", *rate, clients)
	case flags.NArg() > 0:
		err = fmt.Errorf("%q is not a flag; see -help", flags.Arg(0))
	}
	if err != nil {
		fmt.Fprintln(stderr, "tour:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := tour(ctx, newConsole(stdout), options{*backend, *profile, *rate}); err != nil {
		fmt.Fprintln(stderr, "\ntour:", err)
		return 1
	}
	return 0
}
