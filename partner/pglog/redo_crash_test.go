package pglog

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// crashLoad does transactions of which any one redone twice, or not at all, would be seen.
func (p *redoPair) crashLoad() {
	p.t.Helper()
	p.both("CREATE TABLE log (n int)", "CREATE TABLE account (id int PRIMARY KEY, amount int)")
	p.run(p.source, "INSERT INTO account SELECT g, 0 FROM generate_series(0, 9) g")
	for n := range 400 {
		p.run(p.source, fmt.Sprintf("BEGIN; INSERT INTO log VALUES (%d); UPDATE account SET amount = amount + %d WHERE id = %d; COMMIT", n, n, n%10))
		if n%100 == 50 {
			p.run(p.source, fmt.Sprintf("INSERT INTO log SELECT g FROM generate_series(%d, %d) g", n*1000, n*1000+1500))
		}
	}
}

// TestRedoSurvivesLostConnections ends the redo connection again and again, at no particular place.
func TestRedoSurvivesLostConnections(t *testing.T) {
	p := newRedoPair(t, 4096)
	p.crashLoad()
	end := p.ship()
	cfg := p.smallRedo()
	cfg.BatchTransactions = 2
	hit := make(chan struct{}, 1)
	cfg.OnProgress = func(pr Progress) {
		if pr.Trouble == nil && rand.N(15) == 0 {
			select {
			case hit <- struct{}{}:
			default:
			}
		}
	}
	r := p.begin(cfg)
	drained := make(chan error, 1)
	go func() { drained <- r.Drain(context.Background(), end) }()
	lost := 0
	for {
		select {
		case <-hit:
			var ended int
			require.NoError(t, p.target.QueryRow(t.Context(), `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
				WHERE application_name = 'dbmirror redo `+redoSessionName+`'`).Scan(&ended))
			lost += ended
			continue
		case err := <-drained:
			require.NoError(t, err)
		}
		break
	}
	require.NoError(t, r.stop())
	require.Positive(t, lost)
	p.equal()
}

// TestRedoSurvivesCrashes kills the server again and again. What had been committed without waiting for the disk is
// lost then, and must still be in the log.
func TestRedoSurvivesCrashes(t *testing.T) {
	p := newRedoPair(t, 4096)
	p.run(p.source, "ALTER SYSTEM SET wal_writer_delay = '10s'", "ALTER SYSTEM SET full_page_writes = off", "SELECT pg_reload_conf()")
	p.crashLoad()
	end := p.ship()
	want := p.content(p.source)
	cfg := p.smallRedo()
	cfg.BatchTransactions = 2
	lost := 0
	for round := range 6 {
		wait := uint64(5 + rand.N(40))
		reached, killed := make(chan struct{}, 1), make(chan struct{})
		cfg.OnProgress = func(pr Progress) {
			if pr.Trouble != nil || pr.Transactions < wait {
				return
			}
			select {
			case reached <- struct{}{}:
			default:
			}
			select { // or it might be done with all before the kill
			case <-killed:
			case <-t.Context().Done():
			}
		}
		r := p.begin(cfg)
		select {
		case <-reached:
		case <-r.ended:
			require.NoError(t, r.stop())
		}
		before := r.Progress().Redone
		require.NoError(t, p.server.Kill())
		close(killed)
		require.NoError(t, r.stop())
		require.NoError(t, p.server.Restart(t.Context()))
		p.source, p.target = p.connect("source"), p.connect("target")
		after := p.redoneAt()
		t.Logf("round %d: redone %s before the crash, %s after", round, before, after)
		if after.Compare(before) < 0 {
			lost++
		}
	}
	require.Positive(t, lost)
	cfg.OnProgress = nil
	r := p.begin(cfg)
	require.NoError(t, r.Drain(t.Context(), end))
	require.NoError(t, p.server.Kill()) // what is drained is on disk
	require.NoError(t, r.stop())
	require.NoError(t, p.server.Restart(t.Context()))
	p.target = p.connect("target")
	require.Equal(t, want, p.content(p.target))
	require.GreaterOrEqual(t, p.redoneAt().Compare(end), 0)
}

// TestRedoGoesOnByItself ends the redo connection in the middle of a transaction, while it waits for a lock, and then
// with the whole server while it has nothing to do.
func TestRedoGoesOnByItself(t *testing.T) {
	p := newRedoPair(t, 0)
	p.both("CREATE TABLE t (id int PRIMARY KEY, v int)", "CREATE TABLE log (n int)")
	p.run(p.source, "INSERT INTO t VALUES (1, 1)")
	p.redo(p.config())
	p.run(p.source, "INSERT INTO log VALUES (1)", "UPDATE t SET v = 2")
	end := p.ship()
	p.run(p.target, "BEGIN; LOCK TABLE t")
	cfg := p.config()
	troubles := make(chan error, 100)
	cfg.OnProgress = func(pr Progress) {
		if pr.Trouble != nil {
			troubles <- pr.Trouble
		}
	}
	r := p.begin(cfg)
	admin := p.connect("app")
	var pid int
	require.NoError(t, poll(t.Context(), func() (bool, error) {
		err := admin.QueryRow(t.Context(), `SELECT coalesce(max(pid), 0) FROM pg_stat_activity
			WHERE application_name LIKE 'dbmirror redo %' AND wait_event_type = 'Lock'`).Scan(&pid)
		return pid != 0, err
	}))
	p.run(admin, fmt.Sprintf("SELECT pg_terminate_backend(%d)", pid))
	require.Error(t, <-troubles)
	p.run(p.target, "ROLLBACK")
	require.NoError(t, r.Drain(t.Context(), end))
	p.equal()
	require.NoError(t, r.Progress().Trouble)

	want := p.content(p.source)
	require.NoError(t, p.server.Stop("immediate"))
	require.NoError(t, p.server.Restart(t.Context()))
	p.source, p.target = p.connect("source"), p.connect("target")
	p.run(p.source, "UPDATE t SET v = 3")
	require.NoError(t, r.Drain(t.Context(), p.ship()))
	require.NoError(t, r.stop())
	require.NotEqual(t, want, p.content(p.target))
	p.equal()
}

// cutProxy passes bytes to the server until it is told to cut, which only this side notices. Requests to cancel, which
// would help, are lost.
func cutProxy(t *testing.T, server string) (addr string, cut func()) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	clients := make(chan net.Conn, 10)
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			backend, err := net.Dial("tcp", server)
			if err != nil {
				_ = client.Close()
				continue
			}
			t.Cleanup(func() { _ = backend.Close() })
			var first [8]byte
			if _, err := io.ReadFull(client, first[:]); err != nil || binary.BigEndian.Uint32(first[4:]) == cancelRequest {
				_ = client.Close()
				continue
			}
			_, _ = backend.Write(first[:])
			clients <- client
			go func() { _, _ = io.Copy(backend, client) }()
			go func() { _, _ = io.Copy(client, backend) }()
		}
	}()
	return listener.Addr().String(), func() { _ = (<-clients).Close() }
}

const cancelRequest = 80877102

// TestRedoEndsItsPredecessor cuts the network while the server waits for a row on behalf of redo: it does not notice,
// and holds the redone position.
func TestRedoEndsItsPredecessor(t *testing.T) {
	p := newRedoPair(t, 0)
	p.both("CREATE TABLE t (id int PRIMARY KEY, v int)")
	p.run(p.source, "INSERT INTO t VALUES (1, 1)")
	p.redo(p.config())
	p.run(p.source, "UPDATE t SET v = 2")
	end := p.ship()
	p.run(p.target, "BEGIN; SELECT FROM t FOR UPDATE")
	server := fmt.Sprintf("127.0.0.1:%d", p.server.Port())
	addr, cut := cutProxy(t, server)
	cfg := p.config()
	cfg.DSN = Secret(strings.Replace(string(cfg.DSN), server, addr, 1))
	r := p.begin(cfg)
	admin := p.connect("app")
	waiting := func(not int) (pid int) {
		require.NoError(t, poll(t.Context(), func() (bool, error) {
			err := admin.QueryRow(t.Context(), `SELECT coalesce(max(pid), 0) FROM pg_stat_activity
				WHERE application_name LIKE 'dbmirror redo %' AND wait_event_type = 'Lock' AND query LIKE 'UPDATE ONLY%' AND pid <> $1`, not).Scan(&pid)
			return pid != 0, err
		}))
		return pid
	}
	first := waiting(0)
	cut()
	waiting(first) // the next one got as far, although the lock is still held
	p.run(p.target, "ROLLBACK")
	require.NoError(t, r.Drain(t.Context(), end))
	require.NoError(t, r.stop())
	p.equal()
}
