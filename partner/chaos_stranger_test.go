package partner

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/f19126b3/dbmirror/mirror"
)

// slotDropping is somebody who drops the mirror's slot: he ends its reader as often as he must.
func slotDropping(c *chaos, f *fault) (func() error, error) {
	return nothing, c.slot(f, "SELECT pg_drop_replication_slot($1)")
}

// slotAdvancing is somebody who moves the mirror's slot on, past what the mirror has hardened.
func slotAdvancing(c *chaos, f *fault) (func() error, error) {
	return nothing, c.slot(f, "SELECT pg_replication_slot_advance($1, pg_current_wal_flush_lsn())")
}

func (c *chaos) slot(f *fault, sql string) error {
	return c.insist(c.principal, f.hold, func(ctx context.Context, conn *pgx.Conn) error {
		var slot string
		err := conn.QueryRow(ctx, "SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'dbmirror\\_%' AND slot_type = 'logical' AND NOT temporary").Scan(&slot)
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, "SELECT pg_terminate_backend(active_pid, 1000) FROM pg_replication_slots WHERE slot_name = $1 AND active_pid IS NOT NULL", slot)
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, sql, slot)
		return err
	})
}

// storming strikes every session whose commit waits, on both servers, over and over, with one function after the other:
// clients' sessions and the library's own.
func storming(functions ...string) func(*chaos, *fault) (func() error, error) {
	return func(c *chaos, f *fault) (func() error, error) {
		ctx, stop := context.WithTimeout(context.Background(), f.hold)
		every := time.Duration(5+f.dice.IntN(50)) * time.Millisecond
		var done sync.WaitGroup
		var struck atomic.Int64
		for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
			done.Go(func() { struck.Add(c.storm(ctx, s, functions, every)) })
		}
		return func() error {
			stop()
			done.Wait()
			if struck.Load() == 0 {
				return errMissed
			}
			return nil
		}, nil
	}
}

func (c *chaos) storm(ctx context.Context, s mirror.Server, functions []string, every time.Duration) (struck int64) {
	for ctx.Err() == nil {
		// Whatever goes wrong here, another fault has done: he comes again.
		_ = c.visit(ctx, s, func(conn *pgx.Conn) error {
			for turn := 0; ; turn++ {
				var n int64
				err := conn.QueryRow(ctx, "SELECT count("+functions[turn%len(functions)]+"(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").Scan(&n)
				if err != nil {
					return err
				}
				struck += n
				c.pause(every)
			}
		})
		c.pause(every)
	}
	c.history.add("storm", fmt.Sprintf("%v at %s struck %d times", functions, s, struck), nil)
	return struck
}

// strange connects to the principal's server under the name that commits wait for, reads its log, and reports all of it
// as flushed.
func strange(c *chaos, f *fault) (func() error, error) {
	name, err := c.waitedFor(f.hold)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithTimeout(context.Background(), f.hold)
	done := make(chan struct{})
	read := 0
	go func() {
		defer close(done)
		for ctx.Err() == nil { // the session ends such a connection when it finds one
			n, err := c.impersonate(ctx, name)
			read += n
			c.history.add("stranger", fmt.Sprintf("%s has reported %d messages", name, n), err)
			c.pause(100 * time.Millisecond)
		}
	}()
	return func() error {
		stop()
		<-done
		if read == 0 {
			return errMissed
		}
		return nil
	}, nil
}

// impersonate reads the log until ctx ends, and returns how many messages of it were reported.
func (c *chaos) impersonate(ctx context.Context, name string) (read int, err error) {
	conn, end, err := c.attach(ctx, c.principal, "postgres", name)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.Background())
	for ; ; read++ {
		err := pglogrepl.SendStandbyStatusUpdate(ctx, conn, pglogrepl.StandbyStatusUpdate{WALWritePosition: end})
		if err != nil {
			return read, err
		}
		message, err := conn.ReceiveMessage(ctx)
		if err != nil {
			return read, err
		}
		switch m := message.(type) {
		case *pgproto3.ErrorResponse:
			return read, pgconn.ErrorResponseToPgError(m)
		case *pgproto3.CopyData:
			if m.Data[0] == pglogrepl.XLogDataByteID {
				end = pglogrepl.LSN(binary.BigEndian.Uint64(m.Data[1:])) + pglogrepl.LSN(len(m.Data)-25)
			}
		}
	}
}

// waitedFor is the name that commits wait for at the principal.
func (c *chaos) waitedFor(limit time.Duration) (name string, err error) {
	return name, c.insist(c.principal, limit, func(ctx context.Context, conn *pgx.Conn) error {
		var setting string
		if err := conn.QueryRow(ctx, "SHOW synchronous_standby_names").Scan(&setting); err != nil {
			return err
		}
		if name = regexp.MustCompile(`dbmirror_[a-z0-9_]+`).FindString(setting); name == "" {
			return errors.New("nobody is waited for")
		}
		return nil
	})
}
