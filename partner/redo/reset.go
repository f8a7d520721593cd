package redo

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
)

// Reset drops the whole log, hardened or not, and begins a new one whose hardened end is base and whose chain is zero.
// After a crash at any step the old log or the new one is there, whole. When it returns without error the old log is
// gone from the disk. Readers of the old log return ErrReset.
func (q *Queue) Reset(base mirror.Position) error {
	if err := q.failure(); err != nil {
		return err
	}
	// The gap of one byte keeps the end of the old log apart from the beginning of the new one.
	start, h := q.appended()+1, newHistory(base)
	f, err := q.createSegment(start, start, h)
	if err != nil {
		return fmt.Errorf("reset redo queue: %w", err)
	}
	q.trimming.Lock()
	defer q.trimming.Unlock()
	var dropped []Offset
	q.publish(func() {
		dropped, q.mu.segments = q.mu.segments, []Offset{start}
		q.mu.position, q.mu.chain = base, h.chain
		q.logStart.Store(uint64(start))
		q.oldest.Store(uint64(start))
		q.trimmed.Store(uint64(start))
		q.hardenedEnd.Store(uint64(start))
	})
	q.buf, q.written, q.history, q.dirty = q.buf[:0], start, h, false
	if err := q.switchTo(f, start); err != nil {
		return err
	}
	for _, s := range dropped {
		if err := q.removeSegment(s); err != nil {
			return err
		}
	}
	return nil
}

// Rebase lets the history go on at base, in another role sequence, with nothing lost: Hardened is base and on disk when
// it returns. What was appended is hardened with it; kept log stays readable and the chain goes on. Base must not be
// before the end of the log (ErrOrder), nor, in another role sequence, before what was appended: call Harden before where
// that is not known, or the stream sends again what is there. The stream must attach anew.
func (q *Queue) Rebase(base mirror.Position) error {
	if err := q.failure(); err != nil {
		return err
	}
	if err := q.history.checkRebase(base); err != nil {
		return fmt.Errorf("rebase redo queue: %w", err)
	}
	r := Record{Kind: KindMark, Seq: base.Seq, LSN: base.LSN}
	// The bound does not apply: a role change must not wait for redo.
	if err := q.makeRoom(frameHeaderSize); err != nil {
		return fmt.Errorf("rebase redo queue: %w", err)
	}
	q.history.rebase(base)
	if err := q.put(r); err != nil {
		return fmt.Errorf("rebase redo queue: %w", err)
	}
	if _, err := q.Harden(); err != nil {
		return fmt.Errorf("rebase redo queue: %w", err)
	}
	return nil
}

// Trim gives back the log before the offset, which is one that a Reader returned or zero: segments wholly before it are
// removed. An offset from before the last Reset, or before an earlier one, has no effect; one beyond the hardened end is
// refused with ErrOrder. Log may be trimmed only when its redo is on the disk of the mirror's database.
func (q *Queue) Trim(before Offset) error {
	q.trimming.Lock()
	defer q.trimming.Unlock()
	if err := q.failure(); err != nil {
		return err
	}
	if end := Offset(q.hardenedEnd.Load()); before > end {
		return fmt.Errorf("trim redo queue to %d, beyond its end %d: %w", before, end, ErrOrder)
	}
	if before <= Offset(q.trimmed.Load()) {
		return nil
	}
	q.trimmed.Store(uint64(before))
	for {
		s, ok := q.takeSegmentBefore(before)
		if !ok {
			return nil
		}
		if err := q.removeSegment(s); err != nil {
			return err
		}
	}
}

// takeSegmentBefore takes the oldest segment off the list if it is wholly before the offset.
func (q *Queue) takeSegmentBefore(before Offset) (Offset, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.mu.segments) < 2 || q.mu.segments[1] > before {
		return 0, false
	}
	s := q.mu.segments[0]
	q.mu.segments = q.mu.segments[1:]
	q.oldest.Store(uint64(q.mu.segments[0]))
	return s, true
}

// removeSegment removes one file durably before the next, so that a crash leaves no hole between segments.
func (q *Queue) removeSegment(s Offset) error {
	path := segmentPath(q.cfg.Dir, s)
	crashpoint.Hit(crashpoint.SegmentKept)
	if err := q.disk.Remove(path); err != nil {
		return q.fail("remove", path, err)
	}
	crashpoint.Hit(crashpoint.SegmentRemoved)
	if err := q.disk.SyncDir(q.cfg.Dir); err != nil {
		return q.fail("sync", q.cfg.Dir, err)
	}
	crashpoint.Hit(crashpoint.SegmentGone)
	return nil
}

// Discard removes the log in the directory, whatever its identity and state, durably. It is for a log that is damaged or
// whose session has ended; it returns ErrLocked while a Queue has it open. A directory that is missing is no error.
func Discard(dir string) error {
	return discard(dir, osDisk{})
}

func discard(dir string, d disk) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("discard redo queue: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	for _, e := range entries {
		_, segment := parseSegmentName(e.Name())
		if _, sealed := parseName(e.Name(), sealedSuffix); !segment && !sealed {
			continue
		}
		if err := d.Remove(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("discard redo queue: %w", err)
		}
	}
	if err := d.SyncDir(dir); err != nil {
		return fmt.Errorf("discard redo queue: %w", err)
	}
	return nil
}
