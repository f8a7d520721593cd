package redo

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

// quietDisk leaves out the syncs, for tests that open a log many times and lose no power.
type quietDisk struct{ osDisk }

func (d quietDisk) Open(path string, flag int) (file, error) {
	f, err := d.osDisk.Open(path, flag)
	return quietFile{f}, err
}

func (quietDisk) SyncDir(string) error { return nil }

type quietFile struct{ file }

func (quietFile) Sync() error { return nil }
func (quietFile) Forget()     {}

// script appends transactions and hardens each, and keeps the model of it.
type script struct {
	q *Queue
	m model
}

func newScript(q *Queue) *script {
	return &script{q: q, m: model{start: Offset(q.logStart.Load()), base: q.Hardened()}}
}

func (s *script) append(r Record) error {
	err := s.q.Append(r)
	if err == nil {
		s.m.add(r)
	}
	return err
}

func (s *script) harden() error {
	_, err := s.q.Harden()
	if err == nil {
		s.m.hardened = len(s.m.entries)
	}
	return err
}

// attach begins the stream where the log ends.
func (s *script) attach() error {
	at := s.m.position(len(s.m.entries))
	at.Seq = max(at.Seq, 1)
	return s.append(Record{Kind: KindAttach, Seq: at.Seq, LSN: at.LSN})
}

// transaction appends one of two messages and hardens it.
func (s *script) transaction(size int) error {
	at := s.m.position(len(s.m.entries))
	at.Seq = max(at.Seq, 1)
	data := bytes.Repeat([]byte{byte(len(s.m.entries)) + 1}, size)
	if err := s.append(Record{Kind: KindData, Seq: at.Seq, LSN: at.LSN + 1, Data: data}); err != nil {
		return err
	}
	if err := s.append(Record{Kind: KindCommit, Seq: at.Seq, LSN: at.LSN + 10, Data: data[:size/8]}); err != nil {
		return err
	}
	return s.harden()
}

// buildLog writes a log and returns its model. It is left as by a crash unless it is closed.
func buildLog(t testing.TB, cfg Config, sealed bool, transactions, size int) model {
	t.Helper()
	require.NoError(t, os.MkdirAll(cfg.Dir, 0o700))
	q, err := open(cfg, quietDisk{})
	require.NoError(t, err)
	s := newScript(q)
	require.NoError(t, s.attach())
	for range transactions {
		require.NoError(t, s.transaction(size))
	}
	if sealed {
		require.NoError(t, q.Close())
		return s.m
	}
	require.NoError(t, errors.Join(q.file.Close(), q.lock.Close()))
	return s.m
}

func lastSegment(t *testing.T, dir string) string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix))
	require.NoError(t, err)
	return paths[len(paths)-1]
}

// memoryDisk holds one file.
type memoryDisk struct {
	disk
	bytes []byte
	size  int // what is left of the file
}

func (d *memoryDisk) Open(string, int) (file, error) {
	return memoryFile{Reader: bytes.NewReader(d.bytes[:d.size]), disk: d}, nil
}

type memoryFile struct {
	*bytes.Reader
	file
	disk *memoryDisk
}

func (f memoryFile) ReadAt(b []byte, at int64) (int, error) { return f.Reader.ReadAt(b, at) }
func (f memoryFile) Truncate(size int64) error              { f.disk.size = int(size); return nil }
func (memoryFile) Sync() error                              { return nil }
func (memoryFile) Forget()                                  {}

// TestTornAtEveryByte cuts a log at each byte of its last 64 KiB. What is left must be exactly the records that are
// whole. Around the end of each record, the log is opened from files and read too.
func TestTornAtEveryByte(t *testing.T) {
	t.Parallel()
	cfg := testConfig(filepath.Join(t.TempDir(), "redo"))
	cfg.SegmentBytes, cfg.MaxBytes = 1<<20, 4<<20
	m := buildLog(t, cfg, false, 56, 1000)
	path := lastSegment(t, cfg.Dir)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Greater(t, len(whole), 64<<10+segmentHeaderSize)
	header, err := decodeSegmentHeader(whole[:segmentHeaderSize])
	require.NoError(t, err)
	n := len(m.entries)
	for size := len(whole); size >= len(whole)-64<<10; size-- {
		limit := firstOffset + Offset(size-segmentHeaderSize)
		for m.end(n) > limit {
			n--
		}
		d := &memoryDisk{bytes: whole, size: size}
		q := &Queue{cfg: cfg, disk: d}
		require.NoError(t, q.verifyAll([]found{{path: path, start: firstOffset, limit: limit, header: header}}, 0))
		if q.written != m.end(n) || q.history.end != m.position(n) || d.size != int(filePos(firstOffset, m.end(n))) {
			t.Fatalf("cut to %d bytes: log ends at %d %v, want %d %v", size, q.written, q.history.end, m.end(n), m.position(n))
		}
		if limit-m.end(n) <= 1 || n < len(m.entries) && m.end(n+1)-limit == 1 {
			require.NoError(t, os.WriteFile(path, whole[:size], 0o600))
			q, err := open(cfg, quietDisk{})
			require.NoError(t, err)
			require.NoError(t, m.compare(q, n), "cut to %d bytes", size)
			require.NoError(t, errors.Join(q.file.Close(), q.lock.Close()))
		}
	}
}

// TestTailOfGarbage extends a log as a crash may: by zeros, or by a whole frame of another place.
func TestTailOfGarbage(t *testing.T) {
	for name, tail := range map[string]func(whole []byte) []byte{
		"zeros":       func([]byte) []byte { return make([]byte, 5000) },
		"stale frame": func(whole []byte) []byte { return whole[segmentHeaderSize:] },
		"ones":        func([]byte) []byte { return bytes.Repeat([]byte{0xff}, 300) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(filepath.Join(t.TempDir(), "redo"))
			cfg.SegmentBytes = 1 << 18
			m := buildLog(t, cfg, false, 3, 200)
			path := lastSegment(t, cfg.Dir)
			whole, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, append(whole, tail(whole)...), 0o600))
			q, err := Open(cfg)
			require.NoError(t, err)
			require.NoError(t, m.compare(q, len(m.entries)))
			require.NoError(t, q.Close())
		})
	}
}

// TestEveryBitFlip turns each bit of a log. In a log that was closed each flip is found, but for those in the seal, which
// harm nothing. After a crash, those in the last harden cut it off, and nothing before it; those in the zeros laid ahead
// harm nothing.
func TestEveryBitFlip(t *testing.T) {
	for _, sealed := range []bool{true, false} {
		t.Run(fmt.Sprintf("sealed=%v", sealed), func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(filepath.Join(t.TempDir(), "redo"))
			m := buildLog(t, cfg, sealed, 4, 64)
			path := lastSegment(t, cfg.Dir)
			whole, err := os.ReadFile(path)
			require.NoError(t, err)
			last := int(filePos(firstOffset, m.end(len(m.entries)-2))) // of the last harden
			end := int(filePos(firstOffset, m.end(len(m.entries))))
			if sealed {
				last = end
			} else {
				require.Greater(t, len(whole), end, "nothing was laid ahead")
			}
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			require.NoError(t, err)
			defer f.Close()
			for bit := range len(whole) * 8 {
				flipped := bytes.Clone(whole)
				flipped[bit/8] ^= 1 << (bit % 8)
				_, err := f.WriteAt(flipped, 0)
				require.NoError(t, err)
				q, err := open(cfg, quietDisk{})
				if bit/8 < last {
					var corrupt *CorruptError
					require.ErrorAs(t, err, &corrupt, "bit %d", bit)
					require.Equal(t, path, corrupt.Path)
					continue
				}
				require.NoError(t, err, "bit %d", bit)
				survivors := m
				if bit/8 < end {
					survivors.hardened -= 2
				}
				n, err := survivors.survivor(q)
				require.NoError(t, err, "bit %d", bit)
				require.Equal(t, bit/8 >= end, n == len(m.entries), "bit %d", bit)
				require.NoError(t, errors.Join(q.file.Close(), q.lock.Close()))
			}
		})
	}
}

// TestDamageInOlderSegments takes from, adds to and removes files that are not the last.
func TestDamageInOlderSegments(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, paths []string){
		"shorter": func(t *testing.T, paths []string) {
			start, ok := parseSegmentName(filepath.Base(paths[1]))
			require.True(t, ok)
			next, ok := parseSegmentName(filepath.Base(paths[2]))
			require.True(t, ok)
			require.NoError(t, os.Truncate(paths[1], filePos(start, next)-1))
		},
		"whole frames shorter": func(t *testing.T, paths []string) {
			require.NoError(t, os.Truncate(paths[1], segmentHeaderSize))
		},
		"longer": func(t *testing.T, paths []string) {
			b, err := os.ReadFile(paths[1])
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(paths[1], append(b, 1), 0o600))
		},
		"empty":   func(t *testing.T, paths []string) { require.NoError(t, os.Truncate(paths[1], 0)) },
		"missing": func(t *testing.T, paths []string) { require.NoError(t, os.Remove(paths[1])) },
		"another history": func(t *testing.T, paths []string) {
			b, err := os.ReadFile(paths[1])
			require.NoError(t, err)
			h, err := decodeSegmentHeader(b[:segmentHeaderSize])
			require.NoError(t, err)
			h.end.LSN++
			require.NoError(t, os.WriteFile(paths[1], append(h.encode(), b[segmentHeaderSize:]...), 0o600))
		},
		"renamed": func(t *testing.T, paths []string) {
			start, ok := parseSegmentName(filepath.Base(paths[1]))
			require.True(t, ok)
			require.NoError(t, os.Rename(paths[1], segmentPath(filepath.Dir(paths[1]), start+1)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(filepath.Join(t.TempDir(), "redo"))
			buildLog(t, cfg, true, 12, 1500)
			paths, err := filepath.Glob(filepath.Join(cfg.Dir, "*"+segmentSuffix))
			require.NoError(t, err)
			require.Greater(t, len(paths), 3)
			harm(t, paths)
			_, err = Open(cfg)
			var corrupt *CorruptError
			require.ErrorAs(t, err, &corrupt)

			require.NoError(t, Discard(cfg.Dir))
			q, err := Open(cfg)
			require.NoError(t, err)
			require.Equal(t, mirror.Position{}, q.Hardened())
			require.NoError(t, q.Close())
		})
	}
}

// TestStaleFrameBreaksTheChain replaces a transaction by another whole one of the same size and place, as a lost write
// over recycled blocks would.
func TestStaleFrameBreaksTheChain(t *testing.T) {
	logs := make([][]byte, 2)
	var cfg Config
	var m model
	for i := range logs {
		cfg = testConfig(filepath.Join(t.TempDir(), "redo"))
		require.NoError(t, os.Mkdir(cfg.Dir, 0o700))
		q, err := open(cfg, quietDisk{})
		require.NoError(t, err)
		s := newScript(q)
		require.NoError(t, s.attach())
		require.NoError(t, s.append(Record{Kind: KindData, Seq: 1, LSN: 5, Data: []byte{byte(i)}}))
		require.NoError(t, s.append(Record{Kind: KindCommit, Seq: 1, LSN: 9}))
		require.NoError(t, s.harden())
		require.NoError(t, q.Close())
		logs[i], err = os.ReadFile(lastSegment(t, cfg.Dir))
		require.NoError(t, err)
		m = s.m
	}
	mixed := bytes.Clone(logs[1])
	from, to := filePos(firstOffset, m.entries[1].at), filePos(firstOffset, m.entries[2].at)
	copy(mixed[from:to], logs[0][from:to])
	require.NoError(t, os.WriteFile(lastSegment(t, cfg.Dir), mixed, 0o600))
	_, err := Open(cfg)
	var corrupt *CorruptError
	require.ErrorAs(t, err, &corrupt)
	require.Contains(t, corrupt.Why, "chain")
}
