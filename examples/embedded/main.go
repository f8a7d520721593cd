// Command embedded is a service that keeps its data in a SQLite file, and does not lose it with the machine.
//
//	go run ./examples/embedded
//
// It needs Go and nothing else. Three processes are started on loopback: the service twice, each with a database file of
// its own, and a witness. One of the two is principal; what it writes is on both disks before the client hears of it. The
// addresses are printed, with commands to try: write at either of them, read at both, look at /metrics, and kill the
// principal. The other one serves within five seconds, and what was killed comes back as its mirror. Nothing is left behind
// when it is interrupted.
//
// What to copy is service.go: a service with its database and its partner in one process. This file only starts it, as the
// supervisors of three machines would; examples/partner and examples/witness have flags for that.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/f19126b3/dbmirror/examples/internal/trio"
	"github.com/f19126b3/dbmirror/mirror"
)

func main() {
	if settings, ok := trio.Child(os.Args); ok {
		os.Exit(trio.RunPartner(settings, service))
	}
	os.Exit(start(os.Args[1:], os.Stdout, os.Stderr))
}

// start refuses arguments, of which there are none, and runs until it is interrupted. It returns the exit status.
func start(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("embedded", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "embedded has no flags: it starts a service twice and a witness, and says what to try")
	}
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if flags.NArg() > 0 {
		flags.Usage()
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := show(ctx, log.New(stdout, "", 0)); err != nil {
		fmt.Fprintln(stderr, "embedded:", err)
		return 1
	}
	return 0
}

// show runs the three servers until ctx ends.
func show(ctx context.Context, out *log.Logger) (err error) {
	dir, err := os.MkdirTemp("", "dbmirror-embedded-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cfg := trio.Config{Dir: dir, Profile: "fast", Heard: func(p mirror.Server, line []byte) {
		if text := trio.Transition(line); text != "" {
			out.Printf("  %-9s  %s", p, text)
		}
	}}
	for p := mirror.PartnerA; p <= mirror.PartnerB; p++ {
		cfg.Path[p] = filepath.Join(dir, p.String()+".db")
	}
	servers, err := trio.New(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, servers.Close()) }()
	out.Print("three processes: the service twice, each with a SQLite file of its own, and a witness")
	for p := mirror.PartnerA; p <= mirror.Witness; p++ {
		if err := servers.Start(p); err != nil {
			return err
		}
	}
	if err := begin(ctx, servers); err != nil {
		if ctx.Err() != nil {
			return nil // it was interrupted, and ends
		}
		return fmt.Errorf("%w\n%s", err, servers.Tails())
	}
	invite(servers, out)
	return supervise(ctx, servers, out)
}

// begin waits until everything is on both disks.
func begin(ctx context.Context, servers *trio.Trio) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return servers.AwaitSynchronized(ctx, mirror.PartnerA)
}

func invite(servers *trio.Trio, out *log.Logger) {
	a, b := servers.Page(mirror.PartnerA), servers.Page(mirror.PartnerB)
	out.Printf(`
SYNCHRONIZED: a write is answered when both disks have it. Try, in another terminal:

  curl -L -X PUT -d 'a note' http://%[1]s/notes/1    write, at the principal
  curl -L -X PUT -d another http://%[2]s/notes/2     write at the mirror, which sends curl to the principal
  curl http://%[2]s/notes/1                          read, at either
  curl -s http://%[1]s/metrics | grep dbmirror_      what Prometheus sees
  curl -s http://%[1]s/status                        what an operator sees
  curl -X POST http://%[1]s/failover                 change the roles
  %-59[3]s  end partner-a: if it is principal, partner-b serves within five seconds

Interrupt (Ctrl-C) ends it and leaves nothing behind.
`, a, b, fmt.Sprintf("kill -9 %d", servers.Pid(mirror.PartnerA)))
}

// A process that has ended stays away for a while, and until a partner serves, so that one can see it take over. Where
// nobody serves, it is not waited for any longer.
const restart, longest = 6 * time.Second, time.Minute

// supervise starts what has ended again, until ctx ends.
func supervise(ctx context.Context, servers *trio.Trio, out *log.Logger) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var ended [4]time.Time
	for {
		select {
		case <-ctx.Done():
			return finish(servers, out)
		case <-tick.C:
		}
		for _, p := range servers.Ended() {
			switch {
			case ended[p].IsZero():
				ended[p] = time.Now()
				out.Printf("  %-9s  its process has ended, and is started again in %s, if somebody serves then", p, restart)
			case time.Since(ended[p]) >= restart && (served(ctx, servers) || time.Since(ended[p]) >= longest):
				if err := servers.Start(p); err != nil {
					return err
				}
				ended[p] = time.Time{}
				out.Printf("  %-9s  process %d", p, servers.Pid(p))
			}
		}
	}
}

// served says whether a partner serves.
func served(ctx context.Context, servers *trio.Trio) bool {
	for p := mirror.PartnerA; p <= mirror.PartnerB; p++ {
		if r, err := servers.Page(p).Status(ctx); err == nil && r.Serving {
			return true
		}
	}
	return false
}

// finish stops in order what still runs: an orderly stop is announced, and no failure.
func finish(servers *trio.Trio, out *log.Logger) error {
	out.Print("everything is stopped in order")
	ended := servers.Ended()
	for _, p := range [...]mirror.Server{mirror.PartnerB, mirror.PartnerA, mirror.Witness} {
		if slices.Contains(ended, p) {
			continue
		}
		if err := servers.Stop(p); err != nil {
			return err
		}
	}
	return nil
}
