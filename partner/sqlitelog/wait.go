package sqlitelog

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"zombiezen.com/go/sqlite"

	"github.com/f19126b3/dbmirror/mirror"
)

// commits is whom the commits of this database wait for.
type commits struct {
	waits      bool
	name       string     // of the mirror; empty when commits wait for nobody who could release them
	hardened   mirror.LSN // by the mirror of that name
	changed    chan struct{}
	afterwards string // what is persisted for the next start
}

// What is persisted of it.
const (
	waitNobody  = ""        // commits return by themselves
	waitBlocked = "block"   // no commit returns
	waitFor     = "mirror " // and the name
)

// force puts in force what is written as for the next start.
func (c *commits) force(wait string) {
	c.waits = wait != waitNobody
	c.name, _ = strings.CutPrefix(wait, waitFor)
	if c.name == wait {
		c.name = ""
	}
	c.hardened = 0
	c.wake()
}

func (c *commits) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// setWait puts in force whom commits wait for, and persists what is to be in force after a restart. Making commits wait
// comes into force before it is persisted, releasing them after.
func (db *DB) setWait(ctx context.Context, inForce, afterwards string) (end mirror.LSN, err error) {
	force := func() {
		db.mu.Lock()
		defer db.mu.Unlock()
		former := db.mu.commits
		db.mu.commits.force(inForce)
		if former.waits && former.name != "" && former.name == db.mu.commits.name {
			db.mu.commits.hardened = former.hardened
		}
		end = db.mu.end
	}
	if inForce != waitNobody {
		force()
	}
	db.mu.Lock()
	persisted := db.mu.commits.afterwards == afterwards && inForce == waitNobody
	db.mu.Unlock()
	if !persisted {
		if err := db.own(ctx, func(conn *sqlite.Conn) error { return setMeta(conn, "wait", textValue(afterwards)) }); err != nil {
			return 0, err
		}
	}
	if inForce == waitNobody {
		force()
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	db.mu.commits.afterwards = afterwards
	return end, nil
}

// WaitMirror makes every commit wait until the mirror of that name has hardened it. A commit that returns from now on was
// hardened by that mirror, or ends at or before end.
func (db *DB) WaitMirror(ctx context.Context, name string) (end mirror.LSN, err error) {
	if name == "" {
		return 0, errors.New("wait for mirror: its name is empty")
	}
	if end, err = db.setWait(ctx, waitFor+name, waitFor+name); err != nil {
		return 0, fmt.Errorf("wait for mirror: %w", err)
	}
	return end, nil
}

// WaitNone lets commits return without a mirror, until the next start: then they wait again, for nobody.
func (db *DB) WaitNone(ctx context.Context) error {
	if _, err := db.setWait(ctx, waitNobody, waitBlocked); err != nil {
		return fmt.Errorf("release commits: %w", err)
	}
	return nil
}

// WaitBlock lets no commit return.
func (db *DB) WaitBlock(ctx context.Context) error {
	if _, err := db.setWait(ctx, waitBlocked, waitBlocked); err != nil {
		return fmt.Errorf("block commits: %w", err)
	}
	return nil
}

// WaitRemove lets commits return by themselves, also after a restart.
func (db *DB) WaitRemove(ctx context.Context) error {
	if _, err := db.setWait(ctx, waitNobody, waitNobody); err != nil {
		return fmt.Errorf("stop waiting for a mirror: %w", err)
	}
	return nil
}

// confirmed is what a mirror has reported as hardened: it releases commits if they wait for that name.
func (db *DB) confirmed(name string, s *slot, at mirror.LSN) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if !s.dead {
		s.confirmed = max(s.confirmed, at)
	}
	if c := &db.mu.commits; c.waits && c.name == name && at > c.hardened {
		c.hardened = at
		c.wake()
	}
}

// settled waits until everything up to a position may be seen by clients.
func (db *DB) settled(ctx context.Context, at mirror.LSN) error {
	for {
		db.mu.Lock()
		c, fault := db.mu.commits, db.mu.fault
		if db.mu.closed {
			fault = ErrClosed
		}
		db.mu.Unlock()
		if !c.waits || c.name != "" && at <= c.hardened {
			return nil
		}
		if fault != nil {
			return fault
		}
		select {
		case <-c.changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
