//go:build !linux

package partner

import (
	"errors"
	"syscall"
)

func dieWithParent() *syscall.SysProcAttr { return nil }

// mayFailSystemCalls says whether failSystemCall works here.
const mayFailSystemCalls = false

func failSystemCall(string) error { return errors.ErrUnsupported }
