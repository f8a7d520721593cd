package redo

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

func openTest(t *testing.T) *Queue {
	t.Helper()
	q, err := Open(testConfig(filepath.Join(t.TempDir(), "redo")))
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			require.ErrorIs(t, err, ErrClosed)
		}
	})
	return q
}

func TestAppendRefusesDisorder(t *testing.T) {
	end := mirror.Position{Seq: 3, LSN: 100}
	for name, c := range map[string]struct {
		attached bool
		r        Record
		ok       bool
	}{
		"attach at the end":                {false, Record{Kind: KindAttach, Seq: 3, LSN: 100}, true},
		"attach before the end":            {false, Record{Kind: KindAttach, Seq: 3, LSN: 99}, true},
		"attach leaves a hole":             {false, Record{Kind: KindAttach, Seq: 3, LSN: 101}, false},
		"attach of the next role sequence": {false, Record{Kind: KindAttach, Seq: 4, LSN: 100}, false},
		"attach of an old role sequence":   {false, Record{Kind: KindAttach, Seq: 2, LSN: 100}, false},
		"data without attach":              {false, Record{Kind: KindData, Seq: 3, LSN: 101}, false},
		"commit without attach":            {false, Record{Kind: KindCommit, Seq: 3, LSN: 101}, false},
		"mark without attach":              {false, Record{Kind: KindMark, Seq: 3, LSN: 101}, false},
		"attach again":                     {true, Record{Kind: KindAttach, Seq: 3, LSN: 100}, true},
		"data at any position":             {true, Record{Kind: KindData, Seq: 3, LSN: 1}, true},
		"data of another role sequence":    {true, Record{Kind: KindData, Seq: 4, LSN: 101}, false},
		"commit after the end":             {true, Record{Kind: KindCommit, Seq: 3, LSN: 101}, true},
		"commit repeated":                  {true, Record{Kind: KindCommit, Seq: 3, LSN: 100}, false},
		"commit of another role sequence":  {true, Record{Kind: KindCommit, Seq: 4, LSN: 101}, false},
		"mark at the end":                  {true, Record{Kind: KindMark, Seq: 3, LSN: 100}, true},
		"mark before the end":              {true, Record{Kind: KindMark, Seq: 3, LSN: 99}, false},
		"no kind":                          {true, Record{Seq: 3, LSN: 101}, false},
		"the kind of the seal":             {true, Record{Kind: kindSeal, Seq: 3, LSN: 101}, false},
	} {
		t.Run(name, func(t *testing.T) {
			q := openTest(t)
			require.NoError(t, q.Reset(end))
			if c.attached {
				require.NoError(t, q.Append(Record{Kind: KindAttach, Seq: 3, LSN: 100}))
			}
			before := q.appended()
			err := q.Append(c.r)
			if c.ok {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, ErrOrder)
			require.Equal(t, before, q.appended(), "a refused record has no effect")
		})
	}
}

func TestAppendRefusesTooLarge(t *testing.T) {
	q := openTest(t)
	require.NoError(t, q.Append(Record{Kind: KindAttach, Seq: 1}))
	// Memory that may not even be read: only its length counts.
	data, err := syscall.Mmap(-1, 0, MaxData+1, syscall.PROT_NONE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	require.NoError(t, err)
	defer func() { require.NoError(t, syscall.Munmap(data)) }()
	require.ErrorContains(t, q.Append(Record{Kind: KindData, Seq: 1, Data: data}), "limit")
}

// TestFull fills the queue to its bound, then makes room by a trim: nothing that was accepted is lost.
func TestFull(t *testing.T) {
	cfg := testConfig(filepath.Join(t.TempDir(), "redo"))
	cfg.MaxBytes = 4 * cfg.SegmentBytes
	q, err := Open(cfg)
	require.NoError(t, err)
	s := newScript(q)
	require.NoError(t, s.attach())
	for err == nil {
		err = s.transaction(700)
	}
	require.ErrorIs(t, err, ErrFull)
	require.LessOrEqual(t, int64(q.appended()-firstOffset), cfg.MaxBytes)
	require.NoError(t, s.harden())
	require.NoError(t, s.m.compare(q, s.m.hardened))

	require.NoError(t, q.Trim(s.m.end(s.m.hardened)))
	require.Zero(t, q.Bytes())
	require.NoError(t, s.transaction(700))
	require.Equal(t, int64(s.m.end(s.m.hardened)-s.m.end(s.m.hardened-2)), q.Bytes())
	require.NoError(t, s.m.compare(q, s.m.hardened))

	// A role change does not wait for redo.
	for err = nil; err == nil; {
		err = s.transaction(1)
	}
	require.ErrorIs(t, err, ErrFull)
	require.NoError(t, q.Rebase(mirror.Position{Seq: 9}))
	require.Equal(t, mirror.Position{Seq: 9}, q.Hardened())
	require.NoError(t, q.Close())
}

// TestFullOfNothing: what a stream left unfinished fills the queue to the last byte. The next stream begins all the same,
// by which that is known to have come to nothing and can be trimmed.
func TestFullOfNothing(t *testing.T) {
	cfg := testConfig(filepath.Join(t.TempDir(), "redo"))
	cfg.MaxBytes = 4 * cfg.SegmentBytes
	q, err := Open(cfg)
	require.NoError(t, err)
	attach := Record{Kind: KindAttach, Seq: 1}
	require.NoError(t, q.Append(attach))
	for _, size := range []int{700, 100, 1, 0} {
		for err = nil; err == nil; {
			err = q.Append(Record{Kind: KindData, Seq: 1, Data: make([]byte, size)})
		}
		require.ErrorIs(t, err, ErrFull)
	}
	require.NoError(t, q.Append(attach))
	_, err = q.Harden()
	require.NoError(t, err)
	require.ErrorIs(t, q.Append(Record{Kind: KindData, Seq: 1}), ErrFull)

	reader := q.NewReader(0)
	defer reader.Close()
	var begun Offset
	for reader.Ready() {
		at := reader.at
		record, _, err := reader.Next(t.Context())
		require.NoError(t, err)
		if record.Kind == KindAttach {
			begun = at
		}
	}
	require.NoError(t, q.Trim(begun))
	require.NoError(t, q.Append(Record{Kind: KindData, Seq: 1, Data: make([]byte, 700)}))
	require.NoError(t, q.Close())
}

func TestRebaseAndTrimRefuse(t *testing.T) {
	q := openTest(t)
	require.NoError(t, q.Reset(mirror.Position{Seq: 3, LSN: 100}))
	require.ErrorIs(t, q.Rebase(mirror.Position{Seq: 3, LSN: 99}), ErrOrder)
	require.ErrorIs(t, q.Rebase(mirror.Position{Seq: 2, LSN: 200}), ErrOrder)
	require.ErrorIs(t, q.Trim(Offset(q.hardenedEnd.Load())+1), ErrOrder)
	require.Equal(t, mirror.Position{Seq: 3, LSN: 100}, q.Hardened())
}

// TestChainOfInterruptedStream shows that the chain tells the transactions, not how they arrived.
func TestChainOfInterruptedStream(t *testing.T) {
	whole, parts := openTest(t), openTest(t)
	transaction := func(q *Queue, n mirror.LSN) {
		require.NoError(t, q.Append(Record{Kind: KindData, Seq: 1, LSN: n, Data: []byte{byte(n)}}))
		require.NoError(t, q.Append(Record{Kind: KindCommit, Seq: 1, LSN: n + 5}))
	}
	require.NoError(t, whole.Append(Record{Kind: KindAttach, Seq: 1}))
	for n := mirror.LSN(10); n <= 30; n += 10 {
		transaction(whole, n)
		require.NoError(t, parts.Append(Record{Kind: KindAttach, Seq: 1, LSN: parts.Hardened().LSN}))
		require.NoError(t, parts.Append(Record{Kind: KindData, Seq: 1, LSN: n, Data: []byte("void")}))
		require.NoError(t, parts.Append(Record{Kind: KindAttach, Seq: 1, LSN: parts.Hardened().LSN}))
		transaction(parts, n)
		require.NoError(t, parts.Append(Record{Kind: KindMark, Seq: 1, LSN: n + 7}))
		_, err := parts.Harden()
		require.NoError(t, err)
	}
	_, err := whole.Harden()
	require.NoError(t, err)
	require.NotEqual(t, [32]byte{}, whole.Chain())
	require.Equal(t, whole.Chain(), parts.Chain())
}

// TestLargeRecords takes records beyond the buffers of writer and reader, and a transaction that is written ahead.
func TestLargeRecords(t *testing.T) {
	cfg := testConfig(filepath.Join(t.TempDir(), "redo"))
	cfg.MaxBytes = 64 << 20
	q, err := Open(cfg)
	require.NoError(t, err)
	s := newScript(q)
	require.NoError(t, s.attach())
	for i, size := range []int{3 << 20, 10, windowSize - frameHeaderSize, spillBytes - frameHeaderSize, spillBytes, 0} {
		require.NoError(t, s.append(Record{Kind: KindData, Seq: 1, Data: bytes.Repeat([]byte{byte(i + 1)}, size)}))
		require.LessOrEqual(t, len(q.buf), spillBytes)
	}
	require.Zero(t, q.Bytes(), "nothing is hardened yet")
	require.NoError(t, s.append(Record{Kind: KindCommit, Seq: 1, LSN: 1, Data: make([]byte, 2<<20)}))
	require.NoError(t, s.harden())
	require.NoError(t, s.m.compare(q, s.m.hardened))
	require.NoError(t, q.Close())
	q, err = Open(cfg)
	require.NoError(t, err)
	require.NoError(t, s.m.compare(q, s.m.hardened))
	require.NoError(t, q.Close())
}

func TestReaderWaits(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(*Queue, context.CancelFunc) error
		want error
	}{
		"for a harden":    {func(q *Queue, _ context.CancelFunc) error { _, err := q.Harden(); return err }, nil},
		"until canceled":  {func(_ *Queue, cancel context.CancelFunc) error { cancel(); return nil }, context.Canceled},
		"until the reset": {func(q *Queue, _ context.CancelFunc) error { return q.Reset(mirror.Position{}) }, ErrReset},
		"until the close": {func(q *Queue, _ context.CancelFunc) error { return q.Close() }, ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := openTest(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				require.NoError(t, q.Append(Record{Kind: KindAttach, Seq: 1, LSN: 7}))
				r := q.NewReader(0)
				defer r.Close()
				returned := make(chan error, 1)
				go func() {
					_, _, err := r.Next(ctx)
					returned <- err
				}()
				synctest.Wait()
				require.Empty(t, returned, "what is only appended is not read")
				require.NoError(t, c.do(q, cancel))
				synctest.Wait()
				require.Len(t, returned, 1)
				require.ErrorIs(t, <-returned, c.want)
			})
		})
	}
}

func TestReaderRefusesOffset(t *testing.T) {
	q := openTest(t)
	s := newScript(q)
	require.NoError(t, s.attach())
	require.NoError(t, s.transaction(100))
	for name, from := range map[string]Offset{"beyond the end": s.m.end(3) + 1, "inside a record": s.m.end(1) + 1} {
		r := q.NewReader(from)
		require.True(t, r.Ready(), name)
		_, _, err := r.Next(t.Context())
		var corrupt *CorruptError
		require.ErrorAs(t, err, &corrupt, name)
		require.NoError(t, r.Close())
	}
}

// TestReaderFindsDamage turns a bit of log that was verified when it was opened.
func TestReaderFindsDamage(t *testing.T) {
	q := openTest(t)
	s := newScript(q)
	require.NoError(t, s.attach())
	require.NoError(t, s.transaction(100))
	pos := filePos(firstOffset, s.m.entries[1].at) + frameHeaderSize + 5
	b := []byte{0}
	_, err := q.file.ReadAt(b, pos)
	require.NoError(t, err)
	b[0] ^= 4
	_, err = q.file.WriteAt(b, pos)
	require.NoError(t, err)
	r := q.NewReader(0)
	defer r.Close()
	_, at, err := r.Next(t.Context())
	require.NoError(t, err)
	for range 2 {
		_, _, err = r.Next(t.Context())
		require.Equal(t, &CorruptError{Path: q.path(), Offset: filePos(firstOffset, at), Why: errPayloadSum.Error()}, err)
	}
}

// TestConcurrentUse runs one writer, readers that trim behind them, and an observer, over many segments.
func TestConcurrentUse(t *testing.T) {
	const count = 4000
	q := openTest(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := q.Append(Record{Kind: KindAttach, Seq: 1}); err != nil {
			t.Error(err)
			return
		}
		data := make([]byte, 100)
		for n := uint64(1); n <= count; n++ {
			binary.LittleEndian.PutUint64(data, n)
			if err := q.Append(Record{Kind: KindCommit, Seq: 1, LSN: mirror.LSN(n), Data: data}); err != nil {
				t.Error(err)
				return
			}
			if n%16 == 0 {
				if p, err := q.Harden(); err != nil || p.LSN != mirror.LSN(n) {
					t.Error(p, err)
					return
				}
			}
		}
	})
	for reader := range 2 {
		wg.Go(func() {
			r := q.NewReader(firstOffset)
			defer r.Close()
			for want := uint64(0); want <= count; want++ {
				record, at, err := r.Next(t.Context())
				if err == nil && want > 0 && binary.LittleEndian.Uint64(record.Data) != want {
					t.Errorf("read %d, want %d", binary.LittleEndian.Uint64(record.Data), want)
				}
				if err == nil && q.Hardened().LSN < record.LSN {
					t.Errorf("read %v beyond the hardened end %v", record.LSN, q.Hardened())
				}
				// Only the second reader gives log back, and only half of it, so that the first is not overtaken.
				if err == nil && reader == 1 && want == count/2 {
					err = q.Trim(min(at, Offset(q.oldest.Load())+5000))
				}
				if err == ErrTrimmed && reader == 0 {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				if q.Bytes() < 0 {
					t.Error("negative size")
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, mirror.LSN(count), q.Hardened().LSN)
}

func TestAppendDoesNotAllocate(t *testing.T) {
	cfg := testConfig(filepath.Join(t.TempDir(), "redo"))
	cfg.SegmentBytes, cfg.MaxBytes = defaultSegmentBytes, defaultMaxBytes
	q, err := Open(cfg)
	require.NoError(t, err)
	require.NoError(t, q.Append(Record{Kind: KindAttach, Seq: 1}))
	data := make([]byte, 500)
	lsn := mirror.LSN(0)
	transaction := func() {
		for range 20 {
			if err := q.Append(Record{Kind: KindData, Seq: 1, LSN: lsn, Data: data}); err != nil {
				t.Error(err)
			}
		}
		lsn++
		if err := q.Append(Record{Kind: KindCommit, Seq: 1, LSN: lsn, Data: data}); err != nil {
			t.Error(err)
		}
		if _, err := q.Harden(); err != nil {
			t.Error(err)
		}
	}
	for range 5 {
		transaction()
	}
	require.Zero(t, testing.AllocsPerRun(50, transaction))
	r := q.NewReader(0)
	defer r.Close()
	_, _, err = r.Next(t.Context())
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(500, func() {
		if _, _, err := r.Next(t.Context()); err != nil {
			t.Error(err)
		}
	}))
	require.NoError(t, q.Close())
}

func TestOpenRefuses(t *testing.T) {
	cfg := testConfig(filepath.Join(t.TempDir(), "redo"))
	q, err := Open(cfg)
	require.NoError(t, err)
	_, err = Open(cfg)
	require.ErrorIs(t, err, ErrLocked)
	require.ErrorIs(t, Discard(cfg.Dir), ErrLocked)
	require.NoError(t, q.Close())
	require.ErrorIs(t, q.Close(), ErrClosed)
	require.ErrorIs(t, q.Append(Record{Kind: KindAttach}), ErrClosed)

	other := cfg
	other.Identity[31] = 9
	_, err = Open(other)
	require.ErrorIs(t, err, ErrIdentity)

	require.NoError(t, os.Chmod(cfg.Dir, 0o705))
	_, err = Open(cfg)
	require.ErrorContains(t, err, "chmod 0700")
	require.NoError(t, os.Chmod(cfg.Dir, 0o700))

	link := cfg
	link.Dir += ".link"
	require.NoError(t, os.Symlink(cfg.Dir, link.Dir))
	_, err = Open(link)
	require.ErrorContains(t, err, "symbolic link")

	missing := cfg
	missing.Dir = filepath.Join(cfg.Dir, "a", "b")
	_, err = Open(missing)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "mount")

	regular := cfg
	regular.Dir = filepath.Join(cfg.Dir, "lock")
	_, err = Open(regular)
	require.ErrorContains(t, err, "not a directory")

	q, err = Open(cfg)
	require.NoError(t, err)
	require.NoError(t, q.Close())
}

func TestConfigRefused(t *testing.T) {
	for name, c := range map[string]Config{
		"Dir":          {},
		"SegmentBytes": {Dir: "d", SegmentBytes: 100},
		"MaxBytes":     {Dir: "d", MaxBytes: defaultSegmentBytes},
	} {
		_, err := Open(c)
		require.ErrorContains(t, err, name)
	}
}

func TestFilesArePrivate(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	q := openTest(t)
	info, err := os.Stat(q.cfg.Dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	entries, err := os.ReadDir(q.cfg.Dir)
	require.NoError(t, err)
	require.Len(t, entries, 2)
	for _, e := range entries {
		info, err := e.Info()
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), e.Name())
	}
}

// TestFirst trims step by step and compares what First tells with what a reader still finds.
func TestFirst(t *testing.T) {
	cfg := testConfig(filepath.Join(t.TempDir(), "redo"))
	q, err := Open(cfg)
	require.NoError(t, err)
	first := func() mirror.Position {
		at, err := q.First()
		require.NoError(t, err)
		return at
	}
	require.Equal(t, mirror.Position{}, first())
	base := mirror.Position{Seq: 3, LSN: 100}
	require.NoError(t, q.Reset(base))
	require.Equal(t, base, first())
	require.NoError(t, q.Append(Record{Kind: KindAttach, Seq: 3, LSN: 100}))
	const count = 40
	for i := range count {
		at := mirror.LSN(101 + 10*i)
		require.NoError(t, q.Append(Record{Kind: KindData, Seq: 3, LSN: at, Data: make([]byte, cfg.SegmentBytes/3)}))
		require.NoError(t, q.Append(Record{Kind: KindCommit, Seq: 3, LSN: at}))
		if i%5 == 0 {
			require.NoError(t, q.Append(Record{Kind: KindMark, Seq: 3, LSN: at + 5}))
		}
		_, err := q.Harden()
		require.NoError(t, err)
	}
	kept := func() (commits int) {
		r := q.NewReader(0)
		defer r.Close()
		from, expect := first(), mirror.LSN(0)
		for r.Ready() {
			record, _, err := r.Next(t.Context())
			require.NoError(t, err)
			if record.Kind != KindCommit {
				continue
			}
			if commits++; commits == 1 {
				expect = record.LSN
				require.Greater(t, record.LSN, from.LSN, "what ends before is not in the log")
				require.LessOrEqual(t, record.LSN, max(101, from.LSN+10), "the next one is")
			}
			require.Equal(t, expect, record.LSN)
			expect += 10
		}
		return commits
	}
	require.Equal(t, count, kept())
	seen := map[mirror.Position]bool{}
	reader := q.NewReader(0)
	for reader.Ready() {
		_, after, err := reader.Next(t.Context())
		require.NoError(t, err)
		before := first()
		require.NoError(t, q.Trim(after))
		require.GreaterOrEqual(t, first().Compare(before), 0)
		seen[first()] = true
		kept()
	}
	require.NoError(t, reader.Close())
	require.Greater(t, len(seen), count/4)
	last := first()
	require.NoError(t, q.Rebase(mirror.Position{Seq: 4, LSN: 7}))
	require.Equal(t, last, first(), "kept log stays")
	require.NoError(t, q.Close())
	_, err = q.First()
	require.ErrorIs(t, err, ErrClosed)
	q, err = Open(cfg)
	require.NoError(t, err)
	require.Equal(t, last, first())
	require.NoError(t, q.Close())
}
