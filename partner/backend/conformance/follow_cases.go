package conformance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

// everythingOnce has clients write from before the copy to after the last restart of stream and redo.
func everythingOnce(r *rig) {
	r.a.serve(1, mirror.Position{})
	load := r.a.load(4)
	r.b.seed(1)
	name := r.name(1, 1)
	_, err := r.a.db.WaitMirror(r.ctx(), name)
	require.NoError(r.t, err)
	for range 6 {
		f := r.b.follow(1, name)
		load.more(40)
		f.stop() // wherever it is: clients wait meanwhile
	}
	f := r.b.follow(1, name)
	load.more(40)
	load.stop()
	f.catchUp()
	r.a.holds()
	status, progress := f.stream.Status(), f.redo.Progress()
	r.eventually("it streams, or does so again after a stall of the disk", func() bool {
		status = f.stream.Status()
		return status.Streaming && !status.Stalled
	})
	require.LessOrEqual(r.t, status.Hardened, status.Received)
	require.NotZero(r.t, status.Bytes)
	require.NotZero(r.t, progress.Transactions)
	require.NoError(r.t, progress.Trouble)
}

// load are clients that write, each its own rows.
type load struct {
	s       *side
	stop    func()
	commits chan struct{}
}

func (s *side) load(clients int) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{s: s, commits: make(chan struct{})}
	var running sync.WaitGroup
	var mu sync.Mutex // of the rows
	for client := range clients {
		running.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(client)))
			for next := 10_000 * (client + 1); ctx.Err() == nil; {
				changes := someChanges(random, &next, 10_000*(client+1))
				if !s.r.acknowledged(s, changes) {
					return
				}
				mu.Lock()
				for _, c := range changes {
					c.apply(s.rows)
				}
				mu.Unlock()
				select {
				case l.commits <- struct{}{}:
				case <-ctx.Done():
				}
			}
		})
	}
	l.stop = func() { cancel(); running.Wait() }
	s.r.t.Cleanup(l.stop)
	return l
}

func (r *rig) acknowledged(s *side, changes []Change) bool {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.Client.Do(ctx, changes...); err != nil {
		r.t.Errorf("a client's commit failed: %v", err)
		return false
	}
	return true
}

// someChanges are those of a transaction: rows come, change, and go, some of them more than once. next is the key of the next new row,
// first that of a row that stays.
func someChanges(random *rand.Rand, next *int, first int) (all []Change) {
	for range 1 + random.IntN(12) {
		switch {
		case *next == first || random.IntN(3) == 0:
			all = append(all, Change{Insert, *next, fmt.Sprintf("%d.", random.IntN(1000))})
			*next++
		case random.IntN(4) == 0 && *next > first+1:
			*next--
			all = append(all, Change{Delete, *next, ""})
		default:
			all = append(all, Change{Append, first, fmt.Sprint(random.IntN(10))})
		}
	}
	return all
}

// more waits for that many more commits.
func (l *load) more(commits int) {
	l.s.r.t.Helper()
	limit := l.s.r.ctx()
	for range commits {
		select {
		case <-l.commits:
		case <-limit.Done():
			require.Fail(l.s.r.t, "clients do not get on")
		}
	}
}

// tornTails ends the mirror's program after so many records, with more or less of them on disk.
func tornTails(r *rig) {
	r.a.serve(1, mirror.Position{})
	r.b.seed(1)
	for n := range 24 {
		for range 3 {
			r.a.do(Change{Insert, 1000 + n, "x"}, Change{Append, 1000 + n, "y"}, Change{Append, 1, "z"})
			r.a.do(Change{Delete, 1000 + n, ""}, Change{Append, 1, strings.Repeat("w", n)})
		}
		r.b.breakOff(&breaking{r.b.queue, n, n%2 == 0})
		r.b.crash(n)
	}
	f := r.b.follow(1, r.name(1, 1))
	f.catchUp()
	r.a.holds()
}

// breakOff follows until the log breaks, or there is no more of it.
func (s *side) breakOff(log *breaking) {
	barrier, err := s.other().db.WriteBarrier(s.r.ctx())
	require.NoError(s.r.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stream := s.source(1, s.r.name(1, 1))
	done := make(chan error, 1)
	go func() { done <- stream.Run(ctx, log) }()
	s.r.eventually("the log breaks off, or ends", func() bool {
		if s.queue.Hardened().LSN >= barrier.End {
			cancel()
		}
		select {
		case err = <-done:
			return true
		default:
			return false
		}
	})
	if ctx.Err() == nil {
		require.ErrorIs(s.r.t, err, errBroken)
	}
}

// crash gives the mirror the hardened log as a machine may find it that lost its power: behind its end there is the
// beginning of a write.
func (s *side) crash(n int) {
	t := s.r.t
	t.Helper()
	image := filepath.Join(s.dir, fmt.Sprintf("log%d", n))
	hardened, chain := s.queue.Hardened(), s.queue.Chain()
	require.NoError(t, os.CopyFS(image, os.DirFS(filepath.Join(s.dir, s.logDir(n)))))
	require.NoError(t, os.Chmod(image, 0o700))
	files, err := os.ReadDir(image)
	require.NoError(t, err)
	var last string
	for _, file := range files {
		require.NoError(t, os.Chmod(filepath.Join(image, file.Name()), 0o600))
		if filepath.Ext(file.Name()) == ".log" {
			last = filepath.Join(image, file.Name()) // the names rise
		}
	}
	f, err := os.OpenFile(last, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString(strings.Repeat("torn", n%40))
	require.NoError(t, errors.Join(err, f.Close()))
	require.NoError(t, s.queue.Close())
	s.queue = s.openQueue(image)
	require.Equal(t, hardened, s.queue.Hardened())
	require.Equal(t, chain, s.queue.Chain())
}

func (s *side) logDir(n int) string {
	if n == 0 {
		return "log"
	}
	return fmt.Sprintf("log%d", n-1)
}

// restartAtEveryStep ends program and database of the mirror after each step, and once in the middle of each.
func restartAtEveryStep(r *rig) {
	t := r.t
	r.a.serve(1, mirror.Position{})
	r.a.do(Change{Insert, 1001, "a"}, Change{Insert, 1002, "b"})
	name := r.name(1, 1)
	reign, err := r.b.db.Peer().Reign(r.ctx(), 1)
	require.NoError(t, err)
	r.b.gate(mirror.GateClosed)
	require.NoError(t, r.b.db.Prepare(r.ctx()))
	r.b.restart()
	broken, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	_, err = r.b.db.Seed(broken, reign, true)
	cancel()
	t.Logf("a copy that is broken off: %v", err)
	r.b.restart()
	seeded, err := r.b.db.Seed(r.ctx(), reign, true)
	require.NoError(t, err)
	r.b.restart()
	incomplete, err := r.b.db.Incomplete(r.ctx())
	require.NoError(t, err)
	require.False(t, incomplete)
	at := mirror.Position{Seq: 1, LSN: seeded.Start}
	require.NoError(t, r.b.db.SetProgress(r.ctx(), at))
	r.b.restart()
	r.b.begin(at)
	r.a.do(Change{Append, 1001, "c"}, Change{Delete, 1002, ""})
	for n := range 6 {
		f := r.b.follow(1, name)
		r.a.do(Change{Insert, 1010 + n, "d"}, Change{Append, 1001, "e"})
		if n%2 == 0 {
			r.eventually("something is hardened", func() bool { return r.b.queue.Hardened() != at })
			f.halt()
		} else {
			f.catchUp()
		}
		f.stop()
		at = r.b.queue.Hardened()
		before, err := r.b.db.Progress(r.ctx())
		require.NoError(t, err)
		r.b.restart()
		after, err := r.b.db.Progress(r.ctx())
		require.NoError(t, err)
		require.LessOrEqual(t, after.Compare(before), 0)
	}
	r.b.readOnly()
	f := r.b.follow(1, name)
	f.catchUp()
	r.a.holds()
}

// principalRestarts ends program and database of the principal while it is followed.
func principalRestarts(r *rig) {
	r.a.serve(1, mirror.Position{})
	r.b.seed(1)
	name := r.name(1, 1)
	f := r.b.follow(1, name)
	for n := range 4 {
		_, err := r.a.db.WaitMirror(r.ctx(), name)
		require.NoError(r.t, err)
		r.a.gate(mirror.GateOpen)
		r.a.do(Change{Insert, 1000 + n, "x"}, Change{Insert, 2000 + n, "y"})
		r.a.do(Change{Append, 1000 + n, "z"})
		r.a.restart()
	}
	_, err := r.a.db.WaitMirror(r.ctx(), name)
	require.NoError(r.t, err)
	r.a.gate(mirror.GateOpen)
	f.catchUp()
	r.a.holds()
}

func signOfLife(r *rig) {
	r.a.serve(1, mirror.Position{})
	r.b.seed(1)
	f := r.b.follow(1, r.name(1, 1))
	f.catchUp()
	for range 2 {
		last := f.stream.Status().LastByte
		require.Eventually(r.t, func() bool { return f.stream.Status().LastByte.After(last) }, silence, 5*time.Millisecond,
			"nothing is heard of a principal that lives")
	}
	require.WithinDuration(r.t, time.Now(), f.stream.Status().LastByte, silence)
	f.stop()
	require.False(r.t, f.stream.Status().Streaming)
}
