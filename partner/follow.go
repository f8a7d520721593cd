package partner

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// follow runs what a mirror runs beside its session: the stream that hardens the principal's log, the redo of it, and
// the sampling of the principal's database.
type follow struct {
	d            *dataPath
	transactions atomic.Uint64 // hardened since the program started
	fenced       atomic.Bool   // the principal is silent and its server is closed: that it streams is no service

	mu struct {
		sync.Mutex
		stream   *task
		redo     *task
		reader   backend.Stream
		redoer   backend.Redo
		before   totals // of those that were there before these two
		retryAt  time.Time
		overflow overflow
	}
}

// totals count from the start of the program, over all streams and redos that there were.
type totals struct {
	received uint64           // bytes
	redone   backend.Progress // its counters only
}

func (t *totals) addRedone(p backend.Progress) {
	t.redone.Transactions += p.Transactions
	t.redone.Bytes += p.Bytes
	t.redone.Rows += p.Rows
	t.redone.Batches += p.Batches
}

// task is a goroutine that can be stopped and joined.
type task struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func startTask(run func(ctx context.Context)) *task {
	ctx, cancel := context.WithCancel(context.Background())
	t := &task{cancel, make(chan struct{})}
	go func() {
		defer close(t.done)
		run(ctx)
	}()
	return t
}

func (t *task) stop() {
	if t != nil {
		t.cancel()
		<-t.done
	}
}

func (t *task) running() bool {
	if t == nil {
		return false
	}
	select {
	case <-t.done:
		return false
	default:
		return true
	}
}

func newFollow(d *dataPath) *follow { return &follow{d: d} }

func (f *follow) stop() {
	f.stopStream()
	f.stopRedo()
}

// stopStream stops hardening and reporting, and returns when it has stopped.
func (f *follow) stopStream() {
	f.mu.Lock()
	t := f.mu.stream
	f.mu.Unlock()
	t.stop() // without the lock: what ends may need it. Whoever else asks waits for the same end.
	f.d.trouble(tryFollow, nil)
	f.forgetOverflow()
}

func (f *follow) stopRedo() {
	f.mu.Lock()
	t := f.mu.redo
	f.mu.redo = nil
	f.mu.Unlock()
	t.stop()
}

// status is what is known of stream and redo. What they count, they count from the start of the program here.
func (f *follow) status() (backend.StreamStatus, backend.Progress) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var s backend.StreamStatus
	var p backend.Progress
	if f.mu.reader != nil {
		s = f.mu.reader.Status()
	}
	if f.mu.redoer != nil {
		p = f.mu.redoer.Progress()
	}
	all := f.mu.before
	all.addRedone(p)
	s.Bytes += all.received
	p.Transactions, p.Bytes, p.Rows, p.Batches = all.redone.Transactions, all.redone.Bytes, all.redone.Rows, all.redone.Batches
	return s, p
}

// startRedo redoes what is hardened, until it is stopped or cannot go on.
func (f *follow) startRedo() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.redo.running() {
		return nil
	}
	r, err := f.d.database.NewRedo()
	if err != nil {
		return fmt.Errorf("start redo: %w", err)
	}
	if f.mu.redoer != nil {
		f.mu.before.addRedone(f.mu.redoer.Progress())
	}
	f.mu.redoer = r
	f.mu.redo = startTask(func(ctx context.Context) {
		var helper sync.WaitGroup
		running, cancel := context.WithCancel(ctx)
		helper.Go(func() { f.announceRedo(running, r) })
		err := r.Run(ctx, f.d.p.queue)
		cancel()
		helper.Wait()
		switch {
		case ctx.Err() != nil:
			err = nil
		case errors.Is(err, backend.ErrNoProgress):
			err = fmt.Errorf("the mirror's database was made anew or restored: %w; reseed to copy the principal's to it", err)
		}
		if reasonOf(err) != mirror.ReasonNone {
			f.d.failed(fmt.Errorf("redo: %w", err))
			err = nil
		}
		f.d.trouble(tryRedo, err) // whatever else it is, it is tried again
	})
	return nil
}

// skip leaves out a transaction at which redo has stopped.
func (f *follow) skip(ctx context.Context, poison mirror.Position) error {
	f.mu.Lock()
	r := f.mu.redoer
	f.mu.Unlock()
	if r == nil {
		return fmt.Errorf("nothing is redone here: %w", backend.ErrNotPoison)
	}
	return r.Skip(ctx, poison)
}

// finish redoes everything that is hardened, on disk, and stops redo. It is how a mirror becomes whole.
func (f *follow) finish(ctx context.Context) error {
	f.stopStream()
	end := f.d.p.queue.Hardened()
	if end != (mirror.Position{}) {
		if err := f.startRedo(); err != nil {
			return err
		}
		f.mu.Lock()
		r := f.mu.redoer
		f.mu.Unlock()
		if err := r.Drain(ctx, end); err != nil {
			return err
		}
	}
	f.stopRedo()
	return nil
}

// startStream follows the principal's log, if it is not followed already. It is tried again a moment after it broke.
func (f *follow) startStream(ctx context.Context, duty mirror.Duty, st mirror.Status) error {
	f.mu.Lock()
	running, early := f.mu.stream.running(), time.Now().Before(f.mu.retryAt)
	f.mu.Unlock()
	if running || early {
		return nil
	}
	asking, cancel := context.WithTimeout(ctx, lookTimeout)
	reign, err := f.d.database.Peer().Reign(asking, duty.Seq)
	cancel()
	if err != nil {
		if errors.Is(err, backend.ErrNoReign) {
			return nil
		}
		f.lost()
		return fmt.Errorf("ask the principal's server where its reign begins: %w", err)
	}
	if end := f.d.p.queue.Hardened(); end.Seq != duty.Seq {
		// The same principal goes on in a newer role sequence: so does its log. What a stream that broke off had appended and
		// not hardened belongs to it, and must not come again behind the place where it goes on.
		end, err := f.d.p.queue.Harden()
		if err == nil {
			err = f.d.p.queue.Rebase(mirror.Position{Seq: duty.Seq, LSN: end.LSN})
		}
		if err != nil {
			return f.d.ofLog(fmt.Errorf("go on in role sequence %d: %w", duty.Seq, err))
		}
	}
	reader, err := f.d.database.Follow(backend.Source{
		Reign: reign, Name: mirrorName(f.d.p.short(), st.Record, f.d.p.cfg.Self), Silence: f.silence(),
		Waited: func() bool { return f.d.p.host.Status().Record.Safety == mirror.SafetyFull },
	})
	if err != nil {
		return err
	}
	f.launch(reader, duty)
	return nil
}

// silence is how long the principal's server may be silent: as long as any server.
func (f *follow) silence() time.Duration {
	if t := f.d.p.cfg.Timing.Timeout; t > 0 {
		return t
	}
	return 10 * time.Second
}

// launch starts the stream unless the session has changed its mind meanwhile: after a halt nothing may be hardened.
func (f *follow) launch(reader backend.Stream, duty mirror.Duty) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if wish, _, _ := f.d.wish(); wish != duty {
		return
	}
	if f.mu.reader != nil {
		f.mu.before.received += f.mu.reader.Status().Bytes
	}
	f.mu.reader = reader
	f.fenced.Store(false)
	f.mu.stream = startTask(func(ctx context.Context) {
		log := &hardening{follow: f, queue: f.d.p.queue, news: make(chan struct{}, 1)}
		var helpers sync.WaitGroup
		ctx, cancel := context.WithCancel(ctx)
		helpers.Go(func() { f.announce(ctx, log, reader) })
		helpers.Go(func() { f.sample(ctx) })
		err := reader.Run(ctx, log)
		stopped := ctx.Err() != nil
		cancel()
		helpers.Wait()
		if !stopped {
			f.broke(err)
		}
	})
}

// broke sorts the end of a stream: what trying again cannot mend suspends the session.
func (f *follow) broke(err error) {
	f.mu.Lock()
	f.mu.retryAt = time.Now().Add(300 * time.Millisecond)
	f.mu.Unlock()
	if reasonOf(err) != mirror.ReasonNone {
		f.d.failed(err)
		return
	}
	f.d.trouble(tryFollow, err)
	f.lost()
}

func (f *follow) lost() { f.d.report(mirror.Event{Kind: mirror.EventStreamLost}) }

// hardening is the hardened log with a bell.
type hardening struct {
	follow  *follow
	queue   *redo.Queue
	news    chan struct{}
	commits uint64 // appended since the last harden
}

func (h *hardening) Append(r redo.Record) error {
	err := h.queue.Append(r)
	if err == nil && r.Kind == redo.KindCommit {
		h.commits++
	}
	return err
}

func (h *hardening) Harden() (mirror.Position, error) {
	start := time.Now()
	end, err := h.queue.Harden()
	if err == nil {
		h.follow.d.p.timings.LogHardened(time.Since(start))
		h.follow.transactions.Add(h.commits)
		h.commits = 0
		select {
		case h.news <- struct{}{}:
		default:
		}
	}
	return end, err
}

// announceEvery bounds how often the session hears of what is hardened; commits do not wait for that.
const announceEvery = 20 * time.Millisecond

// pulse is how often a thing that changes all the time is told.
const pulse = 200 * time.Millisecond

// announce tells the session how far the log is hardened, and that the principal's server is alive.
func (f *follow) announce(ctx context.Context, log *hardening, reader backend.Stream) {
	pulse := time.NewTicker(pulse)
	defer pulse.Stop()
	var heard time.Time
	var told mirror.Position
	for {
		if end := log.queue.Hardened(); end != told {
			if f.d.report(mirror.Event{Kind: mirror.EventHardened, Seq: end.Seq, LSN: end.LSN}) {
				told = end
			}
		}
		if last := reader.Status().LastByte; last.After(heard) {
			heard = last
			f.d.trouble(tryFollow, nil)
			if !f.fenced.Load() {
				f.d.report(mirror.Event{Kind: mirror.EventStreamed})
			}
		}
		f.lookForOverflow(reader.Status().Stalled)
		select {
		case <-ctx.Done():
			return
		case <-log.news:
			pause := time.NewTimer(announceEvery)
			select {
			case <-ctx.Done():
			case <-pause.C:
			}
			pause.Stop()
		case <-pulse.C:
		}
	}
}

// announceRedo tells how far the log is redone, and why redo does not go on for now, as long as redo runs: also while
// nothing is hardened, as when the principal is lost and this one is promoted.
func (f *follow) announceRedo(ctx context.Context, r backend.Redo) {
	pulse := time.NewTicker(pulse)
	defer pulse.Stop()
	defer f.d.trouble(tryRedoing, nil)
	for {
		progress := r.Progress()
		f.d.trouble(tryRedoing, progress.Trouble)
		if at := progress.Redone; at.LSN > 0 {
			f.d.report(mirror.Event{Kind: mirror.EventRedone, Seq: at.Seq, LSN: at.LSN})
		}
		select {
		case <-ctx.Done():
			return
		case <-pulse.C:
		}
	}
}

// tellHardened tells the session what is hardened though no log flows, as after a restart without the principal: forced
// service is decided by it.
func (f *follow) tellHardened(st mirror.Status) {
	end := f.d.hardened()
	if end.LSN > 0 && end != st.Hardened {
		f.d.report(mirror.Event{Kind: mirror.EventHardened, Seq: end.Seq, LSN: end.LSN})
	}
}

// sample looks at the principal's database once a second: the log does not say everything.
func (f *follow) sample(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if err := errors.Join(f.samplePrincipal(ctx), f.sampleGate(ctx)); ctx.Err() == nil {
			f.d.trouble(trySample, err)
		}
		select {
		case <-ctx.Done():
			f.d.trouble(trySample, nil)
			return
		case <-tick.C:
		}
	}
}

// sampleGate looks whether a principal that is silent still serves. One that was cut off closes its database, and its
// server streams on: that is no sign of life then.
func (f *follow) sampleGate(ctx context.Context) error {
	st := f.d.p.host.Status()
	if st.Peers[st.Record.Principal].Connected {
		f.fenced.Store(false)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	gate, err := f.d.database.Peer().Gate(ctx)
	if err != nil {
		return err
	}
	f.fenced.Store(gate == mirror.GateClosed)
	if f.fenced.Load() {
		f.lost()
	}
	return nil
}

// samplePrincipal keeps here what the log does not tell of the principal's database.
func (f *follow) samplePrincipal(ctx context.Context) error {
	sampler, needed := f.d.database.(backend.Sampler)
	if !needed {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return sampler.Sample(ctx)
}
