package redo

import (
	"errors"
	"os"
)

// disk is what the log asks of the system about names. Every method may fail.
type disk interface {
	Open(path string, flag int) (file, error)
	Rename(from, to string) error
	Remove(path string) error
	SyncDir(path string) error
}

// file is what the log asks of the system about bytes.
type file interface {
	ReadAt(b []byte, at int64) (int, error)
	WriteAt(b []byte, at int64) (int, error)
	Truncate(size int64) error
	Sync() error // data, and the size that is needed to read it
	Forget()     // drops cached pages that need no writing, so that the next read asks the disk
	Close() error
}

type osDisk struct{}

func (osDisk) Open(path string, flag int) (file, error) {
	f, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osDisk) Rename(from, to string) error { return os.Rename(from, to) }

func (osDisk) Remove(path string) error { return os.Remove(path) }

func (osDisk) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

type osFile struct{ *os.File }

func (f osFile) Sync() error { return syncData(f.File) }

func (f osFile) Forget() { forgetPages(f.File) }
