// Command service is a small HTTP service that keeps answering while its database fails over.
//
//	psql "$DSN_OF_THE_PRINCIPAL" -c 'CREATE TABLE note (id text PRIMARY KEY, body text NOT NULL)'
//	export DBMIRROR_DSN='postgres://app@db-a:5432,db-b:5432/app?target_session_attrs=read-write'
//	service -listen 127.0.0.1:8090
//	curl -X PUT -d 'buy bread' 127.0.0.1:8090/notes/1 && curl 127.0.0.1:8090/notes/1
//
// What it shows: a pool that finds the principal by itself; reads that are repeated; writes that are known to be
// committed, known not to be, or said to be unknown, and that may be repeated because they are made so.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Getenv, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "service:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, getenv func(string) string, stderr io.Writer) error {
	flags := flag.NewFlagSet("service", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dsn := flags.String("dsn", "", "both databases; better in the environment as DBMIRROR_DSN")
	listen := flags.String("listen", "127.0.0.1:8090", "`address` of the service, host:port")
	patience := flags.Duration("patience", 20*time.Second, "how long a request waits for a database to serve")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("%q is not a flag; see -help", flags.Arg(0))
	case *patience <= 0:
		return fmt.Errorf("-patience %s: want more than nothing, and more than a failover takes", *patience)
	}
	registry := prometheus.NewRegistry()
	notes, err := open(ctx, cmp.Or(*dsn, getenv("DBMIRROR_DSN")), registry)
	if err != nil {
		return err
	}
	defer notes.close()
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	return serve(ctx, listener, pages(notes, *patience, registry))
}

func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := errors.Join(server.Shutdown(ending), server.Close())
	<-done
	return err
}

// maxBody bounds a note, in bytes.
const maxBody = 64 << 10

// pages are GET and PUT of /notes/{id}, and /metrics.
func pages(n *notes, patience time.Duration, registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /notes/{id}", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), patience)
		defer cancel()
		body, found, err := n.read(ctx, r.PathValue("id"))
		switch {
		case err != nil:
			http.Error(w, "no database answers; ask again", http.StatusServiceUnavailable)
		case !found:
			http.NotFound(w, r)
		default:
			fmt.Fprint(w, body)
		}
	})
	mux.HandleFunc("PUT /notes/{id}", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), patience)
		defer cancel()
		outcome, err := n.write(ctx, r.PathValue("id"), string(body))
		switch {
		case outcome == committed:
			fmt.Fprintln(w, "committed")
		case outcome == unknown:
			http.Error(w, "unknown: it may be committed or not; send the same again to be sure", http.StatusGatewayTimeout)
		case transient(err):
			http.Error(w, "not committed: no database serves; send it again", http.StatusServiceUnavailable)
		default:
			http.Error(w, "not committed: the database refuses it", http.StatusUnprocessableEntity)
		}
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}
