package sqlitelog

import (
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

// A copy that was killed while it was prepared leaves its write-ahead log. It has no part in the next copy.
func TestCopyAfterOneThatWasKilled(t *testing.T) {
	ctx := context.Background()
	l := newLink(t, Config{})
	must(t, l.a, smallTable)
	for range 50 {
		must(t, l.a, "INSERT INTO t (a) VALUES (randomblob(3000))")
	}
	require.NoError(t, l.m.SetGate(ctx, mirror.GateClosed, 0))
	temporary := l.b.cfg.Path + "-copying"
	_, err := l.m.receiveCopy(ctx, l.reign, temporary)
	require.NoError(t, err)
	cfg := l.b.cfg
	cfg.Path = temporary
	w, err := openWriter(cfg, true)
	require.NoError(t, err)
	var own ownRows
	require.NoError(t, l.b.inspect(ctx, own.read))
	require.NoError(t, w.transact(captureRedo, func() error { return own.write(w.conn) }))
	left, err := os.ReadFile(temporary + "-wal")
	require.NoError(t, err)
	require.NotEmpty(t, left)
	require.NoError(t, w.close())
	require.NoError(t, os.WriteFile(temporary+"-wal", left, 0o600)) // as the kill found it

	must(t, l.a, "DELETE FROM t WHERE k % 2 = 0; CREATE TABLE u (k INTEGER PRIMARY KEY, a)")
	for range 200 {
		must(t, l.a, "INSERT INTO u (a) VALUES (randomblob(2000))")
	}
	l.seed(t)
	require.NoFileExists(t, temporary+"-wal")
	requireSound(t, l.b)
	requireEqual(t, l.a, l.b)
	r := l.follow(t)
	must(t, l.a, "INSERT INTO t (a) VALUES (7)")
	l.same(t, r)
	r.stop(t)
}
