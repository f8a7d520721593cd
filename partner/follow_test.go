package partner

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// goingOn is a database whose principal goes on in each role sequence that it is asked for.
type goingOn struct{ backend.Database }

func (d goingOn) Peer() backend.Peer { return reigning{} }

func (d goingOn) Follow(backend.Source) (backend.Stream, error) { return nil, nil }

type reigning struct{ backend.Peer }

func (reigning) Reign(_ context.Context, seq mirror.RoleSeq) (backend.Reign, error) {
	return backend.Reign{Seq: seq, Start: 100}, nil
}

// TestTheSamePrincipalGoesOn: a stream broke off with a whole transaction that was appended and not hardened yet, as it
// does when the server ends it with the same breath. The principal goes on in a newer role sequence: its log is followed
// from behind that transaction, or it would be in the log, and redone, twice.
func TestTheSamePrincipalGoesOn(t *testing.T) {
	queue, err := redo.Open(redo.Config{Dir: t.TempDir() + "/log"})
	require.NoError(t, err)
	defer queue.Close()
	require.NoError(t, queue.Reset(mirror.Position{Seq: 1, LSN: 100}))
	add := func(kind redo.Kind, seq mirror.RoleSeq, lsn mirror.LSN) {
		t.Helper()
		require.NoError(t, queue.Append(redo.Record{Kind: kind, Seq: seq, LSN: lsn, Data: []byte("x")}))
	}
	add(redo.KindAttach, 1, 100)
	add(redo.KindCommit, 1, 200)
	_, err = queue.Harden()
	require.NoError(t, err)
	add(redo.KindCommit, 1, 300)

	d := newDataPath(&Partner{queue: queue})
	d.database = goingOn{}
	require.NoError(t, d.follow.startStream(t.Context(), mirror.Duty{Role: mirror.RoleMirror, Seq: 3, Ship: true}, mirror.Status{}))
	end := queue.Hardened()
	require.Equal(t, mirror.RoleSeq(3), end.Seq)
	add(redo.KindAttach, 3, end.LSN)
	if end.LSN < 300 {
		add(redo.KindCommit, 3, 300) // the principal sends it again
	}
	_, err = queue.Harden()
	require.NoError(t, err)
	var commits []mirror.LSN
	reader := queue.NewReader(0)
	defer reader.Close()
	for reader.Ready() {
		r, _, err := reader.Next(t.Context())
		require.NoError(t, err)
		if r.Kind == redo.KindCommit {
			commits = append(commits, r.LSN)
		}
	}
	require.Equal(t, []mirror.LSN{200, 300}, commits)
}
