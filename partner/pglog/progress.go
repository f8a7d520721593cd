package pglog

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/mirror"
)

// progressStatements make what redo keeps in the mirror's database. A row of progress is changed in the same
// transaction as the rows of the principal's transactions, which makes redo exactly once. relation holds the newest
// description of each table that the stream has sent: the principal sends one once for each connection, and the part of
// the log that had it may be trimmed when redo begins again.
var progressStatements = [...]string{
	`CREATE SCHEMA IF NOT EXISTS dbmirror`,
	`CREATE TABLE IF NOT EXISTS dbmirror.progress (
		session text PRIMARY KEY,
		role_seq bigint NOT NULL,
		lsn pg_lsn NOT NULL,
		skip_role_seq bigint,
		skip_lsn pg_lsn,
		skipped bigint NOT NULL DEFAULT 0,
		redone_at timestamptz NOT NULL)`,
	`CREATE TABLE IF NOT EXISTS dbmirror.relation (
		session text NOT NULL,
		role_seq bigint NOT NULL,
		relation bigint NOT NULL,
		message bytea NOT NULL,
		PRIMARY KEY (session, role_seq, relation))`,
}

// EnsureProgress makes the tables of the redone position if they are missing. It may be called at any time, also by two
// at once.
func EnsureProgress(ctx context.Context, conn *pgx.Conn) error {
	err := onceMade(func() error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			var have bool
			err := tx.QueryRow(ctx, `SELECT to_regclass('dbmirror.progress') IS NOT NULL
				AND to_regclass('dbmirror.relation') IS NOT NULL`).Scan(&have)
			if err != nil || have { // a role that may not create finds them made by one that may
				return err
			}
			for _, statement := range progressStatements {
				if _, err := tx.Exec(ctx, statement); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("ensure progress tables in schema dbmirror: %w", err)
	}
	return nil
}

// ReadProgress reads the redone position of a session. It returns ErrNoProgress when there is none.
func ReadProgress(ctx context.Context, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, session string) (mirror.Position, error) {
	var p mirror.Position
	var seq int64
	err := db.QueryRow(ctx, "SELECT role_seq, lsn::text FROM dbmirror.progress WHERE session = $1", session).
		Scan(&seq, lsnColumn{&p.LSN})
	if errors.Is(err, pgx.ErrNoRows) {
		return mirror.Position{}, ErrNoProgress
	}
	if err != nil {
		return mirror.Position{}, fmt.Errorf("read redone position: %w", err)
	}
	p.Seq = mirror.RoleSeq(seq)
	return p, nil
}

// SetProgress sets the redone position in the caller's transaction: that of a baseline, which holds everything up to
// there, or of a return in another role. It may go back. A Redo that runs then stops with ErrRedoneElsewhere.
func SetProgress(ctx context.Context, tx pgx.Tx, session string, position mirror.Position) error {
	_, err := tx.Exec(ctx, `INSERT INTO dbmirror.progress (session, role_seq, lsn, redone_at)
		VALUES ($1, $2, $3::text::pg_lsn, now())
		ON CONFLICT (session) DO UPDATE SET role_seq = excluded.role_seq, lsn = excluded.lsn,
			skip_role_seq = NULL, skip_lsn = NULL, redone_at = excluded.redone_at`,
		session, int64(position.Seq), position.LSN.String())
	if err != nil {
		return fmt.Errorf("set redone position: %w", err)
	}
	_, err = tx.Exec(ctx, "DELETE FROM dbmirror.relation WHERE session = $1 AND role_seq <> $2", session, int64(position.Seq))
	if err != nil {
		return fmt.Errorf("forget tables of other role sequences: %w", err)
	}
	return nil
}

// The statements of the redo connection. The position is changed from the one that redo knows, first thing in each
// transaction: whoever else redoes the session waits here, then changes no row and stops, before touching any data.
const (
	lockProgressSQL = `SELECT role_seq, lsn::text, coalesce(skip_role_seq, 0), skip_lsn::text, skipped
		FROM dbmirror.progress WHERE session = $1 FOR UPDATE`
	moveProgressSQL = `UPDATE dbmirror.progress SET role_seq = $4::int8, lsn = $5::text::pg_lsn, redone_at = now()
		WHERE session = $1::text AND role_seq = $2::int8 AND lsn = $3::text::pg_lsn`
	skipProgressSQL = `UPDATE dbmirror.progress SET role_seq = $4::int8, lsn = $5::text::pg_lsn, redone_at = now(),
			skip_role_seq = NULL, skip_lsn = NULL, skipped = skipped + 1
		WHERE session = $1::text AND role_seq = $2::int8 AND lsn = $3::text::pg_lsn`
	askSkipSQL = `UPDATE dbmirror.progress SET skip_role_seq = $2, skip_lsn = $3::text::pg_lsn
		WHERE session = $1 AND (role_seq, lsn) < ($2, $3::text::pg_lsn)`
	relationsSQL    = "SELECT message FROM dbmirror.relation WHERE session = $1 AND role_seq = $2"
	keepRelationSQL = `INSERT INTO dbmirror.relation (session, role_seq, relation, message)
		VALUES ($1::text, $2::int8, $3::int8, $4::bytea)
		ON CONFLICT (session, role_seq, relation) DO UPDATE SET message = excluded.message`
	forgetRelationsSQL = "DELETE FROM dbmirror.relation WHERE session = $1::text AND role_seq <> $2::int8"
)
