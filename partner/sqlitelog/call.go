package sqlitelog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/f19126b3/dbmirror/mirror"
)

// call is what a client does: a Write or a Read.
type call struct {
	writes  bool
	cancel  context.CancelCauseFunc
	revoked error // it must not succeed any more
	commits bool  // it is past the point where it could be revoked, on its way to the disk
}

// errGateMoved ends what clients do when the gate is closed to them.
var errGateMoved = errors.New("the database was closed to clients")

// enter lets a client in, if the gate does.
func (db *DB) enter(ctx context.Context, writes bool) (context.Context, *call, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	switch {
	case db.mu.closed:
		return nil, nil, ErrClosed
	case db.mu.fault != nil:
		return nil, nil, db.mu.fault
	case db.mu.gate == mirror.GateOpen || db.mu.gate == mirror.GateReadOnly && !writes:
	default:
		return nil, nil, &NotServingError{db.mu.gate, db.askLocked()}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	c := &call{writes: writes, cancel: cancel}
	db.mu.calls[c] = struct{}{}
	return ctx, c, nil
}

// leave returns the error that the client gets: a call that was revoked does not succeed.
func (db *DB) leave(c *call, err error) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	c.cancel(nil)
	delete(db.mu.calls, c)
	if db.mu.left != nil {
		close(db.mu.left)
		db.mu.left = nil
	}
	if err == nil && c.revoked != nil {
		return c.revoked
	}
	return err
}

// point is the last moment at which a Write can be revoked without its transaction.
func (db *DB) point(c *call) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if c.revoked != nil {
		return c.revoked
	}
	c.commits = true
	return nil
}

func (db *DB) revokeLocked(fits func(*call) bool, why error) {
	for c := range db.mu.calls {
		if fits(c) && c.revoked == nil {
			c.revoked = why
			c.cancel(why)
		}
	}
}

// Gate is where the gate is.
func (db *DB) Gate() mirror.Gate {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.mu.gate
}

// askLocked is whom clients are sent to that are not let in here.
func (db *DB) askLocked() string {
	if db.mu.principal == nil {
		return ""
	}
	at := db.mu.principal()
	if at != "" && db.cfg.PeerURL != "" {
		return db.cfg.PeerURL
	}
	return at
}

// told takes the partner's word on where the principal is; nil: there is no partner any more.
func (db *DB) told(principal func() string) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.mu.principal = principal
}

// SetGate moves the gate: open lets everybody in, read-only those that read, closed nobody. Who is inside and may not be
// there any more has grace to finish, and then does not succeed, whatever it does; no commit is under way when SetGate
// returns. A database whose gate was ever moved is closed when it is opened again.
func (db *DB) SetGate(ctx context.Context, gate mirror.Gate, grace time.Duration) error {
	switch gate {
	case mirror.GateOpen, mirror.GateReadOnly, mirror.GateClosed:
	default:
		return fmt.Errorf("set gate: %s is not a position", gate)
	}
	if err := db.rememberGate(ctx); err != nil {
		return fmt.Errorf("set gate %s: %w", gate, err)
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	if gate == mirror.GateOpen && db.mu.fault != nil {
		return fmt.Errorf("set gate %s: %w", gate, db.mu.fault)
	}
	db.mu.gate = gate
	if gate == mirror.GateOpen {
		return nil
	}
	excluded := func(c *call) bool { return c.writes || gate == mirror.GateClosed }
	over := time.NewTimer(grace)
	defer over.Stop()
	for db.anyLocked(excluded) {
		if !db.awaitLeftLocked(ctx, over.C) {
			break
		}
	}
	db.revokeLocked(excluded, errGateMoved)
	for db.anyLocked(func(c *call) bool { return excluded(c) && c.commits && c.revoked == errGateMoved }) {
		if !db.awaitLeftLocked(ctx, nil) {
			return context.Cause(ctx)
		}
	}
	return nil
}

// rememberGate writes down, once, that a partner says who may come in.
func (db *DB) rememberGate(ctx context.Context) error {
	db.mu.Lock()
	gated := db.mu.gated
	db.mu.Unlock()
	if gated {
		return nil
	}
	if err := db.own(ctx, func(conn *sqlite.Conn) error { return setMeta(conn, "gate", intValue(1)) }); err != nil {
		return err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	db.mu.gated = true
	return nil
}

func (db *DB) anyLocked(fits func(*call) bool) bool {
	for c := range db.mu.calls {
		if fits(c) {
			return true
		}
	}
	return false
}

// awaitLeftLocked waits, without the lock, until a call has ended. It is false when the time is over.
func (db *DB) awaitLeftLocked(ctx context.Context, over <-chan time.Time) bool {
	if db.mu.left == nil {
		db.mu.left = make(chan struct{})
	}
	left := db.mu.left
	db.mu.Unlock()
	defer db.mu.Lock()
	select {
	case <-left:
		return true
	case <-over:
		return false
	case <-ctx.Done():
		return false
	}
}
