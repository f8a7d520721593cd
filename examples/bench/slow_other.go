//go:build !linux

package main

import "errors"

type slowed struct{}

func newSlowed(string) (*slowed, error) {
	return nil, errors.New("make a slow disk: it needs Linux's filter of system calls; leave out the metrics named slow-")
}

func (*slowed) close() error { return nil }

func slowChild([]string) (int, bool) { return 0, false }

const slowArgument = ""
