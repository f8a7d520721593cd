package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// largeCommit measures how long the COMMIT of a large transaction waits for the mirror: most of it should have been sent
// while it ran.
func largeCommit(ctx context.Context, l *lab) ([]row, error) {
	s, err := l.start(ctx, ordinaryDisk, "ours-a", "ours-b", "logical-a", "logical-b")
	if err != nil {
		return nil, err
	}
	for _, from := range []*pgtest.Server{s[0], s[2], s[3]} {
		if err := l.tables(ctx, from, 0); err != nil {
			return nil, err
		}
	}
	err = l.subscribe(ctx, s[2], s[3], subscription{sync: true})
	if err == nil {
		err = waitFor(ctx, s[2], "sub")
	}
	if err != nil {
		return nil, fmt.Errorf("set up logical replication: %w", err)
	}
	if _, err := l.newPair(ctx, ordinaryDisk, "default", s[0], s[1]); err != nil {
		return nil, err
	}
	got, err := l.times(ctx, []timing{
		{"ours", func(ctx context.Context) (time.Duration, error) { return commitLarge(ctx, s[0]) }},
		{"logical", func(ctx context.Context) (time.Duration, error) { return commitLarge(ctx, s[2]) }},
	})
	if err != nil {
		return nil, err
	}
	return []row{beside("commit of 1M rows waits", "s", got[0], "logical, synchronous", got[1], atMost(0.1))}, nil
}

// commitLarge inserts many rows and returns how long their COMMIT took.
func commitLarge(ctx context.Context, s *pgtest.Server) (took time.Duration, err error) {
	err = asSuperuser(ctx, s, func(conn *pgx.Conn) error {
		tx, err := conn.Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback(ctx)
		if _, err := tx.Exec(ctx, "INSERT INTO ins (a, b) SELECT g, 'forty characters are what this text holds' FROM generate_series(1, $1::int) g", largeInsert); err != nil {
			return err
		}
		begun := time.Now()
		err = tx.Commit(ctx)
		took = time.Since(begun)
		return err
	})
	return took, err
}
