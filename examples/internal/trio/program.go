package trio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/f19126b3/dbmirror/examples/internal/operator"
	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
	"github.com/f19126b3/dbmirror/partner"
	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/pglog"
	"github.com/f19126b3/dbmirror/partner/sqlitelog"
	"github.com/f19126b3/dbmirror/witness"
)

// settings are what a partner's or the witness's process is told, in a file.
type settings struct {
	Session        string
	Self           mirror.Server
	Dir            string
	DSN, PeerDSN   string // of a partner's PostgreSQL
	ThroughPartner bool
	Path           string    // of a partner's SQLite database
	Other          string    // address where the application of the other partner is
	Addr           [4]string // of the endpoints, by mirror.Server
	Operator       string    // address of a partner's page for its operator
	Profile        string
	Credentials    endpoint.Credentials
}

// hidden is the first argument of a process that is one of the session's servers; the second names its settings.
const hidden = "run-one-server-of-the-session"

// Child returns the file with the settings if this process, with the arguments of os.Args, is one of a session's
// servers: main then calls RunProgram with it and nothing else.
func Child(args []string) (string, bool) {
	if len(args) == 3 && args[1] == hidden {
		return args[2], true
	}
	return "", false
}

// App is an application that has its SQLite database in the process of its partner. It is served below /app/ on the
// address of the partner's page.
type App func(*sqlitelog.DB) http.Handler

// RunProgram is a partner or the witness until it is told to stop. A partner of an embedded pair runs app. It returns
// the exit status.
func RunProgram(file string, app App) int {
	return run(file, func(ctx context.Context, s settings, cfg partner.Config) error { return servePartner(ctx, s, cfg, app) })
}

// Place is what the program of a partner is told that opens its own database, and makes its partner itself.
type Place struct {
	Partner partner.Config // everything but Backend
	Path    string         // of the SQLite database
	Listen  string         // address for its clients and its operator, on loopback
	Peer    string         // address where the other partner's are
}

// RunPartner is RunProgram for a program that makes its partner itself. At Place.Listen it serves operator.Partner, too.
func RunPartner(file string, program func(context.Context, Place) error) int {
	return run(file, func(ctx context.Context, s settings, cfg partner.Config) error {
		return program(ctx, Place{Partner: cfg, Path: s.Path, Listen: s.Operator, Peer: s.Other})
	})
}

// run is a partner, which is a program, or the witness.
func run(file string, program func(context.Context, settings, partner.Config) error) int {
	logger := slog.New(slog.NewJSONHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: inWords}))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, file, program, logger); err != nil {
		logger.Error("ended", "error", err)
		return 1
	}
	return 0
}

// inWords writes states, roles and the like as people call them.
func inWords(_ []string, a slog.Attr) slog.Attr {
	if s, ok := a.Value.Any().(fmt.Stringer); ok && (a.Value.Kind() == slog.KindAny || a.Value.Kind() == slog.KindDuration) {
		return slog.String(a.Key, s.String())
	}
	return a
}

func serve(ctx context.Context, file string, program func(context.Context, settings, partner.Config) error, logger *slog.Logger) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	var s settings
	if err := json.Unmarshal(raw, &s); err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	pace, err := operator.Profile(s.Profile)
	if err != nil {
		return err
	}
	if s.Self == mirror.Witness {
		return serveWitness(ctx, s, pace, logger)
	}
	return program(ctx, s, partner.Config{
		Session: s.Session, Self: s.Self, Dir: s.Dir,
		Listen: s.Addr[s.Self], Peer: s.Addr[s.Self.Other()], Witness: s.Addr[mirror.Witness],
		Credentials: s.Credentials, Establish: s.Self == mirror.PartnerA, Timing: pace, Logger: logger,
	})
}

func serveWitness(ctx context.Context, s settings, pace host.Timing, logger *slog.Logger) error {
	w, err := witness.New(witness.Config{
		Dir: s.Dir, Listen: s.Addr[mirror.Witness], Timing: pace, Logger: logger,
		Sessions: []witness.Session{{
			ID: s.Session, PartnerA: s.Addr[mirror.PartnerA], PartnerB: s.Addr[mirror.PartnerB], Credentials: s.Credentials,
		}},
	})
	if err != nil {
		return err
	}
	return w.Run(ctx)
}

// servePartner runs a partner and, beside it, an address where an operator can look at it and command it.
func servePartner(ctx context.Context, s settings, cfg partner.Config, app App) (err error) {
	page, err := operator.Open(s.Operator)
	if err != nil {
		return err
	}
	defer page.Close()
	mux := http.NewServeMux()
	database, closeDatabase, err := openDatabase(s, app, mux)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeDatabase()) }()
	cfg.Backend = database
	p, err := partner.New(cfg)
	if err != nil {
		return err
	}
	mux.Handle("/", operator.Partner(p))
	return page.Run(ctx, mux, p.Run)
}

// openDatabase opens the database of a partner. An embedded one has its application beside it, in mux.
func openDatabase(s settings, app App, mux *http.ServeMux) (_ backend.Backend, close func() error, err error) {
	if s.Path == "" {
		database, err := pglog.New(pglog.Config{
			DSN: pglog.Secret(s.DSN), PeerDSN: pglog.Secret(s.PeerDSN), ThroughPartner: s.ThroughPartner,
		})
		return database, func() error { return nil }, err
	}
	db, err := sqlitelog.Open(sqlitelog.Config{Path: s.Path, ForeignKeys: true, PeerURL: "http://" + s.Other + "/app/"})
	if err != nil {
		return nil, nil, err
	}
	mux.Handle("/app/", http.StripPrefix("/app", app(db)))
	return db.Backend(), db.Close, nil
}
