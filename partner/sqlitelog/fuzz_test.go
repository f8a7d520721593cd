package sqlitelog

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// FuzzParse: whatever stands in the log, it is refused or read, and what is read can be written.
func FuzzParse(f *testing.F) {
	of := &table{name: "t", rowid: "k", alias: 0, columns: []string{"k", "a"}}
	keyed := &table{name: "w", alias: -1, columns: []string{"k", "a"}, key: []int{0}}
	out := newTransaction(time.UnixMicro(1))
	out.row(opInsert, of, 1, []Value{intValue(1), textValue("x")})
	out.row(opDelete, keyed, 0, []Value{blobValue([]byte{1}), {Kind: Null}})
	out.update(keyed, 0, []Value{intValue(1), {Kind: Real, Float: 1.5}}, []Value{intValue(1), textValue("y")})
	out.update(of, 5, []Value{intValue(5), intValue(6)}, []Value{intValue(5), intValue(7)})
	out.note(opStatement, "CREATE TABLE x (a)", Value{}, Value{})
	out.note(opSequence, "t", Value{Kind: Null}, intValue(7))
	f.Add(out.body)
	f.Add([]byte{})
	f.Add([]byte{recordVersion, 0, 'T', 1, 't', 0, 'i', 1, 1, 'i', 0, 'i', 2, 1, 'a'})
	_, changes, err := parse(out.body)
	require.NoError(f, err)
	require.Len(f, changes, 6)
	f.Fuzz(func(t *testing.T, body []byte) {
		_, changes, err := parse(body)
		if err != nil {
			return
		}
		again := newTransaction(time.UnixMicro(1))
		for _, c := range changes {
			switch {
			case c.op == opInsert:
				again.row(c.op, c.table, c.rowid, c.new)
			case c.op == opDelete:
				again.row(c.op, c.table, c.rowid, c.old)
			}
			_ = c.describeKey()
			back := c.inverse()
			require.Equal(t, c.op, back.inverse().op)
		}
		_, _, err = parse(again.body)
		require.NoError(t, err)
	})
}

// FuzzFrames: no bytes make the reader allocate more than a frame, or take what was not sent.
func FuzzFrames(f *testing.F) {
	whole := appendFrame(nil, frameCommit, positionBytes(7), []byte("data"))
	f.Add(whole)
	f.Add(append(append([]byte(nil), whole...), whole[:11]...))
	f.Add([]byte{'D', 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		in := newFrames(bytes.NewReader(b))
		var again []byte
		for {
			in.waiting()
			kind, payload, err := in.next()
			if err != nil {
				break
			}
			again = appendFrame(again, kind, payload)
			_, _ = position(payload) // refused or read
			_, _ = partOf(kind, payload)
			_ = refusal(payload)
		}
		require.True(t, bytes.HasPrefix(b, again))
		require.LessOrEqual(t, cap(in.payload), max(maxPayload, 4<<10))
	})
}
