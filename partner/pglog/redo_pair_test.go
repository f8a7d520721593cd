package pglog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/pgtest"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// redoPair is a principal's and a mirror's database, and the log between them. Both are on one server: what redo does
// never looks at the other side.
type redoPair struct {
	t              testing.TB
	server         *pgtest.Server
	source, target *pgx.Conn
	queue          *redo.Queue
	start          mirror.LSN
	seq            mirror.RoleSeq
}

const redoSessionName = "pairtest"

func newRedoPair(t testing.TB, segmentBytes int64) *redoPair {
	t.Helper()
	server := pgtest.New(t, map[string]string{"wal_level": "logical", "logical_decoding_work_mem": "64kB"})
	p := &redoPair{t: t, server: server, seq: 1}
	admin := p.connect("app")
	for _, name := range []string{"source", "target"} {
		p.run(admin, "CREATE DATABASE "+name)
	}
	p.source, p.target = p.connect("source"), p.connect("target")
	p.run(p.source, "CREATE PUBLICATION dbmirror FOR ALL TABLES")
	var start string
	require.NoError(t, p.source.QueryRow(t.Context(),
		"SELECT lsn::text FROM pg_create_logical_replication_slot('pair', 'pgoutput')").Scan(&start))
	var err error
	p.start, err = mirror.ParseLSN(start)
	require.NoError(t, err)
	p.queue, err = redo.Open(redo.Config{Dir: logDir(t) + "/log", SegmentBytes: segmentBytes})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.queue.Close()) })
	p.baseline(mirror.Position{Seq: 1, LSN: p.start})
	return p
}

func (p *redoPair) connect(database string) *pgx.Conn {
	p.t.Helper()
	conn, err := pgx.Connect(p.t.Context(), p.server.DSN(database))
	require.NoError(p.t, err)
	p.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// run executes statements, each text in one implicit transaction.
func (p *redoPair) run(conn *pgx.Conn, statements ...string) {
	p.t.Helper()
	for _, sql := range statements {
		_, err := conn.PgConn().Exec(p.t.Context(), sql).ReadAll()
		require.NoError(p.t, err, sql)
	}
}

// both executes statements at the principal and at the mirror, as DDL would be.
func (p *redoPair) both(statements ...string) {
	p.t.Helper()
	p.run(p.source, statements...)
	p.run(p.target, statements...)
}

func (p *redoPair) baseline(at mirror.Position) {
	p.t.Helper()
	require.NoError(p.t, EnsureProgress(p.t.Context(), p.target))
	require.NoError(p.t, pgx.BeginFunc(p.t.Context(), p.target, func(tx pgx.Tx) error {
		return SetProgress(p.t.Context(), tx, redoSessionName, at)
	}))
}

// ship appends what the principal has done since the last time to the log, as a stream of its own, and returns its end.
func (p *redoPair) ship() mirror.Position {
	p.t.Helper()
	return p.append(p.messages()...)
}

func (p *redoPair) messages() [][]byte {
	p.t.Helper()
	rows, err := p.source.Query(p.t.Context(), `SELECT data FROM pg_logical_slot_get_binary_changes('pair', NULL, NULL,
		'proto_version', '2', 'publication_names', 'dbmirror', 'streaming', 'on')`)
	require.NoError(p.t, err)
	messages, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	require.NoError(p.t, err)
	return p.unknown(messages)
}

// unknown leaves out what is in the log already: a slot that is read by SQL steps back after a crash.
func (p *redoPair) unknown(messages [][]byte) [][]byte {
	from, known := 0, p.queue.Hardened().LSN
	for i, message := range messages {
		if end, ok := EndsTransaction(message); ok && end <= known {
			from = i + 1
		}
	}
	return messages[from:]
}

func (p *redoPair) append(messages ...[]byte) mirror.Position {
	p.t.Helper()
	at := max(p.start, p.queue.Hardened().LSN)
	require.NoError(p.t, p.queue.Append(redo.Record{Kind: redo.KindAttach, Seq: p.seq, LSN: at}))
	return p.extend(messages...)
}

// extend appends to the stream that is there.
func (p *redoPair) extend(messages ...[]byte) mirror.Position {
	p.t.Helper()
	at := max(p.start, p.queue.Hardened().LSN)
	for _, message := range messages {
		record := redo.Record{Kind: redo.KindData, Seq: p.seq, LSN: at, Data: message}
		if end, ok := EndsTransaction(message); ok {
			record.Kind, record.LSN = redo.KindCommit, end
		}
		require.NoError(p.t, p.queue.Append(record))
	}
	end, err := p.queue.Harden()
	require.NoError(p.t, err)
	return end
}

func (p *redoPair) config() RedoConfig {
	return RedoConfig{DSN: Secret(p.server.DSN("target")), Session: redoSessionName}
}

// running is a Redo whose Run goes on in a goroutine.
type runningRedo struct {
	*Redo
	stop  func() error // ends Run and gives what it returned; nil if that was by stop
	ended <-chan struct{}
}

var errTestStop = errors.New("stopped by the test")

func (p *redoPair) begin(cfg RedoConfig) *runningRedo {
	p.t.Helper()
	r, err := NewRedo(cfg)
	require.NoError(p.t, err)
	ctx, cancel := context.WithCancelCause(context.Background())
	done, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		done <- r.Run(ctx, p.queue)
	}()
	stop := sync.OnceValue(func() error {
		cancel(errTestStop)
		err := <-done
		if errors.Is(err, errTestStop) {
			return nil
		}
		return err
	})
	p.t.Cleanup(func() { _ = stop() })
	return &runningRedo{Redo: r, stop: stop, ended: ended}
}

// redo ships, redoes all of it, and compares.
func (p *redoPair) redo(cfg RedoConfig) Progress {
	p.t.Helper()
	end := p.ship()
	r := p.begin(cfg)
	require.NoError(p.t, r.Drain(p.t.Context(), end))
	require.NoError(p.t, r.stop())
	p.equal()
	return r.Progress()
}

// equal compares the content of every table of the principal with the mirror's.
func (p *redoPair) equal() {
	p.t.Helper()
	require.Equal(p.t, p.content(p.source), p.content(p.target))
}

// content gives a digest and the number of rows for each table, in no order but that of the rows' text.
func (p *redoPair) content(conn *pgx.Conn) map[string]string {
	p.t.Helper()
	rows, err := conn.Query(p.t.Context(), `SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'dbmirror')`)
	require.NoError(p.t, err)
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(p.t, err)
	content := make(map[string]string)
	for _, table := range tables {
		var digest string
		require.NoError(p.t, conn.QueryRow(p.t.Context(), fmt.Sprintf(
			`SELECT count(*) || ' ' || coalesce(md5(string_agg(x::text, E'\n' ORDER BY x::text COLLATE "C")), '') FROM ONLY %s x`, table)).Scan(&digest))
		content[table] = digest
	}
	return content
}
