package partner

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
	"github.com/f19126b3/dbmirror/mirror/host/metrics"
	"github.com/f19126b3/dbmirror/mirror/host/statefile"
	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// Partner is one of the two servers of a session that hold the database. Its methods may be called from any goroutine.
//
// Failover, ForceService, Suspend, Resume, SetSafety, SetWitness, Admit, Serve, Reseed and Skip are what operators ask for.
// Each returns nil when it is accepted, with what it changes on disk here; Status shows when it is carried out. A command
// that is not allowed now returns an error that says why and what would mend it, and has changed nothing: for what the
// session's rules refuse that is a *mirror.RefusedError. When ctx ends first, or with host.ErrStopped, it is not known
// whether it was accepted.
type Partner struct {
	cfg       Config
	id        host.SessionID
	host      *host.Host
	endpoint  *endpoint.Server
	clients   map[mirror.Server]*endpoint.Client
	state     *statefile.File
	queue     *redo.Queue
	data      *dataPath
	journal   *journal
	running   atomic.Bool // messages are taken
	timings   *metrics.Timings
	notes     notes
	accepting accepting
}

// New makes a partner: it checks the configuration and opens what is on disk. It connects to nothing, except
// that it tells the other partner, if that can be reached, why what is on disk cannot be used. Run must be called, and
// closes what New opened. Every error names the cause and the mend.
func New(cfg Config) (*Partner, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	id, err := host.ParseSessionID(cfg.Session)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	p := &Partner{cfg: cfg, id: id, clients: map[mirror.Server]*endpoint.Client{}, timings: metrics.NewTimings(id.String(), cfg.Self)}
	p.notes.news = make(chan struct{}, 1)
	if err := p.openEndpoint(); err != nil {
		p.close()
		return nil, err
	}
	if err := p.open(); err != nil {
		if errors.Is(err, syscall.ENOSPC) {
			err = fmt.Errorf("%w; make room for %s", err, p.cfg.Dir)
		}
		p.farewell(err)
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *Partner) open() error {
	if err := statefile.MakeDir(p.cfg.Dir); err != nil {
		return fmt.Errorf("%w; let the user that runs this program make it, or choose another Dir", err)
	}
	var err error
	if p.state, err = statefile.Open(filepath.Join(p.cfg.Dir, "state"), p.id); err != nil {
		return err
	}
	if p.journal, err = openJournal(filepath.Join(p.cfg.Dir, "journal.jsonl")); err != nil {
		return err
	}
	if err := p.openLog(); err != nil {
		return err
	}
	p.data = newDataPath(p)
	p.host, err = host.New(host.Config{
		Session: p.id, Self: p.cfg.Self, Store: p.state, Timing: p.cfg.Timing, Options: p.cfg.Options,
		Peers: p.clients, Data: host.DataPath{Halt: p.data.halt, Duty: p.data.want},
		Journal: p.journal.write, Logger: p.cfg.Logger,
	})
	if err != nil {
		return err
	}
	p.data.report = p.host.Tell
	return p.endpoint.Register(endpoint.SessionConfig{
		Self: p.identity(p.cfg.Self), Credentials: p.cfg.Credentials, Allow: p.allow(), Handler: p.receive,
		Streams: p.streams(), Stream: p.accept,
	})
}

func (p *Partner) openEndpoint() error {
	var err error
	p.endpoint, err = endpoint.NewServer(endpoint.ServerConfig{
		Domain: p.cfg.Domain, Plaintext: p.cfg.Credentials.Plaintext, Logger: p.cfg.Logger,
	})
	if err != nil {
		return err
	}
	for server, addr := range map[mirror.Server]string{p.cfg.Self.Other(): p.cfg.Peer, mirror.Witness: p.cfg.Witness} {
		if addr == "" {
			continue
		}
		client, err := endpoint.NewClient(endpoint.ClientConfig{
			Self: p.identity(p.cfg.Self), Peer: p.identity(server), Domain: p.cfg.Domain, Addr: addr,
			Credentials: p.cfg.Credentials, Timeout: 2 * time.Second, Logger: p.cfg.Logger,
		})
		if err != nil {
			return err
		}
		p.clients[server] = client
	}
	return nil
}

func (p *Partner) identity(s mirror.Server) endpoint.Identity {
	return endpoint.Identity{Session: p.id.String(), Role: host.Role(s)}
}

func (p *Partner) close() {
	for _, c := range p.clients {
		c.Close()
	}
	if p.queue != nil {
		p.queue.Close()
	}
	if p.journal != nil {
		p.journal.close()
	}
	if p.state != nil {
		p.state.Close()
	}
	if p.host != nil {
		p.host.Abandon()
	}
}

// Handler is the endpoint, for a service that mounts it at endpoint.PathPrefix in a server of its own; Listen is then empty.
// With TLS, that server's configuration needs ConfigForClient.
func (p *Partner) Handler() http.Handler { return p.endpoint }

// Run runs the partner until ctx ends, which is an orderly stop, or until it cannot go on. The database stays as it is:
// a principal's commits wait for the mirror as before. Run may be called once.
func (p *Partner) Run(ctx context.Context) error {
	defer p.close()
	err := p.run(ctx)
	if err != nil && ctx.Err() == nil {
		p.farewell(err)
	}
	return err
}

func (p *Partner) run(ctx context.Context) error {
	database, err := p.cfg.Backend.Open(ctx, p.env())
	if err != nil {
		return p.unreachable(err)
	}
	defer database.Close()
	p.data.database = database
	defer p.accepting.begin(database)()
	if err := p.enter(ctx); err != nil {
		return err
	}
	if err := p.preflight(ctx); err != nil {
		return err
	}
	if err := p.checkLog(ctx); err != nil {
		return err
	}
	if p.host.Status().Role == mirror.RoleMirror { // nothing is asked of anybody before
		if err := p.data.checkHandover(ctx); err != nil {
			return err
		}
	}
	p.running.Store(true)
	return p.runAll(ctx)
}

// enter makes sure that the database is this partner's, before anything is done to it.
func (p *Partner) enter(ctx context.Context) error {
	if p.host.Status().Role == mirror.RoleNone {
		return p.forgetPlace()
	}
	id, err := p.data.database.Identity(ctx)
	if err != nil {
		return err
	}
	p.data.setPlace(id)
	return p.belong(id)
}

// env is what the backend is given.
func (p *Partner) env() backend.Env {
	return backend.Env{
		Session: p.id.String(), Self: p.cfg.Self, Dir: filepath.Join(p.cfg.Dir, backendDir), Logger: p.cfg.Logger, Dial: p.dial,
		Principal: p.principal,
		LogBudget: p.cfg.Limits.LogBudget, CopyWorkers: p.cfg.Limits.CopyWorkers, SafetyOff: p.cfg.Safety == mirror.SafetyOff,
	}
}

// principal is where the other partner is while that is principal, as far as this one knows.
func (p *Partner) principal() string {
	if p.host.Status().Record.Principal != p.cfg.Self.Other() {
		return ""
	}
	return p.cfg.Peer
}

// backendDir is the name in Config.Dir of the directory that is the backend's own.
const backendDir = "backend"

// short is the part of the session that is in the names on the server.
func (p *Partner) short() string { return p.env().Short() }

// runAll runs the endpoint, the session and the data path; when one ends, all do.
func (p *Partner) runAll(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	dataCtx, stopData := context.WithCancel(context.WithoutCancel(ctx))
	defer stopData()

	var endpointDone, dataDone sync.WaitGroup
	if p.cfg.Listen != "" {
		endpointDone.Go(func() {
			if err := p.endpoint.ListenAndServe(dataCtx, p.cfg.Listen); err != nil && dataCtx.Err() == nil {
				cancel(err)
			}
		})
	}
	dataDone.Go(func() { p.data.run(dataCtx) })
	dataDone.Go(func() { p.exchange(dataCtx) })
	dataDone.Go(func() { p.survey(dataCtx) })
	if p.cfg.Establish {
		dataDone.Go(func() { p.establish(dataCtx) })
	}
	err := p.host.Run(ctx)
	if err != nil {
		p.data.awaitFence(fenceTimeout)
	}
	stopData()
	dataDone.Wait()
	endpointDone.Wait()
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	return err
}

// fenceTimeout is how long a session that broke down may take to close its database.
const fenceTimeout = 5 * time.Second

// Status is what a partner shows.
type Status struct {
	mirror.Status
	Tick     time.Duration // the unit of the ticks in it
	Session  string
	Gate     mirror.Gate // as proven; zero: it moves, or is not known
	Waiting  string      // the name that commits wait for, as last set; empty: none
	Stream   backend.StreamStatus
	Redo     backend.Progress
	Queue    int64             // bytes hardened and not redone
	Retained int64             // bytes of log that the principal keeps for the mirror
	Findings []backend.Finding // of either partner
	Trouble  string            // what either partner fails at, and why; empty: nothing
	Links    [4]string         // by server: why the latest message to it was not delivered; empty: it was
}

// Status returns the present status. It does not block.
func (p *Partner) Status() Status {
	st := Status{Status: p.host.Status(), Tick: p.host.Tick(), Session: p.id.String(), Queue: p.queue.Bytes()}
	p.data.show(&st)
	st.Trouble = p.data.troubles(true)
	p.showPeers(&st)
	return st
}

// Explain lists the conditions for an automatic failover, for people.
func (p *Partner) Explain(ctx context.Context) ([]mirror.Condition, error) {
	return p.host.Explain(ctx)
}

// Journal returns the latest entries of the journal, oldest first.
func (p *Partner) Journal() []host.Line { return p.journal.latest() }
