package pglog

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

// logDir is where the log of a test lies: on disk; that of a benchmark in memory, on a system that has such a place.
func logDir(t testing.TB) string {
	t.Helper()
	if _, ok := t.(*testing.B); !ok {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "dbmirror-")
	if err != nil {
		t.Logf("the log is on disk: %v", err)
		return t.TempDir()
	}
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// BenchmarkRedo redoes the same log by sets and row by row, both without waiting for the disk but at the end, and prints
// transactions per second. The load is that of pgbench (three updates of a key and an insert), and each kind of change
// alone, that of a key included.
func BenchmarkRedo(b *testing.B) {
	p := newRedoPair(b, 0)
	p.both("CREATE TABLE accounts (id int PRIMARY KEY, balance int, filler char(84))", "CREATE TABLE tellers (id int PRIMARY KEY, balance int)",
		"CREATE TABLE branches (id int PRIMARY KEY, balance int)", "CREATE TABLE history (tid int, bid int, aid int, delta int, mtime timestamp)",
		"CREATE TABLE items (id bigint PRIMARY KEY, name text, made timestamptz, price numeric)",
		"CREATE TABLE doomed (id int PRIMARY KEY, note text)", "CREATE TABLE renamed (id int PRIMARY KEY, note text)", benchRowsThere)
	p.both("INSERT INTO accounts SELECT g, 0, '' FROM generate_series(0, 99999) g", "INSERT INTO tellers SELECT g, 0 FROM generate_series(0, 9) g", "INSERT INTO branches VALUES (0, 0)", "VACUUM ANALYZE", "CHECKPOINT")
	base := p.skipLog()
	logs := map[string][][]byte{
		"simple": p.pgbench(20000), "inserts": p.inserts(20000), "updates": p.each("UPDATE accounts SET balance = balance + 1 WHERE id = %d"),
		"deletes": p.each("DELETE FROM doomed WHERE id = %d"), "keys": p.each("UPDATE renamed SET id = -id - 1 WHERE id = %d"),
	}
	for _, load := range []string{"simple", "inserts", "updates", "deletes", "keys"} {
		messages := logs[load]
		for _, mode := range []string{"sets", "row by row"} {
			if mode == "row by row" {
				messages = messages[:len(messages)/8]
				for messages[len(messages)-1][0] != TypeCommit {
					messages = messages[:len(messages)-1]
				}
			}
			b.Run(load+"/"+mode, func(b *testing.B) {
				p.t = b
				b.ReportAllocs()
				for b.Loop() {
					b.StopTimer()
					p.run(p.target, "UPDATE accounts SET balance = 0 WHERE balance <> 0", "TRUNCATE history, items, doomed, renamed", benchRowsThere, "VACUUM accounts, tellers, branches", "CHECKPOINT")
					require.NoError(b, p.queue.Reset(base))
					p.baseline(base)
					end := p.append(messages...)
					b.StartTimer()
					if mode == "sets" {
						r := p.begin(p.config())
						require.NoError(b, r.Drain(b.Context(), end))
						require.NoError(b, r.stop())
					} else {
						p.rowByRow(end)
					}
				}
				commits := 0
				for _, m := range messages {
					if m[0] == TypeCommit {
						commits++
					}
				}
				b.ReportMetric(float64(commits*b.N)/b.Elapsed().Seconds(), "tx/s")
			})
		}
	}
}

// benchRowsThere are the rows that are deleted, or get other keys.
const benchRowsThere = "INSERT INTO doomed SELECT g, 'note' FROM generate_series(0, 4999) g; INSERT INTO renamed SELECT * FROM doomed"

// each runs a statement for 5,000 keys, in a transaction each, and returns the stream of them.
func (p *redoPair) each(statement string) [][]byte {
	p.t.Helper()
	p.run(p.source, "DO $$ BEGIN FOR n IN 0..4999 LOOP EXECUTE format('"+strings.ReplaceAll(statement, "%d", "%s")+"', n); COMMIT; END LOOP; END $$",
		"CHECKPOINT") // or the last of them, which did not wait for the disk, would come with the next
	return p.messages()
}

// rowByRow redoes each transaction by itself and each change by a statement of its own.
func (p *redoPair) rowByRow(end mirror.Position) {
	p.t.Helper()
	r, err := NewRedo(p.config())
	require.NoError(p.t, err)
	s, err := r.openSession(p.t.Context(), p.queue)
	require.NoError(p.t, err)
	defer hangUp(s.conn)
	reader := p.queue.NewReader(0)
	for s.redone != end {
		record, after, err := reader.Next(p.t.Context())
		require.NoError(p.t, err)
		txn, err := s.spool.take(record, s.readTo, after)
		require.NoError(p.t, err)
		s.readTo = after
		if txn != nil {
			require.NoError(p.t, s.redoOne(p.t.Context(), txn, false))
			require.NoError(p.t, s.afterCommit(txn, false))
			s.spool.recycle(txn)
		}
	}
	require.NoError(p.t, s.flush(p.t.Context()))
	require.NoError(p.t, reader.Close())
}

// skipLog leaves out what was done so far and returns the position after it.
func (p *redoPair) skipLog() mirror.Position {
	p.t.Helper()
	p.messages()
	var at string
	require.NoError(p.t, p.source.QueryRow(p.t.Context(), "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'pair'").Scan(&at))
	lsn, err := mirror.ParseLSN(at)
	require.NoError(p.t, err)
	p.start = lsn
	return mirror.Position{Seq: 1, LSN: lsn}
}

// pgbench does transactions of the pgbench kind and returns the stream of them.
func (p *redoPair) pgbench(transactions int) [][]byte {
	p.t.Helper()
	p.run(p.source, "SET synchronous_commit = off")
	random := rand.New(rand.NewPCG(1, 2))
	var sql strings.Builder
	for n := range transactions {
		a, t, d := random.IntN(100000), random.IntN(10), random.IntN(1000)
		fmt.Fprintf(&sql, `BEGIN; UPDATE accounts SET balance = balance + %d WHERE id = %d; UPDATE tellers SET balance = balance + %d WHERE id = %d;
			UPDATE branches SET balance = balance + %d; INSERT INTO history VALUES (%d, 0, %d, %d, now()); COMMIT;`, d, a, d, t, d, t, a, d)
		if n%200 == 199 {
			p.run(p.source, sql.String(), "VACUUM branches, tellers")
			sql.Reset()
		}
	}
	p.run(p.source, "CHECKPOINT") // see each
	return p.messages()
}

func (p *redoPair) inserts(transactions int) [][]byte {
	p.t.Helper()
	var sql strings.Builder
	for n := range transactions {
		fmt.Fprintf(&sql, "INSERT INTO items VALUES (%d, 'item number %d', now(), %d.50);", n, n, n%1000)
		if n%200 == 199 {
			p.run(p.source, "DO $$ BEGIN "+strings.ReplaceAll(sql.String(), ";", "; COMMIT;")+" END $$")
			sql.Reset()
		}
	}
	p.run(p.source, "CHECKPOINT")
	return p.messages()
}
