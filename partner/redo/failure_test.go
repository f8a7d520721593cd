package redo

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

// work is a run over every operation on the disk: hardens, spills, new segments, a trim, a rebase and a reset. It stops
// at the first error. The model of what was before the reset is returned in old.
func (s *script) work() (old model, err error) {
	if err := s.attach(); err != nil {
		return s.m, err
	}
	for range 4 {
		if err := s.transaction(1800); err != nil {
			return s.m, err
		}
	}
	if err := s.q.Trim(s.m.end(6)); err != nil {
		return s.m, err
	}
	base := mirror.Position{Seq: 2, LSN: 7}
	// Its record may be on disk even where the call fails.
	s.m.add(Record{Kind: KindMark, Seq: base.Seq, LSN: base.LSN})
	if err := s.q.Rebase(base); err != nil {
		return s.m, err
	}
	s.m.hardened = len(s.m.entries)
	old = s.m
	s.m = model{base: mirror.Position{Seq: 3, LSN: 100}, start: old.end(len(old.entries)) + 1}
	if err := s.q.Reset(s.m.base); err != nil {
		return old, err
	}
	if err := s.attach(); err != nil {
		return old, err
	}
	return old, s.transaction(300)
}

// agrees requires that a log is one that the work may have left.
func agrees(t *testing.T, dir string, logs ...model) {
	t.Helper()
	q, err := open(testConfig(dir), newFaultyDisk(t, dir))
	require.NoError(t, err)
	var errs []error
	for _, m := range logs {
		_, err := m.survivor(q)
		errs = append(errs, err)
		if err == nil {
			errs = nil
			break
		}
	}
	require.NoError(t, errors.Join(errs...))
	require.NoError(t, q.Close())
}

// TestFailureIsFinal refuses each operation in turn with an error that says nothing about the disk.
func TestFailureIsFinal(t *testing.T) {
	for _, op := range []string{"sync", "syncdir", "write", "open", "rename", "remove", "close"} {
		t.Run(op, func(t *testing.T) {
			failures := 0
			for n := 0; ; n++ {
				dir := filepath.Join(t.TempDir(), "redo")
				q, d := openFaulty(t, dir)
				d.before = failNth(op, n, errIO)
				s := newScript(q)
				old, err := s.work()
				if err == nil {
					break
				}
				failures++
				var failed *SyncError
				require.ErrorAs(t, err, &failed)
				require.ErrorIs(t, err, errIO)
				d.before = func(op, _ string) error {
					require.Contains(t, []string{"open", "read", "close"}, op, "nothing is tried again after a failure")
					return nil
				}
				requireFailed(t, q, failed)

				// What was hardened is still read, then the failure is told.
				r := q.NewReader(0)
				for r.Ready() {
					if _, _, err = r.Next(t.Context()); err != nil {
						break
					}
				}
				require.ErrorIs(t, err, failed)
				if Offset(q.logStart.Load()) == old.start {
					require.Equal(t, old.end(old.hardened), r.at)
				} else {
					require.Equal(t, s.m.end(s.m.hardened), r.at)
				}
				require.NoError(t, r.Close())
				require.NoError(t, q.Close())

				d.before = nil
				killed, dark := dir+".killed", dir+".dark"
				d.kill(t, killed)
				agrees(t, killed, s.m, old)
				d.losePower(t, dark, rand.New(rand.NewPCG(uint64(n), 1)))
				agrees(t, dark, s.m, old)
			}
			require.Positive(t, failures)
		})
	}
}

func requireFailed(t *testing.T, q *Queue, failed *SyncError) {
	t.Helper()
	require.ErrorIs(t, q.Append(Record{Kind: KindAttach}), failed)
	_, err := q.Harden()
	require.ErrorIs(t, err, failed)
	require.ErrorIs(t, q.Reset(mirror.Position{}), failed)
	require.ErrorIs(t, q.Rebase(mirror.Position{}), failed)
	require.ErrorIs(t, q.Trim(1), failed)
}

// TestNoSpace refuses each write in turn for want of room, also for good. The log stays as it was hardened and can be used
// again.
func TestNoSpace(t *testing.T) {
	for op, refusal := range map[string]error{"write": syscall.ENOSPC, "open": syscall.ENOSPC, "rename": syscall.EDQUOT, "write of a large file": syscall.EFBIG} {
		t.Run(op, func(t *testing.T) {
			op, _, _ := strings.Cut(op, " ")
			failures := 0
			for n := 0; ; n++ {
				dir := filepath.Join(t.TempDir(), "redo")
				q, d := openFaulty(t, dir)
				d.before = failNth(op, n, fmt.Errorf("disk: %w", refusal))
				s := newScript(q)
				old, err := s.work()
				d.before = nil
				if err == nil {
					break
				}
				failures++
				require.ErrorIs(t, err, ErrNoSpace)
				if q.Hardened() == old.position(old.hardened) {
					s.m = old
				}
				s.m.cut(s.m.hardened)
				require.NoError(t, s.m.compare(q, s.m.hardened))

				killed := dir + ".killed"
				d.kill(t, killed)
				agrees(t, killed, s.m)

				at := s.m.position(s.m.hardened)
				require.ErrorIs(t, q.Append(Record{Kind: KindMark, Seq: at.Seq, LSN: at.LSN}), ErrOrder, "dropped records must be streamed again")
				require.NoError(t, s.attach())
				require.NoError(t, s.transaction(900))
				require.NoError(t, s.m.compare(q, s.m.hardened))
				require.NoError(t, q.Close())
				agrees(t, dir, s.m)
			}
			require.Positive(t, failures)
		})
	}
}

// TestCrashAtEveryOperation ends the process, and cuts the power in several ways, ahead of each operation on the disk.
func TestCrashAtEveryOperation(t *testing.T) {
	for n := 0; ; n++ {
		dir := filepath.Join(t.TempDir(), "redo")
		q, d := openFaulty(t, dir)
		s := newScript(q)
		crashed := errors.New("crashed")
		d.before = func(string, string) error {
			if n--; n >= 0 {
				return nil
			}
			return crashed
		}
		count := n
		old, err := s.work()
		d.before = nil
		if err == nil {
			require.Greater(t, count, 30)
			return
		}
		killed := dir + ".killed"
		d.kill(t, killed)
		agrees(t, killed, s.m, old)
		for seed := range uint64(4) {
			dark := fmt.Sprintf("%s.%d", dir, seed)
			d.losePower(t, dark, rand.New(rand.NewPCG(seed, uint64(count))))
			agrees(t, dark, s.m, old)
		}
		n = count
	}
}

// TestFailureWhileCutting lets the disk fail in the middle of the way back from a full one.
func TestFailureWhileCutting(t *testing.T) {
	failures := 0
	for n := 0; ; n++ {
		dir := filepath.Join(t.TempDir(), "redo")
		q, d := openFaulty(t, dir)
		s := newScript(q)
		require.NoError(t, s.attach())
		require.NoError(t, s.transaction(500))
		for i := range 4 {
			require.NoError(t, s.append(Record{Kind: KindData, Seq: 1, Data: make([]byte, 3000+i)}))
		}
		full, left := false, n
		d.before = func(op, _ string) error {
			switch {
			case op == "write" && !full:
				full = true
				return errNoRoom
			case full && left == 0:
				left--
				return errIO
			case full:
				left--
			}
			return nil
		}
		err := s.harden()
		d.before = nil
		require.True(t, full)
		if errors.Is(err, ErrNoSpace) {
			break
		}
		failures++
		var failed *SyncError
		require.ErrorAs(t, err, &failed)
		requireFailed(t, q, failed)
		for seed := range uint64(4) {
			dark := fmt.Sprintf("%s.%d", dir, seed)
			d.losePower(t, dark, rand.New(rand.NewPCG(seed, uint64(n))))
			agrees(t, dark, s.m)
		}
		require.NoError(t, q.Close())
		agrees(t, dir, s.m)
	}
	require.Greater(t, failures, 8)
}

// TestFailureInOpen refuses each operation of the recovery of a log that needs every kind of mending. The log is there
// when the disk is well again, also if the power goes then.
func TestFailureInOpen(t *testing.T) {
	failures := 0
	for n := 0; ; n++ {
		dir := filepath.Join(t.TempDir(), "redo")
		q, d := openFaulty(t, dir)
		s := newScript(q)
		require.NoError(t, s.attach())
		for range 4 {
			require.NoError(t, s.transaction(1500))
		}
		require.NoError(t, q.Append(Record{Kind: KindData, Seq: 1, Data: make([]byte, 50)}))
		require.NoError(t, q.flush())
		require.NoError(t, q.file.Truncate(filePos(q.start, q.written)-1))
		killed := dir + ".killed"
		d.kill(t, killed)
		older, _ := headerOf(q.cfg.Identity, 0, 0, newHistory(mirror.Position{}))
		for _, name := range []string{segmentPath(killed, 0), segmentPath(killed, 77) + unfinishedSuffix} {
			require.NoError(t, os.WriteFile(name, older.encode(), 0o600))
		}

		again := newFaultyDisk(t, killed)
		left := n
		again.before = func(string, string) error {
			left--
			if left == -1 {
				return errIO
			}
			return nil
		}
		recovered, err := open(testConfig(killed), again)
		if err == nil {
			require.NoError(t, recovered.Close())
			break
		}
		failures++
		require.ErrorIs(t, err, errIO)
		dark := dir + ".dark"
		again.losePower(t, dark, rand.New(rand.NewPCG(uint64(n), 2)))
		agrees(t, dark, s.m)
		agrees(t, killed, s.m)
	}
	require.Greater(t, failures, 10)
}

// TestTheDirectoryIsOnDiskFirst: the name of the directory is put on disk before anything is kept in it, also where whoever
// made it died before he came to that. What is there already is not waited for.
func TestTheDirectoryIsOnDiskFirst(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "redo")
	require.NoError(t, os.Mkdir(dir, 0o700))
	d := newFaultyDisk(t, dir)
	d.before = failNth("syncdir", 0, errIO)
	_, err := open(testConfig(dir), d)
	require.ErrorIs(t, err, errIO)
	var failed *SyncError
	require.ErrorAs(t, err, &failed)
	require.Equal(t, filepath.Dir(dir), failed.Path)

	var asked []string
	d.before = func(op, path string) error {
		asked = append(asked, op+" "+path)
		return nil
	}
	q, err := open(testConfig(dir), d)
	require.NoError(t, err)
	require.Equal(t, "syncdir "+filepath.Dir(dir), asked[0])
	require.NoError(t, q.Close())
	asked = nil
	q, err = open(testConfig(dir), d)
	require.NoError(t, err)
	require.NotContains(t, asked, "syncdir "+filepath.Dir(dir))
	require.NoError(t, q.Close())
}
