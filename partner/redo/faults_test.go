package redo

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// faultyDisk passes every operation on to real files, but may refuse one, and knows what a power loss would leave.
// Syncs are bookkeeping: they only say what must survive.
type faultyDisk struct {
	real osDisk
	dir  string

	// before is called ahead of each operation; an error is returned instead of doing it. A write that is refused has
	// put down half of its bytes.
	before func(op, path string) error

	mu      sync.Mutex
	names   map[string]*inode // as a process sees them
	durable map[string]*inode // as a power loss would leave them, if pending is lost
	pending []func(map[string]*inode)
}

// inode is one file's bytes.
type inode struct {
	synced []byte
	path   string // where its present bytes are, while it has a name
	last   []byte // its bytes when the name was removed
}

func newFaultyDisk(t require.TestingT, dir string) *faultyDisk {
	d := &faultyDisk{dir: dir, names: map[string]*inode{}, durable: map[string]*inode{}}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		d.names[e.Name()] = &inode{synced: b, path: path}
		d.durable[e.Name()] = d.names[e.Name()]
	}
	return d
}

func (d *faultyDisk) ask(op, path string) error {
	if d.before == nil {
		return nil
	}
	return d.before(op, path)
}

func (d *faultyDisk) change(do func(map[string]*inode)) {
	do(d.names)
	d.pending = append(d.pending, do)
}

func (d *faultyDisk) Open(path string, flag int) (file, error) {
	if err := d.ask("open", path); err != nil {
		return nil, err
	}
	f, err := d.real.Open(path, flag)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	name := filepath.Base(path)
	if d.names[name] == nil {
		i := &inode{path: path}
		d.change(func(names map[string]*inode) { names[name] = i })
	}
	return &faultyFile{file: f, disk: d, inode: d.names[name]}, nil
}

func (d *faultyDisk) Rename(from, to string) error {
	if err := d.ask("rename", to); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.real.Rename(from, to); err != nil {
		return err
	}
	a, b := filepath.Base(from), filepath.Base(to)
	i := d.names[a]
	i.path = to
	d.change(func(names map[string]*inode) {
		names[b] = i
		delete(names, a)
	})
	return nil
}

func (d *faultyDisk) Remove(path string) error {
	if err := d.ask("remove", path); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := d.real.Remove(path); err != nil {
		return err
	}
	name := filepath.Base(path)
	d.names[name].last, d.names[name].path = b, ""
	d.change(func(names map[string]*inode) { delete(names, name) })
	return nil
}

func (d *faultyDisk) SyncDir(path string) error {
	if err := d.ask("syncdir", path); err != nil {
		return err
	}
	if path != d.dir {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, do := range d.pending {
		do(d.durable)
	}
	d.pending = nil
	return nil
}

type faultyFile struct {
	file
	disk  *faultyDisk
	inode *inode
}

func (f *faultyFile) WriteAt(b []byte, at int64) (int, error) {
	if err := f.disk.ask("write", f.inode.path); err != nil {
		n, _ := f.file.WriteAt(b[:len(b)/2], at)
		return n, err
	}
	return f.file.WriteAt(b, at)
}

func (f *faultyFile) ReadAt(b []byte, at int64) (int, error) {
	if err := f.disk.ask("read", f.inode.path); err != nil {
		return 0, err
	}
	return f.file.ReadAt(b, at)
}

func (f *faultyFile) Truncate(size int64) error {
	if err := f.disk.ask("truncate", f.inode.path); err != nil {
		return err
	}
	return f.file.Truncate(size)
}

func (f *faultyFile) Sync() error {
	if err := f.disk.ask("sync", f.inode.path); err != nil {
		return err
	}
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	b, err := f.inode.bytes()
	f.inode.synced = b
	return err
}

func (f *faultyFile) Close() error {
	closed := f.file.Close()
	if err := f.disk.ask("close", f.inode.path); err != nil {
		return err
	}
	return closed
}

func (i *inode) bytes() ([]byte, error) {
	if i.path == "" {
		return i.last, nil
	}
	return os.ReadFile(i.path)
}

// kill copies what the process's death would leave: everything it wrote.
func (d *faultyDisk) kill(t require.TestingT, to string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	require.NoError(t, os.Mkdir(to, 0o700))
	for name, i := range d.names {
		b, err := i.bytes()
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(to, name), b, 0o600))
	}
}

// losePower copies what a power loss may leave: what was synced, and any of the changed names and sectors.
func (d *faultyDisk) losePower(t require.TestingT, to string, rng *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	require.NoError(t, os.Mkdir(to, 0o700))
	names := map[string]*inode{}
	for name, i := range d.durable {
		names[name] = i
	}
	for _, do := range d.pending {
		if rng.IntN(2) == 0 {
			do(names)
		}
	}
	for name, i := range names {
		now, err := i.bytes()
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(to, name), tear(i.synced, now, rng), 0o600))
	}
}

// tear mixes the synced and the present bytes of a file by sectors.
func tear(synced, now []byte, rng *rand.Rand) []byte {
	const sector = 64 // smaller than real ones, so that small logs tear too
	size := len(synced)
	if low, high := min(len(synced), len(now)), max(len(synced), len(now)); low < high {
		size = low + rng.IntN(high-low+1)
	}
	out := make([]byte, size)
	copy(out, synced)
	for at := 0; at < size; at += sector {
		end := min(at+sector, size)
		if at < len(now) && rng.IntN(2) == 0 {
			copy(out[at:end], now[at:])
		}
	}
	return out
}

// failNth refuses the n-th operation of the kind from now on, counting from 0, and only that one.
func failNth(op string, n int, err error) func(string, string) error {
	return func(got, _ string) error {
		if got != op {
			return nil
		}
		n--
		if n == -1 {
			return err
		}
		return nil
	}
}

var (
	errIO     = fmt.Errorf("disk: %w", syscall.EIO)
	errNoRoom = fmt.Errorf("disk: %w", syscall.ENOSPC)
)

func testConfig(dir string) Config {
	return Config{Dir: dir, Identity: [32]byte{1, 2, 3}, SegmentBytes: minSegmentBytes, MaxBytes: 1 << 20}
}

// openFaulty opens a queue over a faulty disk; it is closed with the test.
func openFaulty(t *testing.T, dir string) (*Queue, *faultyDisk) {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir, 0o700))
	d := newFaultyDisk(t, dir)
	q, err := open(testConfig(dir), d)
	require.NoError(t, err)
	t.Cleanup(func() {
		d.before = nil
		if err := q.Close(); err != nil {
			require.ErrorIs(t, err, ErrClosed)
		}
	})
	return q, d
}
