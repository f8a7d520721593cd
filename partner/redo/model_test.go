package redo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/f19126b3/dbmirror/mirror"
)

// model is the log as a list.
type model struct {
	base     mirror.Position
	start    Offset // of the first entry
	entries  []entry
	hardened int // entries that must survive
	attached bool
}

type entry struct {
	Record
	at Offset
}

func (e entry) after() Offset {
	n := e.at + Offset(29+len(e.Data))
	if e.Kind == KindCommit {
		n += 32
	}
	return n
}

// end is the offset after the first n entries.
func (m model) end(n int) Offset {
	if n == 0 {
		return m.start
	}
	return m.entries[n-1].after()
}

// position is that of the last commit or mark among the first n entries.
func (m model) position(n int) mirror.Position {
	for i := n - 1; i >= 0; i-- {
		if k := m.entries[i].Kind; k == KindCommit || k == KindMark {
			return m.entries[i].position()
		}
	}
	return m.base
}

// chain is computed from the beginning, without any state kept.
func (m model) chain(n int) (chain [32]byte) {
	var open []byte
	for _, e := range m.entries[:n] {
		switch e.Kind {
		case KindAttach:
			open = nil
		case KindData, KindCommit:
			open = append(open, byte(e.Kind))
			open = binary.LittleEndian.AppendUint64(open, uint64(e.Seq))
			open = binary.LittleEndian.AppendUint64(open, uint64(e.LSN))
			open = binary.LittleEndian.AppendUint32(open, uint32(len(e.Data)))
			open = append(open, e.Data...)
		}
		if e.Kind == KindCommit {
			chain = sha256.Sum256(append(chain[:], open...))
			open = nil
		}
	}
	return chain
}

func (m *model) add(r Record) {
	m.entries = append(m.entries, entry{r, m.end(len(m.entries))})
	m.attached = true
}

// cut keeps the first n entries, all hardened, as after a crash.
func (m *model) cut(n int) {
	m.entries, m.hardened, m.attached = m.entries[:n:n], n, false
}

// survivor returns the number of entries with which the queue agrees, or an error if it agrees with none that may be.
func (m model) survivor(q *Queue) (int, error) {
	end := Offset(q.hardenedEnd.Load())
	for n := m.hardened; n <= len(m.entries); n++ {
		if m.end(n) == end {
			return n, m.compare(q, n)
		}
	}
	return 0, fmt.Errorf("log ends at %d; %d entries were hardened, up to %d, of %d appended, up to %d",
		end, m.hardened, m.end(m.hardened), len(m.entries), m.end(len(m.entries)))
}

// compare checks everything the queue says about its first n entries.
func (m model) compare(q *Queue, n int) error {
	if got, want := q.Hardened(), m.position(n); got != want {
		return fmt.Errorf("hardened %v, want %v", got, want)
	}
	if q.Chain() != m.chain(n) {
		return fmt.Errorf("chain differs")
	}
	r := q.NewReader(0)
	defer r.Close()
	return m.compareRead(r, n)
}

// compareRead reads up to the n-th entry and no further.
func (m model) compareRead(r *Reader, n int) error {
	for _, e := range m.entries[:n] {
		if e.at < r.at {
			continue
		}
		if !r.Ready() {
			return fmt.Errorf("reader is not ready at %d, want entry at %d", r.at, e.at)
		}
		got, after, err := r.Next(context.Background())
		if err != nil {
			return err
		}
		if got.Kind != e.Kind || got.position() != e.position() || !bytes.Equal(got.Data, e.Data) || after != e.after() {
			return fmt.Errorf("read %v %v (%d bytes) up to %d, want %v %v (%d bytes) up to %d",
				got.Kind, got.position(), len(got.Data), after, e.Kind, e.position(), len(e.Data), e.after())
		}
	}
	if r.Ready() {
		return fmt.Errorf("reader is ready at %d after the last record", r.at)
	}
	return nil
}

// machine drives a queue and the model side by side.
type machine struct {
	t      *rapid.T
	root   string
	count  int
	disk   *faultyDisk
	q      *Queue
	m      model
	either *model // what may be there instead after a crash in Reset
	trim   Offset
	saved  Offset // of a reader, kept over restarts
}

// died is the panic by which the process ends in the middle of an action.
type died struct{}

func TestQueueAgainstModel(t *testing.T) {
	root := t.TempDir()
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		m := &machine{t: rt, root: filepath.Join(root, fmt.Sprint(run))}
		require.NoError(rt, os.Mkdir(m.root, 0o700))
		defer os.RemoveAll(m.root)
		m.m.start = firstOffset
		m.open(newFaultyDisk(rt, m.nextDir(true)))
		defer func() { m.q.Close() }()
		rt.Repeat(map[string]func(*rapid.T){
			"append": m.mayCrash(m.append),
			"harden": m.mayCrash(m.harden),
			"trim":   m.mayCrash(m.trimLog),
			"reset":  m.mayCrash(m.reset),
			"rebase": m.mayCrash(m.rebase),
			"close":  m.mayCrash(m.close),
			"full":   m.fullDisk,
			"read":   m.read,
			"":       m.check,
		})
	})
}

func (m *machine) nextDir(create bool) string {
	m.count++
	dir := filepath.Join(m.root, fmt.Sprint(m.count))
	if create {
		require.NoError(m.t, os.Mkdir(dir, 0o700))
	}
	return dir
}

func (m *machine) open(d *faultyDisk) {
	q, err := open(testConfig(d.dir), d)
	require.NoError(m.t, err)
	m.disk, m.q = d, q
}

// mayCrash runs an action and, sometimes, lets the process die before one of its operations on the disk or after it,
// with or without the power.
func (m *machine) mayCrash(action func(*rapid.T)) func(*rapid.T) {
	return func(t *rapid.T) {
		m.t, m.either = t, nil
		if rapid.IntRange(0, 3).Draw(t, "crash") != 0 {
			action(t)
			return
		}
		left := rapid.IntRange(0, 6).Draw(t, "operation")
		power := rapid.Bool().Draw(t, "power")
		seed := rapid.Uint64().Draw(t, "seed")
		before := m.m
		m.disk.before = func(string, string) error {
			left--
			if left == -1 {
				before.hardened = max(before.hardened, m.m.hardened)
				panic(died{})
			}
			return nil
		}
		func() {
			defer func() {
				if r := recover(); r != nil && r != (died{}) {
					panic(r)
				}
			}()
			action(t)
			before = m.m
		}()
		m.disk.before = nil
		// The process's files close without any operation of ours.
		_ = errors.Join(m.q.file.Close(), m.q.lock.Close())
		m.recoverFrom(before, power, seed)
	}
}

// recoverFrom opens the log again. Entries of the present model may be there; those hardened before the action must.
func (m *machine) recoverFrom(before model, power bool, seed uint64) {
	if power {
		dir := m.nextDir(false)
		m.disk.losePower(m.t, dir, rand.New(rand.NewPCG(seed, 0)))
		m.disk = newFaultyDisk(m.t, dir)
	}
	m.open(m.disk)
	candidates := []model{before, m.m}
	if m.either != nil {
		candidates = append(candidates, *m.either)
	}
	var errs []error
	for _, c := range candidates {
		c.hardened = min(c.hardened, before.hardened)
		if c.start != before.start {
			c.hardened = 0
		}
		n, err := c.survivor(m.q)
		if err == nil {
			c.cut(n)
			m.m = c
			m.trim = max(m.trim, c.start)
			return
		}
		errs = append(errs, err)
	}
	m.t.Fatalf("after the crash: %v", errs)
}

func (m *machine) append(t *rapid.T) {
	for range rapid.IntRange(1, 6).Draw(t, "records") {
		r := m.record(t)
		require.NoError(t, m.q.Append(r))
		m.m.add(r)
	}
}

// record draws one that may come next.
func (m *machine) record(t *rapid.T) Record {
	end := m.m.position(len(m.m.entries))
	r := Record{Kind: KindAttach, Seq: end.Seq, LSN: end.LSN}
	if m.m.attached {
		r.Kind = rapid.SampledFrom([]Kind{KindAttach, KindData, KindData, KindData, KindCommit, KindCommit, KindMark}).Draw(t, "kind")
	}
	switch r.Kind {
	case KindData:
		r.LSN = mirror.LSN(rapid.Uint64().Draw(t, "lsn"))
	case KindCommit:
		r.LSN += mirror.LSN(rapid.IntRange(1, 1000).Draw(t, "lsn"))
	case KindMark:
		r.LSN += mirror.LSN(rapid.IntRange(0, 1000).Draw(t, "lsn"))
	}
	size := rapid.SampledFrom([]int{0, 1, 30, 100, 700, 2500, 5000}).Draw(t, "size")
	r.Data = bytes.Repeat([]byte{rapid.Byte().Draw(t, "fill")}, size)
	return r
}

func (m *machine) harden(t *rapid.T) {
	p, err := m.q.Harden()
	require.NoError(t, err)
	m.m.hardened = len(m.m.entries)
	require.Equal(t, m.m.position(m.m.hardened), p)
}

func (m *machine) trimLog(t *rapid.T) {
	to := m.m.end(rapid.IntRange(0, m.m.hardened).Draw(t, "entries"))
	m.trim = max(m.trim, to)
	require.NoError(t, m.q.Trim(to))
}

func (m *machine) reset(t *rapid.T) {
	base := mirror.Position{Seq: mirror.RoleSeq(rapid.IntRange(0, 5).Draw(t, "seq")), LSN: mirror.LSN(rapid.IntRange(0, 9999).Draw(t, "lsn"))}
	fresh := model{base: base, start: m.m.end(len(m.m.entries)) + 1}
	m.either = &fresh
	require.NoError(t, m.q.Reset(base))
	m.m, m.trim = fresh, fresh.start
}

func (m *machine) rebase(t *rapid.T) {
	base := m.m.position(len(m.m.entries))
	base.Seq += mirror.RoleSeq(rapid.IntRange(0, 2).Draw(t, "seq"))
	base.LSN += mirror.LSN(rapid.IntRange(0, 100).Draw(t, "lsn"))
	m.m.add(Record{Kind: KindMark, Seq: base.Seq, LSN: base.LSN})
	require.NoError(t, m.q.Rebase(base))
	m.m.hardened, m.m.attached = len(m.m.entries), false
}

func (m *machine) close(t *rapid.T) {
	require.NoError(t, m.q.Close())
	m.disk.before = nil // a crash in Open has a test of its own
	m.open(m.disk)
	m.m.cut(m.m.hardened)
	require.NoError(t, m.m.compare(m.q, m.m.hardened))
}

// fullDisk lets the disk refuse a write: what was not hardened is gone, and nothing else.
func (m *machine) fullDisk(t *rapid.T) {
	if len(m.m.entries) == m.m.hardened {
		t.Skip("nothing to write")
	}
	m.t = t
	m.disk.before = func(op, path string) error {
		if op == "write" {
			return errNoRoom
		}
		return nil
	}
	_, err := m.q.Harden()
	m.disk.before = nil
	if err == nil {
		// All had gone to a full segment already.
		m.m.hardened = len(m.m.entries)
		return
	}
	require.ErrorIs(t, err, ErrNoSpace)
	m.m.cut(m.m.hardened)
	require.NoError(t, m.m.compare(m.q, m.m.hardened))
}

// read goes on with the reader that was saved, as redo would after a restart.
func (m *machine) read(t *rapid.T) {
	r := m.q.NewReader(m.saved)
	defer r.Close()
	_, _, err := func() (Record, Offset, error) {
		if !r.Ready() {
			return Record{}, r.at, nil
		}
		return r.Next(context.Background())
	}()
	switch {
	case m.saved != 0 && m.saved < m.m.start:
		require.ErrorIs(t, err, ErrReset)
		m.saved = 0
		return
	case m.saved != 0 && m.saved < Offset(m.q.oldest.Load()):
		require.ErrorIs(t, err, ErrTrimmed)
		m.saved = 0
		return
	}
	require.NoError(t, err)
	again := m.q.NewReader(m.saved)
	defer again.Close()
	require.NoError(t, m.m.compareRead(again, m.m.hardened))
	m.saved = m.m.end(rapid.IntRange(0, m.m.hardened).Draw(t, "save"))
}

func (m *machine) check(t *rapid.T) {
	require.Equal(t, m.m.position(m.m.hardened), m.q.Hardened())
	require.Equal(t, m.m.chain(m.m.hardened), m.q.Chain())
	oldest := Offset(m.q.oldest.Load())
	require.LessOrEqual(t, oldest, max(m.trim, m.m.start))
	require.LessOrEqual(t, m.q.Bytes(), int64(m.m.end(m.m.hardened)-oldest))
	if oldest > m.m.start {
		require.Positive(t, len(m.m.entries))
	}
}
