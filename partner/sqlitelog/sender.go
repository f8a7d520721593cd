package sqlitelog

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// logSender sends the log to one mirror.
type logSender struct {
	d       *database
	conn    net.Conn
	slot    *slot
	silence time.Duration
	sent    atomic.Uint64 // up to where the log was sent, a mirror.LSN
	buffer  []byte
}

// run sends until something ends it.
func (o *logSender) run(ctx context.Context, after mirror.LSN) error {
	if err := o.write(appendFrame(nil, frameEnd, positionBytes(o.d.End()))); err != nil {
		return err
	}
	tick := time.NewTicker(keepaliveEvery)
	defer tick.Stop()
	return o.d.attached(func(r *reader) error {
		for {
			end, dead, grown := o.state()
			if dead {
				return gap("the log kept for the mirror was given up")
			}
			if after < end {
				parts, err := r.readLog(ctx, after)
				if err != nil {
					return err
				}
				if len(parts) == 0 || !follows(after, parts[0]) {
					return gap("the log after %s is gone", after)
				}
				if err := o.sendParts(parts); err != nil {
					return err
				}
				after = parts[len(parts)-1].end
				continue
			}
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-grown:
			case <-tick.C:
				if err := o.write(appendFrame(nil, frameEnd, positionBytes(end))); err != nil {
					return err
				}
			}
		}
	})
}

// follows says whether a part begins where the one before it ended.
func follows(after mirror.LSN, p part) bool {
	return p.end-mirror.LSN(len(p.data)+partOverhead) == after
}

func (o *logSender) state() (end mirror.LSN, dead bool, grown <-chan struct{}) {
	o.d.mu.Lock()
	defer o.d.mu.Unlock()
	return o.d.mu.end, o.slot.dead || o.d.mu.closed, o.d.mu.grown
}

func (o *logSender) sendParts(parts []part) error {
	o.buffer = o.buffer[:0]
	for _, p := range parts {
		kind := framePart
		if p.last {
			kind = frameCommit
		}
		o.buffer = appendFrame(o.buffer, kind, positionBytes(p.end), p.data)
	}
	// Before it is written: a report can be here before Write returns.
	o.sent.Store(uint64(parts[len(parts)-1].end))
	return o.write(o.buffer)
}

func (o *logSender) write(b []byte) error {
	if err := o.conn.SetWriteDeadline(time.Now().Add(o.silence)); err != nil {
		return err
	}
	if _, err := o.conn.Write(b); err != nil {
		return fmt.Errorf("send log: %w", err)
	}
	return nil
}

// reports takes what the mirror says is hardened. It returns why it ends.
func (o *logSender) reports(in *frames, name string) error {
	for {
		if err := o.conn.SetReadDeadline(time.Now().Add(o.silence)); err != nil {
			return err
		}
		kind, payload, err := in.next()
		if err != nil {
			return fmt.Errorf("read the mirror's report: %w", err)
		}
		at, err := position(payload)
		if err != nil || kind != frameHardened {
			return fmt.Errorf("%w: kind %q", errFrame, kind)
		}
		if at > mirror.LSN(o.sent.Load()) {
			return fmt.Errorf("%w: reported %s, sent was %s", errFrame, at, mirror.LSN(o.sent.Load()))
		}
		o.d.confirmed(name, o.slot, at)
	}
}
