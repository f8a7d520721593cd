// Command tour shows a mirrored database from its making to two failovers and back, on this machine and with nothing
// set up before: two throwaway PostgreSQL servers, each with a partner process beside it, a witness process, and clients
// that never stop writing.
//
//	go run ./examples/tour
//
// It prints every transition of every server as it happens. While clients write about 200 transactions a second, the
// principal's server and its partner are killed at once; the mirror takes over by itself; what was killed comes back as
// mirror; the roles are changed back by command; the witness is stopped and started. In the end every row that a client
// was ever promised is looked for on both servers, and every table is compared. The last line says what was found:
//
//	acknowledged=4871 lost=0 duplicated=0 automatic_failover=4.21 s manual_failover=0.62 s
//
// automatic_failover is the time from the kill to the first commit acknowledged by the new principal, manual_failover
// that from the last commit acknowledged by the old principal to the first by the new. The exit status is not zero when
// anything was lost, doubled or different, or when a step was not reached in its time; the ends of all logs are printed
// then. Nothing is left behind.
//
// The tour starts its own binary again for the partners and the witness: examples/internal/trio/program.go is all that such
// a process needs.
package main

import (
	"context"
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
		os.Exit(trio.RunProgram(settings))
	}
	os.Exit(start(os.Args[1:], os.Stdout, os.Stderr))
}

// start reads the flags, and ends the tour in order when it is interrupted. It returns the exit status.
func start(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("tour", flag.ContinueOnError)
	flags.SetOutput(stderr)
	profile := flags.String("profile", "fast", "how soon a silent server is given up: default (10 s) or fast (3.5 s)")
	rate := flags.Int("rate", 200, "commits a second that the clients aim at, 4 to 2000")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	_, err := operator.Profile(*profile)
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
	if err := tour(ctx, newConsole(stdout), *profile, *rate); err != nil {
		fmt.Fprintln(stderr, "\ntour:", err)
		return 1
	}
	return 0
}
