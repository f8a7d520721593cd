package conformance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// roleSwitches hands over and back, each time as a manual failover does.
func roleSwitches(r *rig) {
	t := r.t
	own := r.a.serve(1, mirror.Position{})
	r.a.do(Change{Insert, 1000, "first"})
	r.b.seed(1)
	f := r.b.follow(1, r.name(1, 1))
	from := r.a
	for seq := mirror.RoleSeq(2); seq < 6; seq++ {
		to := from.other()
		_, err := from.db.WaitMirror(r.ctx(), r.name(seq-1, 1))
		require.NoError(t, err)
		from.do(Change{Insert, 1000 + int(seq), "x"}, Change{Append, 1000, "+"})
		require.NoError(t, from.db.SetGate(r.ctx(), mirror.GateClosed, 100*time.Millisecond))
		require.Error(t, from.Client.Do(r.ctx(), Change{Insert, 1, "too late"}))
		if sampler, needed := to.db.(backend.Sampler); needed {
			require.NoError(t, sampler.Sample(r.ctx()))
		}
		fork := f.leave()
		require.NoError(t, r.differ())
		to.rows = from.rows
		reign := to.serve(seq, fork)

		from.follows(own, fork, seq, 0)
		f = from.follow(seq, r.name(seq, 1))
		to.do(Change{Insert, 2000 + int(seq), "y"}, Change{Append, 1000, "-"})
		f.catchUp()
		to.holds()
		own, from = reign, to
	}
	latest, err := from.db.LatestReign(r.ctx(), 1<<40)
	require.NoError(t, err)
	require.Equal(t, own.Seq, latest.Seq)
	_, err = from.db.LatestReign(r.ctx(), 1)
	require.ErrorIs(t, err, backend.ErrNoReign)
}

// follows makes a former principal the mirror of the new one, as a partner does: what it has beyond the fork is saved, and
// taken back or copied over.
func (s *side) follows(own backend.Reign, fork mirror.Position, seq mirror.RoleSeq, tail int) {
	t, ctx := s.r.t, s.r.ctx()
	t.Helper()
	s.gate(mirror.GateClosed)
	kept, err := s.db.Keeps(ctx, own, fork.LSN)
	require.NoError(t, err)
	require.True(t, kept)
	s.savesTail(own, fork.LSN, tail)
	if tail > 0 {
		undoer, can := s.db.(backend.Undoer)
		if err = backend.ErrCannotUndo; can {
			err = undoer.Undo(ctx, own, fork.LSN)
		}
		if errors.Is(err, backend.ErrCannotUndo) {
			s.seed(seq)
			return
		}
		require.NoError(t, err)
		s.savesTail(own, fork.LSN, 0)
		require.NoError(t, undoer.Undo(ctx, own, fork.LSN), "once more")
		kept, err = s.db.Keeps(ctx, own, fork.LSN)
		require.NoError(t, err)
		require.True(t, kept)
	}
	reign, err := s.db.Peer().Reign(ctx, seq)
	require.NoError(t, err)
	s.begin(mirror.Position{Seq: seq, LSN: reign.Start})
}

// savesTail requires so many transactions after the fork, twice, and each line to be an object.
func (s *side) savesTail(own backend.Reign, fork mirror.LSN, transactions int) {
	t := s.r.t
	t.Helper()
	for range 2 {
		var saved bytes.Buffer
		sum, err := s.db.SaveTail(s.r.ctx(), own, fork, &saved)
		require.NoError(t, err)
		require.EqualValues(t, transactions, sum.Transactions)
		require.Equal(t, transactions > 0, sum.Changes > 0 && len(sum.Tables) > 0)
		require.Equal(t, transactions > 0, saved.Len() > 0)
		for lines := bufio.NewScanner(&saved); lines.Scan(); {
			var object map[string]any
			require.NoError(t, json.Unmarshal(lines.Bytes(), &object), "%q", lines.Text())
		}
	}
}

// divergence promotes a mirror that lacks the last commits, as forced service does.
func divergence(r *rig) {
	t := r.t
	own := r.a.serve(1, mirror.Position{})
	r.a.do(Change{Insert, 1001, "a"}, Change{Insert, 1002, "b"}, Change{Insert, 1003, "c"})
	r.b.seed(1)
	f := r.b.follow(1, r.name(1, 1))
	r.a.do(Change{Append, 1001, "both"})
	fork := f.leave()
	r.a.holds()

	r.a.do(Change{Insert, 1004, "lost"}, Change{Append, 1001, "lost"}, Change{Delete, 1002, ""})
	r.a.do(Change{Append, 1003, "lost"})
	reign := r.b.serve(2, fork)
	r.b.do(Change{Append, 1003, "won"}, Change{Insert, 1004, "won"})

	kept, err := r.a.db.Keeps(r.ctx(), own, fork.LSN+1<<40)
	require.NoError(t, err)
	require.False(t, kept, "it never had so much log")
	r.a.follows(own, fork, 2, 2)
	f = r.a.follow(2, r.name(2, 1))
	r.b.do(Change{Append, 1001, "new"})
	f.catchUp()
	r.b.holds()
	f.stop()

	// And back again, over what was undone or copied.
	_, err = r.b.db.WaitMirror(r.ctx(), r.name(2, 1))
	require.NoError(t, err)
	f = r.a.follow(2, r.name(2, 1))
	r.b.do(Change{Delete, 1001, ""})
	r.b.gate(mirror.GateClosed)
	fork = f.leave()
	r.a.rows = r.b.rows
	r.a.serve(3, fork)
	r.b.follows(reign, fork, 3, 0)
	f = r.b.follow(3, r.name(3, 1))
	r.a.do(Change{Insert, 1001, "third"})
	f.catchUp()
	r.a.holds()
}
