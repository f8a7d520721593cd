package pglog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// kinds writes records as "kind LSN", data messages by their type.
func kinds(all []redo.Record) string {
	var b strings.Builder
	for _, r := range all {
		if r.Kind == redo.KindData {
			fmt.Fprintf(&b, "%c ", r.Data[0])
		} else {
			fmt.Fprintf(&b, "%v %v ", r.Kind, r.LSN)
		}
	}
	return strings.TrimSpace(b.String())
}

func TestAbuseS8StreamReportsWhatIsHardenedAndNothingElse(t *testing.T) {
	err := streaming(t, func(t *testing.T, f *fakeServer, log *watchedLog, s *Stream) {
		synctest.Wait()
		hold := make(chan struct{})
		log.gate(nil, hold)
		f.send(transaction(0x2000)...)
		synctest.Wait() // in Harden
		require.Zero(t, f.forget())
		require.Equal(t, testStart, s.Status().Hardened)
		close(hold)
		f.next(0x2030)
		require.Equal(t, "attach 0/1000 B I commit 0/2030", kinds(records(t, log.Queue)))
		status := s.Status()
		require.Equal(t, mirror.LSN(0x2030), status.Hardened)
		require.Equal(t, mirror.LSN(0x2030), status.Received)
		require.True(t, status.Streaming)
		require.Equal(t, time.Now(), status.LastByte.Round(0))
		require.Positive(t, status.Bytes)
	})
	require.ErrorIs(t, err, errTestOver)
}

// TestStreamKeepsBytes: redo decodes the log long after, so it must hold what the server sent, byte for byte.
func TestStreamKeepsBytes(t *testing.T) {
	err := streaming(t, func(t *testing.T, f *fakeServer, log *watchedLog, _ *Stream) {
		sent := transaction(0x2000)
		f.send(sent...)
		f.next(0x2030)
		all := records(t, log.Queue)[1:]
		require.Len(t, all, len(sent))
		for i, r := range all {
			require.Equal(t, sent[i][logHeaderLen:], r.Data)
			require.Equal(t, testSeq, r.Seq)
		}
	})
	require.ErrorIs(t, err, errTestOver)
}

// TestStreamReportsCommitBeforeKeepalive: the server may send a commit and a keepalive in one piece. A reader that
// reports only when the commit was the last thing to arrive waits for ever, and so does the client.
func TestStreamReportsCommitBeforeKeepalive(t *testing.T) {
	err := streaming(t, func(t *testing.T, f *fakeServer, _ *watchedLog, _ *Stream) {
		sent := time.Now()
		f.send(append(transaction(0x2000), keepalive(0x2030))...)
		require.Zero(t, f.next(0x2030).at.Sub(sent))
	})
	require.ErrorIs(t, err, errTestOver)
}

func TestStreamAnswersEveryKeepaliveAtOnce(t *testing.T) {
	err := streaming(t, func(t *testing.T, f *fakeServer, log *watchedLog, s *Stream) {
		for end := mirror.LSN(0x2000); end < 0x2400; end += 0x100 {
			f.send(keepalive(end))
			sent := time.Now()
			require.Zero(t, f.next(end).at.Sub(sent))
			require.Equal(t, end, s.Status().ServerEnd)
		}
		f.forget()
		f.send(keepalive(0x2100)) // older than what is reported: answered, with the same position
		synctest.Wait()
		require.Equal(t, 1, f.forget())
		require.Equal(t, "attach 0/1000 mark 0/2000 mark 0/2100 mark 0/2200 mark 0/2300", kinds(records(t, log.Queue)))
	})
	require.ErrorIs(t, err, errTestOver)
}

// TestStreamHardensTogether: what arrives in one piece costs one harden and one report.
func TestStreamHardensTogether(t *testing.T) {
	err := streaming(t, func(t *testing.T, f *fakeServer, log *watchedLog, _ *Stream) {
		f.forget()
		hardens := log.count()
		var sent [][]byte
		for i := range mirror.LSN(100) {
			sent = append(sent, transaction(0x2000+i*0x100)...)
			sent = append(sent, keepalive(0x2040+i*0x100))
		}
		f.send(sent...)
		f.next(0x2040 + 99*0x100)
		require.Zero(t, f.forget())
		require.Equal(t, hardens+1, log.count())
	})
	require.ErrorIs(t, err, errTestOver)
}

// TestStreamTakesNoPositionInsideTransaction: a keepalive between the rows of a transaction says nothing about it, and
// one before it must not get lost or stand inside.
func TestStreamTakesNoPositionInsideTransaction(t *testing.T) {
	for _, open := range []struct {
		name  string
		first []byte
		rest  [][]byte
		end   mirror.LSN
		log   string
	}{
		{"whole", beginAt(0x3000), [][]byte{insertAt(0x2fe0), commitAt(0x3000)}, 0x3030,
			"attach 0/1000 mark 0/2000 B I commit 0/3030"},
		{"streamed", logData(0, encode(Msg{Type: TypeStreamStart, Xid: 7, FirstSegment: true}, false)),
			[][]byte{logData(0, []byte{TypeStreamStop}), logData(0x3030, encode(Msg{Type: TypeStreamCommit, Xid: 7, LSN: 0x3000, EndLSN: 0x3030}, false))},
			0x3030, "attach 0/1000 mark 0/2000 S E commit 0/3030"},
	} {
		t.Run(open.name, func(t *testing.T) {
			err := streaming(t, func(t *testing.T, f *fakeServer, log *watchedLog, _ *Stream) {
				f.send(keepalive(0x2000), open.first)
				f.next(0x2000)
				f.forget()
				f.send(keepalive(0x3100))
				synctest.Wait()
				answer := <-f.statuses
				require.Equal(t, mirror.LSN(0x2000), answer.flush)
				<-time.After(time.Second) // of the fake clock
				require.Equal(t, mirror.LSN(0x2000), log.Hardened().LSN)
				f.send(open.rest...)
				f.next(open.end)
				require.Equal(t, open.log, kinds(records(t, log.Queue)))
			})
			require.ErrorIs(t, err, errTestOver)
		})
	}
}

// TestStreamRepeatsStatus: a server of version 16 to 18 can miss that log was flushed until it hears from us.
func TestStreamRepeatsStatus(t *testing.T) {
	err := streaming(t, func(t *testing.T, f *fakeServer, _ *watchedLog, _ *Stream) {
		last := time.Now()
		for range 20 {
			status := <-f.statuses
			require.Equal(t, testStart, status.flush)
			require.Equal(t, 50*time.Millisecond, status.at.Sub(last))
			last = status.at
		}
	})
	require.ErrorIs(t, err, errTestOver)
}

func TestStreamGivesUpSilentServer(t *testing.T) {
	err := streaming(t, func(t *testing.T, f *fakeServer, _ *watchedLog, _ *Stream) {
		began := time.Now()
		asked := awaitQuestion(f)
		require.Equal(t, 15*time.Second, asked.Sub(began))
		f.send(keepalive(testStart)) // a sign of life: the clock starts again
		again := awaitQuestion(f)
		require.Equal(t, 15*time.Second, again.Sub(asked))
		<-f.goodbye
		require.Equal(t, 15*time.Second, time.Since(again))
	})
	require.ErrorIs(t, err, ErrSilent)
}

func awaitQuestion(f *fakeServer) time.Time {
	for status := range f.statuses {
		if status.ask {
			return status.at
		}
	}
	return time.Time{}
}

// TestStreamHardensBeforeLargeCommit: most of a large transaction is on disk when its commit comes.
func TestStreamHardensBeforeLargeCommit(t *testing.T) {
	err := streaming(t, func(t *testing.T, f *fakeServer, log *watchedLog, _ *Stream) {
		hardens := log.count()
		row := encode(Msg{Type: TypeInsert, RelationID: 5, New: Tuple{{Kind: 't', Data: make([]byte, 3<<20)}}}, false)
		f.send(beginAt(0x3000), logData(0x2fe0, row), logData(0x2fe1, row))
		synctest.Wait()
		require.Equal(t, hardens+1, log.count())
		require.Equal(t, testStart, log.Hardened().LSN)
		require.Equal(t, "attach 0/1000 B I I", kinds(records(t, log.Queue)))
		f.send(insertAt(0x2fe2))
		synctest.Wait()
		require.Equal(t, hardens+1, log.count())
		f.send(commitAt(0x3000))
		f.next(0x3030)
		require.Equal(t, row, records(t, log.Queue)[2].Data)
	})
	require.ErrorIs(t, err, errTestOver)
}

func TestStreamLeavesOutUntransactionalMessages(t *testing.T) {
	err := streaming(t, func(t *testing.T, f *fakeServer, log *watchedLog, _ *Stream) {
		loose := logData(0x1800, encode(Msg{Type: TypeMessage, LSN: 0x1800, Prefix: "p", Content: []byte("c")}, false))
		bound := logData(0x1900, encode(Msg{Type: TypeMessage, LSN: 0x1900, Prefix: "p", Content: []byte("c"), Transactional: true}, false))
		f.send(loose, beginAt(0x2000), loose, bound, commitAt(0x2000))
		f.next(0x2030)
		require.Equal(t, "attach 0/1000 B M commit 0/2030", kinds(records(t, log.Queue)))
	})
	require.ErrorIs(t, err, errTestOver)
}

// TestStreamRefuses: what a server should never send ends the stream before it is hardened.
func TestStreamRefuses(t *testing.T) {
	stop := logData(0, []byte{TypeStreamStop})
	open := logData(0, encode(Msg{Type: TypeStreamStart, Xid: 7}, false))
	streamed := func(commit, end mirror.LSN) []byte {
		return logData(end, encode(Msg{Type: TypeStreamCommit, Xid: 7, LSN: commit, EndLSN: end}, false))
	}
	for _, c := range []struct {
		name string
		sent [][]byte
		says string
	}{
		{"row outside", [][]byte{insertAt(0x2000)}, `message 'I' in a transaction opened by '\x00'`},
		{"message outside", [][]byte{logData(0, encode(Msg{Type: TypeMessage, Transactional: true}, false))}, `message 'M' in a transaction opened by '\x00'`},
		{"commit outside", [][]byte{commitAt(0x2000)}, `message 'C' in a transaction opened by '\x00'`},
		{"begin inside", [][]byte{beginAt(0x2000), beginAt(0x2000)}, `message 'B' in a transaction opened by 'B'`},
		{"chunk inside", [][]byte{beginAt(0x2000), open}, `message 'S' in a transaction opened by 'B'`},
		{"commit inside chunk", [][]byte{open, commitAt(0x2000)}, `message 'C' in a transaction opened by 'S'`},
		{"streamed commit inside chunk", [][]byte{open, streamed(0x2000, 0x2030)}, `message 'c' in a transaction opened by 'S'`},
		{"chunk that was not opened", [][]byte{stop}, `message 'E' in a transaction opened by '\x00'`},
		{"abort inside chunk", [][]byte{open, logData(0, encode(Msg{Type: TypeStreamAbort, Xid: 7, SubXid: 7}, false))}, `message 'A' in`},
		{"transaction before the start", [][]byte{beginAt(0xf00)}, "committed at 0/F00 is sent after 0/1000 was complete"},
		{"transaction twice", append(transaction(0x2000), transaction(0x2000)...), "committed at 0/2000 is sent after 0/2030"},
		{"transaction before a keepalive", [][]byte{keepalive(0x3000), beginAt(0x2000)}, "committed at 0/2000 is sent after 0/3000"},
		{"streamed before a keepalive", [][]byte{keepalive(0x3000), streamed(0x2000, 0x2030)}, "committed at 0/2000 is sent after 0/3000"},
		{"other commit than begun", [][]byte{beginAt(0x2000), commitAt(0x2008)}, "to be committed at 0/2000 is committed at 0/2008"},
		{"commit that ends before it begins", [][]byte{streamed(0x2000, 0x2000)}, "commit at 0/2000 ends at 0/2000"},
		{"short commit", [][]byte{beginAt(0x2000), logData(0, []byte("C"))}, "commit of 1 bytes"},
		{"short begin", [][]byte{logData(0, []byte("B"))}, "begin of 1 bytes"},
		{"unknown log message", [][]byte{beginAt(0x2000), logData(0, []byte("b"))}, "want known message type"},
		{"unknown replication message", [][]byte{{'z'}}, "replication message of 1 bytes"},
		{"empty log message", [][]byte{logData(0, nil)}, "replication message of 25 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var end mirror.LSN
			err := streaming(t, func(t *testing.T, f *fakeServer, log *watchedLog, _ *Stream) {
				f.send(c.sent...)
				<-f.goodbye
				end = log.Hardened().LSN
			})
			require.ErrorContains(t, err, c.says)
			require.Equal(t, testStart, end)
		})
	}
}

func TestAbuseS14StreamRefusesImpossibleLength(t *testing.T) {
	for _, length := range []uint32{0, 3, maxFrame + 1, 1<<32 - 1} {
		err := streaming(t, func(t *testing.T, f *fakeServer, _ *watchedLog, _ *Stream) {
			f.raw(binary.BigEndian.AppendUint32([]byte{'d'}, length))
			<-f.goodbye
		})
		var protocol *ProtocolError
		require.ErrorAs(t, err, &protocol)
	}
}

func TestStreamTellsHowServerEndedIt(t *testing.T) {
	send := func(message pgproto3.BackendMessage) func(*testing.T, *fakeServer, *watchedLog, *Stream) {
		return func(t *testing.T, f *fakeServer, _ *watchedLog, _ *Stream) {
			b, err := message.Encode(nil)
			require.NoError(t, err)
			f.raw(b)
			<-f.goodbye
		}
	}
	err := streaming(t, send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "57P01", Message: "terminating connection"}))
	var server *pgconn.PgError
	require.ErrorAs(t, err, &server)
	require.Equal(t, "57P01", server.Code)
	require.ErrorIs(t, streaming(t, send(&pgproto3.CopyDone{})), ErrStreamEnded)
	require.ErrorIs(t, streaming(t, send(&pgproto3.CommandComplete{CommandTag: []byte("COPY 0")})), ErrStreamEnded)
	err = streaming(t, func(_ *testing.T, f *fakeServer, _ *watchedLog, _ *Stream) {
		f.conn.Close()
		<-f.goodbye
		synctest.Wait()
	})
	require.True(t, errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe), "%v", err) // it was reading, or reporting
	var protocol *ProtocolError
	require.ErrorAs(t, streaming(t, send(&pgproto3.EmptyQueryResponse{})), &protocol)
}

func TestStreamPassesOverNotices(t *testing.T) {
	err := streaming(t, func(t *testing.T, f *fakeServer, _ *watchedLog, _ *Stream) {
		notice, err := (&pgproto3.NoticeResponse{Severity: "WARNING", Message: "m"}).Encode(nil)
		require.NoError(t, err)
		setting, err := (&pgproto3.ParameterStatus{Name: "n", Value: "v"}).Encode(nil)
		require.NoError(t, err)
		f.raw(append(notice, setting...))
		f.send(keepalive(0x2000))
		f.next(0x2000)
	})
	require.ErrorIs(t, err, errTestOver)
}

// TestStreamSaysGoodbye: a server that sees no orderly end keeps the slot busy until it notices.
func TestStreamSaysGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeServer(t)
		err := runStream(t, f, newLog(t, testStart, redo.Config{}), func(_ *Stream, stop context.CancelCauseFunc) {
			synctest.Wait() // until it waits for the server
			began := time.Now()
			stop(errTestOver)
			<-f.goodbye
			require.Zero(t, time.Since(began))
			require.True(t, f.polite)
		})
		require.ErrorIs(t, err, errTestOver)
	})
}

// TestStreamWaitsForRoom: a full redo queue stops the reading, not the connection: what is hardened is reported on.
func TestStreamWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeServer(t)
		log := newLog(t, testStart, redo.Config{SegmentBytes: 4 << 10, MaxBytes: 8 << 10})
		err := runStream(t, f, log, func(s *Stream, _ context.CancelCauseFunc) {
			row := encode(Msg{Type: TypeInsert, RelationID: 5, New: Tuple{{Kind: 't', Data: make([]byte, 3000)}}}, false)
			large := func(commit mirror.LSN) [][]byte {
				return [][]byte{beginAt(commit), logData(commit-1, row), commitAt(commit)}
			}
			f.send(joined(large(0x2000), large(0x3000), large(0x4000))...)
			f.next(0x3030)
			f.forget()
			<-time.After(5 * time.Minute) // of the fake clock: far beyond Silence
			require.True(t, s.Status().Stalled)
			require.Greater(t, f.forget(), 1000)

			reader := log.NewReader(0)
			for range 6 {
				_, offset, err := reader.Next(t.Context())
				require.NoError(t, err)
				require.NoError(t, log.Trim(offset))
			}
			require.NoError(t, reader.Close())
			f.next(0x4030)
			require.False(t, s.Status().Stalled)
		})
		require.ErrorIs(t, err, errTestOver)
	})
}

func joined(parts ...[][]byte) (all [][]byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// TestStreamContinuesAfterFailedHarden: transactions that were appended, and on whose harden the stream ended, are part
// of the log when the next stream asks where to begin.
func TestStreamContinuesAfterFailedHarden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := fmt.Errorf("disk trouble")
		log := newLog(t, testStart, redo.Config{})
		f := newFakeServer(t)
		err := runStream(t, f, log, func(_ *Stream, _ context.CancelCauseFunc) {
			synctest.Wait()
			log.fail(broken)
			f.send(transaction(0x2000)...)
			<-f.goodbye
		})
		require.ErrorIs(t, err, broken)
		require.Zero(t, f.forget())

		log.fail(nil)
		f = newFakeServer(t)
		f.rows[flushedQuery] = []string{"0/2030"}
		s, err := NewStream(testConfig(f))
		require.NoError(t, err)
		ctx, stop := context.WithCancelCause(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx, log) }()
		f.next(0x2030)
		require.Contains(t, f.command, "LOGICAL 0/2030 ")
		stop(errTestOver)
		require.ErrorIs(t, <-done, errTestOver)
	})
}

func TestStreamAsksAsCoreDoes(t *testing.T) {
	err := streaming(t, func(t *testing.T, f *fakeServer, _ *watchedLog, s *Stream) {
		require.Equal(t, `START_REPLICATION SLOT "dbmirror_1" LOGICAL 0/1000 (proto_version '2', streaming 'on', messages 'true', publication_names '"odd ""name"')`, f.command)
		require.Equal(t, map[string]string{
			"user": "mirror", "database": "app", "replication": "database", "application_name": "dbmirror-a1",
			"logical_decoding_work_mem": "4MB", "synchronous_commit": "local", "wal_sender_timeout": "30000",
			"datestyle": "ISO", "intervalstyle": "postgres", "extra_float_digits": "3", "bytea_output": "hex",
			"client_encoding": "UTF8", "standard_conforming_strings": "on", "lc_monetary": "C", "search_path": "pg_catalog",
		}, f.settings)
		id, ok := s.Identity()
		require.True(t, ok)
		require.Equal(t, Identity{SystemID: 1<<64 - 7300000000000000000, Timeline: 1, Database: "app", OID: 16384,
			Version: 150018, Encoding: "UTF8", Collate: "C", Ctype: "C"}, id)
	})
	require.ErrorIs(t, err, errTestOver)
}

func TestStreamConfigRefused(t *testing.T) {
	good := StreamConfig{DSN: "postgres://u:topsecret@h/d", Slot: "s", Publication: "p", ApplicationName: "a", Seq: 1}
	_, err := NewStream(good)
	require.NoError(t, err)
	for field, spoil := range map[string]func(*StreamConfig){
		"connection string": func(c *StreamConfig) { c.DSN = "postgres://u:topsecret@h:port/d" },
		"Slot":              func(c *StreamConfig) { c.Slot = `s" LOGICAL 0/0` },
		"Publication":       func(c *StreamConfig) { c.Publication = "" },
		"ApplicationName":   func(c *StreamConfig) { c.ApplicationName = "ä" },
		"Seq":               func(c *StreamConfig) { c.Seq = 0 },
		"StatusEvery":       func(c *StreamConfig) { c.StatusEvery = 2 * time.Second },
		"Silence":           func(c *StreamConfig) { c.Silence = time.Millisecond },
	} {
		bad := good
		spoil(&bad)
		_, err := NewStream(bad)
		require.ErrorContains(t, err, field)
		require.NotContains(t, err.Error(), "topsecret")
		require.NotContains(t, fmt.Sprintf("%v %+v %#v", bad, bad, bad), "topsecret")
	}
}

func TestAbuseS13StreamHidesTheDSN(t *testing.T) {
	for name, dial := range map[string]func(context.Context, string, string) (net.Conn, error){
		"network": func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: io.ErrUnexpectedEOF}
		},
		"other": func(context.Context, string, string) (net.Conn, error) { return nil, io.ErrUnexpectedEOF },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(newFakeServer(t))
			cfg.Dial = dial
			s, err := NewStream(cfg)
			require.NoError(t, err)
			err = s.Run(t.Context(), newLog(t, testStart, redo.Config{}))
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			for _, secret := range []string{"topsecret", "127.0.0.1", "user"} {
				require.NotContains(t, err.Error(), secret)
			}
			_, ok := s.Identity()
			require.False(t, ok)
			require.False(t, s.Status().Streaming)
		})
	}
}

func TestAppendStatus(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	b, err := appendStatus([]byte("x"), report{received: 0x300, hardened: 0x200, flush: 0x100}, at, true)
	require.NoError(t, err)
	require.Len(t, b, 1+statusLen)
	require.Equal(t, []byte{'x', 'd', 0, 0, 0, 38}, b[:6])
	require.Equal(t, fakeStatus{write: 0x100, flush: 0x100, apply: 0x100, ask: true, at: at}, parseStatus(t, b[6:]))
	for _, r := range []report{
		{received: 0x300, hardened: 0x200, flush: 0},     // would be taken for another position
		{received: 0x300, hardened: 0x200, flush: 0x201}, // not on disk
		{received: 0x100, hardened: 0x200, flush: 0x100}, // hardened what was never received
	} {
		b, err := appendStatus(nil, r, at, false)
		require.ErrorIs(t, err, errReport)
		require.Empty(t, b)
	}
}
