package partner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/mirror"
)

const (
	blink = 300 * time.Millisecond
	long  = 6 * time.Second // longer than the timeout
)

// faultKinds are all that are known, but for full disks where they cannot be had.
func faultKinds() []*faultKind {
	p, m, w := (*chaos).former, (*chaos).other, (*chaos).third
	kinds := []*faultKind{
		{"kill principal's program", principalProgram, 0, blink, long, killing(p, nil)},
		{"kill mirror's program", mirrorProgram, 0, blink, long, killing(m, nil)},
		{"kill witness", witnessProgram, 0, blink, long, killing(w, nil)},
		{"kill principal's server", principalServer, 0, blink, long, killing(nil, p)},
		{"kill mirror's server", mirrorServer, 0, blink, long, killing(nil, m)},
		{"kill principal's program and server", principalProgram | principalServer, 0, blink, long, killing(p, p)},
		{"kill a session of the principal", principalServer, 0, blink, time.Second, killSession},
		{"stop principal's server", principalServer, 0, blink, long, stopping(p)},
		{"stop mirror's server", mirrorServer, 0, blink, long, stopping(m)},
		{"freeze principal's program", principalProgram, 0, blink, long, freezing(p, nil)},
		{"freeze mirror's program", mirrorProgram, 0, blink, long, freezing(m, nil)},
		{"freeze witness", witnessProgram, 0, blink, long, freezing(w, nil)},
		{"freeze principal's server", principalServer, 0, blink, long, freezing(nil, p)},
		{"freeze mirror's server", mirrorServer, 0, blink, long, freezing(nil, m)},
		{"freeze principal's program and server", principalProgram | principalServer, 0, blink, long, freezing(p, p)},
		{"freeze walsender", slotOfMirror, 0, blink, long, freezeWalsender},
		{"cut", links, 0, blink, long, cutting(pairsOfLinks)},
		{"cut one way", links, 0, blink, long, cutting(waysOfLinks)},
		{"delay", links, 0, time.Second, long, delaying},
		{"trickle", links, 0, time.Second, long, trickling},
		{"half-open", links, 0, blink, long, tearing},
		{"program cut off from its server", links, 0, blink, long, secluding},
		{"slot dropped", slotOfMirror, 0, 3 * time.Second, long, slotDropping},
		{"slot advanced", slotOfMirror, 0, 3 * time.Second, long, slotAdvancing},
		{"cancel and end waiting commits", 0, 0, time.Second, long, storming("pg_cancel_backend", "pg_cancel_backend", "pg_terminate_backend")},
		{"manual failover", 0, 0, 2 * time.Second, 2 * time.Second, failingOver},
		// What it acknowledges in the mirror's place may be lost with the principal (guarantees): that must stay.
		{"stranger's walsender", slotOfMirror, principalProgram | principalServer | mirrorProgram | links, time.Second, long, strange},
	}
	if mayLimitDisk() {
		kinds = append(kinds,
			&faultKind{"disk full at principal's program", principalProgram, 0, time.Second, long, filling(p)},
			&faultKind{"disk full at mirror's program", mirrorProgram, 0, time.Second, long, filling(m)})
	}
	return kinds
}

// who is one of the servers of a run, by its role when the run began.
type who func(*chaos) mirror.Server

func (c *chaos) former() mirror.Server { return c.principal }
func (c *chaos) other() mirror.Server  { return c.principal.Other() }
func (c *chaos) third() mirror.Server  { return mirror.Witness }

// killing kills a program, or a server, or both, and starts them again.
func killing(program, server who) func(*chaos, *fault) (func() error, error) {
	return func(c *chaos, _ *fault) (func() error, error) {
		if server != nil {
			c.away(server(c))
			if err := c.pg[server(c)].Kill(); err != nil {
				return nil, err
			}
		}
		if program != nil {
			c.withhold(program(c))
			c.kill(program(c))
		}
		return func() error {
			if program != nil {
				defer c.release(program(c))
			}
			if server != nil {
				return c.restart(server(c))
			}
			return nil
		}, nil
	}
}

// killSession kills a session's process: the server then throws all others out and recovers.
func killSession(c *chaos, f *fault) (func() error, error) {
	s := c.principal
	c.away(s)
	err := c.insist(s, f.hold, func(ctx context.Context, conn *pgx.Conn) error {
		var pid int
		err := conn.QueryRow(ctx, `SELECT pid FROM pg_stat_activity
			WHERE backend_type = 'client backend' AND usename = 'client' ORDER BY random() LIMIT 1`).Scan(&pid)
		if err != nil {
			return err
		}
		return syscall.Kill(pid, syscall.SIGKILL)
	})
	if err != nil {
		c.back(s)
		return nil, err
	}
	return func() error {
		defer c.back(s) // it has recovered
		return c.insist(s, time.Minute, func(ctx context.Context, conn *pgx.Conn) error { return conn.Ping(ctx) })
	}, nil
}

func nothing() error { return nil }

// stopping ends a server at once, without a checkpoint, and starts it again.
func stopping(server who) func(*chaos, *fault) (func() error, error) {
	return func(c *chaos, _ *fault) (func() error, error) {
		s := server(c)
		c.away(s)
		return func() error { return c.restart(s) }, c.pg[s].Stop("immediate")
	}
}

// freezing stops a program, or every process of a server, or both, as if their machine hung, and lets them go on.
func freezing(program, server who) func(*chaos, *fault) (func() error, error) {
	return func(c *chaos, _ *fault) (func() error, error) {
		var errs []error
		if program != nil {
			c.away(program(c))
			errs = append(errs, ignoreGone(c.signal(program(c), syscall.SIGSTOP)))
		}
		if server != nil {
			c.away(server(c))
			errs = append(errs, c.pg[server(c)].Pause())
		}
		return func() error {
			var errs []error
			if server != nil {
				errs = append(errs, c.pg[server(c)].Continue())
				c.back(server(c))
			}
			if program != nil {
				errs = append(errs, ignoreGone(c.signal(program(c), syscall.SIGCONT)))
				c.back(program(c))
			}
			return errors.Join(errs...)
		}, errors.Join(errs...)
	}
}

// ignoreGone: a program that has just ended needs no signal.
func ignoreGone(err error) error {
	if errors.Is(err, os.ErrProcessDone) || errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// freezeWalsender stops the process that sends the log to the mirror.
func freezeWalsender(c *chaos, f *fault) (func() error, error) {
	pid := 0
	err := c.insist(c.principal, f.hold, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT pid FROM pg_stat_replication WHERE application_name LIKE 'dbmirror\\_%'").Scan(&pid)
	})
	if err != nil {
		return nil, err
	}
	return func() error { return ignoreGone(syscall.Kill(pid, syscall.SIGCONT)) }, ignoreGone(syscall.Kill(pid, syscall.SIGSTOP))
}

// failingOver is an operator who chooses this moment for a manual failover. He may be refused.
func failingOver(c *chaos, f *fault) (func() error, error) {
	err := errMissed
	for over := time.Now().Add(f.hold); err != nil && time.Now().Before(over); c.pause(50 * time.Millisecond) {
		if err = c.give(c.principal, "/failover"); err != nil {
			err = fmt.Errorf("%w: %w", errMissed, err)
		}
	}
	return nothing, err
}

// filling leaves no room in a program's directory for a while.
func filling(program who) func(*chaos, *fault) (func() error, error) {
	return func(c *chaos, _ *fault) (func() error, error) {
		return c.fill(program(c))
	}
}

// restart starts a server again, and says since when it is back.
func (c *chaos) restart(s mirror.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := c.pg[s].Restart(ctx)
	c.back(s)
	return err
}

// errMissed is wrapped when a fault found nothing to strike: what it needs was gone because of another.
var errMissed = errors.New("missed")

// insist tries something on a server, as a superuser who does not wait for the mirror, until it works or the time is
// over.
func (c *chaos) insist(s mirror.Server, limit time.Duration, do func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for {
		err := c.visit(ctx, s, func(conn *pgx.Conn) error { return do(ctx, conn) })
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%w: %w", errMissed, err)
		}
		c.pause(10 * time.Millisecond)
	}
}

func (c *chaos) visit(ctx context.Context, s mirror.Server, do func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, c.pg[s].DSN("app")+"&synchronous_commit=local&application_name=stranger")
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return do(conn)
}

// carryOut lets a fault happen, and says whether it struck.
func (c *chaos) carryOut(f *fault) (struck bool, err error) {
	c.pause(f.at)
	begun := time.Now()
	end, err := f.begin(c, f)
	c.history.add("fault", f.name, err)
	if end != nil && !errors.Is(err, errMissed) {
		c.pause(f.hold - time.Since(begun))
		err = errors.Join(err, end())
		c.history.add("fault over", f.name, err)
	}
	switch {
	case errors.Is(err, errMissed):
		return false, nil
	case err != nil:
		return true, fmt.Errorf("%s: %w", f.name, err)
	}
	return true, nil
}
