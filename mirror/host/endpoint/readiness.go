package endpoint

import (
	"net"
	"syscall"
)

// errDry is the error of a read when nothing more has come. TLS can go on reading after it, as after a deadline.
var errDry net.Error = dry{}

type dry struct{}

func (dry) Error() string   { return "nothing more has come" }
func (dry) Timeout() bool   { return true }
func (dry) Temporary() bool { return true }

// readiness waits until something has come on a connection of the system, and reads it without waiting. It is used by one
// goroutine at a time.
type readiness struct {
	system syscall.RawConn
	peek   func(fd uintptr) bool // kept, as is read, so that none is made for each call
	read   func(fd uintptr) bool

	into  []byte // of a read
	n     int
	err   error
	later bool // ready has been asked before
	empty bool // all that has come was read
	some  bool // something was read since ready or forget
}

// newReadiness is nil where there is no way to wait.
func newReadiness(conn net.Conn) *readiness {
	raw, ok := conn.(syscall.Conn)
	if !ok || !canWait {
		return nil
	}
	system, err := raw.SyscallConn()
	if err != nil {
		return nil
	}
	r := &readiness{system: system}
	r.peek, r.read = r.tryPeek, r.tryRead
	return r
}

// ready returns when something has come, or the connection has ended, or with the error of a deadline. The first time it
// does not wait: what came together with the end of the login is in the hands of TLS already.
func (r *readiness) ready() error {
	r.empty, r.some = false, false
	if !r.later {
		r.later = true
		return nil
	}
	return r.system.Read(r.peek)
}

// Read reads what has come; errDry: nothing.
func (r *readiness) Read(p []byte) (int, error) {
	if r.empty {
		return 0, errDry // ready looks again
	}
	r.into = p
	err := r.system.Read(r.read)
	r.into = nil
	if err != nil {
		return 0, err
	}
	r.some = r.some || r.n > 0
	r.empty = r.n < len(p)
	return r.n, r.err
}
