package pglog

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/mirrortest/memory"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// widest is a decoder that has read the widest rows there are: it has all the memory that rows will ever want.
func widest(t testing.TB) *Decoder {
	var d Decoder
	row := make(Tuple, maxColumns)
	for i := range row {
		row[i].Kind = 'n'
	}
	_, err := d.Decode(encode(Msg{Type: TypeUpdate, OldKind: 'O', Old: row, New: row}, false), false)
	require.NoError(t, err)
	return &d
}

// FuzzDecode holds that no bytes make the decoder panic or take memory that they do not explain, and that what it accepts
// means exactly those bytes.
func FuzzDecode(f *testing.F) {
	for _, m := range samples() {
		f.Add(encode(m, false), false)
		f.Add(encode(inStreamOf(m), true), true)
	}
	d := widest(f)
	f.Fuzz(func(t *testing.T, data []byte, inStream bool) {
		var m Msg
		var err error
		memory.Bound(t, len(data), func() { m, err = d.Decode(data, inStream) })
		if err != nil {
			var decode *DecodeError
			require.ErrorAs(t, err, &decode)
			require.LessOrEqual(t, decode.Offset, len(data))
			return
		}
		require.True(t, bytes.Equal(data, encode(m, inStream)))
		end, ok := EndsTransaction(data)
		require.Equal(t, m.Type == TypeCommit || m.Type == TypeStreamCommit, ok)
		require.Equal(t, m.EndLSN, end)
		_, err = d.Decode(append(data[:len(data):len(data)], 0), inStream)
		require.Error(t, err, "trailing bytes")
	})
}

// messages cuts bytes into messages of up to 255.
func messages(b []byte) (all [][]byte) {
	for len(b) > 1 {
		n := min(int(b[0]), len(b)-1)
		all, b = append(all, b[1:1+n]), b[1+n:]
	}
	return all
}

func together(all ...[]byte) (b []byte) {
	for _, m := range all {
		b = append(append(b, byte(len(m))), m...)
	}
	return b
}

// FuzzSpool assembles transactions from any messages in any order. It must not panic, must know what it holds, and must
// not hold more than its bound.
func FuzzSpool(f *testing.F) {
	insert := Msg{Type: TypeInsert, RelationID: 1, New: Tuple{{Kind: 't', Data: []byte("value")}}}
	inChunk := insert
	inChunk.Xid = 8
	start, stop := encode(Msg{Type: TypeStreamStart, Xid: 7, FirstSegment: true}, false), encode(Msg{Type: TypeStreamStop}, false)
	f.Add(together(encode(Msg{Type: TypeBegin, Xid: 6}, false), encode(insert, false), encode(Msg{Type: TypeCommit, EndLSN: 9}, false)))
	f.Add(together(start, encode(inChunk, true), stop, encode(Msg{Type: TypeStreamAbort, Xid: 7, SubXid: 8}, false),
		encode(Msg{Type: TypeStreamCommit, Xid: 7, EndLSN: 9}, false)))
	f.Add(together(start, encode(Msg{Type: TypeStreamAbort, Xid: 7, SubXid: 7}, false), encode(inChunk, true), encode(inChunk, true),
		encode(inChunk, true), encode(inChunk, true), encode(inChunk, true), encode(inChunk, true)))
	f.Add(together(encode(insert, false), encode(Msg{Type: TypeCommit}, false), stop, start, start))
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 100
		s := newSpool(limit)
		for i, m := range messages(b) {
			txn, err := s.take(redo.Record{Kind: redo.KindData, Data: m}, redo.Offset(i+1), redo.Offset(i+2))
			var held int64
			for _, open := range s.streams {
				held += int64(len(open.messages))
			}
			if s.plain != nil {
				held += int64(len(s.plain.messages))
			}
			require.Equal(t, held, s.held)
			require.LessOrEqual(t, held, int64(limit))
			if err != nil {
				var decode *DecodeError
				require.ErrorAs(t, err, &decode)
				return
			}
			if txn == nil {
				continue
			}
			read := 0
			require.NoError(t, txn.eachHeld(func([]byte) error { read++; return nil }))
			require.True(t, txn.spilled || txn.partial || read == txn.count, "%d of %d messages", read, txn.count)
		}
	})
}

// FuzzTail writes any messages as the file of a lost tail: each line of it must be JSON.
func FuzzTail(f *testing.F) {
	var all [][]byte
	for _, m := range samples() {
		all = append(all, encode(m, false))
	}
	f.Add(together(all...))
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		w := newTail(0, &out)
		for _, message := range messages(b) {
			m, err := w.decoder.Decode(message, false)
			if err == nil {
				err = w.take(m)
			}
			if err != nil {
				break
			}
		}
		lines, changes := json.NewDecoder(&out), int64(0)
		for {
			var line TailLine
			err := lines.Decode(&line)
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			if line.Table != "" || line.Schema != "" || line.Kind == "truncate" || line.Kind == "insert" || line.Kind == "update" || line.Kind == "delete" {
				changes++
			}
		}
		require.Equal(t, w.summary().Changes, changes)
	})
}

// piecewise is a connection that delivers bytes in pieces of a size.
type piecewise struct {
	net.Conn
	rest []byte
	size int
}

func (p *piecewise) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.rest[:min(p.size, len(p.rest))])
	p.rest = p.rest[n:]
	return n, nil
}

// FuzzFrames cuts what comes from a server into messages: the same ones, however the bytes arrive, and no memory is taken
// for what a length only claims.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("d\x00\x00\x00\x05xd\x00\x00\x00\x04"), uint8(1))
	f.Add([]byte("d\x40\x00\x00\x00"), uint8(3))
	f.Add([]byte("d\xff\xff\xff\xff"), uint8(9))
	f.Add([]byte("d\x00\x00\x00\x03"), uint8(200))
	f.Fuzz(func(t *testing.T, b []byte, size uint8) {
		s := frames{conn: &piecewise{rest: bytes.Clone(b), size: max(int(size), 1)}}
		s.makeRoom() // the buffer of 1 MiB that each stream has
		var again []byte
		memory.Bound(t, len(b), func() {
			for {
				kind, body, ok, err := s.next()
				if err != nil {
					return
				}
				if !ok {
					if _, err := s.fill(); err != nil {
						return
					}
					continue
				}
				again = append(binary.BigEndian.AppendUint32(append(again, kind), uint32(4+len(body))), body...)
			}
		})
		require.True(t, bytes.HasPrefix(b, again))
		require.Less(t, s.w-s.r, max(len(b), 1)+1)
	})
}

// FuzzSplitScript: what is between statements is only blanks, comments, semicolons and two commands of psql, so the
// statements are found in their order; and they are the same ones when they are put together again.
func FuzzSplitScript(f *testing.F) {
	f.Add([]byte("SELECT 'a';\\restrict x\nCREATE FUNCTION f() BEGIN ATOMIC; END;"))
	f.Add([]byte("SELECT $a$;$a$, E'\\';', \"x;\"\"\";/* ; /* */ */CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2);"))
	f.Add([]byte("SELECT );SELECT (;"))
	f.Fuzz(func(t *testing.T, script []byte) {
		statements, err := splitScript(script)
		if err != nil {
			require.Nil(t, statements)
			return
		}
		at := 0
		for _, statement := range statements {
			i := strings.Index(string(script[at:]), statement+";")
			require.GreaterOrEqual(t, i, 0)
			at += i + len(statement) + 1
		}
		again, err := splitScript([]byte(strings.Join(append(statements, ""), ";\n")))
		require.NoError(t, err)
		require.Equal(t, statements, again)
	})
}

// FuzzWaitList: what is read of synchronous_standby_names and composed again means the same, and no name in it can break
// out of its quotes.
func FuzzWaitList(f *testing.F) {
	for _, value := range []string{"", "a", `"a b", c`, `FIRST 2 (a, "dbmirror_1")`, "2 (a, b)", "ANY 1 (a)", "*", `"`, `any 1 ("x"")"", y")`, "(a)", "first 1 (any)"} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		list, err := parseWaitList(value)
		if err != nil {
			var refused *WaitListError
			require.ErrorAs(t, err, &refused)
			require.NotEmpty(t, refused.Mend)
			return
		}
		again, err := parseWaitList(list.String())
		require.NoError(t, err)
		require.ElementsMatch(t, list.ours, again.ours)
		require.ElementsMatch(t, list.others, again.others)
		with, err := parseWaitList(list.with("dbmirror_1_", "dbmirror_1_x").String())
		require.NoError(t, err)
		require.Contains(t, with.ours, "dbmirror_1_x")
		require.ElementsMatch(t, list.others, with.others)
	})
}

// FuzzLSNColumn reads positions as PostgreSQL writes them.
func FuzzLSNColumn(f *testing.F) {
	for _, s := range []string{"0/0", "16/B374D848", "", "x", "0/0 "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var l mirror.LSN
		err := lsnColumn{&l}.Scan(s)
		want, wrong := mirror.ParseLSN(s)
		require.Equal(t, wrong == nil, err == nil)
		require.Equal(t, want, l)
	})
}
