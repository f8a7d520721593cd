package partner

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// dataPath brings the local database and the stream to where the session wants them, and reports what it has proven.
// One goroutine works; the session's goroutine only leaves its wish, and stops hardening when it must be stopped at once.
type dataPath struct {
	p        *Partner
	database backend.Database
	report   func(mirror.Event) bool
	follow   *follow
	have     proven // owned by the working goroutine
	working  uint64 // number of the wish that is being worked on; owned by the working goroutine
	beat     *task  // the heartbeat under way; owned by the working goroutine, as is beaten, when it began
	beaten   time.Time
	copied   failure // of the latest copy; owned by the working goroutine, as is saved
	saved    lostTail
	blamed   bool // the session was last seen failed; owned by the working goroutine

	mu struct {
		sync.Mutex
		wish     mirror.Duty
		number   uint64        // of the wish
		changed  chan struct{} // closed when the wish changes
		shown    shown
		findings []backend.Finding
		place    backend.Identity // this side's database, and the one that the backend reaches on the other, as last seen
		reached  backend.Identity
		ready    bool // nothing that was found is against making the session
		unwaited bool // commits did not wait for the mirror, and the session has not been told
	}
}

// proven is what the database was last shown to be. It is void when the server has restarted.
type proven struct {
	started time.Time
	ours    bool // it is this session's database
	putBack bool // it was told that it is not as it was handed over
	gate    mirror.Gate
	wait    mirror.Wait   // WaitNone: ours are out of the setting or never in force
	waitFor string        // the name, where it is WaitMirror
	removed bool          // nothing of ours is in the setting, persisted either
	drained uint64        // number of the wish under which it was drained
	reign   backend.Reign // the row of the present role sequence on this server, as principal
	cleaned bool          // as mirror: the logs of our own former reigns are gone
	looked  time.Time
}

// shown is the part of the status that the data path knows.
type shown struct {
	gate     mirror.Gate
	waiting  string
	retained int64
	trouble  map[string]trouble // by what was tried
}

func newDataPath(p *Partner) *dataPath {
	d := &dataPath{p: p}
	d.mu.shown.trouble = map[string]trouble{}
	d.mu.changed = make(chan struct{})
	d.follow = newFollow(d)
	return d
}

// want takes the session's wish. It does not block.
func (d *dataPath) want(wish mirror.Duty, number uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.number = number
	if wish == d.mu.wish {
		return
	}
	d.mu.wish = wish
	close(d.mu.changed)
	d.mu.changed = make(chan struct{})
}

// halt stops hardening and returns what is hardened. Until the session wishes otherwise nothing is hardened again.
func (d *dataPath) halt() mirror.Position {
	d.mu.Lock()
	d.mu.wish.Ship = false
	d.mu.Unlock()
	d.follow.stopStream()
	return d.hardened()
}

// hardened is the end of what is hardened here.
func (d *dataPath) hardened() mirror.Position {
	end := d.p.queue.Hardened()
	// The same principal may go on in a newer role sequence before its log has been followed there.
	end.Seq = max(end.Seq, d.p.host.Hard().Aligned)
	return end
}

func (d *dataPath) wish() (mirror.Duty, uint64, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.wish, d.mu.number, d.mu.changed
}

// prove reports what was proven for the wish that is being worked on: it counts only if that is still the wish.
func (d *dataPath) prove(ev mirror.Event) bool { return d.p.host.TellUnder(d.working, ev) }

// look is how often the database is looked at though nothing has changed.
const look = 250 * time.Millisecond

// run works until ctx ends. A wish that changes breaks off what is under way, see breakOff; every step can be taken again.
func (d *dataPath) run(ctx context.Context) {
	defer d.close()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for ctx.Err() == nil {
		wish, number, changed := d.wish()
		d.working = number
		step, cancel := context.WithCancel(ctx)
		stop := context.AfterFunc(ctx, cancel)
		done := make(chan struct{})
		go d.breakOff(wish, changed, done, cancel)
		if wish.Role == mirror.RolePrincipal && wish.Gate != mirror.GateClosed && d.p.host.Overdue() {
			wish.Gate = mirror.GateClosed
		}
		err := d.reconcile(step, wish)
		close(done)
		stop()
		interrupted := step.Err() != nil
		cancel()
		if !interrupted {
			d.trouble(tryDuty, err)
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-tick.C:
		}
	}
}

// breakOff cancels what is under way for a wish when there is another one, at once or, where that spares a promotion, a
// little later. It returns then, or when done is closed.
func (d *dataPath) breakOff(wish mirror.Duty, changed, done <-chan struct{}, cancel func()) {
	var late <-chan time.Time
	for {
		select {
		case <-done:
			return
		case <-late:
			cancel()
			return
		case <-changed:
		}
		var next mirror.Duty
		next, _, changed = d.wish()
		if !spares(wish, next) {
			cancel()
			return
		}
		if late == nil {
			late = time.After(sparedFor)
		}
	}
}

// sparedFor is how long a promotion may go on though the wish has changed: about what it takes. It may not be longer, for
// one that makes a slot waits for transactions of other databases, and they may wait for whom commits wait.
const sparedFor = 500 * time.Millisecond

// spares says whether what is under way for a wish is of use for the next one too: a database that is promoted is closed,
// and nothing but whom commits will wait for has changed. After a manual failover that is the rule, as the new mirror is
// not there at once, and to begin anew would cost as much again.
func spares(wish, next mirror.Duty) bool {
	next.Wait, next.Prove, next.Ship = wish.Wait, wish.Prove, wish.Ship
	return wish.Work == mirror.WorkPromote && wish.Gate == mirror.GateClosed && next == wish
}

func (d *dataPath) close() {
	d.beat.stop()
	d.follow.stop()
}

// reconcile takes the database one look further towards the wish.
func (d *dataPath) reconcile(ctx context.Context, wish mirror.Duty) error {
	d.tellUnwaited()
	alive, err := d.check(ctx, wish.Role)
	if err != nil || !alive {
		return err
	}
	switch {
	case wish.Role == mirror.RolePrincipal:
		return d.principal(ctx, wish)
	case wish.Role == mirror.RoleMirror:
		return d.mirror(ctx, wish)
	case wish.Gate == mirror.GateClosed:
		return d.leave(ctx)
	}
	return nil
}

// leave is the end of a server whose session went on without it, or broke down: it follows nobody and serves nobody. Its
// log stays, for it holds what nobody else may have.
func (d *dataPath) leave(ctx context.Context) error {
	d.follow.stop()
	if err := d.fence(ctx); err != nil {
		return err
	}
	if !d.p.host.Status().Removed {
		return nil
	}
	return d.removeNames(ctx)
}

// check sees whether the local server answers, and whether it has restarted: what was proven before is then void, for
// commits that waited have become visible and settings are those of the file.
func (d *dataPath) check(ctx context.Context, role mirror.Role) (bool, error) {
	pinging, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	health, err := d.database.Ping(pinging)
	if err != nil {
		if ctx.Err() == nil {
			d.report(mirror.Event{Kind: mirror.EventDatabaseDown})
		}
		return false, err
	}
	if !health.Started.Equal(d.have.started) {
		d.have = proven{started: health.Started}
		d.showGate(0)
	}
	if err := d.recognize(ctx, role); err != nil {
		return false, err
	}
	d.report(mirror.Event{Kind: mirror.EventDatabaseUp})
	d.report(mirror.Event{Kind: mirror.EventEnded, LSN: health.End})
	return true, nil
}

// recognize makes sure, after each start of the server, that it is the session's database that answers. Another one
// counts as a database that is down: nothing is changed in it.
func (d *dataPath) recognize(ctx context.Context, role mirror.Role) error {
	if d.have.ours || role == mirror.RoleNone {
		return nil
	}
	id, err := d.database.Identity(ctx)
	if err != nil {
		return err
	}
	d.setPlace(id)
	err = d.p.belong(id)
	if errors.Is(err, errOtherDatabase) {
		d.report(mirror.Event{Kind: mirror.EventDatabaseDown})
		return err
	}
	if err == nil {
		err = d.checkHandover(ctx)
	}
	if errors.Is(err, errPutBack) || errors.Is(err, errUnsure) {
		return err
	}
	d.trouble(tryBelong, err)
	d.have.ours = err == nil
	return nil
}

// gate moves the gate if it is not known to be there.
func (d *dataPath) gate(ctx context.Context, g mirror.Gate, grace time.Duration) error {
	if g == mirror.GateKeep || d.have.gate == g {
		return nil
	}
	d.have.gate = 0
	d.showGate(0) // until it is there, and if this is broken off, nobody knows
	if err := d.database.SetGate(ctx, g, grace); err != nil {
		return err
	}
	d.have.gate = g
	d.showGate(g)
	return nil
}

// fence closes a database that may not serve, for good or ill: commits are blocked first, because ending the sessions
// that wait makes their commits visible but never acknowledged.
func (d *dataPath) fence(ctx context.Context) error {
	if d.have.gate == mirror.GateClosed {
		return nil
	}
	gate, err := d.database.Gate(ctx)
	if err != nil {
		return err
	}
	if gate == mirror.GateOpen {
		// A server that is slow to block commits, or does not let us look, must be closed all the same.
		if err := d.block(ctx); err != nil && ctx.Err() == nil {
			d.p.cfg.Logger.Warn("commits could not be blocked before the database is closed", "error", err)
		}
	}
	return d.gate(ctx, mirror.GateClosed, 0)
}

// block lets no commit return, if they return alone now.
func (d *dataPath) block(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, blockTimeout)
	defer cancel()
	waiting, err := d.database.Waiting(ctx)
	if err != nil || waiting.Name != "" || !waiting.RestartWaits {
		return err
	}
	return d.database.WaitBlock(ctx)
}

// blockTimeout is how long a fence waits for commits to be blocked before it closes the database.
const blockTimeout = 500 * time.Millisecond

// awaitFence waits until the database is closed, or the time is over.
func (d *dataPath) awaitFence(limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		d.mu.Lock()
		closed := d.mu.shown.gate == mirror.GateClosed
		d.mu.Unlock()
		if closed {
			return
		}
		select {
		case <-timer.C:
			return
		case <-tick.C:
		}
	}
}

func (d *dataPath) showGate(g mirror.Gate) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.shown.gate = g
}

func (d *dataPath) showWaiting(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.shown.waiting = name
}

func (d *dataPath) showRetained(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.shown.retained = bytes
}

// show adds to a status what the data path knows.
func (d *dataPath) show(st *Status) {
	d.mu.Lock()
	st.Gate, st.Waiting, st.Retained = d.mu.shown.gate, d.mu.shown.waiting, d.mu.shown.retained
	st.Findings = d.mu.findings
	d.mu.Unlock()
	st.Stream, st.Redo = d.follow.status()
}
