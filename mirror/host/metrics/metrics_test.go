package metrics

import (
	"fmt"
	"math"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
)

// principal is what a serving, exposed principal shows.
func principal() Source {
	s := Source{Session: "orders", Tick: time.Second}
	s.Status = mirror.Status{
		Self: mirror.PartnerA, Role: mirror.RolePrincipal, State: mirror.StateDisconnected, Reason: mirror.ReasonPartnerLost,
		Mode: mirror.ModeHighSafetyAutomatic, Quorum: mirror.QuorumWitness, Serving: true, Exposed: true,
		Record:   mirror.Record{Seq: 3, Change: 4, Safety: mirror.SafetyFull, SafetySeq: 5, SuspendedSeq: 6},
		Hardened: mirror.Position{Seq: 3, LSN: 4096}, Redone: 4000, EndOfLog: 8192, Lease: 7,
	}
	s.Status.Record.Members[mirror.Witness] = 9
	s.Status.Peers[mirror.PartnerB] = mirror.PeerStatus{Silent: 10, Newcomer: 77}
	s.Status.Peers[mirror.Witness] = mirror.PeerStatus{Connected: true, Silent: 1}
	s.Extra = Extra{
		SendQueueBytes: 4096, RetainedBytes: 5000, BudgetBytes: 10000, ExposedTotal: 90 * time.Second,
		LastTransition: time.UnixMilli(1_700_000_000_500), FailoversTotal: Failovers{Automatic: 1, Manual: 2, Forced: 3},
	}
	s.Extra.TransitionsTotal[mirror.StateSynchronized][mirror.StateDisconnected] = 2
	s.Extra.Peers[mirror.Witness] = Traffic{MessagesSent: 11, MessagesReceived: 12, BytesSent: 13, BytesReceived: 14, PingTimeouts: 15}
	s.Extra.LoginsTotal[endpoint.ResultAuthenticationFailure] = 16
	return s
}

func collector(sources ...Source) *Collector {
	return NewCollector(func() []Source { return sources })
}

func TestValues(t *testing.T) {
	for name, series := range map[string][]string{
		"session_info":                      {`{mode="high_safety_with_automatic_failover"} 1`},
		"role":                              {`{role="mirror"} 0`, `{role="principal"} 1`, `{role="witness"} 0`},
		"quorum":                            {`{quorum="full"} 0`, `{quorum="none"} 0`, `{quorum="partners"} 0`, `{quorum="witness"} 1`},
		"witness_state":                     {`{state="connected"} 1`, `{state="disconnected"} 0`, `{state="unknown"} 0`},
		"safety_full":                       {` 1`},
		"serving":                           {` 1`},
		"exposed":                           {` 1`},
		"exposed_seconds_total":             {` 90`},
		"last_transition_timestamp_seconds": {` 1.7000000005e+09`},
		"failovers_total":                   {`{kind="automatic"} 1`, `{kind="forced"} 3`, `{kind="manual"} 2`},
		"role_sequence":                     {` 3`},
		"record_change":                     {` 4`},
		"safety_sequence":                   {` 5`},
		"suspended_sequence":                {` 6`},
		"failover_lsn_bytes":                {` 4096`},
		"redone_lsn_bytes":                  {` 4000`},
		"end_of_log_lsn_bytes":              {` 8192`},
		"send_queue_bytes":                  {` 4096`},
		"log_retained_bytes":                {` 5000`},
		"log_budget_bytes":                  {` 10000`},
		"lease_remaining_seconds":           {` 7`},
		"connected":                         {`{peer="partner-b"} 0`, `{peer="witness"} 1`},
		"silence_seconds":                   {`{peer="partner-b"} 10`, `{peer="witness"} 1`},
		"newcomer":                          {`{peer="partner-b"} 1`, `{peer="witness"} 0`},
		"messages_sent_total":               {`{peer="partner-b"} 0`, `{peer="witness"} 11`},
		"messages_received_total":           {`{peer="partner-b"} 0`, `{peer="witness"} 12`},
		"sent_bytes_total":                  {`{peer="partner-b"} 0`, `{peer="witness"} 13`},
		"received_bytes_total":              {`{peer="partner-b"} 0`, `{peer="witness"} 14`},
		"ping_timeouts_total":               {`{peer="partner-b"} 0`, `{peer="witness"} 15`},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, series, exposed(t, collector(principal()), name))
		})
	}
}

// exposed returns the series of one metric as they are exposed, without the common labels.
func exposed(t *testing.T, c prometheus.Collector, name string) []string {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	require.NoError(t, err)
	var found []string
	for _, f := range families {
		if f.GetName() != "dbmirror_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			value := m.GetGauge().GetValue() + m.GetCounter().GetValue()
			var labels []string
			for _, l := range m.GetLabel() {
				if l.GetName() != "session" && l.GetName() != "server" {
					labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
				}
			}
			text := ""
			if len(labels) > 0 {
				text = "{" + strings.Join(labels, ",") + "}"
			}
			found = append(found, fmt.Sprintf("%s %v", text, value))
		}
	}
	return found
}

// TestStateSets: exactly one series of each is 1, whatever is shown.
func TestStateSets(t *testing.T) {
	for _, reason := range mirror.Reasons() {
		for _, state := range mirror.States() {
			s := principal()
			s.Status.State, s.Status.Reason = state, reason
			for _, name := range []string{"state", "reason"} {
				ones := 0
				for _, series := range exposed(t, collector(s), name) {
					if strings.HasSuffix(series, " 1") {
						ones++
						require.Contains(t, series, map[string]string{"state": slug(state.String()), "reason": slug(reason.String())}[name])
					}
				}
				require.Equal(t, 1, ones, "%s %s: %s", state, reason, name)
			}
		}
	}
}

func TestTransitionsAndLogins(t *testing.T) {
	c := collector(principal())
	moves := exposed(t, c, "state_transitions_total")
	require.Len(t, moves, 20)
	require.Contains(t, moves, `{from="synchronized",to="disconnected"} 2`)
	logins := exposed(t, c, "endpoint_logins_total")
	require.Len(t, logins, int(endpoint.ResultCount))
	require.Contains(t, logins, `{result="authentication_failure"} 16`)
}

// TestAbsent: what a server does not have is not shown as zero.
func TestAbsent(t *testing.T) {
	s := principal()
	s.Status.Record.Members[mirror.Witness] = 0
	s.Extra.LastTransition = time.Time{}
	require.Empty(t, exposed(t, collector(s), "witness_state"))
	require.Empty(t, exposed(t, collector(s), "last_transition_timestamp_seconds"))
	s.Status.Self = mirror.Witness
	require.Empty(t, exposed(t, collector(s), "send_queue_bytes"))
	require.Len(t, exposed(t, collector(s), "connected"), 2)
}

func TestWitnessIsUnknownAtFirst(t *testing.T) {
	s := principal()
	s.Status.Reason = mirror.ReasonStarting
	require.Equal(t, []string{`{state="connected"} 0`, `{state="disconnected"} 0`, `{state="unknown"} 1`}, exposed(t, collector(s), "witness_state"))
}

func TestTimings(t *testing.T) {
	timings := NewTimings("orders", mirror.PartnerB)
	timings.LogHardened(3 * time.Millisecond)
	timings.CommitWaited(2 * time.Second)
	timings.CommitWaited(4 * time.Second)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(timings)
	families, err := registry.Gather()
	require.NoError(t, err)
	require.Len(t, families, 2)
	wait, harden := families[0].GetMetric()[0].GetHistogram(), families[1].GetMetric()[0].GetHistogram()
	require.Equal(t, uint64(2), wait.GetSampleCount())
	require.InDelta(t, 6.0, wait.GetSampleSum(), 1e-9)
	require.Equal(t, uint64(1), harden.GetSampleCount())
	require.InDelta(t, 0.003, harden.GetSampleSum(), 1e-9)
	require.GreaterOrEqual(t, wait.GetBucket()[len(wait.GetBucket())-1].GetUpperBound(), 4.0)
}

func TestLint(t *testing.T) {
	for what, c := range map[string]prometheus.Collector{"collector": collector(principal()), "timings": NewTimings("orders", mirror.PartnerA)} {
		problems, err := testutil.CollectAndLint(c)
		require.NoError(t, err)
		require.Empty(t, problems, what)
	}
}

// TestCardinality: the series of a session are bounded, and no label value comes from outside but the session's name.
func TestCardinality(t *testing.T) {
	buckets := 0
	for range 2 {
		buckets += 15 + 1 + 2 // with +Inf, sum and count
	}
	count := testutil.CollectAndCount(collector(principal())) + buckets
	t.Logf("a partner exports %d series", count)
	require.LessOrEqual(t, count, 200)
	witness := principal()
	witness.Status.Self = mirror.Witness
	count = testutil.CollectAndCount(collector(witness))
	t.Logf("a witness exports %d series a session", count)
	require.LessOrEqual(t, count, 130)
	name := regexp.MustCompile(`^[a-z_]+$|^partner-[ab]$`)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector(principal()))
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				require.Regexp(t, name, l.GetValue(), "%s{%s}", f.GetName(), l.GetName())
			}
		}
	}
}

// TestManyServersInOneProcess: the servers of a session, and many sessions, live in one registry.
func TestManyServersInOneProcess(t *testing.T) {
	var sources []Source
	for i := range 10 {
		for self := mirror.PartnerA; self <= mirror.Witness; self++ {
			s := principal()
			s.Session, s.Status.Self = fmt.Sprintf("session-%d", i), self
			sources = append(sources, s)
		}
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector(sources...))
	for i := range 10 {
		for _, server := range []mirror.Server{mirror.PartnerA, mirror.PartnerB} {
			timings := NewTimings(fmt.Sprintf("session-%d", i), server)
			require.NoError(t, registry.Register(timings))
		}
	}
	_, err := registry.Gather()
	require.NoError(t, err)
}

// TestScrapesWhileThingsChange scrapes from several goroutines while the source changes; the race detector watches.
func TestScrapesWhileThingsChange(t *testing.T) {
	var mu sync.Mutex
	now := principal()
	c := NewCollector(func() []Source {
		mu.Lock()
		defer mu.Unlock()
		return []Source{now}
	})
	timings := NewTimings("orders", mirror.PartnerA)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c, timings)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 20 {
				if families, err := registry.Gather(); err != nil || len(families) == 0 {
					t.Errorf("%d families, %v", len(families), err)
				}
			}
		})
	}
	group.Go(func() {
		for i := range 500 {
			mu.Lock()
			now.Status.State = mirror.States()[i%5]
			now.Extra.SendQueueBytes = math.MaxUint64 - uint64(i)
			mu.Unlock()
			timings.CommitWaited(time.Duration(i))
		}
	})
	group.Wait()
}
