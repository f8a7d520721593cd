package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/f19126b3/dbmirror/examples/internal/operator"
	"github.com/f19126b3/dbmirror/examples/internal/trio"
	"github.com/f19126b3/dbmirror/mirror/host/metrics"
	"github.com/f19126b3/dbmirror/partner"
	"github.com/f19126b3/dbmirror/partner/sqlitelog"
)

// service is one of the two processes, whichever it is: principal or mirror, it finds out by itself.
func service(ctx context.Context, at trio.Place) (err error) {
	// PeerURL is where clients are sent who ask for what only the principal does, while the other one is that.
	db, err := sqlitelog.Open(sqlitelog.Config{Path: at.Path, ForeignKeys: true, PeerURL: "http://" + at.Peer})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if at.Partner.Establish {
		if err := makeTables(ctx, db); err != nil {
			return err
		}
	}
	cfg := at.Partner // the session, the addresses of all three, certificates, a directory: see README.md
	cfg.Backend = db.Backend()
	p, err := partner.New(cfg)
	if err != nil {
		return err
	}
	page, err := operator.Open(at.Listen)
	if err != nil {
		return err
	}
	defer page.Close()
	mux := http.NewServeMux()
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics.NewCollector(p.Metrics), p.Timings())
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.Handle("/notes/", newNotes(db, registry))
	mux.Handle("/", operator.Partner(p)) // on loopback only: nobody logs in
	return page.Run(ctx, mux, p.Run)
}

// makeTables is for the one that makes the session: the other gets everything from it. When there is a session, the
// database is closed until its partner opens it, and the tables are there.
func makeTables(ctx context.Context, db *sqlitelog.DB) error {
	err := db.Write(ctx, func(conn *sqlite.Conn) error {
		return sqlitex.ExecuteScript(conn, "CREATE TABLE IF NOT EXISTS note (id TEXT NOT NULL PRIMARY KEY, body TEXT NOT NULL)", nil)
	})
	if _, later := errors.AsType[*sqlitelog.NotServingError](err); later {
		return nil
	}
	return err
}

// notes is the service proper. Its handlers are the same on the principal and on the mirror.
type notes struct {
	db     *sqlitelog.DB
	writes *prometheus.CounterVec
}

func newNotes(db *sqlitelog.DB, registry *prometheus.Registry) http.Handler {
	n := &notes{db, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "service_writes_total", Help: "Writes by what the client was told."}, []string{"outcome"})}
	registry.MustRegister(n.writes)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /notes/{id}", n.get)
	mux.HandleFunc("PUT /notes/{id}", n.put)
	return mux
}

func (n *notes) get(w http.ResponseWriter, r *http.Request) {
	var body string
	found := false
	err := n.db.Read(r.Context(), func(conn *sqlite.Conn) error {
		return sqlitex.Execute(conn, "SELECT body FROM note WHERE id = ?", &sqlitex.ExecOptions{
			Args: []any{r.PathValue("id")},
			ResultFunc: func(stmt *sqlite.Stmt) error {
				body, found = stmt.ColumnText(0), true
				return nil
			},
		})
	})
	switch {
	case err != nil:
		explain(w, r, err)
	case !found:
		http.NotFound(w, r)
	default:
		fmt.Fprint(w, body)
	}
}

// maxBody bounds a note, in bytes.
const maxBody = 64 << 10

func (n *notes) put(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	// It is not broken off when the client hangs up: nobody would know then whether it is committed.
	err = n.db.Write(context.WithoutCancel(r.Context()), func(conn *sqlite.Conn) error {
		return sqlitex.Execute(conn, "INSERT INTO note (id, body) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body",
			&sqlitex.ExecOptions{Args: []any{r.PathValue("id"), string(body)}})
	})
	if err != nil {
		n.writes.WithLabelValues(explain(w, r, err)).Inc()
		return
	}
	n.writes.WithLabelValues("committed").Inc()
	fmt.Fprintln(w, "committed")
}

// explain says what became of a request, and returns it in a word.
func explain(w http.ResponseWriter, r *http.Request, err error) (outcome string) {
	if not, ok := errors.AsType[*sqlitelog.NotServingError](err); ok { // nothing was done
		if not.Ask != "" {
			http.Redirect(w, r, not.Ask+r.URL.RequestURI(), http.StatusTemporaryRedirect)
			return "redirected"
		}
		w.Header().Set("Retry-After", "1")
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return "refused"
	}
	if _, ok := errors.AsType[*sqlitelog.UnconfirmedError](err); ok {
		http.Error(w, "unknown: it may be committed or not; send the same again to be sure", http.StatusGatewayTimeout)
		return "unknown"
	}
	http.Error(w, err.Error(), http.StatusInternalServerError)
	return "failed"
}
