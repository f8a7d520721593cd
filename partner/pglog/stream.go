package pglog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// StreamConfig says what a Stream reads.
type StreamConfig struct {
	// DSN is the principal's database as a PostgreSQL connection string, which leads to one server.
	DSN Secret
	// Slot is the replication slot, which must exist: 1 to 63 of a-z, 0-9 and _.
	Slot string
	// Publication holds the mirrored tables, and must be older than the slot.
	Publication string
	// ApplicationName is how synchronous_standby_names of the principal's server names this mirror: 1 to 63 characters of
	// printable ASCII. The server compares it without regard to case.
	ApplicationName string

	// Seq is the role sequence in which that server is principal. The log must end in it.
	Seq mirror.RoleSeq

	// SystemID, Timeline and Database are the server and database that the session was made with; any other is refused
	// with a GapError. Zero accepts what is found, see Stream.Identity.
	SystemID uint64
	Timeline uint32
	Database uint32 // OID

	// StatusEvery is how often the position is reported though it did not change: servers of versions 16 to 18 can miss
	// a wake-up, and this is what ends the wait of all commits then. Default 50 ms, at most 1 s.
	StatusEvery time.Duration
	// Silence is how long either side goes on without hearing from the other. Half of it before, the server is asked for a
	// sign of life. Default 30 s, at least 20 times StatusEvery.
	Silence time.Duration

	// Waited says whether commits may be waiting for what is hardened here: see backend.Source. Nil: they may.
	Waited func() bool

	// Dial connects to the server; nil uses the network.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

func (c StreamConfig) withDefaults() StreamConfig {
	if c.StatusEvery == 0 {
		c.StatusEvery = 50 * time.Millisecond
	}
	if c.Silence == 0 {
		c.Silence = 30 * time.Second
	}
	if c.Waited == nil {
		c.Waited = func() bool { return true }
	}
	return c
}

func (c StreamConfig) validate() error {
	switch {
	case !validSlot(c.Slot):
		return fmt.Errorf("stream: Slot %q is not 1 to 63 of a-z, 0-9 and _", c.Slot)
	case c.Publication == "" || len(c.Publication) > 63 || strings.ContainsRune(c.Publication, 0):
		return fmt.Errorf("stream: Publication %q is not a name of 1 to 63 bytes", c.Publication)
	case !validApplicationName(c.ApplicationName):
		return fmt.Errorf("stream: ApplicationName %q is not 1 to 63 characters of printable ASCII", c.ApplicationName)
	case c.Seq == 0:
		return errors.New("stream: Seq is zero")
	case c.StatusEvery <= 0 || c.StatusEvery > time.Second:
		return fmt.Errorf("stream: StatusEvery %v is not within 1 s", c.StatusEvery)
	case c.Silence < 20*c.StatusEvery:
		return fmt.Errorf("stream: Silence %v is less than 20 times StatusEvery %v", c.Silence, c.StatusEvery)
	}
	return nil
}

func validSlot(name string) bool {
	return len(name) >= 1 && len(name) <= 63 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

func validApplicationName(name string) bool {
	for i := range len(name) {
		if name[i] < ' ' || name[i] > '~' {
			return false
		}
	}
	return len(name) >= 1 && len(name) <= 63
}

// Log is that of all backends; *redo.Queue is one.
type Log = backend.Log

var (
	// ErrStreamEnded is returned when the server ended the stream in order, as it does when it is stopped. Everything it
	// had to send was received.
	ErrStreamEnded = errors.New("the principal's server has ended the stream: it is being stopped")
	// ErrSilent is returned when nothing was heard from the server for StreamConfig.Silence though it was asked.
	ErrSilent = errors.New("the principal's server is silent: check it and the network between")
	// ErrInRecovery is returned when the server is in recovery: it is a physical standby, or has not finished starting.
	ErrInRecovery = errors.New("the principal's server is in recovery: connect to the server that can be written")
)

// SlotActiveError is returned when another connection reads the slot: the one before ours, which the server has not
// yet given up, or a stranger's. Trying again helps against the first; ending that process on the server against both.
type SlotActiveError struct {
	Slot string
	PID  int // of the server process; 0 when the server does not say
}

func (e *SlotActiveError) Error() string {
	return fmt.Sprintf("slot %s is read by process %d of the principal's server: try again, or end that process", e.Slot, e.PID)
}

// ProtocolError is returned when the server sends what it never should, so that going on could lose log. Nothing after
// it is hardened.
type ProtocolError struct{ What string }

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("read the principal's log: %s: suspend and report this", e.What)
}

// Stream reads the log of the principal's server into the hardened log of this mirror and reports what is hardened, by
// which the commits there are released. It owns no data; what it may continue from is the end of the log.
type Stream struct {
	cfg      StreamConfig
	connect  *pgconn.Config
	running  atomic.Bool
	gauges   streamGauges
	identity atomic.Pointer[Identity]
}

// NewStream checks the configuration. Nothing is connected before Run.
func NewStream(cfg StreamConfig) (*Stream, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	connect, err := cfg.connConfig()
	if err != nil {
		return nil, err
	}
	return &Stream{cfg: cfg, connect: connect, gauges: streamGauges{began: time.Now()}}, nil
}

// Run connects, makes sure that the server can continue exactly where the log ends, and streams until ctx ends, when it
// returns its cause, or until an error. It never creates, moves or drops a slot. It may be called again after it has
// returned; nobody else may append to the log meanwhile.
//
// A *GapError or *ProtocolError says that trying again does not help; a *SlotActiveError, ErrStreamEnded, ErrSilent,
// ErrInRecovery, an error of the network or a *pgconn.PgError, that it may.
func (s *Stream) Run(ctx context.Context, log Log) error {
	if !s.running.CompareAndSwap(false, true) {
		return errors.New("stream: Run is already running")
	}
	defer s.running.Store(false)
	// A stream that ended between append and harden has left whole transactions in the log, which must not come again.
	start, err := log.Harden()
	if err != nil {
		return fmt.Errorf("harden log: %w", err)
	}
	conn, err := s.open(ctx, start)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })()
	l := newReadLoop(s, log, conn, start.LSN)
	defer s.gauges.streaming.Store(false)
	return l.run(ctx)
}

// Status returns what is known of the stream now. Any goroutine may call it.
func (s *Stream) Status() StreamStatus { return s.gauges.snapshot() }

// Identity returns the server and database that were found when the stream last connected, and whether it ever did.
func (s *Stream) Identity() (Identity, bool) {
	if id := s.identity.Load(); id != nil {
		return *id, true
	}
	return Identity{}, false
}
