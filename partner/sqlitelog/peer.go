package sqlitelog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// peer is the other partner's database, which its partner answers for.
type peer struct{ d *database }

// Peer is the other side's database.
func (d *database) Peer() backend.Peer { return &peer{d} }

// ask makes a connection, asks one question and reads the answer.
func (p *peer) ask(ctx context.Context, q request) (a answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	conn, in, err := p.connect(ctx, q)
	if err != nil {
		return a, err
	}
	defer conn.Close() // nothing was sent that could be lost
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := in.json(frameAnswer, &a); err != nil {
		return a, fmt.Errorf("ask the other partner for its %s: %w", q.Ask, errors.Join(err, context.Cause(ctx)))
	}
	return a, a.err()
}

func (p *peer) connect(ctx context.Context, q request) (net.Conn, *frames, error) {
	conn, err := p.d.env.Dial(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to the other partner: %w", err)
	}
	q.Version, q.Session = protocol, p.d.env.Session
	err = conn.SetDeadline(time.Now().Add(askLimit))
	if err == nil {
		err = send(conn, frameRequest, q)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("ask the other partner for its %s: %w", q.Ask, err), conn.Close())
	}
	return conn, newFrames(conn), nil
}

// err is what the other partner has refused with.
func (a answer) err() error {
	switch {
	case a.Error == "":
		return nil
	case a.NoReign:
		return fmt.Errorf("the other partner: %w", backend.ErrNoReign)
	}
	err := fmt.Errorf("the other partner: %s", a.Error)
	if r := mirror.Reason(a.Reason); r != mirror.ReasonNone {
		return backend.Because(r, err)
	}
	return err
}

func refusal(payload []byte) error {
	var a answer
	if len(payload) > maxRequest {
		return errFrame
	}
	if err := json.Unmarshal(payload, &a); err != nil {
		return fmt.Errorf("%w: %w", errFrame, err)
	}
	if err := a.err(); err != nil {
		return err
	}
	return fmt.Errorf("%w: an answer to nothing", errFrame)
}

// Identity is the other side's.
func (p *peer) Identity(ctx context.Context) (backend.Identity, error) {
	a, err := p.ask(ctx, request{Ask: "identity"})
	return identityOf(a.ID, a.Path), err
}

// Reign is the beginning of a role sequence over there.
func (p *peer) Reign(ctx context.Context, seq mirror.RoleSeq) (backend.Reign, error) {
	a, err := p.ask(ctx, request{Ask: "reign", Seq: seq})
	if err != nil {
		return backend.Reign{}, err
	}
	if a.Reign == nil {
		return backend.Reign{}, fmt.Errorf("%w: no reign in the answer", errFrame)
	}
	return backend.Reign(*a.Reign), nil
}

// Gate is where the other side's gate is.
func (p *peer) Gate(ctx context.Context) (mirror.Gate, error) {
	a, err := p.ask(ctx, request{Ask: "gate"})
	return mirror.Gate(a.Gate), err
}
