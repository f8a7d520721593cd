package sqlitelog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// settleJournal makes what SQLite is about to recover what the disk holds. A process that was killed before its sync, or
// whose sync failed, leaves transactions in the write-ahead log that only the system's cache has. SQLite would take them
// for committed; they would be read, sent to the mirror, and their hardened log given back there, and a power loss
// would take them away, with every transaction after them.
func settleJournal(path string) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // SQLite puts its journal beside the file itself
	}
	f, err := os.Open(path + "-wal")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		if err = f.Sync(); err == nil {
			forgetPages(f)
		}
		if err = errors.Join(err, f.Close()); err == nil {
			err = syncDir(path)
		}
	}
	if err != nil {
		return &FileError{path, "what its journal holds cannot be put on disk", "check the disk, and let this user read its directory", err}
	}
	return nil
}
