//go:build !linux

package main

import (
	"errors"
	"os"
	"time"
)

type slowed struct{}

func newSlowed(string) (*slowed, error) {
	return nil, errors.New("make a slow disk: it needs Linux's filter of system calls; choose the others with -only")
}

func (*slowed) close() error { return nil }

// syncData is what this system has in the place of fdatasync.
func syncData(f *os.File) error { return f.Sync() }

func slowChild([]string) (int, bool) { return 0, false }

const (
	slowArgument = ""
	slowSync     = time.Duration(0)
)
