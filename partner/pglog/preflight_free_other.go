//go:build !linux && !darwin

package pglog

// freeBytes knows nothing on this system, so space is not examined.
func freeBytes(string) (int64, bool) { return 0, false }
