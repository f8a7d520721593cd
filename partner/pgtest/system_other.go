//go:build unix && !linux

package pgtest

import (
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// processAttr puts a child into a process group of its own, so that an interrupt typed at the terminal is left to this
// process, and gives it the account.
func processAttr(a account) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if a.other() {
		attr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
	return attr
}

// freePort returns a port of 127.0.0.1 that was nobody's a moment ago. It cannot be kept: start again on a clash.
func freePort() (port int, release func(), err error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, nil, err
	}
	addr, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		return 0, nil, fmt.Errorf("address %v is not one of TCP", listener.Addr())
	}
	return addr.Port, func() {}, listener.Close()
}

// processes returns the process table.
func processes() ([]process, error) {
	out, err := exec.Command("ps", "-axo", "pid=,ppid=,state=").Output()
	if err != nil {
		return nil, fmt.Errorf("list processes: ps: %w", err)
	}
	var all []process
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		if len(words) < 3 {
			return nil, fmt.Errorf("list processes: %q is not a line of the process table", line)
		}
		pid, err := strconv.Atoi(words[0])
		if err != nil {
			return nil, fmt.Errorf("list processes: %w", err)
		}
		parent, err := strconv.Atoi(words[1])
		if err != nil {
			return nil, fmt.Errorf("list processes: %w", err)
		}
		all = append(all, process{pid: pid, parent: parent, state: words[2][0]})
	}
	return all, nil
}

// lookUp returns one process.
func lookUp(pid int) (p process, found bool, err error) {
	all, err := processes()
	if err != nil {
		return process{}, false, err
	}
	for _, p := range all {
		if p.pid == pid {
			return p, true, nil
		}
	}
	return process{}, false, nil
}
