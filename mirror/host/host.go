package host

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
)

// SessionID is the identity of a session: the same on its three servers.
type SessionID [16]byte

// ParseSessionID reads 32 hexadecimal digits.
func ParseSessionID(s string) (SessionID, error) {
	var id SessionID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("session %q is not 32 hexadecimal digits: make one with `openssl rand -hex 16`", s)
	}
	copy(id[:], b)
	return id, nil
}

// String returns 32 lower-case hexadecimal digits.
func (id SessionID) String() string { return hex.EncodeToString(id[:]) }

// Store keeps the hard state. It is used by one goroutine. Save returns when the state is on disk.
type Store interface {
	Load() (state []byte, ok bool, err error)
	Save(state []byte) error
}

// DataPath is what a partner does besides talking. A witness has none.
type DataPath struct {
	// Halt stops hardening and reporting, waits until it has stopped, and returns the end of what is hardened.
	Halt func() mirror.Position
	// Duty tells what the data path has to do from now on, and the number of this wish. It must not block.
	Duty func(wish mirror.Duty, number uint64)
}

// Config is what a Host is made with.
type Config struct {
	Session SessionID
	Self    mirror.Server
	Store   Store
	Timing  Timing
	Options mirror.Options
	// Peers are the ways to the other servers; one that is missing is never reached.
	Peers map[mirror.Server]*endpoint.Client
	Data  DataPath
	// Journal is told each entry, in order, by the goroutine of Run. Optional.
	Journal func(Line)
	Logger  *slog.Logger // nil: nothing is logged
}

// Line is a journal entry with the time at which this host wrote it.
type Line struct {
	At    time.Time
	Entry mirror.Entry
	Note  string // of a command that was refused: what was asked for, why not, and the mend
}

// Host runs one session. Its methods may be called from any goroutine.
type Host struct {
	cfg     Config
	ticks   mirror.Timing
	events  chan *request // pointers: the queue of an idle session is then small
	outbox  map[mirror.Server]*outbox
	expiry  atomic.Int64 // see Overdue
	session *mirror.Session
	counts  counters
	stopped chan struct{}
	ended   sync.Once // closes stopped

	mu struct {
		sync.Mutex
		status mirror.Status // as of the last step
		hard   mirror.HardState
	}

	// Owned by the goroutine of Run: the duty that was told last, how many were, when the last tick was, on the clock of
	// ticks, that the session has counted, the ping whose sender waits for the pong, and whether the principal was
	// confirmed at the last step.
	duty      mirror.Duty
	wishes    uint64
	counted   time.Duration
	pinged    *request
	confirmed bool
}

// request is an event with a place for its answer; events that nobody waits for have none.
type request struct {
	event  mirror.Event
	answer chan error
	look   func(*mirror.Session)
	wish   uint64 // evidence that is good only as long as this is the wish; zero: any
	pong   []byte // to the ping that the event is, when there is an answer
}

// eventQueue bounds the events that wait. What does not fit is refused to its sender, who sends it again: a message may
// be lost, and evidence is reported anew.
const eventQueue = 256

// New makes a host and loads its state. The error names what is wrong with the configuration or the state.
func New(cfg Config) (*Host, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Logger = cfg.Logger.With("session", cfg.Session.String()[:8], "server", cfg.Self.String())
	cfg.Timing = cfg.Timing.withDefaults()
	ticks, err := cfg.Timing.ticks()
	if err != nil {
		return nil, err
	}
	h := &Host{cfg: cfg, ticks: ticks, events: make(chan *request, eventQueue), outbox: map[mirror.Server]*outbox{}, stopped: make(chan struct{})}
	for peer, client := range cfg.Peers {
		h.outbox[peer] = newOutbox(h, peer, client)
	}
	return h, h.load()
}

// load makes the session from what is on disk. A server with nothing on disk gets a new identity, saved before it is
// told to anybody.
func (h *Host) load() error {
	raw, ok, err := h.cfg.Store.Load()
	if err != nil {
		return fmt.Errorf("load state: %w", err)
	}
	var hard mirror.HardState
	if ok {
		if hard, err = mirror.DecodeHardState(raw); err != nil {
			return fmt.Errorf("read state: %w", err)
		}
	} else {
		hard = mirror.HardState{Self: h.cfg.Self, Incarnation: newIncarnation()}
		if err := h.cfg.Store.Save(hard.Append(nil)); err != nil {
			return fmt.Errorf("save state: %w", err)
		}
	}
	h.session, err = mirror.New(mirror.Config{
		Self: h.cfg.Self, Incarnation: hard.Incarnation, Timing: h.ticks, Options: h.cfg.Options, Clock: mirror.Tick(newIncarnation()),
	}, hard)
	if err != nil {
		return err
	}
	h.publish(h.session.Status())
	return nil
}

func newIncarnation() mirror.Incarnation {
	var b [8]byte
	rand.Read(b[:]) // never fails: crypto/rand crashes the program instead
	return mirror.Incarnation(binary.LittleEndian.Uint64(b[:]) | 1)
}

// Status returns what the session showed after its last step.
func (h *Host) Status() mirror.Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.status
}

// Hard returns what is on disk.
func (h *Host) Hard() mirror.HardState {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.hard
}

// Tick is how long one tick is.
func (h *Host) Tick() time.Duration { return h.cfg.Timing.tick() }

// Timing is how long the session's timeouts are, with the defaults filled in.
func (h *Host) Timing() Timing { return h.cfg.Timing }

// LinkTrouble says why the latest message to another server was not delivered; empty: it was, or there was none.
func (h *Host) LinkTrouble(peer mirror.Server) string {
	if o, ok := h.outbox[peer]; ok {
		return o.trouble()
	}
	return ""
}

func (h *Host) publish(st mirror.Status) {
	hard := h.session.Hard()
	h.mu.Lock()
	h.mu.status, h.mu.hard = st, hard
	h.mu.Unlock()
	h.counts.show(st)
	h.expiry.Store(h.expires(st))
}

// expires is when, on the clock of ticks, a principal that serves by a lease must have had it renewed, and one that has
// just started, and leaves its database as it found it, must have got one; zero: it needs none. It is counted from the
// last tick that the session knows of, not from now: a step may have waited for its disk.
func (h *Host) expires(st mirror.Status) int64 {
	left := st.Lease
	if st.Duty.Gate == mirror.GateKeep {
		left = max(left, st.Keep)
	}
	if left == 0 || !st.Serving && st.Duty.Gate != mirror.GateKeep {
		return 0
	}
	return int64(h.counted + time.Duration(left)*h.Tick())
}

// Overdue says whether the lease that this principal serves by has run out although the session still lets it serve: its
// goroutine is held up, by a slow disk for example. The data path must not wait for it to close the database.
func (h *Host) Overdue() bool {
	at := h.expiry.Load()
	return at > 0 && int64(sinceBoot()) > at
}

// ErrStopped is returned to whoever asks a host that does not run any more.
var ErrStopped = errors.New("the session is not running")

// Tell gives an event to the session. It returns false when the host is not running or is overloaded; evidence must
// then be told again.
func (h *Host) Tell(ev mirror.Event) bool { return h.tell(&request{event: ev}) }

// TellUnder gives evidence that was found while wish was the number of the duty. It is dropped if the session has
// wished otherwise since, even if it wishes the same again: what was proven then may not hold now.
func (h *Host) TellUnder(wish uint64, ev mirror.Event) bool {
	return h.tell(&request{event: ev, wish: wish})
}

func (h *Host) tell(r *request) bool {
	select {
	case <-h.stopped:
		return false
	default:
	}
	select {
	case h.events <- r:
		return true
	default:
		return false
	}
}

// Ask gives an event to the session and waits until its effects are carried out: what had to be saved is on disk. A
// command that is not allowed returns a *mirror.RefusedError.
func (h *Host) Ask(ctx context.Context, ev mirror.Event) error {
	return h.ask(ctx, &request{event: ev, answer: make(chan error, 1)})
}

func (h *Host) ask(ctx context.Context, r *request) error {
	select {
	case h.events <- r:
	case <-ctx.Done():
		return ctx.Err()
	case <-h.stopped:
		return ErrStopped
	}
	select {
	case err := <-r.answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-h.stopped:
		return ErrStopped
	}
}

// Explain returns the conditions for an automatic failover, see mirror.Session.Explain.
func (h *Host) Explain(ctx context.Context) ([]mirror.Condition, error) {
	var conditions []mirror.Condition
	r := &request{answer: make(chan error, 1), look: func(s *mirror.Session) { conditions = s.Explain() }}
	if err := h.ask(ctx, r); err != nil {
		return nil, err
	}
	return conditions, nil
}

// Run runs the session until ctx ends or the session cannot go on. Before it returns it says good-bye to the others,
// so that an orderly stop is not taken for a failure, and joins everything it started.
func (h *Host) Run(ctx context.Context) error {
	defer h.Abandon()
	sending, stopSending := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSending()
	for _, o := range h.outbox {
		o.sending = sending
	}
	err := h.loop(ctx)
	if err == nil {
		err = h.step(mirror.Event{Kind: mirror.EventStopping})
	}
	for _, o := range h.outbox {
		o.drain(goodbye)
	}
	stopSending()
	for _, o := range h.outbox {
		o.join()
	}
	return err
}

// Abandon is for a host that Run is not called for: whoever asks it is told that it does not run.
func (h *Host) Abandon() { h.ended.Do(func() { close(h.stopped) }) }

// goodbye is how long a stopping host tries to say so.
const goodbye = time.Second

func (h *Host) loop(ctx context.Context) error {
	clock := newClock(h.Tick(), h.wakes())
	defer clock.stop()
	h.counted = clock.last
	st := h.session.Status()
	h.publish(st)
	h.wish(st.Duty)
	for {
		var r *request
		select {
		case <-ctx.Done():
			return nil
		case <-clock.C():
		case r = <-h.events:
		}
		// Time comes first: what was heard before a pause must not be believed as if it were fresh.
		for late := min(clock.due(), int(h.ticks.Timeout)+1); late > 0; late-- {
			h.counted = clock.last - time.Duration(late-1)*h.Tick()
			if err := h.step(mirror.Event{Kind: mirror.EventTicked}); err != nil {
				return err
			}
		}
		if err := h.serve(r); err != nil {
			return err
		}
	}
}

// wakes is how long a session may sleep when nothing happens. A witness only counts, and counts before it looks at
// anything that comes, so it need not be woken for each tick.
func (h *Host) wakes() time.Duration {
	if h.cfg.Self == mirror.Witness {
		return h.cfg.Timing.Ping
	}
	return h.Tick()
}

func (h *Host) serve(r *request) error {
	if r == nil {
		return nil // only time has passed
	}
	if r.look != nil {
		r.look(h.session)
		r.answer <- nil
		return nil
	}
	if r.wish != 0 && r.wish != h.wishes {
		return nil
	}
	if r.event.Kind == mirror.EventReceived && r.answer != nil {
		h.pinged = r
	}
	err := h.step(r.event)
	h.pinged = nil
	if r.answer != nil {
		r.answer <- err
	}
	if errors.Is(err, mirror.ErrRefused) {
		return nil
	}
	return err
}

// step takes one step and carries out its effects in order. Any error but a refusal ends the session, fenced.
func (h *Host) step(ev mirror.Event) error {
	fx, err := h.session.Step(ev)
	if err != nil {
		if errors.Is(err, mirror.ErrRefused) {
			h.recordRefusal(ev, err)
			return err
		}
		return h.fence(fmt.Errorf("step on %s: %w", ev.Kind, err))
	}
	var halted *mirror.Position
	if fx.Halt && h.cfg.Data.Halt != nil {
		crashpoint.Hit(crashpoint.Unhalted)
		end := h.cfg.Data.Halt()
		crashpoint.Hit(crashpoint.Halted)
		halted = &end
		h.duty = mirror.Duty{} // what was stopped must be wished for anew
	}
	if fx.Saved {
		if err := h.cfg.Store.Save(fx.State.Append(nil)); err != nil {
			return h.fence(fmt.Errorf("save state: %w", err))
		}
	}
	for _, m := range fx.Send {
		h.send(m)
	}
	st := h.session.Status()
	confirms := st.Confirmed && !h.confirmed
	h.confirmed = st.Confirmed
	if confirms {
		crashpoint.Hit(crashpoint.Unconfirmed)
	}
	h.publish(st)
	h.wish(fx.Duty)
	if confirms {
		crashpoint.Hit(crashpoint.Confirmed)
	}
	h.record(fx.Journal)
	if halted != nil {
		return h.step(mirror.Event{Kind: mirror.EventHalted, Seq: halted.Seq, LSN: halted.LSN})
	}
	return nil
}

// send hands a message to its outbox, or a pong to the request that its ping came by.
//
// A witness does not ping a server that has pinged it of late: the pong has said all that a ping of a witness says. So it
// keeps no connections of its own, and nothing to do, for sessions in which nothing happens. Of late is half a ping
// interval more than one, because the two count their intervals apart, and a ping may take a while.
func (h *Host) send(m mirror.Message) {
	o, ok := h.outbox[m.To]
	switch r := h.pinged; {
	case m.Kind == mirror.MessagePong && r != nil && r.event.Message.From == m.To:
		r.pong = m.Append(nil)
		if ok {
			o.answered = h.counted
		}
	case !ok: // it is never reached
	case m.Kind == mirror.MessagePing && h.cfg.Self == mirror.Witness && o.answered > 0 && h.counted-o.answered <= h.cfg.Timing.Ping*3/2:
	default:
		o.put(m)
	}
}

// fence closes the database: a session that cannot go on cannot prove its role.
func (h *Host) fence(err error) error {
	h.cfg.Logger.Error("session stopped", "error", err)
	h.wish(mirror.Duty{Gate: mirror.GateClosed, Wait: mirror.WaitMirror})
	return err
}

// wish tells the data path its duty when it has changed.
func (h *Host) wish(d mirror.Duty) {
	if h.cfg.Data.Duty == nil || d == h.duty && h.wishes > 0 {
		return
	}
	h.duty = d
	h.wishes++
	h.cfg.Data.Duty(d, h.wishes)
}

// recordRefusal writes down what an operator was refused. To make the session is asked by programs, again and again.
func (h *Host) recordRefusal(ev mirror.Event, err error) {
	var refused *mirror.RefusedError
	if !errors.As(err, &refused) || ev.Kind != mirror.EventCommanded || ev.Command.Kind == mirror.CommandEstablish {
		return
	}
	st := h.Status()
	h.recordLine(Line{At: time.Now(), Note: err.Error(), Entry: mirror.Entry{Kind: mirror.EntryRefused, Role: st.Role, Seq: st.Record.Seq,
		Peer: h.cfg.Self, Reason: refused.Reason, Version: st.Record.Version()}})
	h.cfg.Logger.Warn("refused", "role", st.Role, "error", err)
}

func (h *Host) recordLine(l Line) {
	h.counts.entry(l)
	if h.cfg.Journal != nil {
		h.cfg.Journal(l)
	}
}

func (h *Host) record(entries []mirror.Entry) {
	for _, e := range entries {
		h.recordLine(Line{At: time.Now(), Entry: e})
		h.cfg.Logger.Info(e.Kind.String(), attributes(e)...)
	}
}

// attributes are what is set in an entry, for the log.
func attributes(e mirror.Entry) []any {
	all := []any{"role", e.Role, "role_seq", e.Seq, "reason", e.Reason, "record", e.Version}
	if e.Kind == mirror.EntryState {
		all = append(all, "from", e.From, "to", e.To)
	}
	if e.Peer != mirror.Nobody {
		all = append(all, "peer", e.Peer)
	}
	if e.LSN != 0 {
		all = append(all, "lsn", e.LSN)
	}
	return all
}
