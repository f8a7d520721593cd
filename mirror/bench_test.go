package mirror

import "testing"

// benchmarked is a session that has been established, on one of its servers.
func benchmarked(b *testing.B, self Server) *Session {
	b.Helper()
	record := Record{Seq: 1, Principal: PartnerA, Safety: SafetyFull}
	for m := PartnerA; m <= Witness; m++ {
		record.Members[m] = Incarnation(10 + m)
	}
	s, err := New(Config{
		Self: self, Incarnation: record.Members[self], Timing: Timing{Ping: 5, Timeout: 50, Lease: 35, Campaign: 10, Drain: 50},
	}, HardState{Self: self, Incarnation: record.Members[self], Promised: 1, Aligned: 1, Record: record})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkStep takes one step on what happens all the time: a tick, what others say, and what the data path reports.
func BenchmarkStep(b *testing.B) {
	principal, mirror := benchmarked(b, PartnerA), benchmarked(b, PartnerB)
	received := func(m Message) Event { return Event{Kind: EventReceived, Message: m} }
	pong := principal.Ping(Witness)
	pong.Kind, pong.From, pong.To, pong.Incarnation = MessagePong, Witness, PartnerA, 10+Incarnation(Witness)
	report := mirror.Ping(PartnerA)
	report.Kind, report.Seq, report.LSN = MessageReport, 1, 4096
	for _, c := range []struct {
		name string
		self Server
		ev   Event
	}{
		{"tick/principal", PartnerA, Event{Kind: EventTicked}},
		{"tick/mirror", PartnerB, Event{Kind: EventTicked}},
		{"tick/witness", Witness, Event{Kind: EventTicked}},
		{"ping/principal", PartnerA, received(mirror.Ping(PartnerA))},
		{"ping/mirror", PartnerB, received(principal.Ping(PartnerB))},
		{"ping/witness", Witness, received(principal.Ping(Witness))},
		{"pong/principal", PartnerA, received(pong)},
		{"report/principal", PartnerA, received(report)},
		{"end/principal", PartnerA, Event{Kind: EventEnded, Seq: 1, LSN: 4096}},
		{"hardened/mirror", PartnerB, Event{Kind: EventHardened, Seq: 1, LSN: 4096}},
		{"redone/mirror", PartnerB, Event{Kind: EventRedone, Seq: 1, LSN: 4096}},
		{"streamed/mirror", PartnerB, Event{Kind: EventStreamed, Seq: 1}},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := benchmarked(b, c.self)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Step(c.ev); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkMove takes the two steps that change the shown state, through the table and back.
func BenchmarkMove(b *testing.B) {
	s, from := benchmarked(b, PartnerA), benchmarked(b, PartnerB)
	linked := Event{Kind: EventReceived, Message: from.Ping(PartnerA)}
	b.ReportAllocs()
	for b.Loop() {
		for _, ev := range []Event{linked, {Kind: EventUnlinked, Peer: PartnerB}} {
			before := s.shown
			if _, err := s.Step(ev); err != nil {
				b.Fatal(err)
			}
			if s.shown == before {
				b.Fatalf("%s did not move the shown state from %s", ev.Kind, before)
			}
		}
	}
}
