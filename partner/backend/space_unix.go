//go:build linux || darwin

package backend

import "syscall"

// FreeBytes returns what an ordinary user can still write to the file system of a directory.
func FreeBytes(directory string) (int64, bool) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(directory, &stat); err != nil {
		return 0, false
	}
	return int64(stat.Bavail) * int64(stat.Bsize), true
}
