package pglog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// askTimeout is how long the other side's server may take to be connected to, and to answer where a reign begins.
const askTimeout = 3 * time.Second

// peer is the other side's server as a backend.Peer. It is connected to when it is first asked.
type peer struct {
	dsn Secret
	env backend.Env

	mu struct {
		sync.Mutex
		server *Server // nil until it was reached
	}
}

func (p *peer) connect(ctx context.Context) (*Server, error) {
	p.mu.Lock()
	found := p.mu.server
	p.mu.Unlock()
	if found != nil {
		return found, nil
	}
	dialing, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	made, err := Dial(dialing, p.dsn, p.env.Short())
	if err != nil {
		return nil, &peerError{err}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.server != nil {
		made.Close()
		return p.mu.server, nil
	}
	p.mu.server = made
	return made, nil
}

// peerError is returned when the other side's server cannot be connected to. Its text says what has to change, as that of
// a finding does; Unwrap gives what happened.
type peerError struct{ err error }

func (e *peerError) Error() string {
	return "connect to the other side's server by PeerDSN: " + connectCause(e.err)
}

func (e *peerError) Unwrap() error { return e.err }

func (p *peer) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.server != nil {
		p.mu.server.Close()
	}
}

func (p *peer) Identity(ctx context.Context) (backend.Identity, error) {
	server, err := p.connect(ctx)
	if err != nil {
		return backend.Identity{}, err
	}
	id, err := server.Identity(ctx)
	return id.neutral(), err
}

func (p *peer) Reign(ctx context.Context, seq mirror.RoleSeq) (backend.Reign, error) {
	server, err := p.connect(ctx)
	if err != nil {
		return backend.Reign{}, err
	}
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	found, err := server.Reign(asking, p.env.Session, seq)
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == codeUndefinedTable {
		err = fmt.Errorf("%w: %w", ErrNoReign, err) // no session has been at that server yet
	}
	return found.neutral(), err
}

func (p *peer) Gate(ctx context.Context) (mirror.Gate, error) {
	server, err := p.connect(ctx)
	if err != nil {
		return 0, err
	}
	proof, err := server.Gate(ctx)
	return proof.Gate, err
}

// sampleSequences reads the sequences of the other side's database.
func (p *peer) sampleSequences(ctx context.Context) (SequenceSample, error) {
	server, err := p.connect(ctx)
	if err != nil {
		return SequenceSample{}, err
	}
	conn, err := server.pool.Acquire(ctx)
	if err != nil {
		return SequenceSample{}, fmt.Errorf("get an administrative connection: %w", err)
	}
	defer conn.Release()
	return SampleSequences(ctx, conn.Conn())
}
