package partner

import (
	"context"
	"net"
	"sync"

	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// kindDatabase is the stream between the backends of the two partners.
const kindDatabase endpoint.Kind = "database"

// accepting hands the streams that the other partner's backend opens to this one's, while the database is open.
type accepting struct {
	mu      sync.Mutex
	to      backend.Acceptor // nil: the database is not open, or takes none
	ctx     context.Context  // ends when the database is about to close
	serving sync.WaitGroup
}

// begin takes streams until the function that it returns is called, which waits for those that are served.
func (a *accepting) begin(database backend.Database) (end func()) {
	to, takes := database.(backend.Acceptor)
	if !takes {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	a.mu.Lock()
	a.to, a.ctx = to, ctx
	a.mu.Unlock()
	return func() {
		a.mu.Lock()
		a.to = nil
		a.mu.Unlock()
		cancel()
		a.serving.Wait()
	}
}

// enter says who takes a stream and until when; nil: nobody. Each taker is followed by a Done.
func (a *accepting) enter() (backend.Acceptor, context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.to != nil {
		a.serving.Add(1)
	}
	return a.to, a.ctx
}

// accept serves a stream of the other partner. One that nobody takes ends at once: it is opened again.
func (p *Partner) accept(ctx context.Context, _ endpoint.Identity, _ endpoint.Kind, conn net.Conn) {
	to, open := p.accepting.enter()
	if to == nil {
		return
	}
	defer p.accepting.serving.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(open, cancel)()
	if err := to.Accept(ctx, conn); err != nil && ctx.Err() == nil {
		p.cfg.Logger.Warn("a stream of the other partner ended", "peer", p.cfg.Self.Other(), "cause", err)
	}
}

// dial opens a stream to the other partner's backend.
func (p *Partner) dial(ctx context.Context) (net.Conn, error) {
	return p.clients[p.cfg.Self.Other()].Open(ctx, kindDatabase)
}

// streams is who may open which streams to this partner.
func (p *Partner) streams() endpoint.Table {
	return endpoint.Table{host.Role(p.cfg.Self.Other()): {kindDatabase: true}}
}
