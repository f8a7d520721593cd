package metrics

import (
	"fmt"
	"math"
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
	labels   []string // beside session and server, in the order of the alphabet
	help     string
	series   []series
}

// series is one of a family, of every source that has it.
type series struct {
	labels []string              // values of the family's labels
	value  func(*Source) float64 // absent if the source has none
}

// absent is the value of a series that is not shown.
func absent() float64 { return math.NaN() }

// one is the series of a family that has no labels of its own.
func one(value func(*Source) float64) []series { return []series{{nil, value}} }

// each is a series for every member of a list.
func each[T any](list []T, text func(T) string, value func(*Source, T) float64) []series {
	all := make([]series, len(list))
	for i, member := range list {
		all[i] = series{[]string{text(member)}, func(s *Source) float64 { return value(s, member) }}
	}
	return all
}

// through is every value from one to another.
func through[T ~uint8](first, last T) (all []T) {
	for v := first; v <= last; v++ {
		all = append(all, v)
	}
	return all
}

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
			each(through(mirror.ModeNone, mirror.ModeHighPerformance), slugOf, func(s *Source, m mirror.Mode) float64 {
				if s.Status.Mode != m {
					return absent()
				}
				return 1
			})},
		{"role", gauge, false, []string{"role"}, "1 for the role that this server has at present.",
			each(through(mirror.RolePrincipal, mirror.RoleWitness), mirror.Role.String, func(s *Source, r mirror.Role) float64 { return is(s.Status.Role == r) })},
		{"state", gauge, false, []string{"state"}, "1 for the state that is shown.",
			each(mirror.States(), slugOf, func(s *Source, st mirror.State) float64 { return is(s.Status.State == st) })},
		{"reason", gauge, false, []string{"reason"}, "1 for the reason of the state that is shown.",
			each(mirror.Reasons(), slugOf, func(s *Source, r mirror.Reason) float64 { return is(s.Status.Reason == r) })},
		{"quorum", gauge, false, []string{"quorum"}, "1 for the servers that see each other, as this one knows it.",
			each(mirror.Quorums(), mirror.Quorum.String, func(s *Source, q mirror.Quorum) float64 { return is(s.Status.Quorum == q) })},
		{"witness_state", gauge, true, []string{"state"}, "1 for the state of the witness as this partner knows it; none if no witness is set.",
			each([]string{"unknown", "connected", "disconnected"}, func(state string) string { return state }, witnessState)},
		{"safety_full", gauge, false, nil, "1 if commits are to wait for the mirror.",
			one(func(s *Source) float64 { return is(s.Status.Record.Safety == mirror.SafetyFull) })},
		flag("serving", "1 if clients may use the database.", func(s *mirror.Status) bool { return s.Serving }),
		flag("exposed", "1 if this principal acknowledges commits without the mirror.", func(s *mirror.Status) bool { return s.Exposed }),
		{"exposed_seconds_total", counter, true, nil, "Time for which this server has acknowledged commits without the mirror.",
			one(func(s *Source) float64 { return s.Extra.ExposedTotal.Seconds() })},
		{"last_transition_timestamp_seconds", gauge, false, nil, "When the shown state last changed.", one(lastTransition)},
		{"state_transitions_total", counter, false, []string{"from", "to"}, "Changes of the shown state.", transitions()},
		{"failovers_total", counter, true, []string{"kind"}, "Times that this server became principal.", []series{
			{[]string{"automatic"}, func(s *Source) float64 { return float64(s.Extra.FailoversTotal.Automatic) }},
			{[]string{"manual"}, func(s *Source) float64 { return float64(s.Extra.FailoversTotal.Manual) }},
			{[]string{"forced"}, func(s *Source) float64 { return float64(s.Extra.FailoversTotal.Forced) }},
		}},
	}
}

func witnessState(s *Source, state string) float64 {
	if !s.Status.Record.HasWitness() {
		return absent()
	}
	now := "disconnected"
	switch {
	case s.Status.Reason == mirror.ReasonStarting:
		now = "unknown"
	case s.Status.Peers[mirror.Witness].Connected:
		now = "connected"
	}
	return is(now == state)
}

func lastTransition(s *Source) float64 {
	if s.Extra.LastTransition.IsZero() {
		return absent()
	}
	return float64(s.Extra.LastTransition.UnixMilli()) / 1000
}

func transitions() (all []series) {
	for _, from := range mirror.States() {
		for _, to := range mirror.States() {
			if from != to {
				all = append(all, series{[]string{slugOf(from), slugOf(to)}, func(s *Source) float64 { return float64(s.Extra.TransitionsTotal[from][to]) }})
			}
		}
	}
	return all
}

func sequenceFamilies() []family {
	number := func(name, help string, value func(*mirror.Status) uint64) family {
		return family{name, gauge, false, nil, help, one(func(s *Source) float64 { return float64(value(&s.Status)) })}
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
		return family{name, gauge, true, nil, help, one(func(s *Source) float64 { return float64(value(&s.Status)) })}
	}
	bytes := func(name string, kind prometheus.ValueType, help string, value func(*Extra) uint64) family {
		return family{name, kind, true, nil, help, one(func(s *Source) float64 { return float64(value(&s.Extra)) })}
	}
	return []family{
		at("failover_lsn_bytes", "End of the principal's log that is hardened at the mirror too.", func(s *mirror.Status) mirror.LSN { return s.Hardened.LSN }),
		at("redone_lsn_bytes", "End of the principal's log that is redone at the mirror.", func(s *mirror.Status) mirror.LSN { return s.Redone }),
		at("end_of_log_lsn_bytes", "End of the principal's log.", func(s *mirror.Status) mirror.LSN { return s.EndOfLog }),
		bytes("send_queue_bytes", gauge, "Log of the principal that the mirror has not hardened: what forced service would lose. As long as the mirror has not said how far it is: all that is kept for it.", func(e *Extra) uint64 { return e.SendQueueBytes }),
		bytes("redo_queue_bytes", gauge, "Hardened log that is not redone, transactions that have not ended included: what a failover has to wait for. At Limits.RedoQueue nothing more is hardened.", func(e *Extra) uint64 { return e.RedoQueueBytes }),
		bytes("log_received_bytes_total", counter, "Log that this mirror has received.", func(e *Extra) uint64 { return e.ReceivedLogBytesTotal }),
		bytes("redo_bytes_total", counter, "Log that this mirror has redone.", func(e *Extra) uint64 { return e.RedoneBytesTotal }),
		bytes("hardened_transactions_total", counter, "Transactions that this mirror has hardened.", func(e *Extra) uint64 { return e.HardenedTransactionsTotal }),
		bytes("log_retained_bytes", gauge, "Log that the principal's server keeps for the mirror.", func(e *Extra) uint64 { return e.RetainedBytes }),
		bytes("log_budget_bytes", gauge, "How much log may be kept for the mirror; 0: no bound.", func(e *Extra) uint64 { return e.BudgetBytes }),
	}
}

func linkFamilies() []family {
	ticks := func(name string, partners bool, help string, value func(*mirror.Status) mirror.Tick) family {
		return family{name, gauge, partners, nil, help, one(func(s *Source) float64 { return seconds(s, value(&s.Status)) })}
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
			each(through(0, endpoint.ResultCount-1), endpoint.Result.String, func(s *Source, r endpoint.Result) float64 { return float64(s.Extra.LoginsTotal[r]) })},
	}
}

// perPeer is a family with a series for each of the other servers.
func perPeer(name string, kind prometheus.ValueType, help string, value func(*Source, mirror.Server) float64) family {
	servers := through(mirror.PartnerA, mirror.Witness)
	return family{name, kind, false, []string{"peer"}, help, each(servers, mirror.Server.String, func(s *Source, p mirror.Server) float64 {
		if p == s.Status.Self {
			return absent()
		}
		return value(s, p)
	})}
}

func flag(name, help string, value func(*mirror.Status) bool) family {
	return family{name, gauge, true, nil, help, one(func(s *Source) float64 { return is(value(&s.Status)) })}
}

func seconds(s *Source, t mirror.Tick) float64 { return (time.Duration(t) * s.Tick).Seconds() }

func is(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// slugOf writes the name of a value as a label value.
func slugOf[T fmt.Stringer](v T) string { return slug(v.String()) }

// slug writes a name as a label value: lower case, with underscores.
func slug(name string) string {
	return strings.NewReplacer(" ", "_", "-", "_").Replace(strings.ToLower(name))
}
