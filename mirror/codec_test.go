package mirror

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// fill draws a value for every field below v. Bytes stay within bounds given by the names of their types, so that what
// is drawn is what a session could hold.
func fill(t *rapid.T, v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), path+"."+v.Type().Field(i).Name)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(t, v.Index(i), fmt.Sprintf("%s[%d]", path, i))
		}
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, path))
	case reflect.Uint8:
		low, high := legal(t, path, v.Type())
		v.SetUint(uint64(rapid.Uint8Range(low, high).Draw(t, path)))
		if path == ".Sees" {
			v.SetUint(v.Uint() &^ 1)
		}
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(rapid.Uint64Range(0, 1<<v.Type().Bits()-1).Draw(t, path))
	default:
		t.Fatalf("%s is a %s: the codec knows none", path, v.Kind())
	}
}

func legal(t *rapid.T, path string, typ reflect.Type) (low, high uint8) {
	switch {
	case path == ".Kind":
		return uint8(MessagePing), uint8(MessageBye)
	case path == ".Sees":
		return 0, 14
	case path == ".Record.Principal":
		return 0, uint8(PartnerB)
	}
	switch typ {
	case reflect.TypeFor[Server]():
		return uint8(PartnerA), uint8(Witness)
	case reflect.TypeFor[Safety]():
		return 0, uint8(SafetyOff)
	case reflect.TypeFor[Election]():
		return 0, uint8(ElectionAgain)
	case reflect.TypeFor[Reason]():
		return 0, uint8(ReasonNotEstablished)
	case reflect.TypeFor[CommandKind]():
		return 0, uint8(CommandServe)
	}
	t.Fatalf("%s is a %s: no bounds are known", path, typ)
	return 0, 0
}

func drawMessage(t *rapid.T) Message {
	var m Message
	fill(t, reflect.ValueOf(&m).Elem(), "")
	m.Record = consistent(m.Record)
	return m
}

func drawHardState(t *rapid.T) HardState {
	var h HardState
	fill(t, reflect.ValueOf(&h).Elem(), "")
	h.Record = consistent(h.Record)
	return h
}

// consistent is the record, without what contradicts the rest of it.
func consistent(r Record) Record {
	if r.Principal == Nobody {
		r.Seq = 0
	} else {
		r.Seq = max(r.Seq, 1)
	}
	r.InSync = r.InSync && !r.Suspended && r.Safety != SafetyOff
	r.Forced = r.Forced && (r.Change > 0 || r.Suspended)
	return r
}

func TestCodecRoundTrip(t *testing.T) {
	t.Run("message", rapid.MakeCheck(func(t *rapid.T) {
		m := drawMessage(t)
		b := m.Append([]byte("before"))
		require.Equal(t, "before", string(b[:6]))
		require.Less(t, len(b)-6, 200)
		got, err := DecodeMessage(b[6:])
		require.NoError(t, err)
		require.Equal(t, m, got)
	}))
	t.Run("hard state", rapid.MakeCheck(func(t *rapid.T) {
		h := drawHardState(t)
		b := h.Append([]byte("before"))
		require.Equal(t, "before", string(b[:6]))
		require.Less(t, len(b)-6, 200)
		got, err := DecodeHardState(b[6:])
		require.NoError(t, err)
		require.Equal(t, h, got)
	}))
}

// leaves calls visit for every field below v that is not made of others.
func leaves(v reflect.Value, path string, visit func(reflect.Value, string)) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			leaves(v.Field(i), path+"."+v.Type().Field(i).Name, visit)
		}
	case reflect.Array:
		for i := range v.Len() {
			leaves(v.Index(i), fmt.Sprintf("%s[%d]", path, i), visit)
		}
	default:
		visit(v, path)
	}
}

// TestCodecHoldsEveryField: a field that somebody adds and forgets here fails, as does one written twice.
func TestCodecHoldsEveryField(t *testing.T) {
	var m Message
	var h HardState
	for what, c := range map[string]struct {
		value  reflect.Value
		encode func() string
	}{
		"message":    {reflect.ValueOf(&m).Elem(), func() string { return string(m.Append(nil)) }},
		"hard state": {reflect.ValueOf(&h).Elem(), func() string { return string(h.Append(nil)) }},
	} {
		seen := map[string]string{c.encode(): "zero"}
		leaves(c.value, "", func(v reflect.Value, path string) {
			if v.Kind() == reflect.Bool {
				v.SetBool(true)
			} else {
				v.SetUint(1)
			}
			b := c.encode()
			require.Empty(t, seen[b], "%s: %s is not encoded", what, path)
			seen[b] = path
			if v.Kind() != reflect.Bool {
				v.SetUint(1<<v.Type().Bits() - 1)
				require.NotContains(t, seen, c.encode(), "%s: %s is cut off", what, path)
			}
			v.SetZero()
		})
	}
}

func sampleMessage() Message {
	return Message{
		Kind: MessageVote, From: PartnerB, To: Witness, Incarnation: 7, Promised: 3,
		Record: Record{Seq: 2, Change: 4, Principal: PartnerA, InSync: true, Safety: SafetyFull, Members: [numServers]Incarnation{0, 5, 7, 9}},
		Seq:    3, LSN: 1 << 33, How: ElectionAutomatic, Sees: 1 << Witness,
	}
}

func sampleHardState() HardState {
	return HardState{Self: PartnerB, Incarnation: 7, Promised: 3, Record: sampleMessage().Record, Aligned: 2}
}

func TestDecodeRefuses(t *testing.T) {
	message, hard := sampleMessage().Append(nil), sampleHardState().Append(nil)
	edit := func(b []byte, at int, to byte) []byte {
		c := append([]byte(nil), b...)
		c[at] = to
		return c
	}
	cases := map[string]struct {
		bytes []byte
		hard  bool
		want  string
	}{
		"nothing":           {nil, false, "decode message: header is cut off: 0 bytes are left of 2"},
		"version":           {edit(message, 0, 2), false, "decode message: version is 2, this program reads 1: run the same release on all servers"},
		"a hard state":      {hard, false, `decode message: header says 'H', not 'M': these are not the bytes of a message`},
		"a message":         {message, true, `decode hard state: header says 'M', not 'H': these are not the bytes of a hard state`},
		"kind zero":         {edit(message, 2, 0), false, "decode message: kind is 0, not from 1 to 11"},
		"kind too high":     {edit(message, 2, 12), false, "decode message: kind is 12, not from 1 to 11"},
		"sender nobody":     {edit(message, 3, 0), false, "decode message: sender is 0, not from 1 to 3"},
		"receiver":          {edit(message, 4, 4), false, "decode message: receiver is 4, not from 1 to 3"},
		"trailing":          {append(append([]byte(nil), message...), 0), false, "decode message: end is followed by 1 more bytes"},
		"witness principal": {edit(hard, 2+17+16, 3), true, "decode hard state: principal is 3, not from 0 to 2"},
		"flag":              {edit(hard, 2+17+17, 2), true, "decode hard state: in_sync is 2, not from 0 to 1"},
		"no principal":      {edit(message, 5+16+16, 0), false, "decode message: record of role sequence 2 has nobody as principal"},
		"in sync and OFF":   {edit(message, 5+16+16+2, 2), false, "decode message: record is in sync though it is suspended or of safety OFF"},
		"suspended":         {edit(hard, 2+17+16+3+8, 1), true, "decode hard state: record is in sync though it is suspended or of safety OFF"},
		"trailing hard":     {append(append([]byte(nil), hard...), 9, 9), true, "decode hard state: end is followed by 2 more bytes"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var err error
			if c.hard {
				_, err = DecodeHardState(c.bytes)
			} else {
				_, err = DecodeMessage(c.bytes)
			}
			var bad *DecodeError
			require.ErrorAs(t, err, &bad)
			require.EqualError(t, err, c.want)
		})
	}
}

// TestDecodeBounds: no byte of a message may take a value that its type does not name, and no prefix is a message.
func TestDecodeBounds(t *testing.T) {
	message, hard := sampleMessage().Append(nil), sampleHardState().Append(nil)
	for i := range message {
		_, err := DecodeMessage(message[:i])
		require.Error(t, err, "prefix of %d bytes", i)
		checkMessage(t, message, i)
	}
	for i := range hard {
		_, err := DecodeHardState(hard[:i])
		require.Error(t, err, "prefix of %d bytes", i)
	}
}

// checkMessage gives one byte every value: what is accepted must be written back the same, and have names.
func checkMessage(t *testing.T, b []byte, at int) {
	c := append([]byte(nil), b...)
	for v := range 256 {
		c[at] = byte(v)
		m, err := DecodeMessage(c)
		if err != nil {
			continue
		}
		require.Equal(t, c, m.Append(nil))
		for _, name := range []string{
			m.Kind.String(), m.From.String(), m.To.String(), m.How.String(), m.Reason.String(), m.Record.Principal.String(),
			m.Record.Safety.String(), m.Record.Why.String(), m.Command.Kind.String(), m.Command.Safety.String(), m.Command.Reason.String(),
		} {
			require.NotEqual(t, "invalid", name, "byte %d is %d", at, v)
		}
		require.Zero(t, m.Sees&^uint8(14))
	}
}
