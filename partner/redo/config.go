package redo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Config says where a Queue is and how large it may grow.
type Config struct {
	// Dir holds the log and nothing else. It is made if it is missing; its parent must exist.
	Dir string

	// Identity names session and incarnation. A log of another identity is refused with ErrIdentity.
	Identity [32]byte

	// SegmentBytes is the size at which a new file is begun. A larger record has a file of its own.
	// Default 64 MiB, at least 4 KiB.
	SegmentBytes int64

	// MaxBytes bounds the files of the log, in bytes. Space comes back by whole segments, so it must hold at least two;
	// a record that does not fit beside the segment being written is refused with ErrFull until that one is trimmed. A
	// transaction that is larger can never be hardened. Only the few bytes that begin a stream may go beyond it.
	// Default 16 GiB.
	MaxBytes int64
}

const (
	defaultSegmentBytes = 64 << 20
	minSegmentBytes     = 4 << 10
	defaultMaxBytes     = 16 << 30
)

func (c Config) withDefaults() Config {
	if c.SegmentBytes == 0 {
		c.SegmentBytes = defaultSegmentBytes
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = defaultMaxBytes
	}
	return c
}

func (c Config) validate() error {
	if c.Dir == "" {
		return errors.New("redo queue: Dir is empty")
	}
	if c.SegmentBytes < minSegmentBytes {
		return fmt.Errorf("redo queue: SegmentBytes %d is below %d", c.SegmentBytes, minSegmentBytes)
	}
	if c.MaxBytes/2 < c.SegmentBytes {
		return fmt.Errorf("redo queue: MaxBytes %d is below two segments of %d", c.MaxBytes, c.SegmentBytes)
	}
	return nil
}

// prepareDir makes the directory, or checks that nobody else can read or change the row data in it. The parent is not
// made: where it is missing, a volume is most likely not mounted, and a new log would hide that.
func prepareDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		return nil // its name is put on disk before anything is kept in it, see begin
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("make directory of redo queue: %w: mount its volume or make the parent", err)
	}
	if !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make directory of redo queue: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("check directory of redo queue: %w", err)
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("directory of redo queue %s is a symbolic link: give the directory it points to", dir)
	case !info.IsDir():
		return fmt.Errorf("directory of redo queue %s is not a directory: remove it or choose another", dir)
	case info.Mode().Perm()&0o027 != 0:
		return fmt.Errorf("directory of redo queue %s has mode %04o and will hold row data: chmod 0700 it", dir, info.Mode().Perm())
	}
	return nil
}
