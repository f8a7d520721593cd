// Package operator is the page of a partner's or a witness's operator: what it shows and what it may be asked to do, as
// HTTP on loopback.
package operator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/mirror/host/metrics"
	"github.com/f19126b3/dbmirror/partner"
)

// commandTimeout bounds a command, which waits until what it changes is on disk.
const commandTimeout = 10 * time.Second

// Partner is the page of a partner:
//
//	GET  /status                   what the partner shows, as JSON
//	GET  /explain                  the conditions for an automatic failover
//	GET  /journal                  the latest decisions and refusals, oldest first
//	GET  /metrics                  for Prometheus
//	GET  /force                    what forced service would rest on and might cost
//	POST /failover /suspend /resume /reseed /admit /serve
//	POST /safety?level=FULL|OFF    POST /witness?set=true|false    POST /force?token=...
//	POST /skip?at=...              leaves out the transaction at which redo has stopped, redo_stopped_at in /status
//
// A command is answered when it is accepted (202), is refused (409) or could not be asked (503); /status shows when it is
// carried out.
func Partner(p *partner.Partner) http.Handler {
	mux := http.NewServeMux()
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics.NewCollector(p.Metrics), p.Timings())
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { reply(w, partnerStatus(p.Status())) })
	mux.HandleFunc("GET /journal", func(w http.ResponseWriter, _ *http.Request) { reply(w, lines(p.Journal())) })
	mux.HandleFunc("GET /force", func(w http.ResponseWriter, _ *http.Request) { reply(w, plan(p.PlanForce())) })
	mux.HandleFunc("GET /explain", func(w http.ResponseWriter, r *http.Request) { explain(w, r, p) })
	for name, command := range map[string]func(context.Context) error{
		"failover": p.Failover, "suspend": p.Suspend, "resume": p.Resume, "reseed": p.Reseed, "admit": p.Admit, "serve": p.Serve,
	} {
		mux.HandleFunc("POST /"+name, func(w http.ResponseWriter, r *http.Request) { carryOut(w, r, command) })
	}
	mux.HandleFunc("POST /safety", func(w http.ResponseWriter, r *http.Request) {
		level, ok := map[string]mirror.Safety{"FULL": mirror.SafetyFull, "OFF": mirror.SafetyOff}[r.FormValue("level")]
		if !ok {
			http.Error(w, "say which level: POST /safety?level=FULL or ?level=OFF", http.StatusBadRequest)
			return
		}
		carryOut(w, r, func(ctx context.Context) error { return p.SetSafety(ctx, level) })
	})
	mux.HandleFunc("POST /witness", func(w http.ResponseWriter, r *http.Request) {
		set, err := strconv.ParseBool(r.FormValue("set"))
		if err != nil {
			http.Error(w, "say what to do: POST /witness?set=true or ?set=false", http.StatusBadRequest)
			return
		}
		carryOut(w, r, func(ctx context.Context) error { return p.SetWitness(ctx, set) })
	})
	mux.HandleFunc("POST /force", func(w http.ResponseWriter, r *http.Request) {
		token := r.FormValue("token")
		if token == "" {
			http.Error(w, "GET /force shows what may be lost, and the token that accepts it: POST /force?token=...", http.StatusBadRequest)
			return
		}
		carryOut(w, r, func(ctx context.Context) error { return p.ForceService(ctx, token) })
	})
	mux.HandleFunc("POST /skip", func(w http.ResponseWriter, r *http.Request) {
		poison := p.Status().Redo.Poison
		if poison == (mirror.Position{}) || r.FormValue("at") != poison.String() {
			http.Error(w, "redo has not stopped there: GET /status shows where, POST /skip?at=... leaves that transaction out for good", http.StatusConflict)
			return
		}
		carryOut(w, r, func(ctx context.Context) error { return p.Skip(ctx, poison) })
	})
	return mux
}

func explain(w http.ResponseWriter, r *http.Request, p *partner.Partner) {
	ctx, cancel := context.WithTimeout(r.Context(), commandTimeout)
	defer cancel()
	found, err := p.Explain(ctx)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	reply(w, conditions(found, p.Status().Tick))
}

// carryOut asks for a command and answers how that went.
func carryOut(w http.ResponseWriter, r *http.Request, command func(context.Context) error) {
	ctx, cancel := context.WithTimeout(r.Context(), commandTimeout)
	defer cancel()
	err := command(ctx)
	switch {
	case err == nil:
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintln(w, "accepted; GET /status shows when it is carried out")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, host.ErrStopped):
		http.Error(w, err.Error()+"; it is not known whether it was accepted: GET /status", http.StatusServiceUnavailable)
	default:
		http.Error(w, err.Error(), http.StatusConflict)
	}
}

func reply(w http.ResponseWriter, v any) {
	var text bytes.Buffer
	out := json.NewEncoder(&text)
	out.SetEscapeHTML(false) // people read it
	out.SetIndent("", "  ")
	if err := out.Encode(v); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(text.Bytes())
}
