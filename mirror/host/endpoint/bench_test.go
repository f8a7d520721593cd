package endpoint

import "testing"

// One small message and its reply on an open connection: mutual TLS, all checks, both sides in this process.
func BenchmarkSend(b *testing.B) {
	s := tcpSite(b, Limits{Rate: 1 << 30, Burst: 1 << 30})
	c := s.client(b, PartnerB)
	body := make([]byte, 200)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Send(b.Context(), "ping", body); err != nil {
			b.Fatal(err)
		}
	}
}
