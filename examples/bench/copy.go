package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/partner/pglog"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// copyScale is pgbench's scale for copies: two million accounts, 250 MB.
const copyScale = 20

// baseline measures the first copy of a database, definitions included, beside that of a subscription, whose tables are
// there already.
func baseline(ctx context.Context, l *lab) ([]row, error) {
	s, err := l.start(ctx, ordinaryDisk, "principal", "other")
	if err == nil {
		err = l.tables(ctx, s[0], copyScale)
	}
	if err == nil {
		err = execute(ctx, s[0], "CREATE PUBLICATION pub FOR ALL TABLES")
	}
	if err != nil {
		return nil, err
	}
	principal, err := pglog.Dial(ctx, pglog.Secret(s[0].DSN("app")), "benchses")
	if err != nil {
		return nil, err
	}
	l.atClose(func() error { principal.Close(); return nil })
	if err := principal.EnsureSchema(ctx); err != nil {
		return nil, err
	}
	got, err := l.times(ctx, []timing{
		{"ours", func(ctx context.Context) (time.Duration, error) { return l.copyOurs(ctx, principal, s[0], s[1]) }},
		{"logical", func(ctx context.Context) (time.Duration, error) { return l.copyNative(ctx, s[0], s[1]) }},
	})
	if err != nil {
		return nil, err
	}
	return []row{beside("baseline, 2M rows", "s", got[0], "logical, copy_data", got[1], atMost(0.6))}, nil
}

// empty makes the database of a server anew.
func empty(ctx context.Context, s *pgtest.Server) error {
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, sql := range []string{"DROP DATABASE app WITH (FORCE)", "CREATE DATABASE app", "CHECKPOINT"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

func (l *lab) copyOurs(ctx context.Context, principal *pglog.Server, from, to *pgtest.Server) (time.Duration, error) {
	if err := empty(ctx, to); err != nil {
		return 0, err
	}
	begun := time.Now()
	snapshot, err := principal.CreateSlotWithSnapshot(ctx, "dbmirror_bench")
	if err != nil {
		return 0, err
	}
	_, err = pglog.Baseline(ctx, pglog.BaselineConfig{
		Principal: pglog.Secret(from.DSN("app")), Mirror: pglog.Secret(to.DSN("app")), Snapshot: snapshot.Name,
	})
	took := time.Since(begun)
	return took, errors.Join(err, snapshot.Close(), principal.DropSlot(ctx, "dbmirror_bench"))
}

func (l *lab) copyNative(ctx context.Context, from, to *pgtest.Server) (time.Duration, error) {
	if err := empty(ctx, to); err != nil {
		return 0, err
	}
	if err := l.copyDefinitions(ctx, from, to); err != nil {
		return 0, err
	}
	begun := time.Now()
	if err := (subscription{copy: true}).create(ctx, from, to); err != nil {
		return 0, err
	}
	err := until(ctx, to, "SELECT count(*) > 0 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel")
	took := time.Since(begun)
	return took, errors.Join(err, execute(ctx, to, "DROP SUBSCRIPTION sub"))
}

// verify measures how long it takes to find out that two databases are equal, beside reading both.
func verify(ctx context.Context, l *lab) ([]row, error) {
	s, err := l.start(ctx, ordinaryDisk, "principal", "other")
	if err != nil {
		return nil, err
	}
	for _, server := range s {
		if err := l.tables(ctx, server, copyScale); err != nil {
			return nil, err
		}
		if err := execute(ctx, server, "UPDATE pgbench_history SET mtime = now()", "VACUUM ANALYZE"); err != nil {
			return nil, err
		}
	}
	got, err := l.times(ctx, []timing{
		{"ours", func(ctx context.Context) (time.Duration, error) { return both(ctx, s, compare) }},
		{"reading", func(ctx context.Context) (time.Duration, error) { return both(ctx, s, read) }},
	})
	if err != nil {
		return nil, err
	}
	return []row{beside("verify, 2M rows", "s", got[0], "COPY of both to nowhere", got[1], atMost(1))}, nil
}

// both times something that needs a connection to either server.
func both(ctx context.Context, s []*pgtest.Server, f func(context.Context, *pgx.Conn, *pgx.Conn) error) (took time.Duration, err error) {
	err = asSuperuser(ctx, s[0], func(a *pgx.Conn) error {
		return asSuperuser(ctx, s[1], func(b *pgx.Conn) error {
			begun := time.Now()
			err := f(ctx, a, b)
			took = time.Since(begun)
			return err
		})
	})
	return took, err
}

func compare(ctx context.Context, a, b *pgx.Conn) error {
	found, err := pglog.Compare(ctx, a, b)
	if err == nil && !found.Equal() {
		err = fmt.Errorf("the servers are not the same: %s", found)
	}
	return err
}

// read fetches every row of both at once and throws it away.
func read(ctx context.Context, a, b *pgx.Conn) error {
	done := make(chan error, 2)
	for _, conn := range []*pgx.Conn{a, b} {
		go func() {
			var err error
			for _, table := range []string{"pgbench_accounts", "pgbench_tellers", "pgbench_branches", "pgbench_history"} {
				_, failed := conn.PgConn().CopyTo(ctx, io.Discard, "COPY "+table+" TO STDOUT (FORMAT binary)")
				err = errors.Join(err, failed)
			}
			done <- err
		}()
	}
	return errors.Join(<-done, <-done)
}
