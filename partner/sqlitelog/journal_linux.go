package sqlitelog

import (
	"os"

	"golang.org/x/sys/unix"
)

// forgetPages makes the next read come from the disk. After a failed sync the system may hold pages that look clean and
// were never written. It is advice: where it is not taken, reads are as good as the cache.
func forgetPages(f *os.File) {
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}
