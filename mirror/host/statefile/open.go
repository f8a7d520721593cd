package statefile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
)

// leftover marks files that a crash while the state file was made can leave behind.
const leftover = ".new-"

// checkDirectory refuses a directory in which somebody else could put another file in place of ours.
func checkDirectory(dir string) error {
	info, err := os.Lstat(dir)
	switch {
	case err != nil:
		return fmt.Errorf("open directory of state file: %w", err)
	case info.Mode()&os.ModeSymlink != 0:
		return fmt.Errorf("%w: directory %s is a symbolic link; name the directory itself", ErrUnsafe, dir)
	case !info.IsDir():
		return fmt.Errorf("open directory of state file: %s is not a directory", dir)
	case info.Mode().Perm()&0o002 != 0:
		return fmt.Errorf("%w: everybody may write in directory %s (mode %04o); chmod o-w it, or use a directory of its own",
			ErrUnsafe, dir, info.Mode().Perm())
	}
	return nil
}

// openLocked opens an existing file, and refuses one that is not ours alone.
func openLocked(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%w: %s is a symbolic link; name the file itself", ErrUnsafe, path)
	}
	if err != nil {
		return nil, fmt.Errorf("open state file: %w", err)
	}
	if err := claim(path, file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// claim locks the file and then makes sure that path still names it.
func claim(path string, file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("open state file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %s is not a regular file", ErrUnsafe, path)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return fmt.Errorf("%w: everybody may access %s (mode %04o); chmod 600 it", ErrUnsafe, path, info.Mode().Perm())
	}
	err = flock(file)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("%w: %s is open in another process; stop that one first, or give each session a file of its own",
			ErrLocked, path)
	}
	if err != nil {
		return fmt.Errorf("lock state file %s: %w", path, err)
	}
	named, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("open state file: %w", err)
	}
	if !os.SameFile(info, named) {
		return fmt.Errorf("%w: %s was replaced while it was opened; find out by whom", ErrUnsafe, path)
	}
	return nil
}

// create makes a file that says "nothing was ever saved". It appears at path whole or not at all, so that an empty or
// zeroed file there is always damage. When another process was faster, its file stays; it has then taken ours away, see
// settle, or will.
func create(path string, identity [16]byte) error {
	crashpoint.Hit(crashpoint.StateFileUnmade)
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+leftover+"*")
	if err != nil {
		return fmt.Errorf("%w; let the user that runs this program write in the directory", err)
	}
	err = fill(file, identity)
	if err == nil {
		crashpoint.Hit(crashpoint.StateFileFilled)
		err = os.Link(file.Name(), path)
	}
	if errors.Is(err, os.ErrExist) || errors.Is(err, os.ErrNotExist) {
		err = nil // what is there, or that nothing is, is found when it is opened
	}
	if gone := os.Remove(file.Name()); !errors.Is(gone, os.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}

// fill writes the first content of both slots and closes the file.
func fill(file *os.File, identity [16]byte) error {
	b := encodeSlot(content{counter: 0, identity: identity})
	b = append(b, encodeSlot(content{counter: 1, identity: identity})...)
	_, err := file.Write(b)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// settle makes the name of the file durable and takes leftovers away. It runs at every opening, under the lock: the
// process that made the file may have died before it came to this. A process that is just making another file cannot
// succeed any more, the name is taken.
func settle(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	names, err := filepath.Glob(escape(path) + leftover + "*")
	for _, name := range names {
		if e := os.Remove(name); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	crashpoint.Hit(crashpoint.StateFileNamed)
	return crashpoint.After(crashpoint.StateFileSettled, errors.Join(err, dir.Sync(), dir.Close()))
}

// escape makes a path stand for itself in a glob pattern.
func escape(path string) string {
	var b []byte
	for i := range len(path) {
		if path[i] == '*' || path[i] == '?' || path[i] == '[' || path[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, path[i])
	}
	return string(b)
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
