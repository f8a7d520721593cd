package conformance

import (
	"context"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

func identity(r *rig) {
	t := r.t
	var ids [2]backend.Identity
	for i, s := range []*side{r.a, r.b} {
		id, err := s.db.Identity(r.ctx())
		require.NoError(t, err)
		require.NotEmpty(t, id.ID)
		require.LessOrEqual(t, len(id.ID), 64)
		require.False(t, strings.ContainsAny(id.ID, " \n"), id.ID)
		require.NotEmpty(t, id.Name)
		seen, err := s.other().db.Peer().Identity(r.ctx())
		require.NoError(t, err)
		require.Equal(t, id, seen, "as the other side sees it")
		ids[i] = id
	}
	require.False(t, ids[0].Same(ids[1]))
	before, err := r.a.db.Ping(r.ctx())
	require.NoError(t, err)
	again, err := r.a.db.Ping(r.ctx())
	require.NoError(t, err)
	require.True(t, before.Started.Equal(again.Started))
	r.a.restart()
	id, err := r.a.db.Identity(r.ctx())
	require.NoError(t, err)
	require.Equal(t, ids[0], id, "after a restart")
	after, err := r.a.db.Ping(r.ctx())
	require.NoError(t, err)
	require.False(t, before.Started.Equal(after.Started), "a restart shows")
	require.GreaterOrEqual(t, after.End, before.End)
	_, err = r.a.db.Peer().Reign(r.ctx(), 1)
	require.ErrorIs(t, err, backend.ErrNoReign)
	_, err = r.a.db.Progress(r.ctx())
	require.ErrorIs(t, err, backend.ErrNoProgress)
}

func gate(r *rig) {
	t := r.t
	r.a.serve(1, mirror.Position{})
	r.a.do(Change{Insert, 1001, "open"})
	for _, at := range []mirror.Gate{mirror.GateReadOnly, mirror.GateClosed, mirror.GateReadOnly, mirror.GateClosed} {
		r.a.gate(at)
		require.Error(t, r.a.Client.Do(r.ctx(), Change{Insert, 1002, "refused"}), at)
		seen, err := r.b.db.Peer().Gate(r.ctx())
		require.NoError(t, err)
		require.Equal(t, at, seen, "as the other side sees it")
		if at == mirror.GateReadOnly {
			r.a.readOnly()
			found, err := r.a.Client.Rows(r.ctx())
			require.NoError(t, err)
			require.Equal(t, r.a.rows, found)
		}
		r.a.restart()
		found, err := r.a.db.Gate(r.ctx())
		require.NoError(t, err)
		require.True(t, found == at || found == mirror.GateClosed, "%s was put, %s found after a restart", at, found)
		require.Error(t, r.a.Client.Do(r.ctx(), Change{Insert, 1002, "refused"}), at)
	}
	require.NoError(t, r.a.db.WaitNone(r.ctx()))
	r.a.gate(mirror.GateOpen)
	r.a.do(Change{Insert, 1003, "open again"})
	found, err := r.a.Client.Rows(r.ctx())
	require.NoError(t, err)
	require.Equal(t, r.a.rows, found)
}

// commit is a commit under way.
type commit struct {
	done   chan error
	cancel context.CancelFunc
}

func (s *side) commit(changes ...Change) *commit {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	s.r.t.Cleanup(cancel)
	c := &commit{make(chan error, 1), cancel}
	go func() { c.done <- s.Client.Do(ctx, changes...) }()
	return c
}

// waits says whether the commit has not been acknowledged for a while.
func (c *commit) waits(r *rig, why string) {
	r.t.Helper()
	select {
	case err := <-c.done:
		require.Fail(r.t, "a commit has returned", "%s: %v", why, err)
	case <-r.within(restless).Done():
	}
}

func (c *commit) returns(r *rig) {
	r.t.Helper()
	require.NoError(r.t, <-c.done)
}

func commitsWait(r *rig) {
	t := r.t
	r.a.serve(1, mirror.Position{})
	r.b.seed(1)
	name, stranger := r.name(1, 1), r.name(1, 2)
	r.a.do(Change{Insert, 1001, "alone"})
	end, err := r.a.db.WaitMirror(r.ctx(), name)
	require.NoError(t, err)
	require.NotZero(t, end)
	r.a.sees(backend.Waiting{Name: name, RestartWaits: true})

	first := r.a.commit(Change{Insert, 1002, "waits"})
	first.waits(r, "nobody follows")
	f := r.b.follow(1, stranger)
	first.waits(r, "a mirror of another name follows")
	f.stop()
	f = r.b.follow(1, name)
	first.returns(r)
	r.a.rows[1002] = "waits"
	r.a.do(Change{Append, 1002, "not"})
	f.catchUp()
	r.a.holds()
	beat, err := r.a.db.Heartbeat(r.ctx(), name)
	require.NoError(t, err)
	require.False(t, beat.Unwaited)
	require.Positive(t, beat.Took)

	require.NoError(t, r.a.db.WaitBlock(r.ctx()))
	found, err := r.a.db.Waiting(r.ctx())
	require.NoError(t, err)
	require.True(t, found.Blocked && found.RestartWaits && found.Name != name, "%+v", found)
	blocked := r.a.commit(Change{Insert, 1003, "blocked"})
	blocked.waits(r, "commits are blocked")
	require.NoError(t, r.a.db.WaitNone(r.ctx()))
	blocked.returns(r)
	r.a.rows[1003] = "blocked"
	r.a.sees(backend.Waiting{RestartWaits: true})
	f.catchUp()
	r.a.holds()
	f.stop()
	r.a.do(Change{Insert, 1004, "alone again"})

	r.a.gate(mirror.GateReadOnly)
	require.NoError(t, r.a.db.WaitRemove(r.ctx()))
	found, err = r.a.db.Waiting(r.ctx())
	require.NoError(t, err)
	require.Empty(t, found.Name)
}

// sees requires whom commits wait for to be as it is given, apart from what is for people.
func (s *side) sees(want backend.Waiting) {
	s.r.t.Helper()
	found, err := s.db.Waiting(s.r.ctx())
	require.NoError(s.r.t, err)
	want.InForce = found.InForce
	require.Equal(s.r.t, want, found)
}

func hardenedFirst(r *rig) {
	r.a.serve(1, mirror.Position{})
	r.b.seed(1)
	name := r.name(1, 1)
	_, err := r.a.db.WaitMirror(r.ctx(), name)
	require.NoError(r.t, err)
	log := &slow{Queue: r.b.queue}
	f := r.b.followInto(1, name, log)
	r.a.do(Change{Insert, 1001, "before"})
	for key := 1002; key < 1005; key++ {
		log.disk.Lock()
		hanging := r.a.commit(Change{Insert, key, "x"})
		hanging.waits(r, "it is not on the mirror's disk")
		log.disk.Unlock()
		hanging.returns(r)
		r.a.rows[key] = "x"
	}
	f.catchUp()
	r.a.holds()
}

func restartWaits(r *rig) {
	r.a.serve(1, mirror.Position{})
	r.a.do(Change{Insert, 1001, "alone"})
	r.a.restart()
	ctx := r.within(restless)
	require.Error(r.t, r.a.Client.Do(ctx, Change{Insert, 1002, "too early"}), "nobody has said whom to wait for")
	found, err := r.a.db.Waiting(r.ctx())
	require.NoError(r.t, err)
	require.True(r.t, found.RestartWaits)
	require.NoError(r.t, r.a.db.WaitNone(r.ctx()))
	r.a.gate(mirror.GateOpen)
	r.a.do(Change{Insert, 1003, "alone again"})
}
