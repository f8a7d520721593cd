//go:build unix

package endpoint

import (
	"errors"
	"io"
	"syscall"
)

const canWait = true

// tryPeek says whether a read would not wait: something is there, or the end, or an error.
func (r *readiness) tryPeek(fd uintptr) bool {
	var one [1]byte
	for {
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK)
		if err != syscall.EINTR {
			return !errors.Is(err, syscall.EAGAIN)
		}
	}
}

// tryRead reads once, and never waits.
func (r *readiness) tryRead(fd uintptr) bool {
	for {
		r.n, r.err = syscall.Read(int(fd), r.into)
		switch {
		case r.err == syscall.EINTR:
			continue
		case r.err == syscall.EAGAIN:
			r.err = errDry
		case r.err == nil && r.n == 0:
			r.err = io.EOF
		}
		r.n = max(r.n, 0)
		return true
	}
}
