package sqlitelog

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"zombiezen.com/go/sqlite"
)

// What could not be written down for the next start is not taken for written: a database whose commits were let go must
// let none go when it starts again.
func TestWhomToWaitForAfterAStart(t *testing.T) {
	ctx := context.Background()
	db := open(t, Config{})
	must(t, db, smallTable)
	require.NoError(t, db.WaitRemove(ctx))

	holding, done := make(chan struct{}), make(chan struct{})
	held := make(chan error, 1)
	go func() {
		held <- db.Write(ctx, func(*sqlite.Conn) error {
			close(holding)
			<-done
			return nil
		})
	}()
	<-holding
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, db.WaitBlock(short), context.DeadlineExceeded, "a client writes meanwhile")
	close(done)
	require.NoError(t, db.WaitNone(ctx))
	require.NoError(t, <-held)
	must(t, db, "INSERT INTO t (a) VALUES (2)")
	require.NoError(t, db.Close())

	db = open(t, Config{Path: db.cfg.Path})
	short, cancel = context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	err := db.Write(short, func(conn *sqlite.Conn) error { return runOnce(conn, "INSERT INTO t (a) VALUES (3)") })
	var unconfirmed *UnconfirmedError
	require.ErrorAs(t, err, &unconfirmed)
}
