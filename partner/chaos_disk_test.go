package partner

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

// ballast is the file that fills a disk.
const ballast = "ballast"

// mayLimitDisk says whether a program's directory can be made full, or be made to seem so.
func mayLimitDisk() bool { return runtime.GOOS == "linux" }

// limitDisks gives each partner's directory a small file system of its own, which keeps what is written to it over kills
// as a disk's cache does. Only root can.
func (c *chaos) limitDisks() {
	switch {
	case !mayLimitDisk():
		c.t.Log("full disks are left out: this system can neither give a directory a file system nor limit a process's files")
		return
	case !mayMount():
		c.t.Log("a full disk is a limit on the size of a program's files: only root can give its directory a file system of its own")
		return
	}
	for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
		dir := filepath.Join(c.dir, s.String())
		require.NoError(c.t, os.Mkdir(dir, 0o700))
		mountTmpfs(c.t, dir, 0, "mode=0700,size=48m")
	}
}

// fill leaves no room in a partner's directory until it is released.
func (c *chaos) fill(s mirror.Server) (release func() error, err error) {
	if !mayMount() {
		pid := c.pid(s)
		return func() error { return ignoreGone(limitFiles(pid, false)) }, ignoreGone(limitFiles(pid, true))
	}
	path := filepath.Join(c.dir, s.String(), ballast)
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for _, block := range []int{1 << 20, 4 << 10, 1} { // to the last byte
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, block))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			return nil, errors.Join(fmt.Errorf("fill the disk: %w", err), os.Remove(path))
		}
	}
	return func() error { return os.Remove(path) }, nil
}
