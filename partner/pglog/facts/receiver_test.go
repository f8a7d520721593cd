package facts

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

// receiver reads the log of a slot and says nothing but what a fact makes it say.
type receiver struct {
	b    *bench
	conn *pgconn.HijackedConn
	pid  int32
	done chan struct{}

	writing sync.Mutex
	mu      sync.Mutex
	kinds   string       // the letters of what came
	ends    []mirror.LSN // of the transactions, in their order
	alive   []keepalive
	answers answers
}

// answers says what a receiver reports by itself.
type answers uint8

const (
	silent      answers = iota
	commitsOnly         // the end of each transaction
	asMirror            // that, and the position of each keepalive outside a transaction
)

type keepalive struct {
	end  mirror.LSN
	asks bool // for an answer
}

// slot makes a slot of the fact's database and returns its name, which is the server's, and where it starts.
func (b *bench) slot(suffix string) (name string, start mirror.LSN) {
	b.t.Helper()
	name = b.name + "_" + suffix
	return name, b.lsn("SELECT lsn FROM pg_create_logical_replication_slot($1, 'pgoutput')", name)
}

// receive begins to read a slot under an application name.
func (b *bench) receive(slot, name string, from mirror.LSN) *receiver {
	b.t.Helper()
	r, err := b.tryReceive(slot, name, from, "postgres")
	require.NoError(b.t, err)
	b.until("the walsender streams", "EXISTS (SELECT FROM pg_stat_replication WHERE pid = $1 AND state = 'streaming')", r.pid)
	return r
}

func (b *bench) tryReceive(slot, name string, from mirror.LSN, user string) (*receiver, error) {
	b.t.Helper()
	conn, err := pgconn.Connect(b.t.Context(), withParams(b.t, b.server.DSN(b.name), "user", user, "replication", "database", "application_name", name))
	if err != nil {
		return nil, err
	}
	r := &receiver{b: b, pid: int32(conn.PID()), done: make(chan struct{})}
	require.NoError(b.t, conn.SyncConn(b.t.Context()))
	if r.conn, err = conn.Hijack(); err != nil {
		return nil, err
	}
	r.conn.Frontend.Send(&pgproto3.Query{String: fmt.Sprintf("START_REPLICATION SLOT %s LOGICAL %s (proto_version '1', publication_names 'p')",
		slot, from)})
	if err := r.conn.Frontend.Flush(); err != nil {
		return nil, err
	}
	for {
		msg, err := r.conn.Frontend.Receive()
		if err != nil {
			return nil, err
		}
		switch m := msg.(type) {
		case *pgproto3.ErrorResponse:
			return nil, errors.Join(pgconn.ErrorResponseToPgError(m), r.conn.Conn.Close())
		case *pgproto3.CopyBothResponse:
			go r.read()
			b.t.Cleanup(r.end)
			return r, nil
		}
	}
}

// end cuts the connection and returns when nothing more is read.
func (r *receiver) end() {
	_ = r.conn.Conn.Close()
	<-r.done
}

// leave ends the connection, and returns when the server has noticed.
func (r *receiver) leave() {
	r.b.t.Helper()
	r.end()
	r.b.until("the walsender has gone", "NOT EXISTS (SELECT FROM pg_stat_replication WHERE pid = $1)", r.pid)
}

func (r *receiver) read() {
	defer close(r.done)
	for {
		msg, err := r.conn.Frontend.Receive()
		if err != nil {
			return
		}
		data, ok := msg.(*pgproto3.CopyData)
		if !ok {
			continue
		}
		if at := r.take(data.Data); at != 0 && r.send(at, at, at, time.Now()) != nil {
			return
		}
	}
}

// take notes one message and returns the position to report for it, if any.
func (r *receiver) take(data []byte) mirror.LSN {
	r.mu.Lock()
	defer r.mu.Unlock()
	if data[0] == 'k' {
		k := keepalive{mirror.LSN(binary.BigEndian.Uint64(data[1:])), data[17] == 1}
		r.alive = append(r.alive, k)
		if r.answers == asMirror && (r.kinds == "" || strings.ContainsAny(r.kinds[len(r.kinds)-1:], "CcEA")) {
			return k.end
		}
		return 0
	}
	body := data[25:]
	r.kinds += string(body[0])
	if body[0] != 'C' {
		return 0
	}
	end := mirror.LSN(binary.BigEndian.Uint64(body[10:]))
	r.ends = append(r.ends, end)
	if r.answers == silent {
		return 0
	}
	return end
}

// speak sets what is reported from now on.
func (r *receiver) speak(a answers) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers = a
}

func (r *receiver) send(write, flush, apply mirror.LSN, at time.Time) error {
	status := []byte{'r'}
	for _, lsn := range []mirror.LSN{write, flush, apply} {
		status = binary.BigEndian.AppendUint64(status, uint64(lsn))
	}
	epoch := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	status = append(binary.BigEndian.AppendUint64(status, uint64(at.Sub(epoch).Microseconds())), 0)
	message, err := (&pgproto3.CopyData{Data: status}).Encode(nil)
	if err != nil {
		return err
	}
	r.writing.Lock()
	defer r.writing.Unlock()
	_, err = r.conn.Conn.Write(message)
	return err
}

// report sends positions and returns when the server has acted on them: a second report of the same is shown.
func (r *receiver) report(write, flush, apply mirror.LSN) {
	r.b.t.Helper()
	at := time.Now().Truncate(time.Microsecond)
	require.NoError(r.b.t, r.send(write, flush, apply, at))
	at = at.Add(time.Microsecond)
	require.NoError(r.b.t, r.send(write, flush, apply, at))
	r.b.until("the report is taken", "EXISTS (SELECT FROM pg_stat_replication WHERE pid = $1 AND reply_time >= $2)", r.pid, at)
}

// reportAll reports one position as written, flushed and applied.
func (r *receiver) reportAll(at mirror.LSN) {
	r.b.t.Helper()
	r.report(at, at, at)
}

// transactions waits until n have come, and returns their ends.
func (r *receiver) transactions(n int) []mirror.LSN {
	r.b.t.Helper()
	r.b.eventually(fmt.Sprintf("%d transactions have come", n), func() bool { return len(r.seen()) >= n })
	return r.seen()
}

func (r *receiver) seen() []mirror.LSN {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]mirror.LSN(nil), r.ends...)
}

func (r *receiver) letters() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.kinds
}

func (r *receiver) keepalives() []keepalive {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]keepalive(nil), r.alive...)
}

// drained waits until the server has sent everything up to where its log ends now: the receiver reports nothing for it.
func (r *receiver) drained() {
	r.b.t.Helper()
	end := r.b.lsn("SELECT pg_current_wal_flush_lsn()")
	r.b.until("everything is sent", "EXISTS (SELECT FROM pg_stat_replication WHERE pid = $1 AND sent_lsn >= $2::pg_lsn)", r.pid, end.String())
}

// pgError returns the SQLSTATE of a server's refusal, or "" when there is none.
func pgError(err error) string {
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		return refused.Code
	}
	return ""
}
