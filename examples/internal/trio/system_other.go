//go:build !linux

package trio

import "syscall"

// childAttr keeps an interrupt typed at the terminal from the child, which is ended in order by this process.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
