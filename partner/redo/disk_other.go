//go:build !linux

package redo

import "os"

func syncData(f *os.File) error { return f.Sync() }

// forgetPages has no portable form: after a failed sync, reboot before the log is opened again.
func forgetPages(*os.File) {}
