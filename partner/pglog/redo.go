package pglog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// RedoConfig says where the log is redone and by how much at a time.
type RedoConfig struct {
	// DSN leads to the local database. Its role needs DML on the mirrored tables and the right to set
	// session_replication_role: superuser, or GRANT SET ON PARAMETER.
	DSN Secret
	// Session names the row of the redone position.
	Session string

	// The transactions of the principal that go into one transaction here are bounded by their number (default 10000),
	// by their row changes (default 20000) and by their bytes in the log (default 16 MiB), whichever is reached first.
	// A transaction beyond the last two bounds goes alone, in pieces of that size.
	BatchTransactions int
	BatchRows         int
	BatchBytes        int64

	// SpoolBytes bounds the memory for transactions that are not yet committed. What does not fit is read from the log
	// again at its commit. Default 32 MiB.
	SpoolBytes int64

	// OnProgress, if set, is called after each commit and when redo cannot go on for now. It runs in the goroutine of
	// Run and must not block.
	OnProgress func(Progress)
}

func (c RedoConfig) withDefaults() RedoConfig {
	if c.BatchTransactions == 0 {
		c.BatchTransactions = 10000
	}
	if c.BatchRows == 0 {
		c.BatchRows = 20000
	}
	if c.BatchBytes == 0 {
		c.BatchBytes = 16 << 20
	}
	if c.SpoolBytes == 0 {
		c.SpoolBytes = 32 << 20
	}
	return c
}

func (c RedoConfig) validate() error {
	switch {
	case c.DSN == "":
		return errors.New("redo: DSN is empty")
	case c.Session == "":
		return errors.New("redo: Session is empty")
	case c.BatchTransactions < 1 || c.BatchRows < 1 || c.BatchBytes < 1 || c.SpoolBytes < 1:
		return errors.New("redo: BatchTransactions, BatchRows, BatchBytes and SpoolBytes must be positive")
	}
	return nil
}

// Queue and Progress are those of all backends.
type (
	Queue    = backend.Queue
	Progress = backend.Progress
)

// Redo redoes the hardened log in the local database: each transaction of the principal exactly once, in order, many in
// one transaction here where that is possible. The redone position is a row in schema dbmirror that changes in the same
// transaction. The methods may be called from any goroutine; Run runs once at a time.
type Redo struct {
	cfg     RedoConfig
	backend uint32 // of Run: the server's process of the last connection
	mu      struct {
		sync.Mutex
		running  bool
		progress Progress
		changed  chan struct{}   // closed at the next change of progress or end of Run
		failure  error           // of the last Run, nil while one runs
		drain    mirror.Position // somebody waits until this is on disk
		wake     context.CancelFunc
	}
}

// NewRedo returns a Redo that has not started. It returns an error that names the field of a wrong configuration.
func NewRedo(cfg RedoConfig) (*Redo, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	r := &Redo{cfg: cfg}
	r.mu.changed = make(chan struct{})
	return r, nil
}

// Run redoes the log until the context ends, and then returns its cause. When the connection is lost or the server
// cannot take part for now, it begins again after a pause, from the position in the database. It returns a *RedoError
// for a transaction that cannot be redone, ErrRedoneElsewhere, ErrNoProgress, a *GapError (GapTrimmed) when the log does
// not go back to where the database is, the errors of the queue, and any other error that trying again cannot mend.
// After that it may be called again.
func (r *Redo) Run(ctx context.Context, queue Queue) error {
	r.mu.Lock()
	if r.mu.running {
		r.mu.Unlock()
		return errors.New("redo: Run is running")
	}
	r.mu.running, r.mu.failure = true, nil
	r.mu.progress.Poison = mirror.Position{}
	r.mu.Unlock()
	err := r.run(ctx, queue)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.running, r.mu.failure = false, err
	var redo *RedoError
	if errors.As(err, &redo) {
		r.mu.progress.Poison = redo.Position
	}
	r.changeLocked()
	return err
}

const (
	pauseFirst = 100 * time.Millisecond
	pauseMost  = 5 * time.Second
)

func (r *Redo) run(ctx context.Context, queue Queue) error {
	pause := pauseFirst
	for {
		before := r.Progress().Redone
		err := r.attempt(ctx, queue)
		if ctx.Err() != nil || !transient(err) {
			return err
		}
		p := r.Progress()
		if p.Redone != before {
			pause = pauseFirst
		}
		p.Trouble = err
		r.publish(p)
		timer := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		pause = min(2*pause, pauseMost)
	}
}

// attempt redoes over one connection.
func (r *Redo) attempt(ctx context.Context, queue Queue) error {
	s, err := r.openSession(ctx, queue)
	if err != nil {
		return err
	}
	defer hangUp(s.conn)
	r.backend = s.conn.PgConn().PID()
	return s.pipe.lost(s.run(ctx))
}

// Progress returns how far redo is.
func (r *Redo) Progress() Progress {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.progress
}

// Drain waits until everything up to the position is redone and on the disk of the database, as it must be before that
// database serves. It returns the error of Run if that ends before or has ended, and the cause if the context does. It
// waits for Run if that was never called.
func (r *Redo) Drain(ctx context.Context, to mirror.Position) error {
	for {
		r.mu.Lock()
		changed, failure, flushed := r.mu.changed, r.mu.failure, r.mu.progress.Flushed
		if r.mu.drain.Compare(to) < 0 {
			r.mu.drain = to
		}
		if r.mu.wake != nil && flushed.Compare(to) < 0 {
			r.mu.wake()
		}
		r.mu.Unlock()
		if flushed.Compare(to) >= 0 {
			return nil
		}
		if failure != nil {
			return fmt.Errorf("drain redo to %s: redo has stopped: %w", to, failure)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("drain redo to %s: %w", to, context.Cause(ctx))
		}
	}
}

// Skip orders that the transaction whose end is given, at which redo has stopped with a *RedoError, be left out by the
// next Run. The order is kept in the database and on its disk when it returns nil. From then on the two databases are not
// equal, which Progress.Skipped shows. It returns ErrNotPoison for any other position.
func (r *Redo) Skip(ctx context.Context, end mirror.Position) error {
	if poison := r.Progress().Poison; end != poison || end == (mirror.Position{}) {
		return fmt.Errorf("skip transaction at %s: %w", end, ErrNotPoison)
	}
	cfg, err := parseDSN(r.cfg.DSN)
	if err != nil {
		return err
	}
	for name, value := range redoSettings(r.cfg.Session) {
		cfg.RuntimeParams[name] = value
	}
	cfg.RuntimeParams["synchronous_commit"] = "local"
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("skip transaction at %s: connect: %w", end, err)
	}
	defer hangUp(conn)
	tag, err := conn.Exec(ctx, askSkipSQL, r.cfg.Session, int64(end.Seq), end.LSN.String())
	if err != nil {
		return fmt.Errorf("skip transaction at %s: %w", end, err)
	}
	if tag.RowsAffected() != 1 {
		return fmt.Errorf("skip transaction at %s: %w", end, ErrNotPoison)
	}
	return nil
}

// sleep notes how to wake the session that is about to wait, and tells whether somebody waits for more than is flushed.
func (r *Redo) sleep(wake context.CancelFunc, flushed mirror.Position) (wanted bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.wake = wake
	return r.mu.drain.Compare(flushed) > 0
}

func (r *Redo) awake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.wake = nil
}

// count adds to the counters; what it adds is published with the next position.
func (r *Redo) count(transactions, bytes, rows, batches uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &r.mu.progress
	p.Transactions += transactions
	p.Bytes += bytes
	p.Rows += rows
	p.Batches += batches
}

func (r *Redo) publish(p Progress) {
	r.mu.Lock()
	r.mu.progress = p
	r.changeLocked()
	r.mu.Unlock()
	if r.cfg.OnProgress != nil {
		r.cfg.OnProgress(p)
	}
}

func (r *Redo) changeLocked() {
	close(r.mu.changed)
	r.mu.changed = make(chan struct{})
}
