// Command partner is the smallest program that mirrors a database: one partner of a session, and a page for its operator.
//
//	export DBMIRROR_DSN=postgres://postgres@127.0.0.1:5432/app DBMIRROR_PEER_DSN=postgres://postgres@db-b:5432/app
//	partner -session 00112233445566778899aabbccddeeff -self partner-a -dir /var/lib/dbmirror -establish \
//		-listen :7000 -peer db-b:7000 -witness witness:7001 -cert a.pem -key a.key -ca ca.pem -http 127.0.0.1:8080
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
	"github.com/f19126b3/dbmirror/partner"
	"github.com/f19126b3/dbmirror/partner/pglog"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "partner:", err)
		os.Exit(1)
	}
}

// run runs the partner until ctx ends, which is an orderly stop: the other servers do not take it for a failure.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	s, err := parse(args, getenv, stderr)
	if err != nil {
		return err
	}
	database, err := pglog.New(s.database)
	if err != nil {
		return err
	}
	page, err := operator.Open(s.page)
	if err != nil {
		return err
	}
	defer page.Close()
	log := slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn})
	s.Backend, s.Logger = database, slog.New(operator.Transitions(stdout, log))
	p, err := partner.New(s.Config)
	if err != nil {
		return err
	}
	return page.Run(ctx, operator.Partner(p), p.Run)
}
