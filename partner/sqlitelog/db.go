package sqlitelog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/f19126b3/dbmirror/mirror"
)

// Config says which database and how it is used. Only Path must be given.
type Config struct {
	// Path is the file of the database. It is made if it is missing; its directory must exist.
	Path string
	// Prepare is called on each new connection, for functions and collations that the schema uses, of which both partners
	// need the same, and for limits such as PRAGMA max_page_count. It cannot write.
	Prepare func(*sqlite.Conn) error
	// ForeignKeys makes SQLite enforce them, which it does not by itself.
	ForeignKeys bool
	// Readers is how many Reads can run at a time, 1 to 64. Default 4.
	Readers int
	// MaxTransaction is the most that a transaction may change, in bytes of rows before and after, at least 64 KiB and at most 1 GiB. It is
	// kept in memory on both sides. Default 256 MiB.
	MaxTransaction int64
	// PeerURL is where clients reach the program of the other partner, such as https://b.example.org/app. Whoever is not let
	// in here is told of it while the principal is there. Default: the address of the other partner's endpoint.
	PeerURL string
	// BusyTimeout is how long a lock of another process on the file is waited for. Default 5 s, at most a minute.
	BusyTimeout time.Duration
}

func (c Config) withDefaults() Config {
	if c.Readers == 0 {
		c.Readers = 4
	}
	if c.MaxTransaction == 0 {
		c.MaxTransaction = 256 << 20
	}
	if c.BusyTimeout == 0 {
		c.BusyTimeout = 5 * time.Second
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.Path == "":
		return errors.New("config: Path is empty: give the file of the database")
	case c.Readers < 1 || c.Readers > 64:
		return fmt.Errorf("config: Readers is %d: give 1 to 64", c.Readers)
	case c.MaxTransaction < 64<<10 || c.MaxTransaction > 1<<30:
		return fmt.Errorf("config: MaxTransaction is %d: give 64 KiB to 1 GiB", c.MaxTransaction)
	case c.BusyTimeout < time.Millisecond || c.BusyTimeout > time.Minute:
		return fmt.Errorf("config: BusyTimeout is %s: give 1ms to 1m", c.BusyTimeout)
	}
	return nil
}

// DB is one database in this process. Its methods may be called from any goroutine. Write and Read are for clients, the
// rest is for the partner.
type DB struct {
	cfg     Config
	opened  time.Time
	turn    chan struct{} // holds one token: the right to use writer, and to replace it
	writer  *writer       // nil while the file is being replaced
	readers chan *reader  // idle, nil for one that is still to be opened
	files   sync.RWMutex  // held to read while a connection of inspect is open, to write while the file is replaced

	mu struct {
		sync.Mutex
		closed bool
		id     uint64
		fault  error // nothing is written any more
		gate   mirror.Gate
		gated  bool               // it is written down that a partner moves the gate
		calls  map[*call]struct{} // of clients, under way
		left   chan struct{}      // closed when a call ends; nil while nobody asks
		end    mirror.LSN         // of the log, on disk
		grown  chan struct{}      // closed when the log has grown

		principal func() string // where it is, of backend.Env; nil while no partner runs

		commits commits
		slots   map[string]*slot
		trimmed mirror.LSN // the log holds everything that ends beyond it
	}
}

// Open opens the database, or makes a new one. It finishes what a crash has broken off. A database that no session has
// had yet is open to clients; one of a session is closed until its partner says otherwise.
func Open(cfg Config) (*DB, error) {
	if err := cfg.validateDefaults(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	db := &DB{cfg: cfg, turn: make(chan struct{}, 1), readers: make(chan *reader, cfg.Readers)}
	db.mu.calls, db.mu.grown, db.mu.slots = map[*call]struct{}{}, make(chan struct{}), map[string]*slot{}
	db.mu.commits.changed = make(chan struct{})
	for range cfg.Readers {
		db.readers <- nil
	}
	if info, err := os.Stat(cfg.Path); err == nil && info.IsDir() {
		return nil, &FileError{cfg.Path, "it is a directory", "give the file of the database", nil}
	}
	if err := finishReplacing(cfg.Path); err != nil {
		return nil, err
	}
	if err := settleJournal(cfg.Path); err != nil {
		return nil, err
	}
	if err := db.start(); err != nil {
		return nil, fileError(cfg.Path, err)
	}
	db.turn <- struct{}{}
	return db, nil
}

func (c Config) validateDefaults() error { return c.withDefaults().validate() }

// start opens the writer and reads what is kept in the database. The caller has the turn.
func (db *DB) start() error {
	w, err := openWriter(db.cfg, false)
	if err != nil {
		return err
	}
	if err := db.load(w); err != nil {
		return errors.Join(err, w.close())
	}
	db.writer = w
	return nil
}

// load takes over what the database says.
func (db *DB) load(w *writer) error {
	kept, err := w.prepareFile()
	if err != nil {
		return err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	db.opened = time.Now()
	db.mu.id, db.mu.end, db.mu.trimmed, db.mu.slots = kept.id, kept.end, kept.trimmed, kept.slots
	db.mu.commits.force(kept.wait)
	db.mu.commits.afterwards = kept.wait
	db.mu.gate, db.mu.gated = mirror.GateOpen, kept.gated
	if kept.gated {
		db.mu.gate = mirror.GateClosed
	}
	return nil
}

// Close ends what clients do, waits for it, and closes the file.
func (db *DB) Close() error {
	db.mu.Lock()
	if db.mu.closed {
		db.mu.Unlock()
		return nil
	}
	db.mu.closed = true
	db.revokeLocked(func(*call) bool { return true }, ErrClosed)
	db.wakeLocked()
	db.mu.Unlock()
	<-db.turn
	err := db.closeConnections(context.Background())
	db.turn <- struct{}{}
	return err
}

// closeConnections closes all of them; the caller has the turn. Readers are waited for.
func (db *DB) closeConnections(ctx context.Context) error {
	var errs []error
	defer func() {
		for range errs {
			db.readers <- nil // to be opened again; also when the rest could not be waited for
		}
	}()
	for range db.cfg.Readers {
		select {
		case r := <-db.readers:
			errs = append(errs, r.close())
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	err := errors.Join(errs...)
	if db.writer != nil {
		err = errors.Join(err, db.writer.close())
		db.writer = nil
	}
	return err
}

// take waits for the turn of the writer.
func (db *DB) take(ctx context.Context) (*writer, error) {
	select {
	case <-db.turn:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if db.writer == nil {
		db.turn <- struct{}{}
		return nil, ErrClosed
	}
	return db.writer, nil
}

func (db *DB) give() { db.turn <- struct{}{} }

// own changes, in a transaction of its own, what this package keeps in the database.
func (db *DB) own(ctx context.Context, f func(*sqlite.Conn) error) error {
	w, err := db.take(ctx)
	if err != nil {
		return err
	}
	defer db.give()
	return db.ownTurn(w, f)
}

func (db *DB) ownTurn(w *writer, f func(*sqlite.Conn) error) error {
	if err := db.faulty(); err != nil {
		return err
	}
	return db.broken(w.transact(captureOwn, func() error { return f(w.conn) }))
}

// faulty returns why nothing may be written any more.
func (db *DB) faulty() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.mu.closed {
		return ErrClosed
	}
	return db.mu.fault
}

// broken remembers an error after which nothing must be written: what is on disk is unknown, or not in the log.
func (db *DB) broken(err error) error {
	if err == nil {
		return nil
	}
	err = fileError(db.cfg.Path, err)
	var foreign *ForeignWriterError
	if errors.As(err, &foreign) || sqlite.ErrCode(err).ToPrimary() == sqlite.ResultIOErr {
		db.mu.Lock()
		defer db.mu.Unlock()
		if db.mu.fault == nil {
			db.mu.fault = err
		}
		db.wakeLocked()
	}
	return err
}

// wakeLocked wakes everybody who waits for the log to grow, or for the mirror.
func (db *DB) wakeLocked() {
	close(db.mu.grown)
	db.mu.grown = make(chan struct{})
	db.mu.commits.wake()
}
