package pglog

import (
	"context"
	"errors"
	"slices"
)

// redoFlight is a batch, or a piece of a large transaction, that the server redoes while the next one is read from the
// log, understood and combined. The connection belongs to it until it has landed; everything else stays with the
// session's goroutine.
type redoFlight struct {
	redoBatch
	buffer []byte // that of its statements
	flush  bool
	cancel context.CancelFunc
	done   chan error
	over   bool
	err    error // how it ended, once it is over
}

// errBehind says that what is being combined stands behind a flight that failed. It is combined again when that has
// been redone otherwise.
var errBehind = errors.New("redo of what comes before has failed")

// launch lets the server begin with the statements that are queued, which make up the batch, and begins an empty batch.
func (s *redoSession) launch(ctx context.Context, flush bool, run func(context.Context, []pipeItem) error) {
	ctx, cancel := context.WithCancel(ctx)
	items, buffer := s.pipe.take()
	f := &redoFlight{redoBatch: s.batch, buffer: buffer, flush: flush, cancel: cancel, done: make(chan error, 1)}
	s.batch = redoBatch{net: netChanges{memory: s.spare}}
	s.spare = netMemory{}
	s.flight = f
	go func() { f.done <- run(ctx, items) }()
}

// idle waits until the connection is free. It returns errBehind if what used it has failed, which land looks after.
func (s *redoSession) idle() error {
	f := s.flight
	if f == nil {
		return nil
	}
	if !f.over {
		f.err = <-f.done
		f.over = true
		f.cancel()
	}
	if f.err != nil {
		return errBehind
	}
	return nil
}

// abandon ends a flight whose outcome nobody waits for any more: the connection is about to be closed.
func (s *redoSession) abandon() {
	if s.flight != nil {
		s.flight.cancel()
		_ = s.idle() // the position in the database tells the next session whether it was redone
		s.flight = nil
	}
}

// landed takes the flight out of the way and gives it back with how it ended, or nil if there is none. The memory of one
// that succeeded serves again.
func (s *redoSession) landed() *redoFlight {
	f := s.flight
	if f == nil {
		return nil
	}
	if s.idle() == nil {
		s.spare = f.net.reuse()
		s.pipe.reuse(f.buffer)
	}
	s.flight = nil
	return f
}

// land waits for the batch that is on its way, and counts it. If it failed for any reason but the connection, its
// transactions are redone one by one, each change a statement of its own in the principal's order: sets can fail where
// the changes in their order do not, and otherwise this is how the one that cannot be redone is found. What was combined
// behind it is combined again.
func (s *redoSession) land(ctx context.Context) error {
	f := s.landed()
	switch {
	case f == nil:
		return nil
	case f.err == nil:
		s.finish(f.txns...)
		return s.afterCommit(f.txns[len(f.txns)-1], f.flush)
	case !s.singlyMends(f.err):
		return f.err
	}
	behind := s.batch.txns
	if err := s.startOver(ctx, &f.redoBatch, &s.batch); err != nil {
		return err
	}
	if err := s.redoSingly(ctx, slices.Concat(f.txns, behind), len(f.txns)); err != nil {
		return err
	}
	for _, txn := range behind {
		s.batch.txns = append(s.batch.txns, txn)
		if err := s.combineTxn(ctx, txn); err != nil {
			return err
		}
	}
	return nil
}
