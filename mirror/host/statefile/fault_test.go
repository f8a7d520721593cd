package statefile

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// faulty wraps an open file. It fails the call with index failAt, and keeps what a crash of the machine would leave:
// everything up to the last fsync, and the writes after it one by one.
type faulty struct {
	device
	calls  int
	failAt int
	short  int // how many bytes a failing write still writes
	err    error

	synced  []byte
	pending []write
}

type write struct {
	at   int64
	data []byte
}

func (d *faulty) fails() bool {
	d.calls++
	return d.calls-1 == d.failAt
}

func (d *faulty) WriteAt(p []byte, off int64) (int, error) {
	if d.fails() {
		n, _ := d.device.WriteAt(p[:d.short], off)
		return n, d.err
	}
	d.pending = append(d.pending, write{off, slices.Clone(p)})
	return d.device.WriteAt(p, off)
}

func (d *faulty) Sync() error {
	if d.fails() {
		return d.err
	}
	for _, w := range d.pending {
		copy(d.synced[w.at:], w.data)
	}
	d.pending = nil
	return d.device.Sync()
}

func openFaulty(t *testing.T, path string, failAt int) (*File, *faulty) {
	t.Helper()
	f := open(t, path)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	d := &faulty{device: f.device, failAt: failAt, err: syscall.EIO, synced: b}
	f.device = d
	return f, d
}

// Every call to the disk fails once, in every way a call can fail: what was saved before is still there, the failed
// record is there or not, and the File writes nothing more.
func TestDiskErrorAtEveryCall(t *testing.T) {
	for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
		for failAt := range 10 {
			for _, short := range []int{0, 100, copySize, slotSize - 1} {
				diskErrorAt(t, failAt, short, cause)
			}
		}
	}
}

func diskErrorAt(t *testing.T, failAt, short int, cause error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state")
	f, d := openFaulty(t, path, failAt)
	d.short, d.err = short, cause
	_, _, failed := f.Load()
	last := byte(0)
	for i := byte(1); failed == nil; i++ {
		if failed = f.Save([]byte{i}); failed == nil {
			last = i
		}
	}
	require.ErrorIs(t, failed, cause)
	require.ErrorContains(t, failed, "mend the disk")

	calls := d.calls
	require.Equal(t, failed, f.Save([]byte("again")), "the error stays")
	_, _, err := f.Load()
	require.Equal(t, failed, err)
	require.Equal(t, calls, d.calls, "nothing is tried again")

	require.NoError(t, f.Close())
	record, ok, err := open(t, path).Load()
	require.NoError(t, err)
	if last > 0 {
		require.True(t, ok)
	}
	if ok {
		require.Contains(t, []byte{last, last + 1}, record[0])
	}
}

// The machine crashes in each Save, with the write torn at any sector boundary or not on disk at all: what Save
// returned for is there.
func TestPowerLossInSave(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	f, d := openFaulty(t, path, -1)
	_, _, err := f.Load()
	require.NoError(t, err)
	for n := byte(1); n < 6; n++ {
		before := slices.Clone(d.synced)
		d.failAt = d.calls + 1 // the fsync of this Save
		require.Error(t, f.Save([]byte{n}))
		require.Len(t, d.pending, 1)
		for torn := 0; torn <= slotSize; torn += 512 {
			b := slices.Clone(before)
			w := d.pending[0]
			copy(b[w.at:], w.data[:torn])
			got, err := decodeFile(b)
			require.NoError(t, err)
			if n > 1 {
				require.Contains(t, []byte{n - 1, n}, got.record[0])
			}
		}
		// Another life, without the fault.
		f.err, d.failAt, d.pending = nil, -1, nil
		require.NoError(t, f.Save([]byte{n}))
		got, err := decodeFile(d.synced)
		require.NoError(t, err)
		require.Equal(t, []byte{n}, got.record)
	}
}

// A killed process leaves a record in the page cache that was never synced. Load must not hand it out before it is.
func TestLoadHardensWhatItReturns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	f := open(t, path)
	_, _, err := f.Load()
	require.NoError(t, err)
	require.NoError(t, f.Save([]byte("old")))
	next := content{counter: f.counter + 1, identity: testID, stored: true, record: []byte("new")}
	_, err = f.device.WriteAt(encodeSlot(next), int64(next.slot())*slotSize)
	require.NoError(t, err)
	require.NoError(t, f.Close())

	f, d := openFaulty(t, path, -1)
	// The disk has the older record in the slot that was written last.
	older := content{counter: next.counter - 2, identity: testID}
	copy(d.synced[next.slot()*slotSize:], encodeSlot(older))
	require.Equal(t, "new", string(load(t, f)))
	got, err := decodeFile(d.synced)
	require.NoError(t, err)
	require.Equal(t, "new", string(got.record))
}
