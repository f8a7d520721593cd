package witness

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
	"github.com/f19126b3/dbmirror/mirror/host/statefile"
)

// Witness is the witness of any number of sessions. Its methods may be called from any goroutine.
type Witness struct {
	cfg      Config
	endpoint *endpoint.Server
	order    []*session // as configured
	sessions map[host.SessionID]*session
}

// New makes a witness: it checks the configuration and opens the state files. It connects to nothing. Run must be
// called, and closes what New opened. Errors are about the configuration or Dir, name the cause and the mend, and wrap
// ErrConfig where Config is wrong. A session whose state is damaged is no error here; see Sessions.
func New(cfg Config) (*Witness, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := statefile.MakeDir(cfg.Dir); err != nil {
		return nil, err
	}
	server, err := endpoint.NewServer(endpoint.ServerConfig{
		Domain: cfg.Domain, Plaintext: cfg.Sessions[0].Credentials.Plaintext, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	w := &Witness{cfg: cfg, endpoint: server, sessions: map[host.SessionID]*session{}}
	for _, s := range cfg.Sessions {
		if err := w.add(s); err != nil {
			return nil, errors.Join(fmt.Errorf("%w: session %s: %w", ErrConfig, s.ID, err), w.close())
		}
	}
	return w, nil
}

func (w *Witness) add(cfg Session) error {
	s, err := newSession(w.cfg, cfg, w.endpoint)
	if err != nil {
		return err
	}
	w.order = append(w.order, s)
	w.sessions[s.id] = s
	return nil
}

func (w *Witness) close() error {
	var all error
	for _, s := range w.order {
		all = errors.Join(all, s.close())
	}
	return all
}

// Handler is the endpoint, for a service that mounts it at endpoint.PathPrefix in a server of its own; Listen is then
// empty. With TLS, that server's configuration needs ConfigForClient.
func (w *Witness) Handler() http.Handler { return w.endpoint }

// ConfigForClient is the tls.Config.GetConfigForClient of a service that mounts Handler.
func (w *Witness) ConfigForClient(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	return w.endpoint.ConfigForClient(hello)
}

// Run runs the sessions until ctx ends, which is an orderly stop: the partners are told, and do not take it for a
// failure. It returns earlier, with an error, when it can not listen or when every session is left out. Run may be
// called once.
func (w *Witness) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, w.close()) }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// The endpoint outlives the sessions: what they say good-bye with may still be answered.
	listening, stopListening := context.WithCancel(context.WithoutCancel(ctx))
	defer stopListening()
	var listener, running sync.WaitGroup
	if w.cfg.Listen != "" {
		listener.Go(func() {
			if err := w.endpoint.ListenAndServe(listening, w.cfg.Listen); err != nil {
				cancel(err)
			}
		})
	}
	for _, s := range w.order {
		if s.host != nil {
			running.Go(func() { s.run(ctx) })
		}
	}
	running.Wait()
	err = w.ended(ctx)
	stopListening()
	listener.Wait()
	return err
}

// ended says why no session runs any more: nil when the caller's context ended.
func (w *Witness) ended(ctx context.Context) error {
	switch cause := context.Cause(ctx); {
	case cause == nil:
		var all error
		for _, s := range w.order {
			all = errors.Join(all, s.err())
		}
		return fmt.Errorf("no session is left: %w", all)
	case cause == ctx.Err(), errors.Is(cause, context.Canceled), errors.Is(cause, context.DeadlineExceeded):
		return nil
	default:
		return cause
	}
}

// Report is what a Witness shows of one session.
type Report struct {
	ID       string        // 32 hexadecimal digits
	Err      error         // why the session is left out; nil: it is served
	Status   mirror.Status // as last shown; zero when the state could not be read
	Tick     time.Duration // the unit of the ticks in Status
	Counts   host.Counts
	Endpoint endpoint.Stats // what was received
}

// Sessions returns a report of each session, in the order of the Config. It does not block.
func (w *Witness) Sessions() []Report {
	reports := make([]Report, len(w.order))
	for i, s := range w.order {
		r := Report{ID: s.id.String(), Err: s.err()}
		if s.host != nil {
			r.Status, r.Tick, r.Counts = s.host.Status(), s.host.Tick(), s.host.Counts()
		}
		r.Endpoint, _ = w.endpoint.Stats(r.ID)
		reports[i] = r
	}
	return reports
}

// Status returns what one session shows, and whether it is served here.
func (w *Witness) Status(id string) (mirror.Status, bool) {
	parsed, err := host.ParseSessionID(id)
	if err != nil {
		return mirror.Status{}, false
	}
	s := w.sessions[parsed]
	if s == nil || s.host == nil || s.err() != nil {
		return mirror.Status{}, false
	}
	return s.host.Status(), true
}
