package pgtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// processAttr puts a child into a process group of its own, so that an interrupt typed at the terminal is left to this
// process, gives it the account, and ends it (immediate mode) when this process dies.
func processAttr(a account) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGQUIT}
	if a.other() {
		attr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
	return attr
}

// freePort returns a port of 127.0.0.1 that is nobody's, and keeps it so until released, even while the server is down.
//
// The port is held by a socket that is bound alone, hence to a port that no other socket has. Allowing its reuse only
// afterwards lets the server in, which binds with reuse and listens, while the kernel gives the port to nobody who asks
// for a free one.
func freePort() (port int, release func(), err error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, fmt.Errorf("open socket: %w", err)
	}
	port, err = holdPort(fd)
	if err != nil {
		return 0, nil, errors.Join(err, syscall.Close(fd))
	}
	// Closing a bound socket that never carried data cannot fail in a way that leaves the port held.
	return port, func() { _ = syscall.Close(fd) }, nil
}

func holdPort(fd int) (int, error) {
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, fmt.Errorf("bind socket: %w", err)
	}
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return 0, fmt.Errorf("share socket: %w", err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, fmt.Errorf("ask socket for its port: %w", err)
	}
	inet, ok := at.(*syscall.SockaddrInet4)
	if !ok {
		return 0, fmt.Errorf("ask socket for its port: its address is a %T", at)
	}
	return inet.Port, nil
}

// processes returns the process table.
func processes() ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var all []process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue // not a process
		}
		p, found, err := lookUp(pid)
		if err != nil {
			return nil, err
		}
		if found {
			all = append(all, p)
		}
	}
	return all, nil
}

// lookUp reads one process's line: "pid (name) state parent ...". The name may hold blanks and parentheses.
func lookUp(pid int) (p process, found bool, err error) {
	line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return process{}, false, nil
	}
	if err != nil {
		return process{}, false, fmt.Errorf("look up process %d: %w", pid, err)
	}
	text := string(line)
	words := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(words) < 2 {
		return process{}, false, fmt.Errorf("look up process %d: %q is not a line of the process table", pid, text)
	}
	parent, err := strconv.Atoi(words[1])
	if err != nil {
		return process{}, false, fmt.Errorf("look up process %d: %w", pid, err)
	}
	return process{pid: pid, parent: parent, state: words[0][0]}, true, nil
}
