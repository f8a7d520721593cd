package statefile

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func open(t *testing.T, path string) *File {
	t.Helper()
	f, err := Open(path, testID)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.device.Close() })
	return f
}

func load(t *testing.T, f *File) []byte {
	t.Helper()
	record, ok, err := f.Load()
	require.NoError(t, err)
	require.True(t, ok)
	return record
}

func TestSaveAndLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a*b.state")
	f := open(t, path)
	record, ok, err := f.Load()
	require.NoError(t, err)
	require.False(t, ok)
	require.Empty(t, record)

	for i := range 5 {
		require.NoError(t, f.Save([]byte{byte(i)}))
		require.NoError(t, f.Close())
		f = open(t, path)
		require.Equal(t, []byte{byte(i)}, load(t, f))
	}
	require.NoError(t, f.Save(nil))
	require.Empty(t, load(t, f), "an empty record is a record")
	require.ErrorContains(t, f.Save(make([]byte, MaxRecord+1)), "limit")
	require.NoError(t, f.Save(make([]byte, MaxRecord)), "a record that is too long spoils nothing")

	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	require.EqualValues(t, fileSize, info.Size())
}

func TestSaveBeforeLoad(t *testing.T) {
	f := open(t, filepath.Join(t.TempDir(), "state"))
	require.ErrorContains(t, f.Save([]byte("x")), "not loaded")
}

func TestOtherSession(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	require.NoError(t, open(t, path).Close())
	f, err := Open(path, [16]byte{0xff})
	require.NoError(t, err)
	defer f.Close()
	_, _, err = f.Load()
	require.ErrorIs(t, err, ErrForeign)
	require.ErrorContains(t, err, "01020304")
	require.Error(t, f.Save([]byte("x")))
}

// One copy that a newer program wrote is enough: it is newer, not damaged.
func TestNewerVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	for at := 0; at < fileSize; at += copySize {
		b := image(10)
		binary.LittleEndian.PutUint32(b[at+offVersion:], version+1)
		binary.LittleEndian.PutUint32(b[at+offCRC:], checksum(b[at:at+copySize]))
		require.NoError(t, os.WriteFile(path, b, 0o600))
		f := open(t, path)
		_, _, err := f.Load()
		require.ErrorIs(t, err, ErrNewer)
		require.NoError(t, f.Close())
	}
}

// A damaged file is refused as it is, and left as it is.
func TestAmnesia(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	for name, b := range map[string][]byte{"empty": {}, "zeroed": make([]byte, fileSize), "short": image(10)[:fileSize-1]} {
		require.NoError(t, os.WriteFile(path, b, 0o600))
		f := open(t, path)
		_, _, err := f.Load()
		var corrupt *CorruptError
		require.ErrorAs(t, err, &corrupt, name)
		require.Equal(t, path, corrupt.Path)
		require.Error(t, f.Save([]byte("x")))
		require.NoError(t, f.Close())
		after, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, b, after)
	}
}

// Load mends: after it, all four copies are whole and the newest record survives the loss of either slot's copy.
func TestLoadMends(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	b := image(10)
	b[100] ^= 1
	b[slotSize+copySize+100] ^= 1
	require.NoError(t, os.WriteFile(path, b, 0o600))
	f := open(t, path)
	require.Equal(t, recordOf(10), load(t, f))
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	for at := 0; at < fileSize; at += copySize {
		c, err := decodeCopy(after[at:at+copySize], at/slotSize)
		require.NoError(t, err)
		require.Equal(t, recordOf(10), c.record)
	}
}

func TestLockedInThisProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	f := open(t, path)
	_, err := Open(path, testID)
	require.ErrorIs(t, err, ErrLocked)
	require.ErrorContains(t, err, "stop that one first")
	require.NoError(t, f.Close())
	open(t, path)
}

func TestUnsafePlaces(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	require.NoError(t, open(t, good).Close())
	refused := func(path, want string) {
		t.Helper()
		_, err := Open(path, testID)
		require.ErrorIs(t, err, ErrUnsafe)
		require.ErrorContains(t, err, want)
	}

	require.NoError(t, os.Symlink(good, filepath.Join(dir, "link")))
	refused(filepath.Join(dir, "link"), "symbolic link")

	require.NoError(t, os.Symlink(filepath.Join(dir, "nothing"), filepath.Join(dir, "dangling")))
	refused(filepath.Join(dir, "dangling"), "symbolic link")

	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	refused(filepath.Join(dir, "fifo"), "not a regular file")

	for _, mode := range []os.FileMode{0o601, 0o602, 0o604} {
		require.NoError(t, os.Chmod(good, mode))
		refused(good, "chmod 600")
	}
	require.NoError(t, os.Chmod(good, 0o640))
	require.NoError(t, open(t, good).Close())

	real := filepath.Join(dir, "real")
	require.NoError(t, os.Mkdir(real, 0o700))
	require.NoError(t, os.Symlink(real, filepath.Join(dir, "linked")))
	refused(filepath.Join(dir, "linked", "state"), "symbolic link")

	require.NoError(t, os.Chmod(real, 0o777))
	refused(filepath.Join(real, "state"), "chmod o-w")

	_, err := Open(filepath.Join(dir, "missing", "state"), testID)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = Open(filepath.Join(good, "state"), testID)
	require.ErrorContains(t, err, "not a directory")
}

// What a crash can leave between the steps of making the file.
func TestCrashWhileMaking(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a[b*c?d")
	require.NoError(t, os.Mkdir(dir, 0o700))
	path := filepath.Join(dir, "[state")
	for _, torn := range []int{0, 1, copySize, slotSize, fileSize - 1, fileSize} {
		require.NoError(t, os.WriteFile(path+leftover+"123", image(10)[:torn], 0o600))
		f := open(t, path)
		_, ok, err := f.Load()
		require.NoError(t, err)
		require.False(t, ok, "a file that never got its name says nothing")
		require.NoError(t, f.Close())
		require.NoError(t, os.Remove(path))
	}
	// Named, but the first name is still there too.
	f := open(t, path)
	require.NoError(t, f.Close())
	require.NoError(t, os.Link(path, path+leftover+"456"))
	f = open(t, path)
	_, _, err := f.Load()
	require.NoError(t, err)
	require.NoError(t, f.Save([]byte("kept")))
	require.Equal(t, "kept", string(load(t, f)))
	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, names, 1, "leftovers are taken away")
}

// Two processes make the file at the same time: the second one leaves the first one's alone.
func TestMadeByAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	f := open(t, path)
	_, _, err := f.Load()
	require.NoError(t, err)
	require.NoError(t, f.Save([]byte("theirs")))
	require.NoError(t, create(path, testID))
	require.Equal(t, "theirs", string(load(t, f)))
}

// The file is replaced between opening and locking: whoever holds the old one must not go on with it.
func TestReplacedWhileOpened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	f := open(t, path)
	require.NoError(t, f.Close())
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer file.Close()
	require.NoError(t, os.Rename(path, path+".old"))
	require.NoError(t, create(path, testID))
	require.ErrorIs(t, claim(path, file), ErrUnsafe)
}

// Of several that make the file at the same time one has it, and the others are told that it is in use.
func TestMadeByManyAtOnce(t *testing.T) {
	dir := t.TempDir()
	for i := range 8 {
		path := filepath.Join(dir, fmt.Sprint("state", i))
		const many = 3
		opened, failed := make(chan *File, many), make(chan error, many)
		var starting sync.WaitGroup
		for range many {
			starting.Go(func() {
				f, err := Open(path, [16]byte{1})
				if err != nil {
					failed <- err
					return
				}
				opened <- f
			})
		}
		starting.Wait()
		require.Len(t, opened, 1)
		for range many - 1 {
			require.ErrorIs(t, <-failed, ErrLocked)
		}
		require.NoError(t, (<-opened).Close())
	}
}
