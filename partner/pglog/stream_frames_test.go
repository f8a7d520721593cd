package pglog

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// repeated is a connection that delivers the same transactions for ever, at positions that rise, and swallows reports.
type repeated struct {
	net.Conn
	batch    []byte
	at       mirror.LSN
	statuses int
}

func (c *repeated) Read(b []byte) (int, error) {
	n := 0
	for len(b)-n >= len(c.batch) {
		copy(b[n:], c.batch)
		c.place(b[n:])
		n += len(c.batch)
	}
	return n, nil
}

// place moves one transaction of begin, insert, commit to the next position.
func (c *repeated) place(b []byte) {
	c.at += 0x100
	binary.BigEndian.PutUint64(b[5+logHeaderLen+1:], uint64(c.at))
	commit := b[len(c.batch)-(1+8+8+8):]
	binary.BigEndian.PutUint64(commit[1:], uint64(c.at))
	binary.BigEndian.PutUint64(commit[9:], uint64(c.at+0x30))
}

func (c *repeated) Write(b []byte) (int, error)      { c.statuses++; return len(b), nil }
func (c *repeated) SetReadDeadline(time.Time) error  { return nil }
func (c *repeated) SetWriteDeadline(time.Time) error { return nil }

// endLog keeps only where it ends.
type endLog struct{ end mirror.Position }

func (l *endLog) Append(r redo.Record) error {
	if r.Kind == redo.KindCommit || r.Kind == redo.KindMark {
		l.end = mirror.Position{Seq: r.Seq, LSN: r.LSN}
	}
	return nil
}

func (l *endLog) Harden() (mirror.Position, error) { return l.end, nil }

func repeatedLoop(t testing.TB) (*readLoop, *repeated) {
	conn := &repeated{at: testStart}
	for _, m := range transaction(0) {
		conn.batch = append(binary.BigEndian.AppendUint32(append(conn.batch, 'd'), uint32(4+len(m))), m...)
	}
	s, err := NewStream(StreamConfig{DSN: "postgres://h/d", Slot: "s", Publication: "p", ApplicationName: "a", Seq: testSeq})
	require.NoError(t, err)
	return newReadLoop(s, &endLog{}, conn, testStart), conn
}

func TestReadLoopDoesNotAllocate(t *testing.T) {
	l, conn := repeatedLoop(t)
	ctx := t.Context()
	turn := func() {
		if err := l.turn(ctx); err != nil {
			t.Fatal(err)
		}
	}
	turn() // makes the buffer
	require.Zero(t, testing.AllocsPerRun(100000, turn))
	require.Greater(t, l.hardened, testStart)
	require.Positive(t, conn.statuses)
}

func BenchmarkReadLoop(b *testing.B) {
	l, conn := repeatedLoop(b)
	ctx := b.Context()
	b.ReportAllocs()
	b.SetBytes(int64(len(conn.batch) / 3))
	for b.Loop() {
		if err := l.turn(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

// TestFramesOfAnySize: a message may come in any pieces and be larger than the buffer, which then shrinks again.
func TestFramesOfAnySize(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	f := frames{conn: client}
	sizes := []int{0, 1, frameBufferSize - 5, frameBufferSize, 5*frameBufferSize + 3, 7}
	go func() {
		for i, size := range sizes {
			m := binary.BigEndian.AppendUint32([]byte{'d'}, uint32(4+size))
			m = append(m, bytes.Repeat([]byte{byte(i)}, size)...)
			for len(m) > 0 {
				n := min(len(m), 300001)
				if _, err := server.Write(m[:n]); err != nil {
					return
				}
				m = m[n:]
			}
		}
		server.Close()
	}()
	for i, size := range sizes {
		for {
			kind, body, ok, err := f.next()
			require.NoError(t, err)
			if ok {
				require.Equal(t, byte('d'), kind)
				require.Equal(t, bytes.Repeat([]byte{byte(i)}, size), append([]byte{}, body...))
				break
			}
			_, err = f.fill()
			require.NoError(t, err)
		}
	}
	_, err := f.fill()
	require.ErrorIs(t, err, io.EOF)
	require.Len(t, f.buf, frameBufferSize)
}
