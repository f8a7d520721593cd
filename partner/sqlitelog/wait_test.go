package sqlitelog

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"zombiezen.com/go/sqlite"
)

// errGrown ends a context of untilGrown.
var errGrown = errors.New("the log has grown")

// untilGrown is a context that ends when the log of a database has grown: with it a Write commits, and does not go on
// waiting.
func untilGrown(t *testing.T, db *DB) context.Context {
	ctx, cancel := context.WithCancelCause(t.Context())
	db.mu.Lock()
	grown := db.mu.grown
	db.mu.Unlock()
	go func() {
		select {
		case <-grown:
			cancel(errGrown)
		case <-ctx.Done(): // with the test
		}
	}()
	return ctx
}

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
	err := db.Write(untilGrown(t, db), func(conn *sqlite.Conn) error { return runOnce(conn, "INSERT INTO t (a) VALUES (3)") })
	var unconfirmed *UnconfirmedError
	require.ErrorAs(t, err, &unconfirmed)
	require.ErrorIs(t, err, errGrown)
}
