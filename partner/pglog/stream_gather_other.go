//go:build !linux

package pglog

// setLowWater does nothing: elsewhere a read would wait for that many bytes too.
func setLowWater(uintptr, int) error { return nil }
