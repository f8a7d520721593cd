package redo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"syscall"
)

// Reader follows the hardened records. It belongs to one goroutine; several readers of one Queue do not disturb each
// other.
type Reader struct {
	queue  *Queue
	at     Offset
	limit  Offset // up to here the open segment was hardened when last asked
	open   bool   // window holds a file
	window window
}

// NewReader returns a reader of the records from the offset on, which must be one that a Reader of this log returned;
// zero means the oldest record kept. What is wrong with the offset is told by Next.
func (q *Queue) NewReader(from Offset) *Reader {
	if from == 0 {
		from = Offset(q.oldest.Load())
	}
	return &Reader{queue: q, at: from}
}

// Next returns the next hardened record and the offset after it, which is where another reader would go on. It waits
// until there is a record, the context ends, or the queue does. Data is valid until the next call. It returns ErrReset,
// ErrTrimmed, ErrClosed, and a *CorruptError for damage on disk; after a *SyncError of the queue, it first returns all
// records that were hardened before it, then that error.
func (r *Reader) Next(ctx context.Context) (Record, Offset, error) {
	if err := r.seek(ctx); err != nil {
		return Record{}, 0, err
	}
	f, payload, err := r.window.next(r.at, r.limit)
	if err != nil {
		return Record{}, 0, r.damage(err)
	}
	record, _, err := f.record(payload)
	if err != nil {
		return Record{}, 0, r.damage(err)
	}
	r.at += Offset(f.size())
	return record, r.at, nil
}

// Ready reports whether Next would return at once, with a record or an error.
func (r *Reader) Ready() bool {
	_, ready, err := r.hardened()
	return ready || err != nil
}

// Close gives up the file that the reader has open. The queue is not touched.
func (r *Reader) Close() error {
	if !r.open {
		return nil
	}
	r.open, r.limit = false, 0
	return r.window.file.Close()
}

// seek waits for a record at the reader's place and opens its segment.
func (r *Reader) seek(ctx context.Context) error {
	end, err := r.wait(ctx)
	if err != nil {
		return err
	}
	if r.at < r.limit {
		return nil
	}
	start, next, ok := r.queue.segmentAt(r.at)
	if !ok {
		return r.gone()
	}
	if !r.open || r.window.start != start {
		if err := r.openSegment(start); err != nil {
			return err
		}
	}
	r.limit = min(end, next)
	return nil
}

// wait returns the hardened end once it is beyond the reader.
func (r *Reader) wait(ctx context.Context) (Offset, error) {
	for {
		end, ready, err := r.hardened()
		if ready || err != nil {
			return end, err
		}
		select {
		case <-r.queue.changed(r.at):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// hardened returns how far can be read, whether that is beyond the reader, and why it never will be.
func (r *Reader) hardened() (end Offset, ready bool, err error) {
	q := r.queue
	if q.closed.Load() {
		return 0, false, ErrClosed
	}
	if r.at < Offset(q.logStart.Load()) {
		return 0, false, ErrReset
	}
	end = Offset(q.hardenedEnd.Load())
	if r.at < end {
		return end, true, nil
	}
	if r.at > end {
		return 0, false, &CorruptError{Path: q.cfg.Dir, Why: fmt.Sprintf("log ends at offset %d, before offset %d that was given out", end, r.at)}
	}
	return 0, false, q.failure()
}

func (r *Reader) openSegment(start Offset) error {
	if err := r.Close(); err != nil {
		return fmt.Errorf("close segment: %w", err)
	}
	f, err := r.queue.disk.Open(segmentPath(r.queue.cfg.Dir, start), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return r.gone()
	}
	if err != nil {
		return fmt.Errorf("open segment: %w", err)
	}
	r.open = true
	r.window = window{file: f, start: start, buf: r.window.buf[:0]}
	return nil
}

// gone says why there is no segment at the reader's place.
func (r *Reader) gone() error {
	if r.at < Offset(r.queue.logStart.Load()) {
		return ErrReset
	}
	if r.at < Offset(r.queue.oldest.Load()) {
		return ErrTrimmed
	}
	return &CorruptError{Path: segmentPath(r.queue.cfg.Dir, r.at), Why: "segment is missing"}
}

// damage is what a record that cannot be read means. A disk that refuses to give it has lost it as well.
func (r *Reader) damage(err error) error {
	if !isDamage(err) && !errors.Is(err, syscall.EIO) {
		return err
	}
	return &CorruptError{
		Path: segmentPath(r.queue.cfg.Dir, r.window.start), Offset: filePos(r.window.start, r.at), Why: err.Error(),
	}
}

// changed returns a channel that is closed when the log no longer ends at the offset, or has ended for good.
func (q *Queue) changed(at Offset) <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.wake == nil {
		q.mu.wake = make(chan struct{})
	}
	wake := q.mu.wake
	if q.mu.err != nil || Offset(q.hardenedEnd.Load()) != at {
		close(wake)
		q.mu.wake = nil
	}
	return wake
}

// segmentAt returns the segment that holds the offset and where the next one begins.
func (q *Queue) segmentAt(at Offset) (start, next Offset, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	i, exact := slices.BinarySearch(q.mu.segments, at)
	if !exact {
		i--
	}
	if i < 0 {
		return 0, 0, false
	}
	next = math.MaxUint64
	if i+1 < len(q.mu.segments) {
		next = q.mu.segments[i+1]
	}
	return q.mu.segments[i], next, true
}
