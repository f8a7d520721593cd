package redo

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
)

// firstOffset is where the first log begins; zero is not a place.
const firstOffset Offset = 1

// found is a segment file that Open met.
type found struct {
	path   string
	start  Offset
	limit  Offset // after its last byte
	header segmentHeader
}

// recover verifies what is on disk and makes the queue ready to append. On a damaged log it changes nothing but the
// removal of files that were never part of it.
func (q *Queue) recover() error {
	segments, sealed, err := q.list()
	if err != nil {
		return err
	}
	if len(segments) == 0 {
		if err := q.unseal(sealed); err != nil {
			return err
		}
		return q.begin()
	}
	segments, err = q.dropOlderLogs(segments)
	if err != nil {
		return err
	}
	if err := q.verifyAll(segments, sealed); err != nil {
		return err
	}
	if err := q.unseal(sealed); err != nil {
		return err
	}
	// What was closed is open again before it grows, and a segment that was renamed just before a crash may not be in the
	// directory on disk.
	if err := q.disk.SyncDir(q.cfg.Dir); err != nil {
		return q.fail("sync", q.cfg.Dir, err)
	}
	for _, s := range segments {
		q.mu.segments = append(q.mu.segments, s.start)
	}
	q.mu.position, q.mu.chain = q.history.end, q.history.chain
	q.oldest.Store(uint64(segments[0].start))
	q.trimmed.Store(uint64(segments[0].start))
	q.logStart.Store(uint64(segments[0].header.logStart))
	q.hardenedEnd.Store(uint64(q.written))
	q.history.restart(q.history.end, q.history.chain)
	return nil
}

// begin makes the first segment of a directory without any. What is synced inside a directory is lost with one whose name
// is not on disk, and whoever made this one may have died before he came to that.
func (q *Queue) begin() error {
	parent := filepath.Dir(q.cfg.Dir)
	if err := q.disk.SyncDir(parent); err != nil {
		return q.fail("sync", parent, err)
	}
	q.written, q.start = firstOffset, firstOffset
	q.hardenedEnd.Store(uint64(firstOffset))
	q.oldest.Store(uint64(firstOffset))
	q.logStart.Store(uint64(firstOffset))
	q.trimmed.Store(uint64(firstOffset))
	q.history = newHistory(mirror.Position{})
	q.mu.segments = []Offset{firstOffset}
	f, err := q.createSegment(firstOffset, firstOffset, q.history)
	q.file = f
	return err
}

// unseal takes away the name that says where the log was closed.
func (q *Queue) unseal(sealed Offset) error {
	if sealed == 0 {
		return nil
	}
	if err := q.disk.Remove(sealedPath(q.cfg.Dir, sealed)); err != nil {
		return fmt.Errorf("open sealed log: %w", err)
	}
	return nil
}

// list returns the segments in order, and the offset at which the log was closed, zero if it was not. It removes what a
// crash left unfinished.
func (q *Queue) list() (segments []found, sealed Offset, err error) {
	entries, err := os.ReadDir(q.cfg.Dir)
	if err != nil {
		return nil, 0, fmt.Errorf("list segments: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(q.cfg.Dir, e.Name())
		if strings.HasSuffix(e.Name(), segmentSuffix+unfinishedSuffix) {
			if err := q.disk.Remove(path); err != nil {
				return nil, 0, fmt.Errorf("remove unfinished segment: %w", err)
			}
		}
		if end, ok := parseName(e.Name(), sealedSuffix); ok {
			sealed = max(sealed, end)
		}
		start, ok := parseSegmentName(e.Name())
		if !ok {
			continue
		}
		s, err := q.inspect(path, start, e)
		if err != nil {
			return nil, 0, err
		}
		segments = append(segments, s)
	}
	slices.SortFunc(segments, func(a, b found) int { return cmp.Compare(a.start, b.start) })
	return segments, sealed, nil
}

func (q *Queue) inspect(path string, start Offset, e fs.DirEntry) (found, error) {
	info, err := e.Info()
	if err != nil {
		return found{}, fmt.Errorf("inspect segment: %w", err)
	}
	if info.Size() < segmentHeaderSize {
		return found{}, &CorruptError{Path: path, Why: "segment is shorter than its header"}
	}
	h, err := q.readHeader(path, start)
	if err != nil {
		return found{}, err
	}
	return found{path: path, start: start, limit: start + Offset(info.Size()-segmentHeaderSize), header: h}, nil
}

func (q *Queue) readHeader(path string, start Offset) (segmentHeader, error) {
	f, err := q.disk.Open(path, os.O_RDONLY)
	if err != nil {
		return segmentHeader{}, fmt.Errorf("open segment: %w", err)
	}
	b := make([]byte, segmentHeaderSize)
	_, err = f.ReadAt(b, 0)
	if err := errors.Join(err, f.Close()); err != nil {
		return segmentHeader{}, fmt.Errorf("read segment: %w", err)
	}
	h, err := decodeSegmentHeader(b)
	if err != nil {
		return segmentHeader{}, &CorruptError{Path: path, Why: err.Error()}
	}
	if h.identity != q.cfg.Identity {
		return segmentHeader{}, fmt.Errorf("segment %s has identity %x…, not %x…: %w", path, h.identity[:6], q.cfg.Identity[:6], ErrIdentity)
	}
	if h.start != start {
		return segmentHeader{}, &CorruptError{Path: path, Why: "segment was renamed"}
	}
	return h, nil
}

// dropOlderLogs finishes a Reset that a crash interrupted: its new segment is whole, so the older log is void.
func (q *Queue) dropOlderLogs(segments []found) ([]found, error) {
	logStart := segments[len(segments)-1].header.logStart
	for segments[0].start < logStart {
		if err := q.disk.Remove(segments[0].path); err != nil {
			return nil, fmt.Errorf("remove segment dropped by reset: %w", err)
		}
		segments = segments[1:]
	}
	for _, s := range segments {
		if s.header.logStart != logStart {
			return nil, &CorruptError{Path: s.path, Why: "segment belongs to another log"}
		}
	}
	return segments, nil
}

// verifyAll reads every frame and leaves the last segment open for appending. A log that was closed must end where it was.
func (q *Queue) verifyAll(segments []found, sealed Offset) error {
	h, err := segments[0].header.history()
	if err != nil {
		return &CorruptError{Path: segments[0].path, Why: err.Error()}
	}
	q.history = h
	last := len(segments) - 1
	for i, s := range segments {
		if s.header.end != q.history.end || s.header.chain != q.history.chain {
			return &CorruptError{Path: s.path, Why: "history at its start is not that at the end of the segment before"}
		}
		if i < last {
			if err := q.verifyFinished(s, segments[i+1].start); err != nil {
				return err
			}
		}
	}
	return q.verifyLast(segments[last], sealed)
}

// verifyFinished verifies a segment that was synced before the next one was begun: nothing in it may be wrong.
func (q *Queue) verifyFinished(s found, next Offset) error {
	f, err := q.disk.Open(s.path, os.O_RDONLY)
	if err != nil {
		return fmt.Errorf("open segment: %w", err)
	}
	w, whole := &window{file: f, start: s.start}, s
	s.limit = min(s.limit, next)
	end, err := q.verify(w, s)
	if err == nil {
		err = w.zeros(s.limit, whole.limit)
	}
	if isDamage(err) {
		err = &CorruptError{Path: s.path, Offset: filePos(s.start, end), Why: err.Error()}
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if end != next || end != s.limit {
		return &CorruptError{Path: s.path, Offset: filePos(s.start, end), Why: "log of the segments does not join"}
	}
	return nil
}

// verifyLast verifies the segment that may have a torn tail, and cuts that.
func (q *Queue) verifyLast(s found, sealed Offset) error {
	f, err := q.disk.Open(s.path, os.O_RDWR)
	if err != nil {
		return fmt.Errorf("open segment: %w", err)
	}
	q.file, q.start = f, s.start
	// What a process that died had written may be in the system's cache only, or, after a failed sync, there but not
	// on disk. What is verified below must be what the disk holds.
	if err := f.Sync(); err != nil {
		return q.fail("sync", s.path, err)
	}
	f.Forget()
	w := &window{file: f, start: s.start}
	q.written, err = q.verify(w, s)
	if isDamage(err) {
		err = q.tornOrCorrupt(w, s, q.written, err)
	}
	if err == nil && sealed != 0 && q.written != sealed {
		err = &CorruptError{Path: s.path, Offset: filePos(s.start, q.written), Why: fmt.Sprintf("log ends here, and was closed at byte %d", filePos(s.start, sealed))}
	}
	if err != nil || q.written == s.limit {
		return err
	}
	crashpoint.Hit(crashpoint.TornTailFound)
	if err := f.Truncate(filePos(s.start, q.written)); err != nil {
		return q.fail("truncate", s.path, err)
	}
	crashpoint.Hit(crashpoint.TornTailCut)
	if err := f.Sync(); err != nil {
		return q.fail("sync", s.path, err)
	}
	crashpoint.Hit(crashpoint.TornTailGone)
	return nil
}

// verify takes the frames of a segment into the history. It returns the offset after the last good one, and an error
// that isDamage for a frame that is not whole.
func (q *Queue) verify(w *window, s found) (Offset, error) {
	at := s.start
	for at < s.limit {
		f, payload, err := w.next(at, s.limit)
		if err != nil {
			return at, err
		}
		if f.kind == kindSeal && at+Offset(f.size()) == s.limit {
			return at, nil
		}
		r, chain, err := f.record(payload)
		if err != nil {
			return at, err
		}
		if err := q.history.replay(r); err != nil {
			return at, &CorruptError{Path: s.path, Offset: filePos(s.start, at), Why: err.Error()}
		}
		if r.Kind == KindCommit && [chainSize]byte(chain) != q.history.chain {
			return at, &CorruptError{Path: s.path, Offset: filePos(s.start, at), Why: "transaction does not match the chain: a frame of it is stale or missing"}
		}
		at += Offset(f.size())
	}
	return at, nil
}

// tornOrCorrupt judges a bad frame in the last segment. It is a torn tail, and nil is returned, unless something proves
// that the frame had been hardened.
func (q *Queue) tornOrCorrupt(w *window, s found, at Offset, damage error) error {
	proof, found, err := w.firstOfHardenAfter(at+1, s.limit)
	if err != nil {
		return err
	}
	if found {
		return &CorruptError{Path: s.path, Offset: filePos(s.start, at), Why: fmt.Sprintf("%v, and it is not a torn tail, for log at byte %d was written after it was on disk", damage, filePos(s.start, proof))}
	}
	return nil
}
