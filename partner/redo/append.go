package redo

import (
	"errors"
	"fmt"
	"os"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
)

// spillBytes bounds what is kept in memory between two hardens: beyond it, frames go to the file unsynced.
const spillBytes = 1 << 20

// Append takes the next record of the log. Data is copied. The record is not hardened, and readers do not see it, until
// Harden returns. It returns ErrOrder for a record that cannot come next and ErrFull at the bound, both without any
// effect, and otherwise the errors of Harden, because large amounts are written ahead.
func (q *Queue) Append(r Record) error {
	if err := q.failure(); err != nil {
		return err
	}
	if len(r.Data) > MaxData {
		return fmt.Errorf("append to redo queue: record of %d bytes is above the limit of %d", len(r.Data), MaxData)
	}
	if err := q.history.check(r); err != nil {
		return fmt.Errorf("append to redo queue: %w", err)
	}
	size := frameHeaderSize + int64(len(r.Data))
	if r.Kind == KindCommit {
		size += chainSize
	}
	// The bound does not apply to the beginning of a stream: what the one before it left unfinished may fill the log, and
	// can be trimmed only when it is known to have come to nothing.
	if r.Kind != KindAttach && int64(q.appended())+size-int64(q.oldest.Load()) > q.cfg.MaxBytes {
		q.refused.Store(size)
		return fmt.Errorf("append %d bytes to redo queue of at most %d: %w", size, q.cfg.MaxBytes, ErrFull)
	}
	if q.refused.Load() != 0 {
		q.refused.Store(0)
	}
	if err := q.makeRoom(size); err != nil {
		return err
	}
	q.history.add(r)
	return q.put(r)
}

// Harden puts all that was appended on disk with one write and one sync, lets the readers see it, and returns the
// hardened end: the last commit or mark. With nothing appended it costs nothing. It returns ErrNoSpace when the disk is
// full and a *SyncError when the log's fate is unknown.
func (q *Queue) Harden() (mirror.Position, error) {
	if err := q.failure(); err != nil {
		return mirror.Position{}, err
	}
	if !q.dirty {
		return q.Hardened(), nil
	}
	if err := q.flush(); err != nil {
		return mirror.Position{}, err
	}
	if err := q.fillAhead(); err != nil {
		return mirror.Position{}, err
	}
	crashpoint.Hit(crashpoint.LogWritten)
	if err := q.file.Sync(); err != nil {
		return mirror.Position{}, q.fail("sync", q.path(), err)
	}
	crashpoint.Hit(crashpoint.LogSynced)
	q.dirty, q.fresh = false, true
	q.publish(func() {
		q.mu.position, q.mu.chain = q.history.end, q.history.chain
		q.hardenedEnd.Store(uint64(q.written))
	})
	return q.history.end, nil
}

// appended is the offset after all that was appended.
func (q *Queue) appended() Offset { return q.written + Offset(len(q.buf)) }

// put encodes a record that the history has taken in.
func (q *Queue) put(r Record) error {
	var chain []byte
	if r.Kind == KindCommit {
		chain = q.history.chain[:]
	}
	q.buf = appendFrame(q.buf, q.appended(), frameOf(r, chain, q.fresh))
	q.buf = append(q.buf, chain...)
	q.fresh, q.dirty = false, true
	if len(q.buf)+len(r.Data) <= spillBytes {
		q.buf = append(q.buf, r.Data...)
		return nil
	}
	if err := q.flush(); err != nil {
		return err
	}
	return q.write(r.Data)
}

// flush gives the buffer to the system.
func (q *Queue) flush() error {
	if len(q.buf) == 0 {
		return nil
	}
	if err := q.write(q.buf); err != nil {
		return err
	}
	q.buf = q.buf[:0]
	return nil
}

func (q *Queue) write(b []byte) error {
	crashpoint.Hit(crashpoint.LogUnwritten)
	if _, err := q.file.WriteAt(b, filePos(q.start, q.written)); err != nil {
		return q.writeFailed("write", q.path(), err)
	}
	q.written += Offset(len(b))
	return nil
}

// aheadBytes is how much of a segment is filled with zeros at a time.
const aheadBytes = 256 << 10

// fillAhead lays zeros where the next frames will stand. A sync of bytes that are there already need not write the
// file's new size as well, which for a small commit is as much work again.
func (q *Queue) fillAhead() error {
	if q.written <= q.filled {
		return nil
	}
	to := min(q.written+aheadBytes, q.start+Offset(q.cfg.SegmentBytes), Offset(q.oldest.Load())+Offset(q.cfg.MaxBytes))
	q.filled = max(q.written, to)
	if to <= q.written {
		return nil
	}
	_, err := q.file.WriteAt(make([]byte, to-q.written), filePos(q.start, q.written))
	if err != nil && !noSpace(err) { // without room for more than the log itself it goes on without
		return q.fail("write", q.path(), err)
	}
	return nil
}

// makeRoom begins a new segment if a frame of the size does not fit in this one. The old one is synced first, so that
// only the last segment can ever be torn.
func (q *Queue) makeRoom(size int64) error {
	used := int64(q.appended() - q.start)
	if used == 0 || used+size <= q.cfg.SegmentBytes {
		return nil
	}
	if err := q.flush(); err != nil {
		return err
	}
	if err := q.file.Sync(); err != nil {
		return q.fail("sync", q.path(), err)
	}
	next, err := q.createSegment(q.written, Offset(q.logStart.Load()), q.history)
	if err != nil {
		return err
	}
	q.publish(func() { q.mu.segments = append(q.mu.segments, q.written) })
	return q.switchTo(next, q.written)
}

// switchTo goes on in another segment.
func (q *Queue) switchTo(next file, start Offset) error {
	old, path := q.file, q.path()
	q.file, q.start, q.filled, q.fresh = next, start, 0, true
	if err := old.Close(); err != nil {
		return q.fail("close", path, err)
	}
	return nil
}

// createSegment makes a segment that exists whole or not at all.
func (q *Queue) createSegment(start, logStart Offset, h *history) (file, error) {
	header, err := headerOf(q.cfg.Identity, start, logStart, h)
	if err != nil {
		return nil, err
	}
	path := segmentPath(q.cfg.Dir, start)
	crashpoint.Hit(crashpoint.SegmentUnmade)
	f, err := q.disk.Open(path+unfinishedSuffix, os.O_CREATE|os.O_TRUNC|os.O_RDWR)
	if err != nil {
		return nil, q.writeFailed("create", path, err)
	}
	if op, err := q.finishSegment(f, path, header.encode()); err != nil {
		err = errors.Join(err, f.Close())
		if op == "sync" {
			return nil, q.fail(op, path, err)
		}
		return nil, q.writeFailed(op, path, errors.Join(err, q.disk.Remove(path+unfinishedSuffix)))
	}
	return f, nil
}

// finishSegment returns the operation that failed.
func (q *Queue) finishSegment(f file, path string, header []byte) (op string, err error) {
	if _, err := f.WriteAt(header, 0); err != nil {
		return "write", err
	}
	if err := f.Sync(); err != nil {
		return "sync", err
	}
	crashpoint.Hit(crashpoint.SegmentFilled)
	if err := q.disk.Rename(path+unfinishedSuffix, path); err != nil {
		return "rename", err
	}
	crashpoint.Hit(crashpoint.SegmentNamed)
	return "sync", crashpoint.After(crashpoint.SegmentMade, q.disk.SyncDir(q.cfg.Dir))
}

// writeFailed drops what is not hardened if the disk is full, and ends the queue otherwise.
func (q *Queue) writeFailed(op, path string, err error) error {
	if !noSpace(err) {
		return q.fail(op, path, err)
	}
	if cut := q.cutUnhardened(); cut != nil {
		return cut
	}
	return fmt.Errorf("harden redo queue: %s %s: %w", op, path, ErrNoSpace)
}

// cutUnhardened takes the log back to its hardened end, newest file first, so that a crash at any step leaves a log
// without a hole.
func (q *Queue) cutUnhardened() error {
	end := Offset(q.hardenedEnd.Load())
	if err := q.removeAfter(end); err != nil {
		return err
	}
	if q.dirty { // also where q.written is end: a refused write may have put down some of its bytes
		if err := q.file.Truncate(filePos(q.start, end)); err != nil {
			return q.fail("truncate", q.path(), err)
		}
		// Before anything else is written here, what was here must be gone from the disk.
		if err := q.file.Sync(); err != nil {
			return q.fail("sync", q.path(), err)
		}
	}
	q.buf, q.written, q.filled, q.fresh, q.dirty = q.buf[:0], end, 0, true, false
	q.history.restart(q.Hardened(), q.Chain())
	return nil
}

// removeAfter removes the segments that begin after the offset and goes back to the one that holds it.
func (q *Queue) removeAfter(end Offset) error {
	for q.start > end {
		gone := q.path()
		q.mu.Lock()
		before := q.mu.segments[len(q.mu.segments)-2]
		q.mu.Unlock()
		f, err := q.disk.Open(segmentPath(q.cfg.Dir, before), os.O_RDWR)
		if err != nil {
			return q.fail("open", segmentPath(q.cfg.Dir, before), err)
		}
		if err := q.switchTo(f, before); err != nil {
			return err
		}
		if err := q.disk.Remove(gone); err != nil {
			return q.fail("remove", gone, err)
		}
		if err := q.disk.SyncDir(q.cfg.Dir); err != nil {
			return q.fail("sync", q.cfg.Dir, err)
		}
		q.publish(func() { q.mu.segments = q.mu.segments[:len(q.mu.segments)-1] })
	}
	return nil
}
