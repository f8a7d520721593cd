package metrics

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// A process may have a thousand sessions with a hundred series each. So whatever does not change from scrape to scrape
// is made once, samples of a family are allocated together, and series are shown in the order in which a registry sorts
// them: by the values of their labels, which stand in the order of the labels' names. Then it has nothing to sort.

// metric is a family ready to be shown.
type metric struct {
	family
	desc   *prometheus.Desc
	groups [][]prepared // those whose labels before server and session are the same; in order
}

// prepared is a series with its labels: those whose names sort before server and session, and those behind.
type prepared struct {
	before, behind []*dto.LabelPair
	value          func(*Source) float64
}

// The labels that every series has, in order. No other label sorts between them.
const (
	serverLabel  = "server"
	sessionLabel = "session"
)

func prepare(f family) metric {
	m := metric{f, prometheus.NewDesc("dbmirror_"+f.name, f.help, append([]string{sessionLabel, serverLabel}, f.labels...), nil), nil}
	sorted := slices.Clone(f.series)
	slices.SortFunc(sorted, func(a, b series) int { return slices.Compare(a.labels, b.labels) })
	split, _ := slices.BinarySearch(f.labels, serverLabel)
	for i, s := range sorted {
		if i == 0 || !slices.Equal(s.labels[:split], sorted[i-1].labels[:split]) {
			m.groups = append(m.groups, nil)
		}
		last := &m.groups[len(m.groups)-1]
		*last = append(*last, prepared{pairs(f.labels[:split], s.labels[:split]), pairs(f.labels[split:], s.labels[split:]), s.value})
	}
	return m
}

func pairs(names, values []string) []*dto.LabelPair {
	all := make([]*dto.LabelPair, len(names))
	for i := range names {
		all[i] = pair(names[i], values[i])
	}
	return all
}

func pair(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

// subject is a source with the labels that all its series have.
type subject struct {
	*Source
	server, session *dto.LabelPair
}

// subjectsOf brings sources into the order of their labels.
func subjectsOf(sources []Source) []subject {
	all := make([]subject, len(sources))
	for i := range sources {
		s := &sources[i]
		all[i] = subject{s, pair(serverLabel, s.Status.Self.String()), pair(sessionLabel, s.Session)}
	}
	slices.SortFunc(all, func(a, b subject) int {
		return cmp.Or(strings.Compare(a.server.GetValue(), b.server.GetValue()), strings.Compare(a.Session, b.Session))
	})
	return all
}

// partners leaves out the witnesses.
func partners(subjects []subject) []subject {
	return slices.DeleteFunc(slices.Clone(subjects), func(of subject) bool { return !of.Status.Self.IsPartner() })
}

// sample is the value of one series. It is a prometheus.Metric.
type sample struct {
	of     *metric
	labels []*dto.LabelPair
	value  float64
}

// Desc implements prometheus.Metric.
func (s *sample) Desc() *prometheus.Desc { return s.of.desc }

// Write implements prometheus.Metric.
func (s *sample) Write(out *dto.Metric) error {
	out.Label = s.labels
	switch s.of.kind {
	case counter:
		out.Counter = &dto.Counter{Value: &s.value}
	default:
		out.Gauge = &dto.Gauge{Value: &s.value}
	}
	return nil
}

// collect shows every series that a family has of some sources.
func (m *metric) collect(subjects []subject, to chan<- prometheus.Metric) {
	most := len(m.series) * len(subjects)
	samples := make([]sample, 0, most)
	labels := make([]*dto.LabelPair, 0, most*(2+len(m.labels)))
	for _, group := range m.groups {
		for _, of := range subjects {
			for _, s := range group {
				v := s.value(of.Source)
				if math.IsNaN(v) {
					continue
				}
				first := len(labels)
				labels = append(append(append(labels, s.before...), of.server, of.session), s.behind...)
				samples = append(samples, sample{m, labels[first:len(labels):len(labels)], v})
				to <- &samples[len(samples)-1]
			}
		}
	}
}
