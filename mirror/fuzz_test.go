package mirror

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/f19126b3/dbmirror/mirror/mirrortest/memory"
)

func FuzzDecodeMessage(f *testing.F) {
	for _, k := range MessageKinds() {
		m := sampleMessage()
		m.Kind = k
		f.Add(m.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m Message
		var err error
		memory.Bound(t, len(b), func() { m, err = DecodeMessage(b) })
		if err != nil {
			var bad *DecodeError
			require.ErrorAs(t, err, &bad)
			require.Zero(t, m)
			return
		}
		require.Equal(t, b, m.Append(nil))
		_, err = DecodeMessage(append(b[:len(b):len(b)], 0))
		require.ErrorContains(t, err, "more bytes")
	})
}

func FuzzDecodeHardState(f *testing.F) {
	f.Add(sampleHardState().Append(nil))
	f.Add(HardState{Self: Witness, Incarnation: 1}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var h HardState
		var err error
		memory.Bound(t, len(b), func() { h, err = DecodeHardState(b) })
		if err != nil {
			var bad *DecodeError
			require.ErrorAs(t, err, &bad)
			require.Zero(t, h)
			return
		}
		require.Equal(t, b, h.Append(nil))
		_, err = DecodeHardState(append(b[:len(b):len(b)], 0))
		require.ErrorContains(t, err, "more bytes")
	})
}

func FuzzParseLSN(f *testing.F) {
	for _, s := range []string{"0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF", "16/b374d848", "0/", "1/2/3", "+1/2", "1/0x2", "1/123456789"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLSN(s)
		if err != nil {
			require.Zero(t, l)
			return
		}
		again, err := ParseLSN(l.String())
		require.NoError(t, err)
		require.Equal(t, l, again)
		// What is accepted differs from what is written by zeros in front of a half and the case of digits only.
		high, low, _ := strings.Cut(strings.ToUpper(s), "/")
		wantHigh, wantLow, _ := strings.Cut(l.String(), "/")
		require.Equal(t, wantHigh, strings.TrimLeft(high[:len(high)-1], "0")+high[len(high)-1:])
		require.Equal(t, wantLow, strings.TrimLeft(low[:len(low)-1], "0")+low[len(low)-1:])
	})
}

// FuzzSession gives a session, as it stands in one of several states, any messages that the codec accepts, from any
// server that may send them. It must not panic, break an invariant of its own, or lower what it has promised.
func FuzzSession(f *testing.F) {
	for kind := MessagePing; kind < numMessageKinds; kind++ {
		m := sampleMessage()
		m.Kind, m.To = kind, PartnerA
		f.Add(byte(0), m.Append(nil))
		f.Add(byte(1), m.Append(nil))
	}
	f.Fuzz(func(t *testing.T, state byte, b []byte) {
		hard := HardState{Self: PartnerA, Incarnation: 5, Promised: 3, Aligned: 3, Record: Record{Seq: 3, Change: 4,
			Principal: PartnerA, InSync: true, Safety: SafetyFull, Members: [numServers]Incarnation{0, 5, 7, 9}}}
		switch state % 4 {
		case 1:
			hard.Record.Principal = PartnerB
		case 2:
			hard = HardState{Self: PartnerA, Incarnation: 5}
		case 3:
			hard.Self, hard.Incarnation, hard.Aligned = Witness, 9, 0
		}
		s, err := New(Config{Self: hard.Self, Incarnation: hard.Incarnation, Timing: Timing{Ping: 5, Timeout: 50, Lease: 34}}, hard)
		require.NoError(t, err)
		for size := len(sampleMessage().Append(nil)); len(b) >= size; b = b[size:] {
			m, err := DecodeMessage(b[:size])
			if err != nil || m.From == hard.Self || m.To != hard.Self {
				continue
			}
			before := s.Hard()
			fx, err := s.Step(Event{Kind: EventReceived, Message: m})
			if err != nil && !errors.Is(err, ErrRefused) {
				t.Fatalf("%s of %s: %v", m.Kind, m.From, err)
			}
			require.GreaterOrEqual(t, s.Hard().Promised, before.Promised)
			require.False(t, fx.Saved && fx.State != s.Hard(), "what is saved is what counts")
			if _, err := s.Step(Event{Kind: EventTicked}); err != nil {
				t.Fatalf("tick after %s of %s: %v", m.Kind, m.From, err)
			}
		}
	})
}

// TestSessionSurvivesLies does the same with messages that are nearly right: numbers that are at stake, members that are
// those of the session, records that contradict themselves.
func TestSessionSurvivesLies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		record := func(name string) Record {
			r := drawMessage(t).Record
			r.Seq, r.Change = RoleSeq(rapid.Uint64Range(0, 5).Draw(t, name+" seq")), rapid.Uint64Range(0, 5).Draw(t, name+" change")
			r.Members = [numServers]Incarnation{0, 5, 7, Incarnation(rapid.SampledFrom([]uint64{0, 9, 10}).Draw(t, name+" witness"))}
			return r
		}
		self := rapid.SampledFrom([]Server{PartnerA, PartnerB, Witness}).Draw(t, "self")
		members := [numServers]Incarnation{0, 5, 7, 9}
		hard := HardState{Self: self, Incarnation: members[self], Promised: 3, Aligned: 3, Record: Record{Seq: 3, Change: 2,
			Principal: rapid.SampledFrom([]Server{PartnerA, PartnerB}).Draw(t, "principal"), InSync: true, Safety: SafetyFull, Members: members}}
		s, err := New(Config{Self: self, Incarnation: members[self], Timing: Timing{Ping: 5, Timeout: 50, Lease: 34}}, hard)
		require.NoError(t, err)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			m := drawMessage(t)
			m.From, m.To = rapid.SampledFrom([]Server{PartnerA, PartnerB, Witness}).Draw(t, "from"), self
			if m.From == self {
				continue
			}
			m.Incarnation = rapid.SampledFrom([]Incarnation{members[m.From], 11}).Draw(t, "incarnation")
			m.Promised, m.Seq = RoleSeq(rapid.Uint64Range(0, 6).Draw(t, "promised")), RoleSeq(rapid.Uint64Range(0, 6).Draw(t, "of"))
			m.Record = record("record")
			if _, err := DecodeMessage(m.Append(nil)); err != nil {
				continue // refused before the session hears of it
			}
			before := s.Hard()
			if _, err := s.Step(Event{Kind: EventReceived, Message: m}); err != nil && !errors.Is(err, ErrRefused) {
				t.Fatalf("%s of %s with %+v: %v", m.Kind, m.From, m.Record, err)
			}
			require.GreaterOrEqual(t, s.Hard().Promised, before.Promised)
			if _, err := s.Step(Event{Kind: EventTicked}); err != nil {
				t.Fatalf("tick: %v", err)
			}
		}
	})
}
