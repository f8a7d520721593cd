package partner

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/pglog"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// TestFenceOfAFullServer: a server that takes no further connection, and so does not show whom commits wait for, is
// closed all the same.
func TestFenceOfAFullServer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	pg := pgtest.New(t, map[string]string{"max_connections": "15"})
	d := pathOf(t, pg)
	db := d.database
	client, err := pgx.Connect(ctx, pg.DSN("app"))
	require.NoError(t, err)
	defer client.Close(ctx)
	for {
		other, err := pgx.Connect(ctx, pg.DSN("postgres"))
		if err != nil {
			require.ErrorContains(t, err, "too many clients")
			break
		}
		defer other.Close(ctx)
	}
	_, err = db.Waiting(ctx)
	require.ErrorContains(t, err, "too many clients")

	require.NoError(t, d.fence(ctx))
	require.Error(t, client.Ping(ctx), "its sessions are ended")
	gate, err := db.Gate(ctx)
	require.NoError(t, err)
	require.Equal(t, mirror.GateClosed, gate)
}

// TestGateIsShownWhereItIs: while it moves, when that was broken off, and when the server has restarted, nobody knows where
// the gate is, and it is not shown where it was.
func TestGateIsShownWhereItIs(t *testing.T) {
	pg := pgtest.New(t, nil)
	d := pathOf(t, pg)
	d.report = func(mirror.Event) bool { return true }
	shown := func() mirror.Gate {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.mu.shown.gate
	}
	alive, err := d.check(t.Context(), mirror.RoleNone)
	require.NoError(t, err)
	require.True(t, alive)
	require.NoError(t, d.gate(t.Context(), mirror.GateOpen, 0))
	require.Equal(t, mirror.GateOpen, shown())
	broken, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, d.gate(broken, mirror.GateClosed, 0))
	require.Zero(t, shown())

	require.NoError(t, d.gate(t.Context(), mirror.GateOpen, 0))
	require.Equal(t, mirror.GateOpen, shown())
	require.NoError(t, pg.Stop("immediate"))
	require.NoError(t, pg.Restart(t.Context()))
	require.Eventually(t, func() bool { // connections of before are found broken first
		alive, err := d.check(t.Context(), mirror.RoleNone)
		return alive && err == nil
	}, patience, 10*time.Millisecond)
	require.Zero(t, shown())
}

// pathOf is a data path of a server's database, with nothing beside it.
func pathOf(t *testing.T, pg *pgtest.Server) *dataPath {
	b, err := pglog.New(pglog.Config{DSN: pglog.Secret(pg.DSN("app")), PeerDSN: pglog.Secret(pg.DSN("postgres"))})
	require.NoError(t, err)
	db, err := b.Open(t.Context(), backend.Env{Session: "0123456789abcdef0123456789abcdef", Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(db.Close)
	require.NoError(t, db.Prepare(t.Context()))
	d := newDataPath(&Partner{cfg: Config{Logger: slog.New(slog.DiscardHandler), Limits: Limits{LogBudget: 1 << 40}}})
	d.database = db
	return d
}
