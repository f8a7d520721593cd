package redo

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// syncData is fdatasync: it leaves out the times, which saves a journal write when the size does not change.
func syncData(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// forgetPages makes the next read come from the disk. After a failed sync the system may hold pages that look clean and
// were never written. It is advice: where it is not taken, reads are as good as the cache.
func forgetPages(f *os.File) {
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}
