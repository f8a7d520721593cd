//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package redo

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// lockDir takes the directory for this process until the file is closed or the process ends, however it ends.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock redo queue: %w", err)
	}
	err = flock(f)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("lock redo queue %s: %w", dir, ErrLocked)
	}
	return nil, fmt.Errorf("lock redo queue %s: %w", dir, err)
}

// lockPatience is how long a lock may be held by somebody who is about to let it go: a program that was just ended, or
// another process that this one is starting, which holds a copy of the open file until its own program begins.
const lockPatience = 250 * time.Millisecond

func flock(f *os.File) error {
	const pause = 10 * time.Millisecond
	for waited := time.Duration(0); ; waited += pause {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) || waited >= lockPatience {
			return err
		}
		time.Sleep(pause)
	}
}
