package witness

import (
	"sync/atomic"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
	"github.com/f19126b3/dbmirror/mirror/host/metrics"
)

// figures are what a session counts beside its host.
type figures struct {
	changed atomic.Pointer[time.Time] // when the shown state last changed
	heard   [mirror.Witness]struct{ messages, bytes atomic.Uint64 }
}

func (f *figures) record(l host.Line) {
	if l.Entry.Kind == mirror.EntryState {
		f.changed.Store(&l.At)
	}
}

// receive counts a message whose sender the endpoint has verified.
func (f *figures) receive(from endpoint.Role, bytes int) {
	for p := mirror.PartnerA; p <= mirror.PartnerB; p++ {
		if host.Role(p) == from {
			f.heard[p].messages.Add(1)
			f.heard[p].bytes.Add(uint64(bytes))
		}
	}
}

// Metrics is the source of a metrics.Collector: a snapshot of each session. One that is left out has no role.
func (w *Witness) Metrics() []metrics.Source {
	sources := make([]metrics.Source, len(w.order))
	for i, r := range w.Sessions() {
		s := w.order[i]
		src := metrics.Source{Session: r.ID, Status: r.Status, Tick: r.Tick}
		src.Status.Self = mirror.Witness
		src.Extra.LoginsTotal = r.Endpoint.Logins
		src.Extra.TransitionsTotal = metrics.Transitions(r.Counts.Transitions)
		if at := s.figures.changed.Load(); at != nil {
			src.Extra.LastTransition = *at
		}
		for p := mirror.PartnerA; p <= mirror.PartnerB; p++ {
			sent := s.clients[p].Stats()
			src.Extra.Peers[p] = metrics.Traffic{
				MessagesSent: sent.MessagesSent, BytesSent: sent.BytesSent,
				MessagesReceived: s.figures.heard[p].messages.Load(), BytesReceived: s.figures.heard[p].bytes.Load(),
			}
		}
		sources[i] = src
	}
	return sources
}
