package pglog

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/redo"
)

const (
	testSeq   = mirror.RoleSeq(3)
	testStart = mirror.LSN(0x1000)
)

// fakeServer is a PostgreSQL server as far as a Stream sees it: real messages of the protocol over a pipe, sent when the
// test says so.
type fakeServer struct {
	t        *testing.T
	backend  *pgproto3.Backend
	conn     net.Conn
	rows     map[string][]string // answers, by the beginning of the query
	settings map[string]string   // what the client asked for at its start
	command  string              // START_REPLICATION
	refusal  *pgproto3.ErrorResponse
	started  chan struct{}
	statuses chan fakeStatus // what the client reported
	goodbye  chan struct{}   // closed when the client has left
	polite   bool            // it said so
	unwaited atomic.Bool     // no commit waits
}

type fakeStatus struct {
	write, flush, apply mirror.LSN
	ask                 bool
	at                  time.Time
}

func newFakeServer(t *testing.T) *fakeServer {
	return &fakeServer{
		t: t,
		rows: map[string][]string{
			identityQuery:                  {"-7300000000000000000", "1", "app", "16384", "150018", "UTF8", "C", "C"},
			"SELECT 1 FROM pg_publication": {"1"},
			slotQuery:                      {"pgoutput", "app", "", "0/1000"},
			flushedQuery:                   {"0/1000"},
		},
		started:  make(chan struct{}),
		statuses: make(chan fakeStatus, 10000),
		goodbye:  make(chan struct{}),
	}
}

func (f *fakeServer) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	f.conn = server
	f.backend = pgproto3.NewBackend(server, server)
	go f.serve()
	return client, nil
}

func (f *fakeServer) serve() {
	startup, err := f.backend.ReceiveStartupMessage()
	if err != nil {
		f.t.Errorf("fake server: %v", err)
		return
	}
	f.settings = startup.(*pgproto3.StartupMessage).Parameters
	f.backend.Send(&pgproto3.AuthenticationOk{})
	f.backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	for f.flush() {
		message, err := f.backend.Receive()
		if err != nil {
			return
		}
		query, ok := message.(*pgproto3.Query)
		if !ok {
			return
		}
		if strings.HasPrefix(query.String, "START_REPLICATION") {
			f.command = query.String
			break
		}
		f.answer(query.String)
	}
	if f.refusal != nil {
		f.backend.Send(f.refusal)
		f.flush()
		return
	}
	f.backend.Send(&pgproto3.CopyBothResponse{})
	if f.flush() {
		close(f.started)
		f.listen()
	}
}

func (f *fakeServer) flush() bool { return f.backend.Flush() == nil }

func (f *fakeServer) answer(query string) {
	for beginning, row := range f.rows {
		if !strings.HasPrefix(query, beginning) {
			continue
		}
		if row != nil {
			values := make([][]byte, len(row))
			fields := make([]pgproto3.FieldDescription, len(row))
			for i := range row {
				values[i] = []byte(row[i])
			}
			f.backend.Send(&pgproto3.RowDescription{Fields: fields})
			f.backend.Send(&pgproto3.DataRow{Values: values})
		}
		f.backend.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT")})
		f.backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		return
	}
	f.t.Errorf("fake server: no answer to %s", query)
}

// listen takes in the client's statuses until it leaves.
func (f *fakeServer) listen() {
	defer close(f.goodbye)
	for {
		message, err := f.backend.Receive()
		if err != nil {
			if !errors.Is(err, io.ErrClosedPipe) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
				f.t.Errorf("fake server: %v", err)
			}
			return
		}
		switch m := message.(type) {
		case *pgproto3.CopyData:
			f.statuses <- parseStatus(f.t, m.Data)
		case *pgproto3.CopyDone:
		case *pgproto3.Terminate:
			f.polite = true
			return
		default:
			f.t.Errorf("fake server: unexpected %T", m)
		}
	}
}

func parseStatus(t *testing.T, b []byte) fakeStatus {
	if len(b) != 34 || b[0] != 'r' {
		t.Errorf("status is % x", b)
		return fakeStatus{}
	}
	lsn := func(at int) mirror.LSN { return mirror.LSN(binary.BigEndian.Uint64(b[at:])) }
	clock := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(binary.BigEndian.Uint64(b[25:])) * time.Microsecond)
	return fakeStatus{write: lsn(1), flush: lsn(9), apply: lsn(17), ask: b[33] == 1, at: clock}
}

// send writes the messages in one piece, as they come when the client was busy.
func (f *fakeServer) send(messages ...[]byte) {
	f.t.Helper()
	var all []byte
	for _, m := range messages {
		all = append(binary.BigEndian.AppendUint32(append(all, 'd'), uint32(4+len(m))), m...)
	}
	f.raw(all)
}

func (f *fakeServer) raw(b []byte) {
	f.t.Helper()
	_, err := f.conn.Write(b)
	require.NoError(f.t, err)
}

// next returns the first report of a position other than that of the one before, all of them being checked.
func (f *fakeServer) next(want mirror.LSN) fakeStatus {
	f.t.Helper()
	for {
		select {
		case s := <-f.statuses:
			require.Equal(f.t, s.flush, s.write)
			require.Equal(f.t, s.flush, s.apply)
			require.LessOrEqual(f.t, s.flush, want)
			if s.flush == want {
				return s
			}
		case <-time.After(time.Minute):
			f.t.Fatalf("%s is not reported", want)
		}
	}
}

// forget drops the reports made so far.
func (f *fakeServer) forget() (n int) {
	synctest.Wait()
	for ; len(f.statuses) > 0; n++ {
		<-f.statuses
	}
	return n
}

func logData(at mirror.LSN, data []byte) []byte {
	b := []byte{'w'}
	for range 2 {
		b = binary.BigEndian.AppendUint64(b, uint64(at))
	}
	return append(append(b, make([]byte, 8)...), data...)
}

func keepalive(end mirror.LSN) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{'k'}, uint64(end)), make([]byte, 9)...)
}

// transaction is one insert that is committed at commit and ends 0x30 later.
func transaction(commit mirror.LSN) [][]byte {
	return [][]byte{beginAt(commit), insertAt(commit - 0x20), commitAt(commit)}
}

func beginAt(commit mirror.LSN) []byte {
	return logData(commit-0x20, encode(Msg{Type: TypeBegin, LSN: commit, Xid: 7}, false))
}

func insertAt(at mirror.LSN) []byte {
	return logData(at, encode(Msg{Type: TypeInsert, RelationID: 5, New: Tuple{{Kind: 't', Data: []byte("row")}}}, false))
}

func commitAt(commit mirror.LSN) []byte {
	return logData(commit+0x30, encode(Msg{Type: TypeCommit, LSN: commit, EndLSN: commit + 0x30}, false))
}

// watchedLog is the real log with a hand on its Harden.
type watchedLog struct {
	*redo.Queue
	mu      sync.Mutex
	hardens int
	arrived chan<- struct{} // closed at the next Harden
	hold    <-chan struct{} // if not nil, Harden waits for its close
	err     error           // if not nil, Harden fails after it has done its work
}

func (l *watchedLog) Harden() (mirror.Position, error) {
	l.mu.Lock()
	l.hardens++
	arrived, hold, failure := l.arrived, l.hold, l.err
	l.arrived = nil
	l.mu.Unlock()
	if arrived != nil {
		close(arrived)
	}
	if hold != nil {
		<-hold
	}
	position, err := l.Queue.Harden()
	if failure != nil {
		return mirror.Position{}, failure
	}
	return position, err
}

// gate makes the next Harden close arrived, and all wait until hold is closed.
func (l *watchedLog) gate(arrived chan<- struct{}, hold <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.arrived, l.hold = arrived, hold
}

// fail makes every Harden return err after its work.
func (l *watchedLog) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

func (l *watchedLog) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hardens
}

func newLog(t testing.TB, start mirror.LSN, cfg redo.Config) *watchedLog {
	t.Helper()
	cfg.Dir = t.TempDir() + "/log"
	q, err := redo.Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, q.Close()) })
	require.NoError(t, q.Reset(mirror.Position{Seq: testSeq, LSN: start}))
	return &watchedLog{Queue: q}
}

// records reads back everything hardened, as kinds and positions.
func records(t *testing.T, q *redo.Queue) (all []redo.Record) {
	t.Helper()
	reader := q.NewReader(0)
	defer func() { require.NoError(t, reader.Close()) }()
	for reader.Ready() {
		record, _, err := reader.Next(t.Context())
		require.NoError(t, err)
		record.Data = append([]byte(nil), record.Data...)
		all = append(all, record)
	}
	return all
}

func testConfig(f *fakeServer) StreamConfig {
	return StreamConfig{
		DSN:  "postgres://mirror:topsecret@127.0.0.1:5432/app?sslmode=disable",
		Slot: "dbmirror_1", Publication: `odd "name`, ApplicationName: "dbmirror-a1", Seq: testSeq, Dial: f.dial,
		Waited: func() bool { return !f.unwaited.Load() },
	}
}

// streaming runs body against a stream that has just started and has made its first report, and returns what Run did.
func streaming(t *testing.T, body func(*testing.T, *fakeServer, *watchedLog, *Stream)) error {
	var result error
	synctest.Test(t, func(t *testing.T) {
		f := newFakeServer(t)
		log := newLog(t, testStart, redo.Config{})
		result = runStream(t, f, log, func(s *Stream, _ context.CancelCauseFunc) { body(t, f, log, s) })
	})
	return result
}

var errTestOver = errors.New("the test is over")

// runStream runs a stream until body has returned and it has ended.
func runStream(t *testing.T, f *fakeServer, log Log, body func(*Stream, context.CancelCauseFunc)) error {
	t.Helper()
	s, err := NewStream(testConfig(f))
	require.NoError(t, err)
	ctx, stop := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, log) }()
	<-f.started
	f.next(testStart)
	body(s, stop)
	stop(errTestOver)
	err = <-done
	f.conn.Close()
	return err
}
