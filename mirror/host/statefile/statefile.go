package statefile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
)

var (
	// ErrLocked is returned by Open when another process, or another File of this one, has the file open.
	ErrLocked = errors.New("state file is in use")
	// ErrForeign is returned by Load when the file belongs to another session.
	ErrForeign = errors.New("state file belongs to another session")
	// ErrNewer is returned by Load when a newer program wrote the file.
	ErrNewer = errors.New("state file was written by a newer version")
	// ErrUnsafe is returned by Open when somebody else could read or replace the file.
	ErrUnsafe = errors.New("state file is not protected")
)

// CorruptError is returned by Load when the file does not tell the newest record for certain. The server has amnesia:
// it must not vote, serve or acknowledge anything for this session.
type CorruptError struct {
	Path   string
	Detail string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("state file %s is damaged (%s): this server no longer knows what it promised and must not act; "+
		"check the disk, keep the file aside, take this server out of the session and add it again as a new one",
		e.Path, e.Detail)
}

// device is what a File needs of an open file.
type device interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
}

// File is an open state file. One goroutine owns it.
type File struct {
	path     string
	identity [16]byte
	device   device
	counter  uint64 // of the newest record
	loaded   bool
	err      error // the first write or fsync that failed; nothing is written after it
}

// Open opens and locks the state file at path, and makes it when there is none. The identity is that of the session;
// Load compares it. Errors wrap [ErrLocked] or [ErrUnsafe], or are those of the file system.
func Open(path string, identity [16]byte) (*File, error) {
	if err := checkDirectory(filepath.Dir(path)); err != nil {
		return nil, err
	}
	file, err := openLocked(path)
	if errors.Is(err, os.ErrNotExist) {
		if err = create(path, identity); err != nil {
			return nil, fmt.Errorf("make state file %s: %w", path, err)
		}
		file, err = openLocked(path)
	}
	if err != nil {
		return nil, err
	}
	if err := settle(path); err != nil {
		return nil, errors.Join(fmt.Errorf("open state file %s: %w", path, err), file.Close())
	}
	return &File{path: path, identity: identity, device: file}, nil
}

// Load returns the newest record. ok is false when nothing was ever saved. Errors are a *[CorruptError], wrap
// [ErrForeign] or [ErrNewer], or are those of the disk. After any of them the file cannot be saved to.
//
// Load writes what it read back to both slots before it returns. What was read may be in the page cache only, where a
// process that was killed before its fsync left it, or where an fsync failed; nobody may act on it before it is on
// disk. This also mends a copy that went bad.
func (f *File) Load() (record []byte, ok bool, err error) {
	if f.err != nil {
		return nil, false, f.err
	}
	newest, err := f.read()
	if err != nil {
		return nil, false, err
	}
	for range 2 {
		newest.counter++
		if err := f.write(newest); err != nil {
			return nil, false, err
		}
	}
	f.counter, f.loaded = newest.counter, true
	return newest.record, newest.stored, nil
}

func (f *File) read() (content, error) {
	// One byte more than there should be, to notice a file that has grown.
	b := make([]byte, fileSize+1)
	n, err := f.device.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return content{}, fmt.Errorf("read state file %s: %w", f.path, err)
	}
	newest, err := decodeFile(b[:n])
	if errors.Is(err, ErrNewer) {
		return content{}, fmt.Errorf("read state file %s: %w; use the version that wrote it, or a newer one", f.path, err)
	}
	if err != nil {
		return content{}, &CorruptError{Path: f.path, Detail: err.Error()}
	}
	if newest.identity != f.identity {
		return content{}, fmt.Errorf("read state file %s: %w: it is of %x, this session is %x; name the right file",
			f.path, ErrForeign, newest.identity, f.identity)
	}
	return newest, nil
}

// Save replaces the record by this one, of at most [MaxRecord] bytes, and returns when it is on disk. Load
// comes first. An error of the disk stays: after it, it is not known what is on disk, an fsync that is tried again may
// succeed without having written anything, and so every later Save returns the same error.
func (f *File) Save(record []byte) error {
	if f.err != nil {
		return f.err
	}
	if !f.loaded {
		return fmt.Errorf("save state file %s: it was not loaded", f.path)
	}
	if len(record) > MaxRecord {
		return fmt.Errorf("save state file %s: record has %d bytes, the limit is %d", f.path, len(record), MaxRecord)
	}
	if err := f.write(content{counter: f.counter + 1, identity: f.identity, stored: true, record: record}); err != nil {
		return err
	}
	f.counter++
	return nil
}

// write puts a content into its slot, which is the one with the older record.
func (f *File) write(c content) error {
	crashpoint.Hit(crashpoint.StateUnwritten)
	_, err := f.device.WriteAt(encodeSlot(c), int64(c.slot())*slotSize)
	if err == nil {
		crashpoint.Hit(crashpoint.StateWritten)
		err = crashpoint.After(crashpoint.StateSynced, f.device.Sync())
	}
	if err != nil {
		f.err = fmt.Errorf("write state file %s: %w; mend the disk and start this program again", f.path, err)
	}
	return f.err
}

// Close gives the lock back. It does not write.
func (f *File) Close() error {
	if err := f.device.Close(); err != nil {
		return fmt.Errorf("close state file %s: %w", f.path, err)
	}
	return nil
}
