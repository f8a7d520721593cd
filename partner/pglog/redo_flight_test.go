package pglog

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// await returns when a query of the mirror's database gives true.
func (p *redoPair) await(query string) {
	p.t.Helper()
	require.NoError(p.t, poll(p.t.Context(), func() (bool, error) {
		var holds bool
		err := p.target.QueryRow(p.t.Context(), query).Scan(&holds)
		return holds, err
	}))
}

const redoWaits = `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE 'dbmirror redo %')`

// TestRedoFlightFails lets batches fail as sets while the next are combined behind them, which bring another description
// of their table: the failed ones are redone one by one, and those behind them as they stand in the log.
func TestRedoFlightFails(t *testing.T) {
	p := newRedoPair(t, 0)
	p.both("CREATE TABLE t (id int PRIMARY KEY, n int UNIQUE)", "CREATE TABLE log (n int)")
	p.run(p.source, "INSERT INTO t SELECT g, g FROM generate_series(1, 2) g")
	p.redo(p.config())
	const swap = "UPDATE t SET n = -1 WHERE id = 1; UPDATE t SET n = %d WHERE id = 2; UPDATE t SET n = %d WHERE id = 1"
	n := [2]int{1, 2}
	for i := range 40 {
		if i%5 == 4 {
			p.both(fmt.Sprintf("ALTER TABLE t ADD c%d int DEFAULT %d", i, i))
		}
		n[0], n[1] = n[1], n[0]
		p.run(p.source, fmt.Sprintf("INSERT INTO log VALUES (%d)", i), fmt.Sprintf(swap, n[1], n[0]))
	}
	end := p.ship()
	cfg := p.config()
	cfg.BatchTransactions = 2
	holder := p.connect("target")
	p.run(holder, "BEGIN; LOCK t")
	r := p.begin(cfg)
	p.await(redoWaits)
	p.run(holder, "COMMIT")
	require.NoError(t, r.Drain(t.Context(), end))
	require.NoError(t, r.stop())
	p.equal()
	require.Less(t, r.Progress().Batches, uint64(40))
}

// TestRedoFlightIsPoison stops at a transaction that was on its way while the ones behind it were combined: none of those
// is redone.
func TestRedoFlightIsPoison(t *testing.T) {
	p := newRedoPair(t, 0)
	p.both("CREATE TABLE t (id int PRIMARY KEY, v int)", "CREATE TABLE log (n int)")
	p.run(p.source, "INSERT INTO t SELECT g, g FROM generate_series(1, 9) g")
	p.redo(p.config())
	for i := range 9 {
		p.run(p.source, fmt.Sprintf("INSERT INTO log VALUES (%d)", i+1), fmt.Sprintf("UPDATE t SET v = 0 WHERE id = %d", i+1))
	}
	end := p.ship()
	holder := p.connect("target")
	p.run(holder, "BEGIN; DELETE FROM t WHERE id = 5")
	cfg := p.config()
	cfg.BatchTransactions = 3
	r := p.begin(cfg)
	p.await(redoWaits)
	p.run(holder, "COMMIT")
	var failure *RedoError
	require.ErrorAs(t, r.Drain(t.Context(), end), &failure)
	require.ErrorIs(t, r.stop(), failure)
	require.Equal(t, []string{"public.t", "id=5"}, []string{failure.Relation, failure.Key})
	require.ErrorIs(t, failure, ErrRowMissing)
	require.Equal(t, "1, 2, 3, 4, 5", p.rows("log", "true"))
	require.Equal(t, "1 0, 2 0, 3 0, 4 0, 6 6, 7 7, 8 8, 9 9", p.rows("t", "true"))
	require.Equal(t, p.redoneAt(), r.Progress().Redone)
	require.NoError(t, r.Skip(t.Context(), failure.Position))
	again := p.begin(cfg)
	require.NoError(t, again.Drain(t.Context(), end))
	require.NoError(t, again.stop())
	require.Equal(t, "1, 2, 3, 4, 5, 6, 7, 8, 9", p.rows("log", "true"))
	require.Equal(t, "1 0, 2 0, 3 0, 4 0, 6 0, 7 0, 8 0, 9 0", p.rows("t", "true"))
}

// TestRedoFlightLosesConnection ends the server's process while it redoes and the next is combined, again and again:
// every transaction is redone once.
func TestRedoFlightLosesConnection(t *testing.T) {
	p := newRedoPair(t, 0)
	p.both("CREATE TABLE t (id int PRIMARY KEY, v int)", "CREATE TABLE log (n int)")
	p.run(p.source, "INSERT INTO t VALUES (1, 0)")
	p.redo(p.config())
	for i := range 30 {
		p.run(p.source, fmt.Sprintf("BEGIN; INSERT INTO log VALUES (%d); UPDATE t SET v = %d; COMMIT", i, i))
	}
	end := p.ship()
	cfg := p.config()
	cfg.BatchTransactions = 4
	holder := p.connect("target")
	p.run(holder, "BEGIN; LOCK t")
	r := p.begin(cfg)
	for range 3 {
		p.await(redoWaits)
		p.await(`SELECT count(pg_terminate_backend(pid, 10000)) > 0 FROM pg_stat_activity
			WHERE wait_event_type = 'Lock' AND application_name LIKE 'dbmirror redo %'`)
	}
	p.run(holder, "COMMIT")
	require.NoError(t, r.Drain(t.Context(), end))
	require.NoError(t, r.stop())
	p.equal()
}

// TestRedoFlightIsStopped ends Run while the server redoes and the next is combined; what follows goes on from there.
func TestRedoFlightIsStopped(t *testing.T) {
	p := newRedoPair(t, 0)
	p.both("CREATE TABLE t (id int PRIMARY KEY, v int)", "CREATE TABLE log (n int)")
	for i := range 20 {
		p.run(p.source, fmt.Sprintf("BEGIN; INSERT INTO log VALUES (%d); INSERT INTO t VALUES (%d); COMMIT", i, i))
	}
	end := p.ship()
	cfg := p.config()
	cfg.BatchTransactions = 3
	holder := p.connect("target")
	p.run(holder, "BEGIN; LOCK t")
	r := p.begin(cfg)
	p.await(redoWaits)
	require.NoError(t, r.stop())
	p.run(holder, "COMMIT")
	again := p.begin(cfg)
	require.NoError(t, again.Drain(t.Context(), end))
	require.NoError(t, again.stop())
	p.equal()
}

// TestRedoPieceFails lets pieces of a large transaction fail as sets while the next piece is combined behind each.
func TestRedoPieceFails(t *testing.T) {
	for _, large := range []bool{false, true} {
		t.Run(fmt.Sprint("spilled ", large), func(t *testing.T) {
			p := newRedoPair(t, 0)
			p.both("CREATE TABLE t (id int PRIMARY KEY, n int UNIQUE)", "CREATE TABLE u (id int PRIMARY KEY)")
			p.run(p.source, "INSERT INTO t SELECT g, g FROM generate_series(1, 200) g")
			p.redo(p.config())
			p.run(p.source, `DO $$ BEGIN FOR i IN 1..199 LOOP
				UPDATE t SET n = -1 WHERE id = i; UPDATE t SET n = i WHERE id = i + 1; UPDATE t SET n = i + 1 WHERE id = i;
				UPDATE t SET n = -i - 1 WHERE id = i; INSERT INTO u VALUES (i); END LOOP;
				ALTER TABLE u ADD v int DEFAULT 7; UPDATE u SET v = id; UPDATE t SET n = n - 1000; END $$`)
			p.run(p.target, "ALTER TABLE u ADD v int DEFAULT 7")
			cfg := p.config()
			cfg.BatchRows = 50
			if large {
				cfg.SpoolBytes = 4096
			}
			p.redo(cfg)
		})
	}
}
