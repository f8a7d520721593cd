package backend

import (
	"context"
	"errors"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// Follower is what a mirror runs: one stream that hardens the principal's log, and redo of what is hardened. They share
// the hardened log and nothing else.
type Follower interface {
	// Follow prepares a stream. It connects to nothing.
	Follow(from Source) (Stream, error)
	// NewRedo prepares redo in this database. It connects to nothing.
	NewRedo() (Redo, error)
	// Progress is the redone position: everything up to there is in this database. It returns ErrNoProgress when there is
	// none.
	Progress(ctx context.Context) (mirror.Position, error)
	// SetProgress says that everything up to a position is in this database. It may go back. Redo is not running.
	SetProgress(ctx context.Context, at mirror.Position) error
}

// ErrNoProgress is returned when a database has no redone position of the session: nothing was ever copied to it. Its
// reason is mirror.ReasonIdentity.
var ErrNoProgress = Because(mirror.ReasonIdentity, errors.New("no redone position for this session: take a baseline first"))

// Source says what a Stream reads.
type Source struct {
	Reign Reign  // the principal's, as its Peer gave it
	Name  string // of this mirror: its reports release the commits that wait for this name
	// Silence is how long either side goes on without hearing from the other, from one second.
	Silence time.Duration
	// Waited says whether commits at the principal may be waiting for what is hardened here; where none does, log may gather
	// for some milliseconds. Nil: they may. It does not block.
	Waited func() bool
}

// Log is the hardened log as a stream writes it. One goroutine may use it.
type Log interface {
	// Append takes a copy of the next record. The rules are those of redo.Queue: a stream begins with a redo.KindAttach
	// where the log ends; each transaction ends with a redo.KindCommit; redo.ErrFull says that redo must catch up before
	// the same record can be appended.
	Append(redo.Record) error
	// Harden puts all that was appended on disk and returns the end of the last whole transaction or mark. Only that may
	// be reported to the principal.
	Harden() (mirror.Position, error)
}

// Stream reads the principal's log into the hardened log, and reports what is hardened, by which commits there return.
type Stream interface {
	// Run connects, makes sure that the principal can go on exactly where the log ends, and streams until ctx ends or an
	// error. When it has returned nothing is hardened or reported any more. It never reports what is not on disk, nor the
	// middle of a transaction. It may be called again.
	//
	// It refuses whatever would leave a gap with an error whose reason is mirror.ReasonLogGap, and another database than
	// the Reign's with mirror.ReasonIdentity, before anything is appended. After any other error it is tried again.
	Run(ctx context.Context, log Log) error
	// Status returns what is known now. Any goroutine may call it.
	Status() StreamStatus
}

// StreamStatus is what is known of a stream at one moment. Its positions are of the principal's log.
type StreamStatus struct {
	// Streaming is true while the principal's database sends; the rest is kept when it ends.
	Streaming bool
	// Stalled is true while the redo queue is full and nothing is read: commits on the principal wait.
	Stalled bool
	// Received is the highest position seen in the log that arrived; Hardened is what is on disk here and is reported;
	// ServerEnd is where the principal has said that its log ends.
	Received, Hardened, ServerEnd mirror.LSN
	// LastByte is when the principal's database was last heard, with a monotonic reading: the zero time if never. It is
	// the sign of life of a database whose partner is silent: a stream that hears nothing asks in time, so that something
	// comes within Source.Silence.
	LastByte time.Time
	// Bytes counts what was received since the stream was made.
	Bytes uint64
}

// Queue is the hardened log as redo reads it; *redo.Queue is one.
type Queue interface {
	First() (mirror.Position, error)
	NewReader(from redo.Offset) *redo.Reader
	Trim(before redo.Offset) error
}

// Redo redoes the hardened log in this database: each transaction of the principal exactly once, in order. The redone
// position changes in the same transaction as the data. The methods may be called from any goroutine; Run runs once at a
// time.
type Redo interface {
	// Run redoes until ctx ends, or until what trying again cannot mend: an error whose reason is
	// mirror.ReasonRedoError for a transaction that cannot be redone (everything before it is redone, and nothing of it),
	// ErrNoProgress, mirror.ReasonLogGap for a log that does not go back to the redone position, or an error of the queue.
	// What it has on the database's disk it gives back by Queue.Trim. It works while the gate is closed or read-only.
	Run(ctx context.Context, queue Queue) error
	// Drain waits until everything up to a position is redone and on the database's disk. It returns the error of Run if
	// that ends before, and when ctx does.
	Drain(ctx context.Context, to mirror.Position) error
	// Progress returns how far redo is.
	Progress() Progress
	// Skip orders that the transaction at which Run has stopped, Progress.Poison, is left out by the next Run, also by that
	// of another Redo and after a restart. The order is on the database's disk when it returns nil. What is left out is gone
	// for good: from then on the databases are not equal, which Progress.Skipped says. It returns ErrNotPoison for any other
	// position, and changes nothing.
	Skip(ctx context.Context, poison mirror.Position) error
}

// ErrNotPoison is returned when a transaction is to be skipped at which redo has not stopped.
var ErrNotPoison = errors.New("redo has not stopped at that transaction: give the position that its error names")

// Progress is how far redo is. The counters begin at zero in each process.
type Progress struct {
	Redone  mirror.Position // everything up to there is in the database
	Flushed mirror.Position // and up to there on its disk
	// Transactions, Bytes and Rows count what was redone of the log: transactions of the principal, bytes of their
	// messages, and their messages, which are nearly all row changes. Batches counts the transactions here that took
	// many of them, or a large one; the rest was redone one by one.
	Transactions, Bytes, Rows, Batches uint64
	// Skipped counts the transactions that were left out by command since the session began. As long as it is not zero
	// and nothing has verified the pair, the two databases are not known to be equal.
	Skipped uint64
	// Poison is the end of the transaction that cannot be redone, at which the latest Run has ended: see Redo.Skip. Zero: none.
	Poison mirror.Position
	// Trouble is why redo does not go on for now, nil while it does. It is tried again.
	Trouble error
}

// Seeder makes this database a copy of the principal's.
type Seeder interface {
	// Incomplete says whether this database is what a copy left that was broken off: it may be replaced.
	Incomplete(ctx context.Context) (bool, error)
	// Seed copies the principal's database here and returns where the copy stands in the principal's log: everything
	// that ends beyond that comes by the log which is kept from there on for the reign, as if BeginLog had been called,
	// and the Reign is written there with the new Start. replace: what is here may go; without it a database that holds something is
	// refused, with an error of mirror.ReasonPreflight, before anything is changed.
	//
	// The gate is closed. From the first change to the last, Incomplete says so. What the library keeps of this
	// database's own, such as its Reigns, is not copied.
	Seed(ctx context.Context, from Reign, replace bool) (Seeded, error)
}

// Seeded says what was copied.
type Seeded struct {
	Start       mirror.LSN
	Tables      int
	Rows, Bytes int64
	Duration    time.Duration
	Findings    []Finding // what could not be made the same
}
