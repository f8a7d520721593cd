package sqlitelog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// A copy takes the place of the database in three steps, each of which a crash may separate from the next: it has its
// name when it is whole and on disk; what SQLite keeps beside the former file is removed, since it would be taken for
// the copy's; the copy takes the former file's name. Open goes on where this was broken off.

func copyPath(path string) string { return path + "-copied" }

// finishReplacing puts a whole copy in place, if there is one.
func finishReplacing(path string) error {
	copied := copyPath(path)
	if _, err := os.Stat(copied); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, beside := range []string{"-wal", "-shm", "-journal"} {
		if err := os.Remove(path + beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return &FileError{path, "what is beside it cannot be removed", "let this user write its directory", err}
		}
	}
	err := syncDir(path)
	if err == nil {
		err = os.Rename(copied, path)
	}
	if err == nil {
		err = syncDir(path)
	}
	if err != nil {
		return &FileError{path, "its copy cannot take its place", "let this user write its directory", err}
	}
	return nil
}

// syncDir puts the names in a file's directory on disk.
func syncDir(path string) error {
	f, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
