package pglog

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// settingBarrier is the setting that holds the place of a session's latest barrier.
const settingBarrier = "barrier "

// WriteBarrier commits something that carries no data of clients: whoever has hardened the log up to its End, and whatever
// state of this database LatestBarrier finds it in, has everything that was committed before the call.
func (s *Server) WriteBarrier(ctx context.Context, session string) (b backend.Barrier, err error) {
	err = s.push(ctx, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `INSERT INTO dbmirror.settings (name, value) VALUES ($1, pg_current_wal_insert_lsn()::text)
			ON CONFLICT (name) DO UPDATE SET value = excluded.value RETURNING value`, settingBarrier+session).Scan(lsnColumn{&b.At})
	})
	if err == nil {
		err = s.pool.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text").Scan(lsnColumn{&b.End})
	}
	if err != nil {
		return backend.Barrier{}, fmt.Errorf("write a barrier: %w", err)
	}
	return b, nil
}

// LatestBarrier is where the latest barrier of the session in this database is, zero if it has none.
func (s *Server) LatestBarrier(ctx context.Context, session string) (at mirror.LSN, err error) {
	kept := false
	err = s.pool.QueryRow(ctx, "SELECT to_regclass('dbmirror.settings') IS NOT NULL").Scan(&kept)
	if err == nil && kept {
		err = s.pool.QueryRow(ctx, "SELECT value FROM dbmirror.settings WHERE name = $1", settingBarrier+session).Scan(lsnColumn{&at})
	}
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("read the latest barrier: %w", err)
	}
	return at, nil
}
