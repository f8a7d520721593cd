package metrics

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// BenchmarkCollector gathers everything of one session, as a partner does, and of a thousand, as a witness may.
func BenchmarkCollector(b *testing.B) {
	for _, sessions := range []int{1, 1000} {
		b.Run(fmt.Sprintf("sessions=%d", sessions), func(b *testing.B) {
			sources := make([]Source, sessions)
			for i := range sources {
				sources[i] = principal()
				sources[i].Session = fmt.Sprint(i)
			}
			registry := prometheus.NewRegistry()
			c := collector(sources...)
			registry.MustRegister(c)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := registry.Gather(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*testutil.CollectAndCount(c))/b.Elapsed().Seconds(), "series/s")
		})
	}
}
