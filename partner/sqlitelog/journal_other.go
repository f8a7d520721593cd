//go:build !linux

package sqlitelog

import "os"

// forgetPages has no portable form: after a failed sync, reboot before the database is opened again.
func forgetPages(*os.File) {}
