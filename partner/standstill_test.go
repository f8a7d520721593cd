package partner

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// TestLookAtAServerThatStandsStill: processes of a server that stand still in the middle of a look keep their connections
// and answer nothing. A principal's look ends all the same, so that it asks again whether the server answers.
func TestLookAtAServerThatStandsStill(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	pg := pgtest.New(t, map[string]string{"wal_level": "logical"})
	d := pathOf(t, pg)
	db := d.database
	require.NoError(t, db.WaitNone(ctx))
	reign, err := db.BeginLog(ctx, 1)
	require.NoError(t, err)
	require.NoError(t, db.WriteReign(ctx, reign))

	d.have.reign = reign
	duty := mirror.Duty{Role: mirror.RolePrincipal, Seq: 1, Gate: mirror.GateOpen, Wait: mirror.WaitNone, Ship: true}
	require.NoError(t, d.watch(ctx, duty))
	d.have.looked = time.Time{}
	for _, pid := range backends(t, pg) {
		require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
		defer syscall.Kill(pid, syscall.SIGCONT)
	}
	require.Error(t, d.watch(ctx, duty))
	require.NoError(t, ctx.Err(), "the look has ended, not the test")
}

// backends are the server's processes that hold the partner's connections.
func backends(t *testing.T, pg *pgtest.Server) []int {
	conn, err := pgx.Connect(t.Context(), pg.DSN("postgres"))
	require.NoError(t, err)
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'dbmirror%'")
	require.NoError(t, err)
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	require.NoError(t, err)
	require.NotEmpty(t, pids)
	return pids
}
