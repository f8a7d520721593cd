package main

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// outcome is what is known of a write.
type outcome int

const (
	refused   outcome = iota // it is not committed, and will not be
	committed                // it is, and no automatic failover loses it
	unknown                  // it may be
)

func (o outcome) String() string { return [...]string{"refused", "committed", "unknown"}[o] }

// unmirrored marks a connection on which a commit has stopped waiting for the mirror.
const unmirrored = "unmirrored"

// takeNotice hears what the server says beside its answers. A commit whose wait for the mirror was cut short is answered
// like any other: only this notice tells that the mirror may not have it. It runs in the goroutine of the command.
func takeNotice(conn *pgconn.PgConn, n *pgconn.Notice) {
	if n.Code == "57P01" || n.Code == "01000" && strings.Contains(n.Message, "synchronous replication") {
		conn.CustomData()[unmirrored] = true
	}
}

// commit ends a transaction and says what is known of it. It is not cancelled with ctx: pgx would send a cancel request,
// which does not undo the commit but ends its wait for the mirror. Instead the caller stops waiting, and the commit goes
// on until the server has answered; then the connection is given back.
func commit(ctx context.Context, tx pgx.Tx, release func()) (outcome, error) {
	type answer struct {
		outcome
		err error
	}
	answered := make(chan answer, 1)
	go func() {
		defer release()
		conn := tx.Conn().PgConn()
		delete(conn.CustomData(), unmirrored)
		err := tx.Commit(context.WithoutCancel(ctx))
		answered <- answer{judge(err, conn.CustomData()[unmirrored] != nil), err}
	}()
	select {
	case a := <-answered:
		return a.outcome, a.err
	case <-ctx.Done():
		return unknown, ctx.Err()
	}
}

// judge says what the end of a COMMIT tells. Only an answer of the server does: a connection that breaks may have broken
// before or after.
func judge(err error, noticed bool) outcome {
	var answer *pgconn.PgError
	switch {
	case noticed:
		return unknown
	case err == nil:
		return committed
	case errors.Is(err, pgx.ErrTxCommitRollback):
		return refused
	case errors.As(err, &answer) && answer.Severity == "ERROR" && !strings.HasPrefix(answer.Code, "57P"):
		return refused
	}
	return unknown
}

// transient says whether the same may succeed on another try: the server was lost, closed, or is a mirror by now.
func transient(err error) bool {
	var answer *pgconn.PgError
	if !errors.As(err, &answer) {
		return true // the network, or the end of the caller's patience
	}
	switch answer.Code {
	case "25006", // read-only: it has become a mirror
		"53300",                   // closed: it may not serve
		"40001", "40P01", "55P03", // another transaction was in the way
		"57014": // canceled: the client sessions are being ended
		return true
	}
	return strings.HasPrefix(answer.Code, "57P") || strings.HasPrefix(answer.Code, "08")
}
