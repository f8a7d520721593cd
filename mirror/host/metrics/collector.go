package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
)

// Source is what one server shows of one session at one moment. It is a value without references.
type Source struct {
	Session string // the session's name; together with Status.Self it must be unique in a registry
	Status  mirror.Status
	Tick    time.Duration // how long a tick of Status is
	Extra   Extra
}

// Extra are the figures that a session does not know, filled by its host. Totals count from the start of the program and
// never fall; what a host does not have stays zero.
type Extra struct {
	SendQueueBytes            uint64 // log of the principal that the mirror has not hardened
	RedoQueueBytes            uint64 // hardened log that is not redone
	ReceivedLogBytesTotal     uint64
	RedoneBytesTotal          uint64
	HardenedTransactionsTotal uint64
	RetainedBytes             uint64 // log that the principal's server keeps for the mirror
	BudgetBytes               uint64 // how much of it may be kept; zero: no bound
	ExposedTotal              time.Duration
	LastTransition            time.Time // of the shown state; zero: none yet
	TransitionsTotal          Transitions
	FailoversTotal            Failovers
	Peers                     [mirror.Witness + 1]Traffic // by mirror.Server
	LoginsTotal               [endpoint.ResultCount]uint64
}

// Transitions counts changes of the shown state, by mirror.State from and to.
type Transitions [mirror.StateDisconnected + 1][mirror.StateDisconnected + 1]uint64

// Failovers counts the times that this server became principal, by the way it did.
type Failovers struct {
	Automatic, Manual, Forced uint64
}

// Traffic is what went to and came from another server. Totals count from the start of the program.
type Traffic struct {
	MessagesSent, MessagesReceived uint64
	BytesSent, BytesReceived       uint64
	PingTimeouts                   uint64 // times it was not heard within the timeout
}

// Collector is a prometheus.Collector over snapshots. It is safe for concurrent use when its source is.
type Collector struct {
	source  func() []Source
	metrics []metric
}

// NewCollector returns a collector that calls source at every scrape.
func NewCollector(source func() []Source) *Collector {
	c := &Collector{source: source}
	for _, f := range families() {
		c.metrics = append(c.metrics, prepare(f))
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	for _, m := range c.metrics {
		to <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	all := subjectsOf(c.source())
	partners := partners(all)
	for i := range c.metrics {
		m := &c.metrics[i]
		if m.partners {
			m.collect(partners, to)
		} else {
			m.collect(all, to)
		}
	}
}
