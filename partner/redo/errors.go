package redo

import (
	"errors"
	"fmt"
	"syscall"
)

var (
	// ErrFull is returned by Append when the record would take the log beyond Config.MaxBytes. Nothing is dropped: the
	// same record can be appended when redo has caught up and Trim has made room.
	ErrFull = errors.New("redo queue is full")

	// ErrNoSpace is returned when the disk has no room. All records appended since the last Harden are dropped, all
	// hardened ones are kept; the next record must be a KindAttach.
	ErrNoSpace = errors.New("no space left for the redo queue: what was not yet hardened is dropped; make room on its disk")

	// ErrOrder is returned by Append, Rebase and Trim for what would put a hole, a repeat or a step back into the log.
	ErrOrder = errors.New("out of order")

	// ErrReset is returned by a Reader whose place belongs to a log that Reset dropped.
	ErrReset = errors.New("redo queue was reset: begin again with the zero offset")

	// ErrTrimmed is returned by a Reader whose place was removed by Trim.
	ErrTrimmed = errors.New("redo queue was trimmed beyond this offset")

	// ErrClosed is returned by everything after Close.
	ErrClosed = errors.New("redo queue is closed")

	// ErrLocked is returned by Open when another process, or another Queue of this one, has the directory.
	ErrLocked = errors.New("redo queue is in use: stop the other process or choose another directory")

	// ErrIdentity is returned by Open when the directory holds the log of another session or incarnation.
	ErrIdentity = errors.New("redo queue belongs to another session or incarnation: choose another directory, or discard it if that session has ended")
)

// SyncError is returned when the system could not say that log is on disk. It is final: every later call of the Queue
// returns it, and nothing is tried again, because a second sync can succeed without writing what the first one lost.
type SyncError struct {
	Op   string // what was tried: sync, write, truncate, ...
	Path string
	Err  error
}

// Error names the operation, the file, and the mend.
func (e *SyncError) Error() string {
	return fmt.Sprintf("%s %s: %v: the log's disk is in doubt; check it, then restart the partner, which reads the log anew", e.Op, e.Path, e.Err)
}

// Unwrap returns the system's error.
func (e *SyncError) Unwrap() error { return e.Err }

// CorruptError is returned when hardened log is damaged. Nothing is repaired: the log must be discarded and the mirror
// resynchronized.
type CorruptError struct {
	Path   string
	Offset int64 // bytes from the beginning of the file
	Why    string
}

// Error names the place, the damage, and the mend.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("redo log %s is damaged at byte %d: %s; check the disk, discard the log and resynchronize", e.Path, e.Offset, e.Why)
}

// noSpace reports whether the system refused a write for want of room, on the disk or within a quota or the limit on the
// size of the process's files, which leaves the files as they were.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
