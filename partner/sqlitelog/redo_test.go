package sqlitelog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"zombiezen.com/go/sqlite"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// stray writes on a database as nobody should.
func stray(t *testing.T, db *DB, sql string) {
	t.Helper()
	require.NoError(t, db.redoing(context.Background(), func(w *writer) error { return runOnce(w.conn, sql) }))
}

// Whatever is not on the mirror as it was on the principal stops redo, and everything before it is redone.
func TestDivergenceStopsRedo(t *testing.T) {
	for _, c := range []struct{ stray, write, action string }{
		{"UPDATE t SET a = 9 WHERE k = 1", "UPDATE t SET a = 2 WHERE k = 1", "update"},
		{"DELETE FROM t WHERE k = 1", "UPDATE t SET a = 2 WHERE k = 1", "update"},
		{"UPDATE t SET a = 1.5 WHERE k = 1", "DELETE FROM t WHERE k = 1", "delete"},
		{"INSERT INTO t VALUES (7, 0)", "INSERT INTO t VALUES (7, 7)", "insert"},
		{"INSERT INTO u VALUES (7, 'x')", "INSERT INTO u VALUES (8, 'x')", "insert"},
		{"INSERT INTO u VALUES (7, 'y')", "UPDATE u SET b = 'y'", "insert"},
		{"ALTER TABLE t ADD COLUMN z", "INSERT INTO t VALUES (3, 3)", "insert"},
		{"DROP TABLE t", "INSERT INTO t VALUES (3, 3)", "insert"},
		{"CREATE TABLE x (a)", "CREATE TABLE y (a)", "schema"},
		{"CREATE TABLE y (b)", "CREATE TABLE y (a)", "statement"},
		{"PRAGMA user_version = 3", "PRAGMA user_version = 2", "pragma"},
	} {
		p := newPair(t, Config{})
		must(t, p.a, smallTable+"; CREATE TABLE u (k INTEGER PRIMARY KEY, b UNIQUE); INSERT INTO u VALUES (1, 'a')")
		p.equal(t)
		stray(t, p.b, c.stray)
		must(t, p.a, c.write)
		at := p.a.End()
		err := p.follow()
		var poison *RedoError
		require.ErrorAs(t, err, &poison, c.write)
		require.Equal(t, at, poison.Position.LSN)
		require.Equal(t, c.action, poison.Action, "%s after %s: %v", c.write, c.stray, err)
		require.Equal(t, mirror.ReasonRedoError, backend.ReasonOf(err))
	}
}

func TestRedoStopsAtThePoisonAlone(t *testing.T) {
	l := newLink(t, Config{})
	must(t, l.a, smallTable)
	l.seed(t)
	stray(t, l.b, "INSERT INTO t VALUES (50, 0)")
	must(t, l.a, "INSERT INTO t VALUES (2, 2)")
	before := l.a.End()
	must(t, l.a, "INSERT INTO t VALUES (50, 50)")
	must(t, l.a, "INSERT INTO t VALUES (3, 3)")
	r := l.follow(t)
	err := r.redo.Drain(context.Background(), mirror.Position{Seq: first, LSN: l.a.End()})
	var poison *RedoError
	require.ErrorAs(t, err, &poison)
	require.Equal(t, "t", poison.Table)
	require.Equal(t, "k=50", poison.Key)
	require.NotContains(t, err.Error(), "50", "no row data")
	at, err := l.m.Progress(context.Background())
	require.NoError(t, err)
	require.Equal(t, mirror.Position{Seq: first, LSN: before}, at)
	require.Equal(t, []string{"1 1", "2 2", "50 0"}, rows(t, l.b, "SELECT * FROM t"))
	r.cancel()
	require.Error(t, errors.Join(<-r.ended, <-r.ended))
}

func TestBrokenConnectionsAndFailover(t *testing.T) {
	ctx := context.Background()
	l := newLink(t, Config{})
	must(t, l.a, smallTable)
	l.seed(t)
	for i := range 5 {
		r := l.follow(t)
		must(t, l.a, fmt.Sprintf("INSERT INTO t VALUES (%d, randomblob(600000)); CREATE TABLE n%d (a)", 10+i, i))
		if i%2 == 0 {
			l.same(t, r)
		}
		l.sever()
		r.cancel()
		require.Error(t, <-r.ended)
		require.Error(t, <-r.ended)
		l.mend()
	}
	r := l.follow(t)
	l.same(t, r)
	fork := l.queue.Hardened()
	r.stop(t)

	// What the principal commits alone is undone when the mirror has taken over.
	must(t, l.a, "UPDATE t SET a = 'lost' WHERE k = 1; INSERT INTO t VALUES (99, 'lost'); DELETE FROM t WHERE k = 10")
	must(t, l.a, "UPDATE t SET a = 'lost again'")
	require.NoError(t, l.p.SetGate(ctx, mirror.GateClosed, 0))
	kept, err := l.p.Keeps(ctx, l.reign, fork.LSN)
	require.NoError(t, err)
	require.True(t, kept)
	var lost bytes.Buffer
	sum, err := l.p.SaveTail(ctx, l.reign, fork.LSN, &lost)
	require.NoError(t, err)
	require.Equal(t, int64(2), sum.Transactions)
	require.Equal(t, []string{"t"}, sum.Tables)
	require.Contains(t, lost.String(), `"lost again"`)
	require.NoError(t, l.p.Undo(ctx, l.reign, fork.LSN))
	requireEqual(t, l.a, l.b)

	// Then it follows in its turn.
	reign, err := l.m.BeginLog(ctx, first+1)
	require.NoError(t, err)
	reign.Fork = fork
	require.NoError(t, l.m.WriteReign(ctx, reign))
	theirs, err := l.p.Peer().Reign(ctx, first+1)
	require.NoError(t, err)
	require.Equal(t, reign.Start, theirs.Start)
	require.Equal(t, fork, theirs.Fork)
	base := mirror.Position{Seq: first + 1, LSN: reign.Start}
	require.NoError(t, l.p.SetProgress(ctx, base))
	require.NoError(t, l.queue.Reset(base))
	require.NoError(t, l.p.DropLogs(ctx))
	require.NoError(t, l.m.SetGate(ctx, mirror.GateOpen, 0))
	must(t, l.b, "INSERT INTO t VALUES (200, 'from the new principal')")
	l.m, l.p, l.a, l.b, l.reign = l.p, l.m, l.b, l.a, theirs
	r = l.follow(t)
	must(t, l.a, "DROP TABLE n1; INSERT INTO t VALUES (201, 'more')")
	require.NoError(t, r.redo.Drain(ctx, mirror.Position{Seq: first + 1, LSN: l.a.End()}))
	requireEqual(t, l.a, l.b)
	r.stop(t)
}

func TestTailThatCannotBeUndone(t *testing.T) {
	p := newPair(t, Config{})
	must(t, p.a, smallTable)
	p.equal(t)
	fork := p.a.End()
	must(t, p.a, "UPDATE t SET a = 2")
	must(t, p.a, "CREATE TABLE u (a)")
	before, err := p.a.Sums(context.Background())
	require.NoError(t, err)
	require.ErrorIs(t, p.a.Undo(context.Background(), fork), backend.ErrCannotUndo)
	after, err := p.a.Sums(context.Background())
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.ErrorIs(t, p.a.Undo(context.Background(), 1), backend.ErrTailGone)
	_, err = p.a.Tail(context.Background(), 1, &bytes.Buffer{})
	require.ErrorIs(t, err, backend.ErrTailGone)
}

// Each of these would lose log without a word.
func TestGapsAreRefused(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		spoil  func(t *testing.T, l *link)
		reason mirror.Reason
	}{
		"log given up":     {func(t *testing.T, l *link) { require.NoError(t, l.p.DropLog(ctx, l.reign)) }, mirror.ReasonLogGap},
		"another database": {func(t *testing.T, l *link) { l.reign.Origin++ }, mirror.ReasonIdentity},
		"log begun anew": {func(t *testing.T, l *link) {
			must(t, l.a, "INSERT INTO t (a) VALUES (zeroblob(600000))")
			_, err := l.p.BeginLog(ctx, first)
			require.NoError(t, err)
			must(t, l.a, "INSERT INTO t (a) VALUES (zeroblob(600000))")
			l.p.confirmed("", l.p.mu.slots[l.reign.Log], l.a.End())
			must(t, l.a, "INSERT INTO t (a) VALUES (1)")
		}, mirror.ReasonLogGap},
		"mirror ahead": {func(t *testing.T, l *link) {
			require.NoError(t, l.queue.Reset(mirror.Position{Seq: first, LSN: l.a.End() + 1}))
		}, mirror.ReasonLogGap},
		"another role sequence": {func(t *testing.T, l *link) { l.reign.Seq++ }, mirror.ReasonLogGap},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLink(t, Config{})
			must(t, l.a, smallTable)
			l.seed(t)
			c.spoil(t, l)
			stream, err := l.m.Follow(backend.Source{Reign: l.reign, Name: "m", Silence: silence})
			require.NoError(t, err)
			err = stream.Run(ctx, l.queue)
			require.Equal(t, c.reason, backend.ReasonOf(err), "%v", err)
		})
	}
}

func TestReportsBeyondTheLogAreRefused(t *testing.T) {
	l := newLink(t, Config{})
	must(t, l.a, smallTable)
	near, err := l.dial(l.p)
	require.NoError(t, err)
	defer near.Close()
	require.NoError(t, send(near, frameRequest, request{Version: protocol, Session: session, Ask: "log", Log: l.reign.Log, Origin: l.reign.Origin, Name: "m", After: l.reign.Start}))
	in := newFrames(near)
	_, _, err = in.next()
	require.NoError(t, err)
	_, err = near.Write(appendFrame(nil, frameHardened, positionBytes(l.a.End()+1)))
	require.NoError(t, err)
	for err == nil {
		_, _, err = in.next()
	}
	require.Less(t, l.p.mu.slots[l.reign.Log].confirmed, l.a.End()+1)
}

func TestLogIsKeptForTheMirrorAndNotLonger(t *testing.T) {
	ctx := context.Background()
	l := newLink(t, Config{})
	must(t, l.a, smallTable)
	l.seed(t)
	for range 20 {
		must(t, l.a, "INSERT INTO t (a) VALUES (randomblob(100000))")
	}
	retained, err := l.p.Retained(ctx, l.reign)
	require.NoError(t, err)
	require.Greater(t, retained, int64(2_000_000))
	r := l.follow(t)
	l.same(t, r)
	l.reported(t) // what is hardened and redone need not be reported yet
	r.stop(t)
	for range 3 {
		must(t, l.a, "INSERT INTO t (a) VALUES (1)")
	}
	kept, err := l.a.kept(ctx)
	require.NoError(t, err)
	require.Less(t, kept, int64(trimStep+1000))
	require.NoError(t, l.p.DropLogs(ctx))
	_, err = l.p.Retained(ctx, l.reign)
	require.ErrorIs(t, err, backend.ErrNoLog)
	must(t, l.a, "INSERT INTO t (a) VALUES (randomblob(100000))")
	kept, err = l.a.kept(ctx)
	require.NoError(t, err)
	require.Zero(t, kept)
}

// kept is how much of the log is in the database.
func (db *DB) kept(ctx context.Context) (n int64, err error) {
	err = db.inspect(ctx, func(conn *sqlite.Conn) (err error) {
		n, err = number(conn, "SELECT sum(length(data)) FROM dbmirror_log")
		return err
	})
	return n, err
}

func TestSeedRefusesWhatHoldsSomething(t *testing.T) {
	l := newLink(t, Config{})
	must(t, l.a, smallTable)
	must(t, l.b, "CREATE TABLE mine (a)")
	findings, err := l.m.ExaminePair(context.Background(), backend.Pair{})
	require.NoError(t, err)
	require.ErrorContains(t, backend.Refuse(findings), "holds 1 tables")
	_, err = l.m.Seed(context.Background(), l.reign, false)
	require.Equal(t, mirror.ReasonPreflight, backend.ReasonOf(err))
	require.Equal(t, []string{"0"}, rows(t, l.b, "SELECT count(*) FROM mine"))
	id := l.b.ID()
	l.seed(t)
	require.Equal(t, id, l.b.ID(), "it stays the same database")
	requireEqual(t, l.a, l.b)
	findings, err = l.p.Examine(context.Background(), mirror.RolePrincipal)
	require.NoError(t, err)
	require.Empty(t, findings)
}

// records are those of what the principal has written since the mirror was seeded, as a stream appends them. Nothing is
// redone.
func (l *link) records(t *testing.T) (all []redo.Record) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := l.m.Follow(backend.Source{Reign: l.reign, Name: name, Silence: silence})
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- stream.Run(ctx, l.queue) }()
	reader := l.queue.NewReader(0)
	defer reader.Close()
	for end := l.a.End(); len(all) == 0 || all[len(all)-1].LSN < end; {
		record, _, err := reader.Next(ctx)
		require.NoError(t, err)
		record.Data = bytes.Clone(record.Data)
		all = append(all, record)
	}
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	return all
}

func kinds(records []redo.Record) (all []redo.Kind) {
	for _, r := range records {
		all = append(all, r.Kind)
	}
	return all
}

// Log is trimmed up to the very end of a transaction: the next one, with which it begins then, is whole.
func TestLogThatBeginsWithATransaction(t *testing.T) {
	l := newLink(t, Config{})
	must(t, l.a, smallTable)
	l.seed(t)
	base := l.queue.Hardened()
	must(t, l.a, "INSERT INTO t (a) VALUES ('small')")
	middle := mirror.Position{Seq: first, LSN: l.a.End()}
	must(t, l.a, "INSERT INTO t (a) VALUES (randomblob(600000))")
	end := mirror.Position{Seq: first, LSN: l.a.End()}
	log := l.records(t)
	require.Equal(t, []redo.Kind{redo.KindAttach, redo.KindCommit, redo.KindData, redo.KindData, redo.KindCommit}, kinds(log))
	for _, c := range []struct {
		from    mirror.Position
		records []redo.Record
		whole   bool
	}{
		{base, log, true}, {base, log[1:], true}, {middle, log[2:], true},
		{base, log[2:], false}, {middle, log[3:], false}, {middle, log[4:], false},
	} {
		a := assembler{batch: batch{from: c.from, to: c.from}}
		var err error
		for i, record := range c.records {
			err = errors.Join(err, a.take(record, redo.Offset(i+1)))
		}
		if c.whole {
			require.NoError(t, err)
			require.Equal(t, end, a.to)
		} else {
			require.ErrorContains(t, err, "not its beginning", "from %s with %d records", c.from, len(c.records))
		}
	}
}

// Streams break off in the same large transaction, one after the other. What they leave must not fill the log for good:
// nothing that is appended could make room again.
func TestRedoGivesBackWhatCameToNothing(t *testing.T) {
	l := newLink(t, Config{})
	must(t, l.a, smallTable)
	l.seed(t)
	base := l.queue.Hardened()
	must(t, l.a, "INSERT INTO t (a) VALUES (randomblob(600000))")
	log := l.records(t)
	require.Equal(t, []redo.Kind{redo.KindAttach, redo.KindData, redo.KindData, redo.KindCommit}, kinds(log))
	queue, err := redo.Open(redo.Config{Dir: filepath.Join(t.TempDir(), "small"), SegmentBytes: 1 << 20, MaxBytes: 4 << 20})
	require.NoError(t, err)
	defer queue.Close()
	require.NoError(t, queue.Reset(base))
	redoes, err := l.m.NewRedo()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- redoes.Run(ctx, queue) }()
	for range 20 {
		for _, record := range log[:len(log)-1] {
			require.NoError(t, patiently(ctx, queue, record))
		}
	}
	require.NoError(t, patiently(ctx, queue, log[len(log)-1]))
	end, err := queue.Harden()
	require.NoError(t, err)
	require.NoError(t, redoes.Drain(ctx, end))
	requireEqual(t, l.a, l.b)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

// patiently appends as a stream does: a full log is hardened and waited for.
func patiently(ctx context.Context, queue *redo.Queue, record redo.Record) error {
	retry := time.NewTicker(5 * time.Millisecond)
	defer retry.Stop()
	for {
		err := queue.Append(record)
		if !errors.Is(err, redo.ErrFull) {
			return err
		}
		if _, hard := queue.Harden(); hard != nil {
			return hard
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return err
		}
	}
}

// A transaction that is larger than the hardened log may be: redo has done all that there is, the stream waits, and what
// keeps the log full is that transaction, however often it is sent.
func TestTransactionLargerThanTheLog(t *testing.T) {
	l := newLink(t, Config{})
	must(t, l.a, smallTable)
	l.seed(t)
	base := l.queue.Hardened()
	require.NoError(t, l.queue.Close())
	var err error
	l.queue, err = redo.Open(redo.Config{Dir: filepath.Join(t.TempDir(), "small"), SegmentBytes: 1 << 20, MaxBytes: 4 << 20})
	require.NoError(t, err)
	require.NoError(t, l.queue.Reset(base))
	r := l.follow(t)
	for range 8 {
		must(t, l.a, "INSERT INTO t (a) VALUES (zeroblob(1000000))")
	}
	l.same(t, r)
	require.Zero(t, l.queue.Unfinished())
	must(t, l.a, "INSERT INTO t (a) VALUES (zeroblob(6000000))")
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	for l.queue.Unfinished() == 0 || !r.stream.Status().Stalled || r.redo.Progress().Flushed != l.queue.Hardened() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("%d bytes, %+v, %+v", l.queue.Unfinished(), r.stream.Status(), r.redo.Progress())
		}
	}
	require.InDelta(t, 4<<20, l.queue.Unfinished(), 1<<20)
	r.stop(t)
}

// After a restart, what is redone already is given back, though nothing new comes: a failover need not wait for it.
func TestWhatIsRedoneIsGivenBackAfterARestart(t *testing.T) {
	l := newLink(t, Config{})
	must(t, l.a, smallTable)
	l.seed(t)
	dir, base := filepath.Join(t.TempDir(), "log"), l.queue.Hardened()
	restart := func() {
		require.NoError(t, l.queue.Close())
		var err error
		l.queue, err = redo.Open(redo.Config{Dir: dir})
		require.NoError(t, err)
	}
	restart()
	require.NoError(t, l.queue.Reset(base))
	r := l.follow(t)
	must(t, l.a, "INSERT INTO t (a) VALUES (zeroblob(1000000))")
	l.same(t, r)
	r.stop(t)
	restart()
	require.Greater(t, l.queue.Bytes(), int64(1000000))

	redoes, err := l.m.NewRedo()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- redoes.Run(ctx, l.queue) }()
	require.Eventually(t, func() bool { return l.queue.Bytes() == 0 }, 10*time.Second, 10*time.Millisecond)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}
