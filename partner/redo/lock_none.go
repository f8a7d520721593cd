//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package redo

import (
	"errors"
	"fmt"
	"os"
)

func lockDir(dir string) (*os.File, error) {
	return nil, fmt.Errorf("lock redo queue %s: %w: this system has no flock", dir, errors.ErrUnsupported)
}
