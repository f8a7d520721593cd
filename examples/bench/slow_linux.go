package main

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A slow disk is made by the kernel's system call filter: each fsync and fdatasync of a process that runs under it is
// handed to this program, which lets it go on a millisecond later. Unlike a preloaded library it holds for every program,
// in whatever language, and for all its children.

// slowSync is by how much each sync is longer.
const slowSync = time.Millisecond

// syncData is fdatasync.
func syncData(f *os.File) error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); err != unix.EINTR {
			return err
		}
	}
}

// slowArgument is the first argument of a process that is to run another program under the filter:
//
//	bench run-with-slow-syncs SOCKET PROGRAM ARGUMENTS...
const slowArgument = "run-with-slow-syncs"

// slowed accepts the filters of processes on a socket, and delays the syncs of all of them.
type slowed struct {
	listener *net.UnixListener
}

func newSlowed(socket string) (*slowed, error) {
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("make a slow disk: %w", err)
	}
	if err := os.Chmod(socket, 0o777); err != nil { // servers run under another account
		listener.Close()
		return nil, fmt.Errorf("make a slow disk: %w", err)
	}
	s := &slowed{listener}
	go s.accept()
	return s, nil
}

// close takes no more processes. Those that run keep their filter, so they are to end first.
func (s *slowed) close() error { return s.listener.Close() }

func (s *slowed) accept() {
	for {
		conn, err := s.listener.AcceptUnix()
		if err != nil {
			return
		}
		if fd, err := receive(conn); err == nil {
			go delay(fd)
		}
		conn.Close()
	}
}

// receive takes over the filter of the process at the other end.
func receive(conn *net.UnixConn) (int, error) {
	data, rights := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(data, rights)
	if err != nil {
		return 0, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil {
		return 0, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return 0, err
	}
	return fds[0], nil
}

// notice and answer are struct seccomp_notif and seccomp_notif_resp of the kernel.
type (
	notice struct {
		id           uint64
		pid, flags   uint32
		number       int32
		architecture uint32
		instruction  uint64
		arguments    [6]uint64
	}
	answer struct {
		id    uint64
		value int64
		err   int32
		flags uint32
	}
)

// delay lets each sync go on later, until nobody runs under the filter any more.
func delay(filter int) {
	defer unix.Close(filter)
	for {
		var n notice
		switch err := control(filter, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)); err {
		case nil:
			time.AfterFunc(slowSync, func() {
				a := answer{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
				_ = control(filter, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&a)) // who was killed meanwhile needs no answer
			})
		case unix.EINTR:
		case unix.ENOENT: // the sync was interrupted before it was fetched, and will be tried again; or nobody is left
			if unattended(filter) {
				return
			}
		default:
			return
		}
	}
}

// unattended says whether nobody runs under a filter any more.
func unattended(filter int) bool {
	state := []unix.PollFd{{Fd: int32(filter), Events: unix.POLLIN}}
	_, err := unix.Poll(state, 0)
	return err == nil && state[0].Revents&unix.POLLHUP != 0
}

func control(fd int, request uintptr, argument unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(argument)); errno != 0 {
		return errno
	}
	return nil
}

// slowChild becomes the program that the arguments name, under the filter, if they ask for that. It returns only when
// that failed.
func slowChild(args []string) (int, bool) {
	if len(args) < 4 || args[1] != slowArgument {
		return 0, false
	}
	runtime.LockOSThread() // the filter is the thread's; the thread becomes the program
	err := handOver(args[2])
	if err == nil {
		err = syscall.Exec(args[3], args[3:], os.Environ())
	}
	fmt.Fprintf(os.Stderr, "run %s with slow syncs: %v\n", args[3], err)
	return 1, true
}

// handOver puts this thread under the filter, and gives it to whoever listens on the socket.
func handOver(socket string) error {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return err
	}
	defer conn.Close()
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: unix.SYS_FSYNC},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_FDATASYNC},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	filter, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER,
		uintptr(unsafe.Pointer(&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})))
	if errno != 0 {
		return fmt.Errorf("filter system calls: %w", errno)
	}
	defer unix.Close(int(filter))
	_, _, err = conn.WriteMsgUnix([]byte{0}, unix.UnixRights(int(filter)), nil)
	return err
}
