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
// that matters is sent again by the session. A goroutine runs only while there is something to send.
type outbox struct {
	host     *Host
	peer     mirror.Server
	client   *endpoint.Client
	sending  context.Context // of Host.Run: ends when nothing may be sent any more
	answered time.Duration   // when a pong last replied to the peer's ping, as Host.counted; owned by the goroutine of Host.Run

	// Owned by the goroutine that sends.
	said    string // the kind of failure that was logged last
	refused int    // how often in a row nobody was listening

	mu struct {
		sync.Mutex
		queue   []mirror.Message
		empty   chan struct{} // closed when all is sent; nil: nothing is being sent
		failure string        // of the latest message
	}
}

const outboxLimit = 32

func newOutbox(h *Host, peer mirror.Server, client *endpoint.Client) *outbox {
	return &outbox{host: h, peer: peer, client: client}
}

func (o *outbox) put(m mirror.Message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.mu.queue) == outboxLimit {
		o.mu.queue = o.mu.queue[1:]
	}
	o.mu.queue = append(o.mu.queue, m)
	if o.mu.empty == nil {
		o.mu.empty = make(chan struct{})
		go o.run(o.sending)
	}
}

// next returns the oldest message. A ping or report that a newer one follows is passed over. When there is none, the
// goroutine that asked sends no more.
func (o *outbox) next() (m mirror.Message, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.mu.queue) > 0 {
		m, o.mu.queue = o.mu.queue[0], o.mu.queue[1:]
		if !o.outdatedLocked(m) {
			return m, true
		}
	}
	o.mu.queue = nil
	close(o.mu.empty)
	o.mu.empty = nil
	return mirror.Message{}, false
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
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-o.emptied():
	case <-t.C:
	}
}

// join waits until nothing is sent any more. The context of what is sent has ended.
func (o *outbox) join() { <-o.emptied() }

// emptied is closed when all is sent.
func (o *outbox) emptied() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.empty != nil {
		return o.mu.empty
	}
	sent := make(chan struct{})
	close(sent)
	return sent
}

// run sends until nothing is left. When ctx has ended, what is left is thrown away.
func (o *outbox) run(ctx context.Context) {
	for {
		m, ok := o.next()
		if !ok {
			return
		}
		if ctx.Err() == nil {
			o.send(ctx, m)
		}
	}
}

// refusals is how often in a row nobody may be listening before the peer counts as lost at once: a program that is
// being restarted is back sooner.
const refusals = 3

func (o *outbox) send(ctx context.Context, m mirror.Message) {
	at := sending(m.Kind)
	crashpoint.Hit(at.unsent)
	reply, err := o.client.Send(ctx, endpoint.Kind(m.Kind.String()), m.Append(nil))
	crashpoint.Hit(at.sent)
	if err == nil {
		err = o.host.replied(o.peer, reply)
	}
	if ctx.Err() == nil {
		o.note(err)
	}
	var nobody *endpoint.RefusedError
	switch {
	case err == nil:
		o.said, o.refused = "", 0
		return
	case errors.As(err, &nobody):
		o.said = ""
		o.refused++
		if o.refused == refusals {
			o.host.Tell(mirror.Event{Kind: mirror.EventUnlinked, Peer: o.peer})
		}
		return
	}
	o.refused = max(o.refused, 1)
	// Said once for each kind of failure: it is repeated with every ping.
	if kind := fmt.Sprintf("%T", err); kind != o.said && ctx.Err() == nil {
		o.said = kind
		o.host.cfg.Logger.Warn("message not delivered", "peer", o.peer, "kind", m.Kind, "error", err)
	}
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
