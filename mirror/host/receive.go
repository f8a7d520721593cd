package host

import (
	"context"
	"fmt"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
)

// Role is the name under which a server is known at the endpoint.
func Role(s mirror.Server) endpoint.Role { return endpoint.Role(s.String()) }

// Allow is who may say what to a server: everything else is refused before it is read.
func Allow(self mirror.Server) endpoint.Table {
	partner := kinds(mirror.MessagePing, mirror.MessagePong, mirror.MessagePropose, mirror.MessageAccept, mirror.MessageVote,
		mirror.MessageGrant, mirror.MessageRefuse, mirror.MessageTransfer, mirror.MessageReport, mirror.MessageRequest, mirror.MessageBye)
	witness := kinds(mirror.MessagePing, mirror.MessagePong, mirror.MessageAccept, mirror.MessageGrant, mirror.MessageRefuse, mirror.MessageBye)
	toWitness := kinds(mirror.MessagePing, mirror.MessagePong, mirror.MessagePropose, mirror.MessageVote, mirror.MessageBye)
	if self == mirror.Witness {
		return endpoint.Table{endpoint.PartnerA: toWitness, endpoint.PartnerB: toWitness}
	}
	return endpoint.Table{Role(self.Other()): partner, endpoint.Witness: witness}
}

func kinds(ks ...mirror.MessageKind) map[endpoint.Kind]bool {
	set := map[endpoint.Kind]bool{}
	for _, k := range ks {
		set[endpoint.Kind(k.String())] = true
	}
	return set
}

// Receive is the endpoint's handler: it takes one message from a server whose identity the endpoint has verified. What
// the message says of its sender must agree with that. The pong that answers a ping is the reply; any other answer is a
// message of its own.
func (h *Host) Receive(ctx context.Context, from endpoint.Identity, kind endpoint.Kind, body []byte) ([]byte, error) {
	m, err := mirror.DecodeMessage(body)
	switch {
	case err != nil:
		return nil, endpoint.Deny("message cannot be read: %v", err)
	case Role(m.From) != from.Role || endpoint.Kind(m.Kind.String()) != kind || m.To != h.cfg.Self:
		return nil, endpoint.Deny("%s from %s to %s came as %s from %s", m.Kind, m.From, m.To, kind, from.Role)
	}
	h.counts.received(m.From, len(body))
	r := &request{event: mirror.Event{Kind: mirror.EventReceived, Message: m}}
	if m.Kind == mirror.MessagePing {
		r.answer = make(chan error, 1)
	}
	if !h.tell(r) {
		return nil, endpoint.Deny("overloaded; send again")
	}
	if r.answer == nil {
		return nil, nil
	}
	select {
	case <-r.answer: // what became of the step is its session's affair
		if r.pong != nil {
			h.counts.replied(m.From, len(r.pong))
		}
		return r.pong, nil
	case <-ctx.Done():
	case <-h.stopped:
	}
	return nil, nil // the ping was taken; a pong that comes too late is lost
}

// replied takes the reply to a message, which is a pong or nothing. Who sent it the client has verified.
func (h *Host) replied(peer mirror.Server, body []byte) error {
	if len(body) == 0 {
		return nil
	}
	m, err := mirror.DecodeMessage(body)
	switch {
	case err != nil:
		return fmt.Errorf("reply of %s cannot be read: %w", peer, err)
	case m.From != peer || m.To != h.cfg.Self || m.Kind != mirror.MessagePong:
		return fmt.Errorf("%s replied with a %s from %s to %s, which is no pong to us", peer, m.Kind, m.From, m.To)
	}
	h.counts.received(m.From, len(body))
	h.Tell(mirror.Event{Kind: mirror.EventReceived, Message: m}) // one that finds no place is lost
	return nil
}
