//go:build !linux

package partner

import "syscall"

func dieWithParent() *syscall.SysProcAttr { return nil }
