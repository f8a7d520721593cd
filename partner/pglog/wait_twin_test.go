package pglog

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Two walsenders of one name are two of those that PostgreSQL waits for. A second one under the name of the operator's
// standby, or of another session's mirror, that comes when the wait is proven already stands in for a mirror that goes.
func TestWaitingSeesWhoStandsInForTheMirror(t *testing.T) {
	t.Parallel()
	for _, theirs := range []string{"theirs", "dbmirror_other567_1"} {
		t.Run(theirs, func(t *testing.T) {
			t.Parallel()
			srv, s := adminServer(t, map[string]string{"synchronous_standby_names": theirs})
			dsn := srv.DSN("app")
			ctx := adminContext(t)
			adminExec(t, dsn, "CREATE TABLE t (id bigserial PRIMARY KEY, v text)")
			for _, slot := range []string{slotA, "theirs", "twin"} {
				_, err := s.CreateSlot(ctx, slot)
				require.NoError(t, err)
			}
			m := startMirror(t, s, dsn, slotA, mirrorA, false)
			startMirror(t, s, dsn, "theirs", theirs, false)
			_, err := s.WaitMirror(ctx, mirrorA)
			require.NoError(t, err)
			foreign := func() int {
				st, err := s.Waiting(ctx)
				require.NoError(t, err)
				require.Equal(t, mirrorA, st.Name)
				return st.Foreign
			}
			require.Zero(t, foreign())

			twin := startMirror(t, s, dsn, "twin", strings.ToUpper(theirs), true)
			require.NoError(t, adminCommit(ctx, dsn))
			require.Zero(t, foreign(), "it confirms nothing, as one whose connection is lost")
			twin.hold.Store(false)
			adminEventually(t, "it confirms", func() bool { return foreign() == 1 })
			m.end()
			require.NoError(t, adminCommit(ctx, dsn), "acknowledged without the mirror")
			require.Equal(t, 1, foreign())
			_, err = s.WaitMirror(ctx, mirrorA)
			require.ErrorContains(t, err, "give each standby its own")
			twin.end()
			adminEventually(t, "it has gone", func() bool { return foreign() == 0 })
		})
	}
}
