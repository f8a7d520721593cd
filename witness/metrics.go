package witness

import (
	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/metrics"
)

// Metrics is the source of a metrics.Collector: a snapshot of each session. One that is left out has no role.
func (w *Witness) Metrics() []metrics.Source {
	sources := make([]metrics.Source, len(w.order))
	for i, r := range w.Sessions() {
		src := metrics.Source{Session: r.ID, Status: r.Status, Tick: r.Tick}
		if r.Err != nil {
			src.Status = mirror.Status{} // what it showed last is not so any more
		}
		src.Status.Self = mirror.Witness
		src.Extra.LoginsTotal = r.Endpoint.Logins
		src.Extra.TransitionsTotal = metrics.Transitions(r.Counts.Transitions)
		src.Extra.LastTransition = r.Counts.LastChange
		for p := mirror.PartnerA; p <= mirror.PartnerB; p++ {
			sent, replied, received := w.order[i].clients[p].Stats(), r.Counts.Replied[p], r.Counts.Received[p]
			src.Extra.Peers[p] = metrics.Traffic{
				MessagesSent: sent.MessagesSent + replied.Messages, BytesSent: sent.BytesSent + replied.Bytes,
				MessagesReceived: received.Messages, BytesReceived: received.Bytes, PingTimeouts: received.Timeouts,
			}
		}
		sources[i] = src
	}
	return sources
}
