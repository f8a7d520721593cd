package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/f19126b3/dbmirror/mirror"
)

// Timings are the two waits that users feel, as histograms. They are a prometheus.Collector; observing is safe for
// concurrent use and costs no allocation.
type Timings struct {
	harden, wait prometheus.Histogram
}

// NewTimings returns the histograms of one server of one session.
func NewTimings(session string, server mirror.Server) *Timings {
	histogram := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: name, Help: help, ConstLabels: prometheus.Labels{"session": session, "server": server.String()},
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 15), // a quarter of a millisecond to four seconds
		})
	}
	return &Timings{
		histogram("dbmirror_log_harden_seconds", "How long received log waited until it was hardened here."),
		histogram("dbmirror_commit_wait_seconds", "How long a commit waited for the mirror."),
	}
}

// LogHardened notes how long received log waited until it was on this mirror's disk.
func (t *Timings) LogHardened(d time.Duration) { t.harden.Observe(d.Seconds()) }

// CommitWaited notes how long a commit on this principal waited for the mirror.
func (t *Timings) CommitWaited(d time.Duration) { t.wait.Observe(d.Seconds()) }

// Describe implements prometheus.Collector.
func (t *Timings) Describe(to chan<- *prometheus.Desc) {
	t.harden.Describe(to)
	t.wait.Describe(to)
}

// Collect implements prometheus.Collector.
func (t *Timings) Collect(to chan<- prometheus.Metric) {
	t.harden.Collect(to)
	t.wait.Collect(to)
}
