package pglog

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/partner/redo"
)

// smallRedo forgets what it can and redoes in small pieces.
func (p *redoPair) smallRedo() RedoConfig {
	cfg := p.config()
	cfg.SpoolBytes, cfg.BatchRows, cfg.BatchBytes = 4096, 300, 64<<10
	return cfg
}

const long64kB = "(SELECT string_agg(md5((g * %s)::text), '') FROM generate_series(1, 2000) g)"

// TestRedoLarge redoes streamed transactions that are interleaved, rolled back in part and as a whole, and too large for
// memory.
func TestRedoLarge(t *testing.T) {
	p := newRedoPair(t, 64<<10)
	p.both("CREATE TABLE t (id int PRIMARY KEY, v text)", "CREATE TABLE u (id int PRIMARY KEY, v text)", "CREATE TABLE late (id int PRIMARY KEY)",
		"CREATE TABLE whole (id int, v text); ALTER TABLE whole REPLICA IDENTITY FULL")
	one, two := p.connect("source"), p.connect("source")
	p.run(one, "BEGIN")
	p.run(two, "BEGIN")
	for n := range 6 {
		insert := fmt.Sprintf("INSERT INTO %%s SELECT %d * 1000 + g, md5(g::text) FROM generate_series(0, 999) g", n)
		p.run(one, fmt.Sprintf(insert, "t"), "SAVEPOINT a", "UPDATE t SET v = 'undone'", "SAVEPOINT b", "DELETE FROM t WHERE id % 2 = 0", "INSERT INTO late VALUES (-1)", "ROLLBACK TO a",
			fmt.Sprintf("UPDATE t SET id = -id - 1 WHERE id BETWEEN %d AND %d", n*1000, n*1000+9))
		p.run(two, "SAVEPOINT c", fmt.Sprintf(insert, "u"), []string{"RELEASE c", "SAVEPOINT e"}[n%2], fmt.Sprintf("INSERT INTO whole VALUES (%d, "+fmt.Sprintf(long64kB, "7")+")", n))
	}
	p.run(two, "UPDATE whole SET id = id + 1")
	end := p.ship() // with both open: what was streamed of them becomes void
	p.run(two, "ROLLBACK TO c; INSERT INTO u SELECT 10000 + g, 'after' FROM generate_series(1, 3000) g; DELETE FROM u WHERE id % 3 = 0; COMMIT")
	p.run(one, "SAVEPOINT d", "TRUNCATE u", "ROLLBACK TO d")
	p.run(one, "UPDATE t SET v = v || 'x' WHERE id % 7 = 0; INSERT INTO late VALUES (1); COMMIT")
	p.run(one, "BEGIN; INSERT INTO t SELECT g + 100000, 'lost' FROM generate_series(1, 5000) g; ROLLBACK")
	p.run(one, "BEGIN; TRUNCATE u; INSERT INTO u SELECT g, 'again' FROM generate_series(1, 2000) g; UPDATE u SET v = 'once more' WHERE id > 100; COMMIT", "INSERT INTO late VALUES (2)")
	got := p.redo(p.smallRedo())
	require.Equal(t, uint64(4), got.Transactions)
	require.Equal(t, got.Transactions, got.Batches) // each large one went by itself, none one by one
	require.Positive(t, got.Redone.Compare(end))
}

// TestRedoLargeOneByOne redoes a large transaction of which a piece cannot be redone by sets.
func TestRedoLargeOneByOne(t *testing.T) {
	p := newRedoPair(t, 0)
	p.both("CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE DEFERRABLE, v int UNIQUE)")
	p.run(p.source, "INSERT INTO t SELECT g, g, g FROM generate_series(1, 1000) g")
	p.redo(p.config())
	p.run(p.source, `DO $$ BEGIN FOR i IN 1..999 LOOP
		UPDATE t SET v = -1 WHERE id = i; UPDATE t SET v = i WHERE id = i + 1; UPDATE t SET v = i + 1 WHERE id = i;
		UPDATE t SET v = -i - 1 WHERE id = i; END LOOP; UPDATE t SET u = u + 1; END $$`)
	p.redo(p.smallRedo())
}

// TestRedoLargePoison stops at a large transaction without leaving a part of it.
func TestRedoLargePoison(t *testing.T) {
	p := newRedoPair(t, 0)
	p.both("CREATE TABLE t (id int PRIMARY KEY, v text)")
	p.run(p.source, "INSERT INTO t VALUES (1)")
	p.redo(p.config())
	p.run(p.target, "INSERT INTO t VALUES (4321)")
	p.run(p.source, "INSERT INTO t SELECT g, md5(g::text) FROM generate_series(2, 5000) g", "INSERT INTO t VALUES (6000)")
	end := p.ship()
	r := p.begin(p.smallRedo())
	var failure *RedoError
	require.ErrorAs(t, r.Drain(t.Context(), end), &failure)
	require.Equal(t, []string{"public.t", "insert", "id=4321", "23505"}, []string{failure.Relation, failure.Action, failure.Key, failure.SQLState})
	require.Equal(t, "1 , 4321 ", p.rows("t", "true"))
	require.NoError(t, r.Skip(t.Context(), failure.Position))
	again := p.begin(p.smallRedo())
	require.NoError(t, again.Drain(t.Context(), end))
	require.NoError(t, again.stop())
	require.Equal(t, "1 , 4321 , 6000 ", p.rows("t", "true"))
}

// TestRedoKeepsLogOfOpenTransactions trims the log only up to the first chunk of what is still open.
func TestRedoKeepsLogOfOpenTransactions(t *testing.T) {
	p := newRedoPair(t, 4096)
	p.both("CREATE TABLE t (id int PRIMARY KEY, v text)")
	other := p.connect("source")
	p.run(p.source, "BEGIN; INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 3000) g")
	p.run(other, "INSERT INTO t SELECT g, md5(g::text) FROM generate_series(5001, 5100) g")
	p.run(p.source, "INSERT INTO t SELECT g, md5(g::text) FROM generate_series(3001, 4000) g", "COMMIT")
	messages := p.messages()
	end := p.append(messages[:len(messages)-1]...) // all but the last commit
	cfg := p.smallRedo()
	r := p.begin(cfg)
	require.NoError(t, r.Drain(t.Context(), end))
	require.Greater(t, p.queue.Bytes(), int64(100_000))
	last := p.extend(messages[len(messages)-1])
	require.NoError(t, r.Drain(t.Context(), last))
	require.NoError(t, r.stop())
	p.equal()
	require.Less(t, p.queue.Bytes(), int64(1024))

	// What commits just before a large one is redone, and its log trimmed, while the large one is not redone yet.
	p.run(p.source, "BEGIN; UPDATE t SET v = md5(v) WHERE id < 5000")
	p.run(other, "UPDATE t SET v = md5(v) WHERE id > 5090")
	p.run(p.source, "COMMIT")
	p.redo(cfg)
}

// TestRedoGivesBackWhatCameToNothing: streams break off in the same large transaction, one after the other. What they
// leave must not fill the log for good: nothing that is appended could make room again.
func TestRedoGivesBackWhatCameToNothing(t *testing.T) {
	p := newRedoPair(t, 0)
	p.both("CREATE TABLE t (id int PRIMARY KEY, v text)")
	require.NoError(t, p.queue.Close())
	var err error
	p.queue, err = redo.Open(redo.Config{Dir: t.TempDir() + "/small", SegmentBytes: 16 << 10, MaxBytes: 128 << 10})
	require.NoError(t, err)
	p.run(p.source, "INSERT INTO t VALUES (0)")
	before := p.ship()
	r := p.begin(p.config())
	require.NoError(t, r.Drain(t.Context(), before))

	p.run(p.source, "INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 500) g")
	messages := p.messages()
	for stream := range 10 {
		p.patiently(redo.Record{Kind: redo.KindAttach, Seq: p.seq, LSN: before.LSN})
		for _, message := range messages[:len(messages)-1] {
			p.patiently(redo.Record{Kind: redo.KindData, Seq: p.seq, LSN: before.LSN, Data: message})
		}
		_, err := p.queue.Harden()
		require.NoError(t, err, "stream %d", stream)
	}
	require.NoError(t, r.Drain(t.Context(), p.extend(messages[len(messages)-1])))
	require.NoError(t, r.stop())
	p.equal()
}

// patiently appends as a stream does: a full log is hardened and waited for.
func (p *redoPair) patiently(record redo.Record) {
	p.t.Helper()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	retry := time.NewTicker(5 * time.Millisecond)
	defer retry.Stop()
	for {
		err := p.queue.Append(record)
		if !errors.Is(err, redo.ErrFull) {
			require.NoError(p.t, err)
			return
		}
		_, err = p.queue.Harden()
		require.NoError(p.t, err)
		select {
		case <-retry.C:
		case <-limit.C:
			p.t.Fatal("the log stays full")
		}
	}
}
