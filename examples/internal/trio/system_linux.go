package trio

import "syscall"

// childAttr keeps an interrupt typed at the terminal from the child, which is ended in order by this process, and ends
// it when this process dies.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
