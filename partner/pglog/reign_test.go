package pglog

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

func TestReign(t *testing.T) {
	t.Parallel()
	srv, s := adminServer(t, nil)
	ctx := adminContext(t)
	_, err := s.Reign(ctx, testSession, 3)
	require.ErrorIs(t, err, ErrNoReign)
	r := Reign{Session: testSession, Seq: 3, Slot: "slot_3", Start: 0x1_0000_0010, SystemID: 18_000_000_000_000_000_001}
	r.Fork.Seq, r.Fork.LSN = 2, 0xABC
	require.NoError(t, s.WriteReign(ctx, r))
	got, err := s.Reign(ctx, testSession, 3)
	require.NoError(t, err)
	require.NotZero(t, got.OpenedAt)
	r.OpenedAt = got.OpenedAt
	require.Equal(t, r, got)

	r.Start, r.Slot = 0x2_0000_0000, "slot_3b"
	require.NoError(t, s.WriteReign(ctx, r), "a promotion that was broken off and begun again")
	require.NoError(t, srv.Kill())
	require.NoError(t, srv.Restart(ctx))
	got, err = ReadReignAt(ctx, Secret(srv.DSN("app")), testSession, 3)
	require.NoError(t, err)
	r.OpenedAt = got.OpenedAt
	require.Equal(t, r, got, "on disk, and readable from the other server")
	conn := adminClient(t, srv.DSN("app"))
	for _, seq := range []mirror.RoleSeq{2, 4, 1 << 63} {
		_, err = ReadReign(ctx, conn, testSession, seq)
		require.ErrorIs(t, err, ErrNoReign)
	}
	r.Seq = 0
	require.Error(t, s.WriteReign(ctx, r))
}
