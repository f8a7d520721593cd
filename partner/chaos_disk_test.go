package partner

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

// ballast is the file that fills a disk.
const ballast = "ballast"

// mayLimitDisk says whether a program's directory can be made full.
func mayLimitDisk() bool { return mayMount() }

// limitDisks gives each partner's directory a small file system of its own, which keeps what is written to it over kills
// as a disk's cache does.
func (c *chaos) limitDisks() {
	if !mayLimitDisk() {
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
	path := filepath.Join(c.dir, s.String(), ballast)
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	release = func() error { return os.Remove(path) }
	for _, block := range []int{1 << 20, 4 << 10, 1} { // to the last byte
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, block))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			return release, fmt.Errorf("fill the disk: %w", err)
		}
	}
	return release, nil
}
