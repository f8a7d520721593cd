package sqlitelog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// retryFull is how often a record is offered again to a redo queue that is full.
const retryFull = 20 * time.Millisecond

// stream reads the principal's log into the hardened log and reports what is hardened: all that has arrived is put on disk
// at once, then reported.
type stream struct {
	d    *database
	from backend.Source

	mu struct {
		sync.Mutex
		status backend.StreamStatus
	}
}

// Follow prepares a stream.
func (d *database) Follow(from backend.Source) (backend.Stream, error) {
	if from.Silence < leastSilence || from.Silence > mostSilence {
		return nil, fmt.Errorf("follow: silence of %s: give %s to %s", from.Silence, leastSilence, mostSilence)
	}
	return &stream{d: d, from: from}, nil
}

// Status returns what is known now.
func (s *stream) Status() backend.StreamStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.status
}

func (s *stream) note(f func(*backend.StreamStatus)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.mu.status)
}

// Run streams until ctx ends or an error.
func (s *stream) Run(ctx context.Context, log backend.Log) error {
	defer s.note(func(st *backend.StreamStatus) { st.Streaming, st.Stalled = false, false })
	err := s.run(ctx, log)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (s *stream) run(ctx context.Context, log backend.Log) error {
	end, err := log.Harden()
	if err != nil {
		return fmt.Errorf("harden log: %w", err)
	}
	if end.Seq != s.from.Reign.Seq {
		return gap("the hardened log ends at %s, the principal's is of role sequence %d", end, s.from.Reign.Seq)
	}
	conn, err := s.d.env.Dial(ctx)
	if err != nil {
		return fmt.Errorf("connect to the other partner: %w", err)
	}
	defer conn.Close() // what was reported was hardened, and what was not is sent again
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := conn.SetDeadline(time.Now().Add(s.from.Silence)); err != nil {
		return err
	}
	err = send(conn, frameRequest, request{
		Version: protocol, Session: s.d.env.Session, Ask: "log", Seq: s.from.Reign.Seq, Log: s.from.Reign.Log,
		Origin: s.from.Reign.Origin, Name: s.from.Name, After: end.LSN, Silence: s.from.Silence.Milliseconds(),
	})
	if err != nil {
		return fmt.Errorf("ask for the log: %w", err)
	}
	r := &receiver{stream: s, conn: conn, in: newFrames(conn), log: log, received: end.LSN, hardened: end.LSN}
	return r.run(ctx)
}

// receiver is one connection of a stream.
type receiver struct {
	*stream
	conn     net.Conn
	in       *frames
	log      backend.Log
	received mirror.LSN // end of the last part
	hardened mirror.LSN
	appended bool // since the last harden
	attached bool
}

func (r *receiver) run(ctx context.Context) error {
	for {
		kind, payload, err := r.next()
		if err != nil {
			return err
		}
		if err := r.take(ctx, kind, payload); err != nil {
			return err
		}
		if r.in.waiting() {
			continue // what has arrived meanwhile goes to the disk with it
		}
		if err := r.harden(); err != nil {
			return err
		}
	}
}

func (r *receiver) next() (kind byte, payload []byte, err error) {
	if err := r.conn.SetReadDeadline(time.Now().Add(r.from.Silence)); err != nil {
		return 0, nil, err
	}
	if kind, payload, err = r.in.next(); err != nil {
		return 0, nil, fmt.Errorf("read the principal's log: %w", err)
	}
	r.note(func(st *backend.StreamStatus) {
		st.Streaming, st.LastByte = true, time.Now()
		st.Bytes += uint64(frameHeader + len(payload))
	})
	return kind, payload, nil
}

func (r *receiver) take(ctx context.Context, kind byte, payload []byte) error {
	switch kind {
	case frameEnd:
		at, err := position(payload)
		if err != nil {
			return err
		}
		r.note(func(st *backend.StreamStatus) { st.ServerEnd = max(st.ServerEnd, at) })
		return r.attach(ctx)
	case framePart, frameCommit:
		p, err := partOf(kind, payload)
		if err != nil {
			return err
		}
		return r.part(ctx, p)
	case frameAnswer:
		return refusal(payload)
	}
	return fmt.Errorf("%w: kind %q", errFrame, kind)
}

// attach begins the stream in the hardened log, once the principal has agreed to go on where that ends.
func (r *receiver) attach(ctx context.Context) error {
	if r.attached {
		return nil
	}
	r.attached = true
	return r.append(ctx, redo.Record{Kind: redo.KindAttach, Seq: r.from.Reign.Seq, LSN: r.hardened})
}

func (r *receiver) part(ctx context.Context, p part) error {
	if !r.attached || p.end <= r.received || !follows(r.received, p) {
		return gap("a part of the log ends at %s and begins after %s, where the one before it ended", p.end, r.received)
	}
	r.received = p.end
	kind := redo.KindData
	if p.last {
		kind = redo.KindCommit
	}
	r.note(func(st *backend.StreamStatus) { st.Received, st.ServerEnd = p.end, max(st.ServerEnd, p.end) })
	return r.append(ctx, redo.Record{Kind: kind, Seq: r.from.Reign.Seq, LSN: p.end, Data: p.data})
}

// append waits while the redo queue is full; what is in it is hardened and reported meanwhile.
func (r *receiver) append(ctx context.Context, record redo.Record) error {
	for {
		err := r.log.Append(record)
		if !errors.Is(err, redo.ErrFull) {
			r.note(func(st *backend.StreamStatus) { st.Stalled = false })
			r.appended = true
			if err != nil {
				return fmt.Errorf("append to the hardened log: %w", err)
			}
			return nil
		}
		r.note(func(st *backend.StreamStatus) { st.Stalled = true })
		if err := r.harden(); err != nil {
			return err
		}
		pause := time.NewTimer(retryFull)
		select {
		case <-ctx.Done():
			pause.Stop()
			return context.Cause(ctx)
		case <-pause.C:
		}
	}
}

// harden puts on disk what has arrived, and reports it. A report without news tells the principal that the mirror lives.
func (r *receiver) harden() error {
	if r.appended {
		end, err := r.log.Harden()
		if err != nil {
			return fmt.Errorf("harden log: %w", err)
		}
		r.appended, r.hardened = false, end.LSN
		r.note(func(st *backend.StreamStatus) { st.Hardened = end.LSN })
	}
	if err := r.conn.SetWriteDeadline(time.Now().Add(r.from.Silence)); err != nil {
		return err
	}
	if _, err := r.conn.Write(appendFrame(nil, frameHardened, positionBytes(r.hardened))); err != nil {
		return fmt.Errorf("report what is hardened: %w", err)
	}
	return nil
}
