package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/pglog"
	"github.com/f19126b3/dbmirror/partner/pgtest"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// backlog is log that waits at a principal's server, behind slot base, for whoever is to read it. It can be read any
// number of times.
type backlog struct {
	lab              *lab
	principal, other *pgtest.Server // other: where it is redone
	start, end       mirror.LSN
	reset            []string // statements that bring the other back to where it was before
}

// newBacklog makes two servers with the same tables and rows.
func (l *lab) newBacklog(ctx context.Context, scale int) (*backlog, error) {
	s, err := l.start(ctx, ordinaryDisk, "principal", "other")
	if err != nil {
		return nil, err
	}
	for _, server := range s {
		if err := l.tables(ctx, server, scale); err != nil {
			return nil, err
		}
		if err := execute(ctx, server, "CREATE TABLE marker (id int PRIMARY KEY)"); err != nil {
			return nil, err
		}
	}
	return &backlog{lab: l, principal: s[0], other: s[1]}, execute(ctx, s[0], "CREATE PUBLICATION pub FOR ALL TABLES")
}

// fill puts the slot where the log is now, lets work add to it, and ends it with a row of table marker.
func (b *backlog) fill(ctx context.Context, work func() error) error {
	err := execute(ctx, b.principal, "TRUNCATE marker",
		"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots", "SELECT pg_create_logical_replication_slot('base', 'pgoutput')")
	if err != nil {
		return err
	}
	if b.start, err = b.position(ctx, "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'base'"); err != nil {
		return err
	}
	if err := work(); err != nil {
		return err
	}
	if err := execute(ctx, b.principal, "INSERT INTO marker VALUES (1)", "CHECKPOINT"); err != nil {
		return err
	}
	b.end, err = b.position(ctx, "SELECT pg_current_wal_flush_lsn()::text")
	return err
}

func (b *backlog) position(ctx context.Context, sql string) (mirror.LSN, error) {
	value, err := text(ctx, b.principal, sql)
	if err != nil {
		return 0, err
	}
	return mirror.ParseLSN(value)
}

// rewind makes the slot x where the backlog begins, and brings the other server back.
func (b *backlog) rewind(ctx context.Context) error {
	if err := b.rewindSlot(ctx); err != nil {
		return err
	}
	return execute(ctx, b.other, append(append([]string{"TRUNCATE marker"}, b.reset...), "CHECKPOINT")...)
}

// rewindSlot is enough for who does not write to the other server.
func (b *backlog) rewindSlot(ctx context.Context) error {
	if err := until(ctx, b.principal, "SELECT count(*) = 0 FROM pg_replication_slots WHERE active"); err != nil {
		return err
	}
	return execute(ctx, b.principal, "SELECT pg_drop_replication_slot('x') FROM pg_replication_slots WHERE slot_name = 'x'",
		"SELECT pg_copy_logical_replication_slot('base', 'x')")
}

// native is how long PostgreSQL's own logical replication takes for the backlog.
func (b *backlog) native(ctx context.Context, sync bool) (time.Duration, error) {
	if err := b.rewind(ctx); err != nil {
		return 0, err
	}
	begun := time.Now()
	if err := (subscription{sync: sync, slot: "x"}).create(ctx, b.principal, b.other); err != nil {
		return 0, err
	}
	err := until(ctx, b.other, "SELECT count(*) = 1 FROM marker")
	return time.Since(begun), errors.Join(err, unsubscribe(ctx, b.other))
}

// bare is how long a reader takes that throws everything away.
func (b *backlog) bare(ctx context.Context) (time.Duration, error) {
	if err := b.rewindSlot(ctx); err != nil {
		return 0, err
	}
	begun := time.Now()
	_, err := b.lab.command(ctx, "pg_recvlogical", "--start", "-S", "x", "-f", "/dev/null", "-n", "--endpos="+b.end.String(),
		"-o", "proto_version=2", "-o", "streaming=on", "-o", "messages=true", "-o", "publication_names=pub", "-d", b.principal.DSN("app"))
	return time.Since(begun), err
}

// log is a hardened log that begins where the backlog does.
func (b *backlog) log() (*redo.Queue, error) {
	dir := filepath.Join(b.lab.dir, "log")
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	q, err := redo.Open(redo.Config{Dir: dir})
	if err != nil {
		return nil, err
	}
	return q, q.Reset(mirror.Position{Seq: 1, LSN: b.start})
}

var errDone = errors.New("read to the end")

// stream hardens the backlog.
func (b *backlog) stream(ctx context.Context, q *redo.Queue) error {
	s, err := pglog.NewStream(pglog.StreamConfig{
		DSN: pglog.Secret(b.principal.DSN("app")), Slot: "x", Publication: "pub", ApplicationName: "bench", Seq: 1,
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if s.Status().Hardened >= b.end {
					stop(errDone)
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	if err := s.Run(ctx, q); !errors.Is(err, errDone) {
		return fmt.Errorf("harden: %w", err)
	}
	return nil
}

// redo redoes what a hardened log holds, until it holds the whole backlog and that is redone on the other's disk.
func (b *backlog) redo(ctx context.Context, q *redo.Queue, hardened <-chan error) error {
	r, err := pglog.NewRedo(pglog.RedoConfig{DSN: pglog.Secret(b.other.DSN("app")), Session: "bench"})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx, q) }()
	err = <-hardened
	if err == nil {
		err = r.Drain(ctx, q.Hardened())
	}
	stop(errDone)
	if end := <-ended; !errors.Is(end, errDone) {
		err = errors.Join(err, fmt.Errorf("redo: %w", end))
	}
	return err
}

// prepareRedo sets the redone position of the other server to where the backlog begins.
func (b *backlog) prepareRedo(ctx context.Context) error {
	return asSuperuser(ctx, b.other, func(conn *pgx.Conn) error {
		if err := pglog.EnsureProgress(ctx, conn); err != nil {
			return err
		}
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			return pglog.SetProgress(ctx, tx, "bench", mirror.Position{Seq: 1, LSN: b.start})
		})
	})
}

// ours is how long this library takes to harden the backlog and, at the same time, redo it durably.
func (b *backlog) ours(ctx context.Context) (time.Duration, error) {
	if err := errors.Join(b.rewind(ctx), b.prepareRedo(ctx)); err != nil {
		return 0, err
	}
	q, err := b.log()
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	hardened := make(chan error, 1)
	go func() { hardened <- b.stream(ctx, q) }()
	err = b.redo(ctx, q, hardened)
	return time.Since(begun), errors.Join(err, q.Close())
}

// hardenOnly is how long hardening takes alone.
func (b *backlog) hardenOnly(ctx context.Context) (time.Duration, error) {
	if err := b.rewindSlot(ctx); err != nil {
		return 0, err
	}
	q, err := b.log()
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	err = b.stream(ctx, q)
	return time.Since(begun), errors.Join(err, q.Close())
}

// redoOnly is how long redo takes alone, from a log that was hardened before.
func (b *backlog) redoOnly(ctx context.Context) (time.Duration, error) {
	if err := errors.Join(b.rewind(ctx), b.prepareRedo(ctx)); err != nil {
		return 0, err
	}
	q, err := b.log()
	if err != nil {
		return 0, err
	}
	hardened := make(chan error, 1)
	hardened <- b.stream(ctx, q)
	begun := time.Now()
	err = b.redo(ctx, q, hardened)
	return time.Since(begun), errors.Join(err, q.Close())
}

// equal is an error unless both servers hold the same.
func (b *backlog) equal(ctx context.Context) error {
	return asSuperuser(ctx, b.principal, func(p *pgx.Conn) error {
		return asSuperuser(ctx, b.other, func(o *pgx.Conn) error {
			found, err := pglog.Compare(ctx, p, o)
			if err == nil && !found.Equal() {
				err = fmt.Errorf("the servers are not the same: %s", found)
			}
			return err
		})
	})
}
