package operator

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/f19126b3/dbmirror/mirror/host/metrics"
	"github.com/f19126b3/dbmirror/witness"
)

// Witness is the page of a witness: GET /status, all its sessions as JSON, and GET /metrics.
func Witness(w *witness.Witness) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(out http.ResponseWriter, _ *http.Request) { reply(out, witnessStatus(w.Sessions())) })
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics.NewCollector(w.Metrics))
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}

// witnessView is a session at a witness, or why it is left out.
type witnessView struct {
	sessionView
	PromisedTo  string  `json:"promised_to"`
	PromiseLeft float64 `json:"promise_seconds"`
	Error       string  `json:"error,omitempty"`
}

func witnessStatus(reports []witness.Report) []witnessView {
	views := make([]witnessView, len(reports))
	for i, r := range reports {
		views[i] = witnessView{sessionView: session(r.ID, r.Status, r.Tick), PromisedTo: r.Status.PromisedTo.String(),
			PromiseLeft: seconds(r.Status.PromiseLeft, r.Tick)}
		if r.Err != nil {
			views[i].Error = r.Err.Error()
		}
	}
	return views
}
