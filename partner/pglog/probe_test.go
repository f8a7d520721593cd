package pglog

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// A server whose system has another version of the collation than its database was made with warns at each connection's
// start, with the code of a wait that was cut short.
func TestWaitWhereEachConnectionIsWarned(t *testing.T) {
	t.Parallel()
	_, s, dsn := waitServer(t)
	ctx := adminContext(t)
	adminExec(t, dsn, "UPDATE pg_database SET datcollversion = 'another' WHERE datname = 'app'")
	require.NoError(t, s.WaitBlock(ctx))
	require.NoError(t, s.WaitNone(ctx, true))

	_, err := s.CreateSlot(ctx, slotA)
	require.NoError(t, err)
	startMirror(t, s, dsn, slotA, mirrorA, true)
	beat, err := s.Heartbeat(ctx, mirrorA)
	require.NoError(t, err)
	require.True(t, beat.Unwaited, "the mirror is there and has confirmed nothing")
}

// A role may ask for fewer messages than those by which the server says that a wait was cut short.
func TestWaitOfARoleThatHearsNoWarnings(t *testing.T) {
	t.Parallel()
	_, s, dsn := waitServer(t)
	ctx := adminContext(t)
	adminExec(t, dsn, "ALTER ROLE postgres SET client_min_messages = error")
	require.NoError(t, s.WaitBlock(ctx))
	p := s.wait.pending
	adminExec(t, dsn, fmt.Sprintf("SELECT pg_cancel_backend(%d)", p.pid))
	<-p.returned
	require.ErrorIs(t, p.result(), errProbeCut)
}
