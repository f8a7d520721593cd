package statefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// MakeDir makes a directory for state files with mode 0700, and those above it that are missing. When it returns their
// names are on disk: what is synced inside a directory is lost with a directory that is not. One that is there stays as
// it is.
func MakeDir(dir string) error { return makeDir(filepath.Clean(dir), syncDir) }

func makeDir(dir string, sync func(dir string) error) error {
	parent := filepath.Dir(dir)
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) && parent != dir {
		if err := makeDir(parent, sync); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o700)
	}
	if errors.Is(err, fs.ErrExist) {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return errors.Join(fmt.Errorf("make directory: %s is not a directory", dir), err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if err := sync(parent); err != nil {
		return fmt.Errorf("make directory %s: %w", dir, errors.Join(err, os.Remove(dir)))
	}
	return nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
