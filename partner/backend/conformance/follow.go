package conformance

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// following is a mirror that follows its principal.
type following struct {
	s      *side
	seq    mirror.RoleSeq
	stream backend.Stream
	redo   backend.Redo
	stop   func() // ends both, and waits; it may be called again
	halt   func() // ends the stream only
}

// follow hardens and redoes the principal's log until stop.
func (s *side) follow(seq mirror.RoleSeq, name string) *following {
	s.r.t.Helper()
	return s.followInto(seq, name, s.queue)
}

func (s *side) followInto(seq mirror.RoleSeq, name string, log backend.Log) *following {
	t := s.r.t
	t.Helper()
	redoer, err := s.db.NewRedo()
	require.NoError(t, err)
	f := &following{s: s, seq: seq, stream: s.source(seq, name), redo: redoer}
	var running [2]sync.WaitGroup
	streaming, halt := context.WithCancel(context.Background())
	redoing, end := context.WithCancel(context.Background())
	running[0].Go(func() { s.retry(streaming, func(ctx context.Context) error { return f.stream.Run(ctx, log) }) })
	running[1].Go(func() {
		s.retry(redoing, func(ctx context.Context) error { return redoer.Run(ctx, s.queue) })
	})
	f.halt = func() { halt(); running[0].Wait() }
	f.stop = func() { f.halt(); end(); running[1].Wait() }
	t.Cleanup(f.stop)
	return f
}

func (s *side) source(seq mirror.RoleSeq, name string) backend.Stream {
	s.r.t.Helper()
	reign, err := s.db.Peer().Reign(s.r.ctx(), seq)
	require.NoError(s.r.t, err)
	stream, err := s.db.Follow(backend.Source{Reign: reign, Name: name, Silence: silence})
	require.NoError(s.r.t, err)
	return stream
}

// retry runs until ctx ends. What fails without a reason is tried again, as a partner does; nothing here has a reason.
func (s *side) retry(ctx context.Context, run func(context.Context) error) {
	for ctx.Err() == nil {
		err := run(ctx)
		if ctx.Err() != nil || errors.Is(err, errBroken) {
			return
		}
		if reason := backend.ReasonOf(err); reason != mirror.ReasonNone {
			s.r.t.Errorf("%s cannot follow: %s: %v", s.self, reason, err)
			return
		}
		pause := time.NewTimer(20 * time.Millisecond)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
}

// silence is how long a stream goes on without hearing from the other side.
const silence = 2 * time.Second

// catchUp waits until everything that the principal has committed is redone.
func (f *following) catchUp() mirror.Position {
	r, ctx := f.s.r, f.s.r.ctx()
	r.t.Helper()
	barrier, err := f.s.other().db.WriteBarrier(ctx)
	require.NoError(r.t, err)
	require.NotZero(r.t, barrier.At)
	require.LessOrEqual(r.t, barrier.At, barrier.End)
	found, err := f.s.other().db.LatestBarrier(ctx)
	require.NoError(r.t, err)
	require.Equal(r.t, barrier.At, found)
	r.eventually(fmt.Sprintf("everything up to %s is hardened", barrier.End), func() bool {
		end := f.s.queue.Hardened()
		return end.Seq == f.seq && end.LSN >= barrier.End
	})
	end := f.s.queue.Hardened()
	require.NoError(r.t, f.redo.Drain(ctx, end))
	require.GreaterOrEqual(r.t, f.redo.Progress().Flushed.Compare(mirror.Position{Seq: f.seq, LSN: barrier.End}), 0)
	return end
}

// leave catches up, and stops hardening before it says where that ended, as a partner does: a keepalive may take the log
// further until then. Everything is redone.
func (f *following) leave() mirror.Position {
	f.s.r.t.Helper()
	f.catchUp()
	f.halt()
	end := f.s.queue.Hardened()
	require.NoError(f.s.r.t, f.redo.Drain(f.s.r.ctx(), end))
	f.stop()
	return end
}

// errBroken is returned by a log that is to break.
var errBroken = errors.New("the log is broken off")

// breaking is the hardened log of a program that ends after a number of records.
type breaking struct {
	*redo.Queue
	left int
	some bool // what it got is hardened all the same: the middle of a transaction, often
}

func (l *breaking) Append(r redo.Record) error {
	if l.left == 0 {
		if l.some {
			if _, err := l.Harden(); err != nil {
				return err
			}
		}
		return errBroken
	}
	l.left--
	return l.Queue.Append(r)
}

// slow is a hardened log whose disk takes as long as it is told.
type slow struct {
	*redo.Queue
	disk sync.RWMutex // held to write: nothing gets to the disk
}

func (l *slow) Harden() (mirror.Position, error) {
	l.disk.RLock()
	defer l.disk.RUnlock()
	return l.Queue.Harden()
}
