package conformance

import (
	"context"
	"maps"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// gaps tries whatever would leave a hole, each of which must be refused before anything is appended.
func gaps(r *rig) {
	t := r.t
	reign := r.a.serve(1, mirror.Position{})
	r.b.seed(1)
	f := r.b.follow(1, r.name(1, 1))
	r.a.do(Change{Insert, 1001, "x"})
	end := f.catchUp()
	f.stop()

	health, err := r.a.db.Ping(r.ctx())
	require.NoError(t, err)
	ahead := mirror.Position{Seq: 1, LSN: health.End + 1<<40}
	require.NoError(t, r.b.queue.Reset(ahead))
	r.b.refuses(reign, mirror.ReasonLogGap, "the hardened log goes beyond the principal's")
	require.NoError(t, r.b.queue.Reset(end))

	other := reign
	other.Origin++
	r.b.refuses(other, mirror.ReasonIdentity, "another database answers")

	redoer, err := r.b.db.NewRedo()
	require.NoError(t, err)
	require.NoError(t, r.b.queue.Reset(mirror.Position{Seq: 1, LSN: end.LSN + 1}))
	err = redoer.Run(r.ctx(), r.b.queue)
	require.Equal(t, mirror.ReasonLogGap, backend.ReasonOf(err), "the log begins after the redone position: %v", err)
	require.Error(t, redoer.Drain(r.ctx(), mirror.Position{Seq: 1, LSN: end.LSN + 1}))
	require.NoError(t, r.b.queue.Reset(end))

	redoer, err = r.a.db.NewRedo()
	require.NoError(t, err)
	err = redoer.Run(r.ctx(), r.b.queue)
	require.ErrorIs(t, err, backend.ErrNoProgress)
	require.Equal(t, mirror.ReasonIdentity, backend.ReasonOf(err))

	r.a.do(Change{Append, 1001, "y"})
	require.NoError(t, r.a.db.DropLog(r.ctx(), reign))
	r.b.refuses(reign, mirror.ReasonLogGap, "the principal has given up the log")
	require.NoError(t, r.a.db.DropLog(r.ctx(), reign), "once more")

	r.b.seed(1)
	f = r.b.follow(1, r.name(1, 1))
	f.catchUp()
	r.a.holds()
}

func (s *side) refuses(from backend.Reign, reason mirror.Reason, why string) {
	t := s.r.t
	t.Helper()
	stream, err := s.db.Follow(backend.Source{Reign: from, Name: s.r.name(from.Seq, 1), Silence: patience})
	require.NoError(t, err)
	before := s.queue.Hardened()
	err = stream.Run(s.r.ctx(), s.queue)
	require.Equal(t, reason, backend.ReasonOf(err), "%s: %v", why, err)
	after, err := s.queue.Harden()
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.Zero(t, s.queue.Bytes(), why)
}

// poison makes the mirror differ, so that a transaction cannot be redone.
func poison(r *rig) {
	good := r.poisoned()
	for range 2 { // it does not go away by trying again
		r.stopsAt(good)
	}
	require.NoError(r.t, r.b.Tamper(r.ctx(), Change{Insert, 1002, "b"}))
	f := r.b.follow(1, r.name(1, 1))
	f.catchUp()
	r.a.holds()
}

// poisoned hardens a transaction that cannot be redone, between others that can. It returns what the mirror holds before.
func (r *rig) poisoned() (good map[int]string) {
	r.t.Helper()
	r.a.serve(1, mirror.Position{})
	r.a.do(Change{Insert, 1001, "a"}, Change{Insert, 1002, "b"})
	r.b.seed(1)
	require.NoError(r.t, r.b.Tamper(r.ctx(), Change{Delete, 1002, ""}))
	f := r.b.follow(1, r.name(1, 1))
	r.a.do(Change{Insert, 1003, "before"})
	f.catchUp()
	f.stop()
	good = maps.Clone(r.a.rows)
	delete(good, 1002)
	r.a.do(Change{Insert, 1004, "with it"}, Change{Append, 1002, "poison"}, Change{Append, 1001, "with it"})
	r.a.do(Change{Insert, 1005, "after"})
	r.b.harden(1)()
	return good
}

// stopsAt redoes until the transaction that cannot be redone.
func (r *rig) stopsAt(good map[int]string) backend.Redo {
	t := r.t
	t.Helper()
	redoer, err := r.b.db.NewRedo()
	require.NoError(t, err)
	require.Zero(t, redoer.Progress().Poison)
	err = redoer.Run(r.ctx(), r.b.queue)
	require.Equal(t, mirror.ReasonRedoError, backend.ReasonOf(err), "%v", err)
	require.Contains(t, err.Error(), redoer.Progress().Poison.String(), "the operator is to know where")
	found, err := r.b.Client.Rows(r.ctx())
	require.NoError(t, err)
	require.Equal(t, good, found)
	return redoer
}

// skip leaves out a transaction that cannot be redone, by command, and nothing else.
func skip(r *rig) {
	t := r.t
	good := r.poisoned()
	redoer := r.stopsAt(good)
	poison, before := redoer.Progress().Poison, redoer.Progress().Redone
	require.Positive(t, poison.Compare(before))
	other, err := r.b.db.NewRedo()
	require.NoError(t, err)
	require.ErrorIs(t, other.Skip(r.ctx(), poison), backend.ErrNotPoison, "it has not stopped there")
	for _, at := range []mirror.Position{{}, before, r.b.queue.Hardened()} {
		require.ErrorIs(t, redoer.Skip(r.ctx(), at), backend.ErrNotPoison)
	}
	r.stopsAt(good)
	require.NoError(t, redoer.Skip(r.ctx(), poison))
	require.NoError(t, redoer.Skip(r.ctx(), poison), "asked twice, done once")
	r.b.restart() // the order is kept
	r.b.readOnly()
	f := r.b.follow(1, r.name(1, 1))
	f.catchUp()
	progress := f.redo.Progress()
	require.EqualValues(t, 1, progress.Skipped)
	require.Zero(t, progress.Poison)
	require.ErrorIs(t, f.redo.Skip(r.ctx(), poison), backend.ErrNotPoison)
	f.stop()
	good[1005] = "after"
	found, err := r.b.Client.Rows(r.ctx())
	require.NoError(t, err)
	require.Equal(t, good, found)
	require.Error(t, r.differ())

	r.b.restart() // it does not come back, and that it was left out is remembered
	r.b.readOnly()
	f = r.b.follow(1, r.name(1, 1))
	r.a.do(Change{Insert, 1006, "later"})
	f.catchUp()
	require.EqualValues(t, 1, f.redo.Progress().Skipped)
	f.stop()
	r.b.seed(1) // which mends it
	r.a.holds()
}

// harden hardens everything that the principal has, and redoes nothing.
func (s *side) harden(seq mirror.RoleSeq) (stop func()) {
	t := s.r.t
	t.Helper()
	barrier, err := s.other().db.WriteBarrier(s.r.ctx())
	require.NoError(t, err)
	stream := s.source(seq, s.r.name(seq, 1))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.retry(ctx, func(ctx context.Context) error { return stream.Run(ctx, s.queue) })
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	s.r.eventually("everything is hardened", func() bool { return s.queue.Hardened().LSN >= barrier.End })
	return stop
}

func retention(r *rig) {
	t := r.t
	reign := r.a.serve(1, mirror.Position{})
	before, err := r.a.db.Retained(r.ctx(), reign)
	require.NoError(t, err)
	for key := range 50 {
		r.a.do(Change{Insert, 1000 + key, "something that takes room in the log"})
	}
	after, err := r.a.db.Retained(r.ctx(), reign)
	require.NoError(t, err)
	require.Greater(t, after, before+50)
	r.a.restart()
	found, err := r.a.db.Retained(r.ctx(), reign)
	require.NoError(t, err)
	require.Greater(t, found, before+50)
	again, err := r.a.db.BeginLog(r.ctx(), 1)
	require.NoError(t, err, "begun anew, as after a promotion that was broken off")
	require.Greater(t, again.Start, reign.Start)
	require.NoError(t, r.a.db.DropLogs(r.ctx()))
	_, err = r.a.db.Retained(r.ctx(), again)
	require.ErrorIs(t, err, backend.ErrNoLog)
	require.NoError(t, r.a.db.DropLogs(r.ctx()), "once more")
}

// refusedCopy: what a database holds is somebody's.
func refusedCopy(r *rig) {
	t := r.t
	r.a.serve(1, mirror.Position{})
	r.a.do(Change{Insert, 1001, "mine"})
	for _, replace := range []bool{false, true} {
		for _, principal := range []*side{r.a, r.b} {
			findings, err := principal.db.ExaminePair(r.ctx(), backend.Pair{Principal: principal == r.a, First: true, Replace: replace})
			require.NoError(t, err)
			require.NoError(t, backend.Refuse(findings), "an empty database may be the mirror's")
		}
	}
	r.b.seed(1)
	reign, err := r.b.db.Peer().Reign(r.ctx(), 1)
	require.NoError(t, err)
	r.b.gate(mirror.GateClosed)
	findings, err := r.b.db.ExaminePair(r.ctx(), backend.Pair{})
	require.NoError(t, err)
	require.Error(t, backend.Refuse(findings), "the mirror's database holds something")
	before, err := r.b.db.Sums(r.ctx())
	require.NoError(t, err)
	_, err = r.b.db.Seed(r.ctx(), reign, false)
	require.Equal(t, mirror.ReasonPreflight, backend.ReasonOf(err), "%v", err)
	after, err := r.b.db.Sums(r.ctx())
	require.NoError(t, err)
	require.Equal(t, before, after)
	incomplete, err := r.b.db.Incomplete(r.ctx())
	require.NoError(t, err)
	require.False(t, incomplete)
	for _, as := range []mirror.Role{mirror.RolePrincipal, mirror.RoleMirror} {
		found, err := r.a.db.Examine(r.ctx(), as)
		require.NoError(t, err)
		require.NoError(t, backend.Refuse(found))
	}
}
