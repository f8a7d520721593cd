package redo

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/f19126b3/dbmirror/mirror"
)

// Queue is the hardened log. Append, Harden, Reset, Rebase and Close belong to one goroutine; the other methods and the
// readers may be used by any number of others at the same time.
type Queue struct {
	cfg  Config
	disk disk
	lock *os.File

	// Of the goroutine that appends.
	file    file     // the segment being written
	start   Offset   // of its first frame
	written Offset   // all before it was given to the system
	filled  Offset   // up to here zeros stand behind it, if that is further
	buf     []byte   // frames from written on
	fresh   bool     // the next frame is the first of its harden
	history *history // of all that was appended
	dirty   bool     // appended since the last harden

	trimming sync.Mutex // held while old segments are removed

	hardenedEnd atomic.Uint64 // Offset; readers may go up to it
	oldest      atomic.Uint64 // Offset of the first frame kept
	logStart    atomic.Uint64 // Offset of the first frame since the last Reset
	trimmed     atomic.Uint64 // Offset given to Trim: before it, nothing is needed
	refused     atomic.Int64  // bytes that the record takes for which there was no room; 0: the last one had it
	closed      atomic.Bool

	mu struct {
		sync.Mutex
		segments []Offset // starts, oldest first; never empty
		position mirror.Position
		chain    [chainSize]byte
		wake     chan struct{} // closed at the next change; nil while no reader waits
		err      error         // *SyncError or ErrClosed; final
	}
}

// Open opens the log in cfg.Dir, or makes one whose hardened end is zero. It reads and verifies the whole log; all that
// Hardened then tells is on disk. It returns ErrLocked, ErrIdentity, a *CorruptError or a *SyncError where they apply;
// a damaged log is left as it is.
func Open(cfg Config) (*Queue, error) {
	return open(cfg, osDisk{})
}

func open(cfg Config, d disk) (*Queue, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := prepareDir(cfg.Dir); err != nil {
		return nil, err
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	q := &Queue{cfg: cfg, disk: d, lock: lock, fresh: true}
	if err := q.recover(); err != nil {
		if q.file != nil {
			err = errors.Join(err, q.file.Close())
		}
		return nil, errors.Join(fmt.Errorf("open redo queue: %w", err), lock.Close())
	}
	return q, nil
}

// Hardened returns the position of the last commit or mark that is on disk: what may be reported to the principal.
func (q *Queue) Hardened() mirror.Position {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.mu.position
}

// Chain returns the hash chained over the hardened transactions. It is zero where there were none since the last Reset.
func (q *Queue) Chain() [32]byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.mu.chain
}

// First returns the position at which the oldest log that is kept begins: every transaction that ends beyond it is in
// the log, though it may have begun before. It is the base until Trim has removed something. It returns a *CorruptError
// when that was damaged since Open.
func (q *Queue) First() (mirror.Position, error) {
	q.trimming.Lock() // the oldest segment stays the oldest meanwhile
	defer q.trimming.Unlock()
	if q.closed.Load() {
		return mirror.Position{}, ErrClosed
	}
	start := Offset(q.oldest.Load())
	h, err := q.readHeader(segmentPath(q.cfg.Dir, start), start)
	if err != nil {
		return mirror.Position{}, fmt.Errorf("read beginning of redo queue: %w", err)
	}
	return h.end, nil
}

// Bytes returns how many bytes of log are hardened and not given to Trim: the redo queue. The files hold up to one
// segment more, and it is the files that Config.MaxBytes bounds.
func (q *Queue) Bytes() int64 {
	// A Reset between the two loads would show the end of the new log and the beginning of the old, or less than none.
	trimmed := q.trimmed.Load()
	return max(0, int64(q.hardenedEnd.Load()-trimmed))
}

// Unfinished returns how many bytes of log belong to transactions that have not ended, with the record that waits for
// room, if nothing but these keeps the queue full, and zero otherwise: all that is hardened was read by somebody who waits
// for more, and what Trim was told is not needed makes no room. It takes for granted that everything up to Hardened is
// redone. Nothing makes room then: such a transaction is given back when it has ended, and its end is not appended.
func (q *Queue) Unfinished() int64 {
	refused := q.refused.Load()
	q.mu.Lock()
	read := q.mu.wake != nil // by the end of log that is hardened now: what is hardened next wakes whoever waited here
	q.mu.Unlock()
	end := int64(q.hardenedEnd.Load()) + refused
	if refused == 0 || !read || end-int64(q.oldest.Load()) <= q.cfg.MaxBytes {
		return 0
	}
	return max(0, end-int64(q.trimmed.Load()))
}

// Close seals the log and gives up the directory. Records that were not hardened are dropped. Waiting readers return
// ErrClosed.
func (q *Queue) Close() error {
	err := q.failure()
	if errors.Is(err, ErrClosed) {
		return err
	}
	if err == nil && q.cutUnhardened() == nil {
		// Without the seal the log is as after a crash, which Open can read: its error changes nothing.
		_ = q.seal()
	}
	q.closed.Store(true)
	q.publish(func() { q.mu.err = ErrClosed })
	q.trimming.Lock() // no trim is under way when the lock is given up
	defer q.trimming.Unlock()
	if err := errors.Join(q.file.Close(), q.lock.Close()); err != nil {
		return fmt.Errorf("close redo queue: %w", err)
	}
	return nil
}

func (q *Queue) seal() error {
	// The seal is the last of the file: what was laid ahead must be gone from the disk before it is there.
	if err := errors.Join(q.file.Truncate(filePos(q.start, q.written)), q.file.Sync()); err != nil {
		return err
	}
	b := appendFrame(q.buf[:0], q.written, frame{kind: kindSeal, first: true})
	if _, err := q.file.WriteAt(b, filePos(q.start, q.written)); err != nil {
		return err
	}
	if err := q.file.Sync(); err != nil {
		return err
	}
	// A name beside the log says where it ends: a file that is cut off later, seal and all, is no torn tail.
	f, err := q.disk.Open(sealedPath(q.cfg.Dir, q.written), os.O_CREATE|os.O_RDWR)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), q.disk.SyncDir(q.cfg.Dir))
}

// failure returns what ended the queue, or nil.
func (q *Queue) failure() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.mu.err
}

// fail ends the queue. The first failure stays.
func (q *Queue) fail(op, path string, err error) error {
	failure := error(&SyncError{Op: op, Path: path, Err: err})
	q.publish(func() {
		if q.mu.err == nil {
			q.mu.err = failure
		}
		failure = q.mu.err
	})
	return failure
}

// publish changes what the readers see and wakes them.
func (q *Queue) publish(change func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	change()
	if q.mu.wake != nil {
		close(q.mu.wake)
		q.mu.wake = nil
	}
}

func (q *Queue) path() string { return segmentPath(q.cfg.Dir, q.start) }
