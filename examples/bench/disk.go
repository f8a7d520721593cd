package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// disk is how long syncs take.
type disk uint8

const (
	ordinaryDisk disk = iota // as the machine has it
	slowDisk                 // 1 ms longer, for every process alike
)

// syncTries is how many syncs are timed.
const syncTries = 200

// syncMicroseconds is the median time, in microseconds, that writing 8 KiB over old bytes and fdatasync take in a
// directory: what a server does at each commit.
func syncMicroseconds(dir string) (float64, error) {
	f, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		return 0, fmt.Errorf("time the disk: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	page := make([]byte, 8<<10)
	var took []float64
	for range syncTries {
		begun := time.Now()
		if _, err := f.WriteAt(page, 0); err != nil {
			return 0, fmt.Errorf("time the disk: %w", err)
		}
		if err := syncData(f); err != nil {
			return 0, fmt.Errorf("time the disk: %w", err)
		}
		took = append(took, float64(time.Since(begun).Microseconds()))
	}
	return median(took), nil
}
