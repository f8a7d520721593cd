package host

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
)

// outbox sends the messages for one server, one after the other. When it is full the oldest are dropped: every message
// that matters is sent again by the session.
type outbox struct {
	host   *Host
	peer   mirror.Server
	client *endpoint.Client
	done   chan struct{}
	said   string // the kind of failure that was logged last; owned by run
	wake   chan struct{}

	mu struct {
		sync.Mutex
		queue   []mirror.Message
		closing bool
		failure string // of the latest message
	}
}

const outboxLimit = 32

func newOutbox(h *Host, peer mirror.Server, client *endpoint.Client) *outbox {
	return &outbox{host: h, peer: peer, client: client, done: make(chan struct{}), wake: make(chan struct{}, 1)}
}

func (o *outbox) put(m mirror.Message) {
	o.mu.Lock()
	if len(o.mu.queue) == outboxLimit {
		o.mu.queue = o.mu.queue[1:]
	}
	o.mu.queue = append(o.mu.queue, m)
	o.mu.Unlock()
	o.signal()
}

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// next returns the oldest message. A ping or report that a newer one follows is passed over.
func (o *outbox) next() (m mirror.Message, ok, closing bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.mu.queue) > 0 {
		m, o.mu.queue = o.mu.queue[0], o.mu.queue[1:]
		if !o.outdatedLocked(m) {
			return m, true, o.mu.closing
		}
	}
	return mirror.Message{}, false, o.mu.closing
}

func (o *outbox) outdatedLocked(m mirror.Message) bool {
	if m.Kind != mirror.MessagePing && m.Kind != mirror.MessageReport {
		return false
	}
	for _, later := range o.mu.queue {
		if later.Kind == m.Kind {
			return true
		}
	}
	return false
}

func (o *outbox) note(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mu.failure = ""
	if err != nil {
		o.mu.failure = err.Error()
	}
}

func (o *outbox) trouble() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.mu.failure
}

// drain lets what is queued leave, for at most so long.
func (o *outbox) drain(wait time.Duration) {
	o.mu.Lock()
	o.mu.closing = true
	o.mu.Unlock()
	o.signal()
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-o.done:
	case <-t.C:
	}
}

func (o *outbox) run(ctx context.Context) {
	defer close(o.done)
	refused := 0
	for {
		m, ok, closing := o.next()
		if !ok {
			if closing {
				return
			}
			select {
			case <-o.wake:
			case <-ctx.Done():
				return
			}
			continue
		}
		refused = o.send(ctx, m, refused)
		if ctx.Err() != nil {
			return
		}
	}
}

// refusals is how often in a row nobody may be listening before the peer counts as lost at once: a program that is
// being restarted is back sooner.
const refusals = 3

// send sends one message and returns how often in a row nobody was listening.
func (o *outbox) send(ctx context.Context, m mirror.Message, refused int) int {
	at := sending(m.Kind)
	crashpoint.Hit(at.unsent)
	_, err := o.client.Send(ctx, endpoint.Kind(m.Kind.String()), m.Append(nil))
	crashpoint.Hit(at.sent)
	if ctx.Err() == nil {
		o.note(err)
	}
	var nobody *endpoint.RefusedError
	switch {
	case err == nil:
		o.said = ""
		return 0
	case errors.As(err, &nobody):
		o.said = ""
		refused++
		if refused == refusals {
			o.host.Tell(mirror.Event{Kind: mirror.EventUnlinked, Peer: o.peer})
		}
		return refused
	}
	// Said once for each kind of failure: it is repeated with every ping.
	if kind := fmt.Sprintf("%T", err); kind != o.said && ctx.Err() == nil {
		o.said = kind
		o.host.cfg.Logger.Warn("message not delivered", "peer", o.peer, "kind", m.Kind, "error", err)
	}
	return max(refused, 1)
}

// crossing are the points around the sending of one kind of message; zero where none is of interest.
type crossing struct{ unsent, sent crashpoint.Point }

func sending(k mirror.MessageKind) crossing {
	switch k {
	case mirror.MessagePropose:
		return crossing{crashpoint.ProposeUnsent, crashpoint.ProposeSent}
	case mirror.MessageAccept:
		return crossing{crashpoint.AcceptUnsent, crashpoint.AcceptSent}
	case mirror.MessageVote:
		return crossing{crashpoint.VoteUnsent, crashpoint.VoteSent}
	case mirror.MessageGrant:
		return crossing{crashpoint.GrantUnsent, crashpoint.GrantSent}
	case mirror.MessageTransfer:
		return crossing{crashpoint.TransferUnsent, crashpoint.TransferSent}
	case mirror.MessageReport:
		return crossing{crashpoint.ReportUnsent, crashpoint.ReportSent}
	}
	return crossing{}
}
