// Command witness is the smallest witness: one session, and a page for its operator.
//
//	witness -session 00112233445566778899aabbccddeeff -dir /var/lib/dbmirror-witness -listen :7001 \
//		-partner-a db-a:7000 -partner-b db-b:7000 -cert w.pem -key w.key -ca ca.pem -http 127.0.0.1:8081
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/f19126b3/dbmirror/examples/internal/operator"
	"github.com/f19126b3/dbmirror/witness"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "witness:", err)
		os.Exit(1)
	}
}

// run runs the witness until ctx ends, which is an orderly stop: the partners do not take it for a failure.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	cfg, addr, err := parse(args, stderr)
	if err != nil {
		return err
	}
	page, err := operator.Open(addr)
	if err != nil {
		return err
	}
	defer page.Close()
	log := slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn})
	cfg.Logger = slog.New(operator.Transitions(stdout, log))
	w, err := witness.New(cfg)
	if err != nil {
		return err
	}
	return page.Run(ctx, operator.Witness(w), w.Run)
}

func parse(args []string, stderr io.Writer) (cfg witness.Config, page string, err error) {
	var s witness.Session
	flags := flag.NewFlagSet("witness", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&cfg.Dir, "dir", "", "`directory` of the state files")
	flags.StringVar(&cfg.Listen, "listen", "", "`address` for the partners, host:port")
	flags.StringVar(&s.ID, "session", "", "`identity` of the session, 32 hexadecimal digits")
	flags.StringVar(&s.PartnerA, "partner-a", "", "`address` of partner-a")
	flags.StringVar(&s.PartnerB, "partner-b", "", "`address` of partner-b")
	profile := flags.String("profile", "default", "`name` of the timeouts, the same on all three servers: default or fast")
	operator.CredentialFlags(flags, &s.Credentials)
	flags.StringVar(&page, "http", "", "loopback `address` of the operator's page; none: no page")
	if err := flags.Parse(args); err != nil {
		return cfg, "", err
	}
	switch {
	case flags.NArg() > 0:
		return cfg, "", fmt.Errorf("%q is not a flag; see -help", flags.Arg(0))
	case cfg.Listen == "":
		return cfg, "", errors.New("-listen is empty; name an address that the partners reach, such as :7001")
	}
	if err := operator.CheckCredentials(s.Credentials); err != nil {
		return cfg, "", err
	}
	cfg.Sessions = []witness.Session{s}
	cfg.Timing, err = operator.Profile(*profile)
	return cfg, page, err
}
