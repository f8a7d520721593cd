package metrics

import (
	"fmt"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

// mixed are sessions in no order, with every server of each.
func mixed(sessions int) (sources []Source) {
	for i := range sessions {
		for self := mirror.Witness; self >= mirror.PartnerA; self-- {
			s := principal()
			s.Session, s.Status.Self = fmt.Sprintf("session-%03d", i*7%sessions), self
			s.Status.Mode = mirror.Mode(i % 4)
			sources = append(sources, s)
		}
	}
	return sources
}

// collected is what a collector shows, by metric, in the order in which it shows it.
func collected(t *testing.T, c *Collector) map[string][]*dto.Metric {
	t.Helper()
	to := make(chan prometheus.Metric)
	go func() {
		defer close(to)
		c.Collect(to)
	}()
	found := map[string][]*dto.Metric{}
	for m := range to {
		written := &dto.Metric{}
		require.NoError(t, m.Write(written))
		name := m.(*sample).of.name
		found[name] = append(found[name], written)
	}
	return found
}

// Goal: a registry has nothing to sort, neither the labels of a series nor the series of a metric.
func TestInTheOrderOfARegistry(t *testing.T) {
	for name, series := range collected(t, collector(mixed(10)...)) {
		var values [][]string
		for _, m := range series {
			var labels, these []string
			for _, l := range m.GetLabel() {
				labels, these = append(labels, l.GetName()), append(these, l.GetValue())
			}
			require.True(t, slices.IsSorted(labels), "%s: %v", name, labels)
			values = append(values, these)
		}
		require.True(t, slices.IsSortedFunc(values, slices.Compare[[]string]), "%s: %v", name, values)
	}
}

// Goal: what showing costs grows with the sessions, not with the series that each of them has.
func TestAllocatesForSessionsNotForSeries(t *testing.T) {
	const sessions = 100
	c := collector(mixed(sessions)...)
	to := make(chan prometheus.Metric)
	defer close(to)
	go func() {
		for range to {
			continue
		}
	}()
	allocations := testing.AllocsPerRun(5, func() { c.Collect(to) })
	require.Less(t, allocations, float64(8*3*sessions+3*len(c.metrics)))
}
