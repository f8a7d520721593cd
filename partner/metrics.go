package partner

import (
	"crypto/tls"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/metrics"
)

// Metrics is the source of a metrics.Collector. It does not block.
func (p *Partner) Metrics() []metrics.Source {
	st, counts := p.Status(), p.host.Counts()
	src := metrics.Source{Session: p.id.String(), Status: st.Status, Tick: st.Tick}
	x := &src.Extra
	x.RedoQueueBytes = uint64(max(st.Queue, 0))
	x.ReceivedLogBytesTotal = st.Stream.Bytes
	x.RedoneBytesTotal = st.Redo.Bytes
	x.HardenedTransactionsTotal = p.data.follow.transactions.Load()
	x.RetainedBytes = uint64(max(st.Retained, 0))
	x.BudgetBytes = uint64(p.cfg.Limits.LogBudget)
	switch {
	case st.Role != mirror.RolePrincipal:
	case st.Hardened.Seq != st.Record.Seq: // the mirror has not said since this program started, or never
		x.SendQueueBytes = x.RetainedBytes
	case st.EndOfLog > st.Hardened.LSN:
		x.SendQueueBytes = uint64(st.EndOfLog - st.Hardened.LSN)
	}
	x.ExposedTotal, x.LastTransition = counts.ExposedTotal, counts.LastChange
	x.TransitionsTotal = metrics.Transitions(counts.Transitions)
	x.FailoversTotal = metrics.Failovers{Automatic: counts.Automatic, Manual: counts.Manual, Forced: counts.Forced}
	for server, client := range p.clients {
		sent, replied, received := client.Stats(), counts.Replied[server], counts.Received[server]
		x.Peers[server] = metrics.Traffic{
			MessagesSent: sent.MessagesSent + replied.Messages, BytesSent: sent.BytesSent + replied.Bytes,
			MessagesReceived: received.Messages, BytesReceived: received.Bytes, PingTimeouts: received.Timeouts,
		}
	}
	if seen, ok := p.endpoint.Stats(p.id.String()); ok {
		x.LoginsTotal = seen.Logins
	}
	return []metrics.Source{src}
}

// Timings are the histograms of this partner, to be registered beside the Collector of Metrics.
func (p *Partner) Timings() *metrics.Timings { return p.timings }

// ConfigForClient gives the TLS settings of this session to a service that mounts Handler in a server of its own.
func (p *Partner) ConfigForClient(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	return p.endpoint.ConfigForClient(hello)
}
