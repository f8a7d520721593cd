package metrics

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
)

// family is one metric: its series differ in label values only.
type family struct {
	name     string // without the prefix
	kind     prometheus.ValueType
	partners bool     // a witness has none
	labels   []string // beside session and server
	help     string
	emit     func(*Source, emit)
}

// emit takes one series: its value and the values of its own labels.
type emit func(v float64, labels ...string)

const (
	gauge   = prometheus.GaugeValue
	counter = prometheus.CounterValue
)

// families lists every metric that a Collector exports.
func families() []family {
	return append(append(append(stateFamilies(), sequenceFamilies()...), logFamilies()...), linkFamilies()...)
}

func stateFamilies() []family {
	return []family{
		{"session_info", gauge, false, []string{"mode"}, "One series with value 1: the operating mode.",
			func(s *Source, out emit) { out(1, slug(s.Status.Mode.String())) }},
		{"role", gauge, false, []string{"role"}, "1 for the role that this server has at present.",
			func(s *Source, out emit) {
				for r := mirror.RolePrincipal; r <= mirror.RoleWitness; r++ {
					out(is(s.Status.Role == r), r.String())
				}
			}},
		{"state", gauge, false, []string{"state"}, "1 for the state that is shown.",
			func(s *Source, out emit) {
				for _, st := range mirror.States() {
					out(is(s.Status.State == st), slug(st.String()))
				}
			}},
		{"reason", gauge, false, []string{"reason"}, "1 for the reason of the state that is shown.",
			func(s *Source, out emit) {
				for _, r := range mirror.Reasons() {
					out(is(s.Status.Reason == r), slug(r.String()))
				}
			}},
		{"quorum", gauge, false, []string{"quorum"}, "1 for the servers that see each other, as this one knows it.",
			func(s *Source, out emit) {
				for _, q := range mirror.Quorums() {
					out(is(s.Status.Quorum == q), q.String())
				}
			}},
		{"witness_state", gauge, true, []string{"state"}, "1 for the state of the witness as this partner knows it; none if no witness is set.",
			witnessState},
		{"safety_full", gauge, false, nil, "1 if commits are to wait for the mirror.",
			func(s *Source, out emit) { out(is(s.Status.Record.Safety == mirror.SafetyFull)) }},
		flag("serving", "1 if clients may use the database.", func(s *mirror.Status) bool { return s.Serving }),
		flag("exposed", "1 if this principal acknowledges commits without the mirror.", func(s *mirror.Status) bool { return s.Exposed }),
		{"exposed_seconds_total", counter, true, nil, "Time for which this server has acknowledged commits without the mirror.",
			func(s *Source, out emit) { out(s.Extra.ExposedTotal.Seconds()) }},
		{"last_transition_timestamp_seconds", gauge, false, nil, "When the shown state last changed.",
			func(s *Source, out emit) {
				if !s.Extra.LastTransition.IsZero() {
					out(float64(s.Extra.LastTransition.UnixMilli()) / 1000)
				}
			}},
		{"state_transitions_total", counter, false, []string{"from", "to"}, "Changes of the shown state.", transitions},
		{"failovers_total", counter, true, []string{"kind"}, "Times that this server became principal.",
			func(s *Source, out emit) {
				f := s.Extra.FailoversTotal
				out(float64(f.Automatic), "automatic")
				out(float64(f.Manual), "manual")
				out(float64(f.Forced), "forced")
			}},
	}
}

func witnessState(s *Source, out emit) {
	if !s.Status.Record.HasWitness() {
		return
	}
	w := s.Status.Peers[mirror.Witness]
	unknown := s.Status.Reason == mirror.ReasonStarting
	out(is(unknown), "unknown")
	out(is(!unknown && w.Connected), "connected")
	out(is(!unknown && !w.Connected), "disconnected")
}

func transitions(s *Source, out emit) {
	for _, from := range mirror.States() {
		for _, to := range mirror.States() {
			if from != to {
				out(float64(s.Extra.TransitionsTotal[from][to]), slug(from.String()), slug(to.String()))
			}
		}
	}
}

func sequenceFamilies() []family {
	number := func(name, help string, value func(*mirror.Status) uint64) family {
		return family{name, gauge, false, nil, help, func(s *Source, out emit) { out(float64(value(&s.Status))) }}
	}
	return []family{
		number("role_sequence", "Role changes of the session so far.", func(s *mirror.Status) uint64 { return uint64(s.Record.Seq) }),
		number("record_change", "Changes of the record within its role sequence.", func(s *mirror.Status) uint64 { return s.Record.Change }),
		number("safety_sequence", "Changes of safety so far.", func(s *mirror.Status) uint64 { return s.Record.SafetySeq }),
		number("suspended_sequence", "Changes of suspended so far.", func(s *mirror.Status) uint64 { return s.Record.SuspendedSeq }),
	}
}

func logFamilies() []family {
	at := func(name, help string, value func(*mirror.Status) mirror.LSN) family {
		return family{name, gauge, true, nil, help, func(s *Source, out emit) { out(float64(value(&s.Status))) }}
	}
	bytes := func(name string, kind prometheus.ValueType, help string, value func(*Extra) uint64) family {
		return family{name, kind, true, nil, help, func(s *Source, out emit) { out(float64(value(&s.Extra))) }}
	}
	return []family{
		at("failover_lsn_bytes", "End of the principal's log that is hardened at the mirror too.", func(s *mirror.Status) mirror.LSN { return s.Hardened.LSN }),
		at("redone_lsn_bytes", "End of the principal's log that is redone at the mirror.", func(s *mirror.Status) mirror.LSN { return s.Redone }),
		at("end_of_log_lsn_bytes", "End of the principal's log.", func(s *mirror.Status) mirror.LSN { return s.EndOfLog }),
		bytes("send_queue_bytes", gauge, "Log of the principal that the mirror has not hardened: what forced service would lose.", func(e *Extra) uint64 { return e.SendQueueBytes }),
		bytes("redo_queue_bytes", gauge, "Hardened log that is not redone: what a failover has to wait for.", func(e *Extra) uint64 { return e.RedoQueueBytes }),
		bytes("log_received_bytes_total", counter, "Log that this mirror has received.", func(e *Extra) uint64 { return e.ReceivedLogBytesTotal }),
		bytes("redo_bytes_total", counter, "Log that this mirror has redone.", func(e *Extra) uint64 { return e.RedoneBytesTotal }),
		bytes("hardened_transactions_total", counter, "Transactions that this mirror has hardened.", func(e *Extra) uint64 { return e.HardenedTransactionsTotal }),
		bytes("log_retained_bytes", gauge, "Log that the principal's server keeps for the mirror.", func(e *Extra) uint64 { return e.RetainedBytes }),
		bytes("log_budget_bytes", gauge, "How much log may be kept for the mirror; 0: no bound.", func(e *Extra) uint64 { return e.BudgetBytes }),
	}
}

func linkFamilies() []family {
	ticks := func(name string, partners bool, help string, value func(*mirror.Status) mirror.Tick) family {
		return family{name, gauge, partners, nil, help, func(s *Source, out emit) { out(seconds(s, value(&s.Status))) }}
	}
	return []family{
		ticks("lease_remaining_seconds", true, "How long this principal may still serve if nobody vouches for it again; 0: no lease.", func(s *mirror.Status) mirror.Tick { return s.Lease }),
		ticks("promise_remaining_seconds", false, "How long this server will vote for nobody but the principal.", func(s *mirror.Status) mirror.Tick { return s.PromiseLeft }),
		ticks("stream_idle_seconds", true, "Time since this mirror heard the principal's server.", func(s *mirror.Status) mirror.Tick { return s.StreamIdle }),
		perPeer("connected", gauge, "1 if that server was heard within the timeout.", func(s *Source, p mirror.Server) float64 { return is(s.Status.Peers[p].Connected) }),
		perPeer("silence_seconds", gauge, "Time since that server was heard, at most the timeout.", func(s *Source, p mirror.Server) float64 { return seconds(s, s.Status.Peers[p].Silent) }),
		perPeer("newcomer", gauge, "1 if that server lost its state and waits to be admitted.", func(s *Source, p mirror.Server) float64 { return is(s.Status.Peers[p].Newcomer != 0) }),
		perPeer("messages_sent_total", counter, "Messages to that server.", func(s *Source, p mirror.Server) float64 { return float64(s.Extra.Peers[p].MessagesSent) }),
		perPeer("messages_received_total", counter, "Messages from that server.", func(s *Source, p mirror.Server) float64 { return float64(s.Extra.Peers[p].MessagesReceived) }),
		perPeer("sent_bytes_total", counter, "Bytes of messages to that server.", func(s *Source, p mirror.Server) float64 { return float64(s.Extra.Peers[p].BytesSent) }),
		perPeer("received_bytes_total", counter, "Bytes of messages from that server.", func(s *Source, p mirror.Server) float64 { return float64(s.Extra.Peers[p].BytesReceived) }),
		perPeer("ping_timeouts_total", counter, "Times that server was not heard within the timeout.", func(s *Source, p mirror.Server) float64 { return float64(s.Extra.Peers[p].PingTimeouts) }),
		{"endpoint_logins_total", counter, false, []string{"result"}, "Logins and messages at this endpoint, by how they ended.",
			func(s *Source, out emit) {
				for r := range endpoint.ResultCount {
					out(float64(s.Extra.LoginsTotal[r]), r.String())
				}
			}},
	}
}

// perPeer is a family with a series for each of the other servers.
func perPeer(name string, kind prometheus.ValueType, help string, value func(*Source, mirror.Server) float64) family {
	return family{name, kind, false, []string{"peer"}, help, func(s *Source, out emit) {
		for p := mirror.PartnerA; p <= mirror.Witness; p++ {
			if p != s.Status.Self {
				out(value(s, p), p.String())
			}
		}
	}}
}

func flag(name, help string, value func(*mirror.Status) bool) family {
	return family{name, gauge, true, nil, help, func(s *Source, out emit) { out(is(value(&s.Status))) }}
}

func seconds(s *Source, t mirror.Tick) float64 { return (time.Duration(t) * s.Tick).Seconds() }

func is(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// slug writes a name as a label value: lower case, with underscores.
func slug(name string) string {
	return strings.NewReplacer(" ", "_", "-", "_").Replace(strings.ToLower(name))
}
