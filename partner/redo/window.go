package redo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

const windowSize = 256 << 10

// window reads one segment front to back through a buffer.
type window struct {
	file  file
	start Offset // of the segment's first frame
	from  Offset // of buf[0]
	buf   []byte
}

// bytes returns n bytes at the offset, which must not go beyond limit. They are valid until the next call.
func (w *window) bytes(at Offset, n int, limit Offset) ([]byte, error) {
	if int64(limit-at) < int64(n) {
		return nil, errShort
	}
	if at < w.from || at+Offset(n) > w.from+Offset(len(w.buf)) {
		if err := w.fill(at, n, limit); err != nil {
			return nil, err
		}
	}
	i := int(at - w.from)
	return w.buf[i : i+n], nil
}

func (w *window) fill(at Offset, n int, limit Offset) error {
	want := max(n, int(min(windowSize, limit-at)))
	// A buffer grown for one large record is not kept.
	if want > cap(w.buf) || cap(w.buf) > windowSize && want <= windowSize {
		w.buf = make([]byte, 0, max(want, min(2*cap(w.buf), windowSize)))
	}
	w.from, w.buf = at, w.buf[:0]
	got, err := w.file.ReadAt(w.buf[:want], filePos(w.start, at))
	if got < want {
		if errors.Is(err, io.EOF) {
			return errShort
		}
		return fmt.Errorf("read redo log: %w", err)
	}
	w.buf = w.buf[:want]
	return nil
}

// next returns the frame at the offset and its payload. The error is isDamage for a frame that is not whole.
func (w *window) next(at, limit Offset) (frame, []byte, error) {
	b, err := w.bytes(at, frameHeaderSize, limit)
	if err != nil {
		return frame{}, nil, err
	}
	f, err := decodeFrame(b, at)
	if err != nil {
		return frame{}, nil, err
	}
	if f.size() > int64(limit-at) {
		return frame{}, nil, errShort
	}
	b, err = w.bytes(at, int(f.size()), limit)
	if err != nil {
		return frame{}, nil, err
	}
	return f, b[frameHeaderSize:], nil
}

// firstOfHardenAfter finds a frame header at or after the offset that begins a harden.
func (w *window) firstOfHardenAfter(at, limit Offset) (Offset, bool, error) {
	for ; at+frameHeaderSize <= limit; at++ {
		b, err := w.bytes(at, frameHeaderSize, limit)
		if err != nil {
			return 0, false, err
		}
		if b[8]&firstOfHarden == 0 || Kind(b[8]&^firstOfHarden) > kindSeal {
			continue
		}
		if _, err := decodeFrame(b, at); err == nil {
			return at, true, nil
		}
	}
	return 0, false, nil
}

// zeros returns errBehind, which isDamage, unless nothing but zeros stands from the offset to limit.
func (w *window) zeros(at, limit Offset) error {
	for at < limit {
		n := min(windowSize, limit-at)
		b, err := w.bytes(at, int(n), limit)
		if err != nil {
			return err
		}
		if bytes.Trim(b, "\x00") != nil {
			return errBehind
		}
		at += n
	}
	return nil
}

// isDamage tells bytes that are wrong from a disk that does not answer.
func isDamage(err error) bool {
	for _, damage := range []error{errHeaderSum, errHeader, errPayloadSum, errShort, errBehind} {
		if errors.Is(err, damage) {
			return true
		}
	}
	return false
}
