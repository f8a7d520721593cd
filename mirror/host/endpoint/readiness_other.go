//go:build !unix

package endpoint

const canWait = false

func (*readiness) tryPeek(uintptr) bool { return true }

func (*readiness) tryRead(uintptr) bool { return true }
