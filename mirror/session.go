package mirror

import (
	"errors"
	"fmt"

	"github.com/f19126b3/dbmirror/mirror/internal/seeded"
)

// Session is the rules of one mirroring session on one server. It does no I/O and has no clock: everything that happens
// is an Event, everything to be done comes back as Effects. A Session is used by one goroutine at a time.
type Session struct {
	cfg Config
	core
	saved HardState // what the host was last told to save
	fx    Effects   // of the step under way
}

// core is all that a session knows. It is comparable and can be copied: exploration stores and restores it whole.
type core struct {
	hard     HardState
	now      Tick // counted from Config.Clock; only leases need it
	starting Tick // ticks until this server may vote: promises given before the restart have then run out
	peers    [numServers]peer
	shown    State
	reason   Reason
	duty     Duty

	// As principal of hard.Record.Seq. All of it is lost by a restart, and must be.
	confirmed bool // a second server has the present record on disk (I3)
	standing  bool // confirmed at some time since this server became principal or started
	exposed   bool // a second server holds in_sync=false of this role sequence, and it has not been changed since
	whole     bool // the database is whole for serving in this role sequence
	won       bool // it was elected in this life: the gate is still that of a mirror
	drained   bool // and the former principal had drained before: nothing was left behind
	sync      syncing
	unguarded bool // somebody let commits go on without the mirror
	handover  handover
	goal      Command // the change that is being carried out; Kind zero: none
	logEnd    LSN

	// As mirror.
	claim      claim
	promise    promise
	hardened   Position
	redone     LSN
	streamIdle Tick // ticks since the principal's server was heard, at most Timeout
	failed     Reason

	passing    passing // as mirror
	databaseUp bool
	asked      Reason // what the mirror last asked its principal to suspend for
}

// peer is what is known of another server. Only hints and evidence that may be stale: nothing here permits anything by
// itself.
type peer struct {
	incarnation Incarnation // as last heard; a server that is no member would be admitted with it
	silent      Tick        // ticks since it was heard, at most Timeout
	left        bool        // it said that it was being stopped
	ready       bool
	reason      Reason // why it is not ready
	unready     Tick   // ticks since it said that its stream is lost, at most Timeout
	sees        uint8
	hardened    Position
	redone      LSN
	logEnd      LSN
	lease       Tick    // ticks left of the lease that it granted
	promised    RoleSeq // the newest role sequence it has promised, when that is newer than this server's; else zero
	taken       bool    // it is no member and belongs to a session that this server is no part of
}

// syncing is the way from SYNCHRONIZING to SYNCHRONIZED: commits wait first, then everything before that is hardened.
type syncing struct {
	Wanted bool // commits are to wait for the mirror
	Proven bool // they do
	End    LSN  // end of everything that may have been acknowledged without the mirror
}

// handover is a manual failover at the principal.
type handover struct {
	Active  bool
	Drained bool
	Sent    bool
	End     LSN
	Left    Tick
}

// claim is a candidacy. It is given up when anything newer is learned (hole (c)).
type claim struct {
	How     Election
	Seq     RoleSeq
	LSN     LSN // what the candidate has of the principal's log
	End     LSN // of a transfer: where the principal is drained
	Halting bool
	Left    Tick
	Refused Reason // of forced service: why the witness refused it last
}

// promise is a lease that this server gave: it votes for nobody else until it runs out.
type promise struct {
	To   Server
	Left Tick
}

// ErrRefused is wrapped by every *RefusedError.
var ErrRefused = errors.New("refused")

// RefusedError is returned when a command is not allowed now. Nothing has changed.
type RefusedError struct {
	Command CommandKind
	Reason  Reason
	Mend    string
}

// Error names the command, the cause and the mend.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s refused: %s; %s", e.Command, e.Reason, e.Mend)
}

// Is makes errors.Is(err, ErrRefused) true.
func (e *RefusedError) Is(target error) bool { return target == ErrRefused }

// ErrInvariant is wrapped by the error of a step that would have broken an invariant. The session must not be stepped
// again; the host fences.
var ErrInvariant = errors.New("invariant broken")

// New makes a session from what a server has on disk. A server that has nothing on disk passes a zero HardState: it
// waits to be established or to be taken in. It returns an error that wraps ErrConfig.
func New(cfg Config, hard HardState) (*Session, error) {
	cfg.Timing = cfg.Timing.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Session{cfg: cfg}
	if hard.Self == Nobody {
		hard = HardState{Self: cfg.Self, Incarnation: cfg.Incarnation}
	}
	if hard.Self != cfg.Self {
		return nil, fmt.Errorf("%w: the stored state is of %s, this server is %s", ErrConfig, hard.Self, cfg.Self)
	}
	s.core = core{hard: hard, databaseUp: true, reason: ReasonStarting}
	if cfg.Timing.Lease > 0 {
		s.starting, s.now = cfg.Timing.Timeout, cfg.Clock
	}
	for p := PartnerA; p < numServers; p++ {
		s.peers[p].silent = cfg.Timing.Timeout
	}
	s.streamIdle = cfg.Timing.Timeout
	if s.breaks(seeded.RememberConfirm) && s.lead() {
		s.confirm()
		s.whole = true
	}
	if s.role() != RoleNone {
		s.shown = StateDisconnected
	}
	s.saved = hard
	s.duty = s.wanted()
	return s, nil
}

// handlers is the table of contents of the protocol: what each event does.
var handlers = [numEventKinds]func(*Session, Event) error{
	EventTicked:       (*Session).onTick,
	EventReceived:     (*Session).onMessage,
	EventLinked:       (*Session).onLinked,
	EventUnlinked:     (*Session).onUnlinked,
	EventCommanded:    (*Session).onCommand,
	EventHardened:     (*Session).onHardened,
	EventRedone:       (*Session).onRedone,
	EventEnded:        (*Session).onEnded,
	EventHalted:       (*Session).onHalted,
	EventWaiting:      (*Session).onWaiting,
	EventWaitLost:     (*Session).onWaitLost,
	EventLogLost:      (*Session).onLogLost,
	EventWhole:        (*Session).onWhole,
	EventDrained:      (*Session).onDrained,
	EventAligned:      (*Session).onAligned,
	EventSeeding:      (*Session).onSeeding,
	EventStreamed:     (*Session).onStreamed,
	EventStreamLost:   (*Session).onStreamLost,
	EventDatabaseUp:   (*Session).onDatabase,
	EventDatabaseDown: (*Session).onDatabase,
	EventFailed:       (*Session).onFailed,
	EventStopping:     (*Session).onStopping,
}

// Step takes one event and returns what the host must do. An error that wraps ErrRefused means that a command, or the
// seeding of this database, was not allowed and nothing changed; one that wraps ErrInvariant that the session must not be
// used any more. The Send and Journal slices are the caller's.
func (s *Session) Step(ev Event) (Effects, error) {
	if ev.Kind == 0 || ev.Kind >= numEventKinds {
		return Effects{}, fmt.Errorf("step: unknown event %d", ev.Kind)
	}
	s.fx = Effects{}
	before := s.hard
	if err := handlers[ev.Kind](s, ev); err != nil {
		return Effects{}, err
	}
	s.advance()
	if err := s.settle(before); err != nil {
		return Effects{}, err
	}
	if err := s.check(before); err != nil {
		return Effects{}, err
	}
	return s.fx, nil
}

// settle turns what the step has decided into effects.
func (s *Session) settle(before HardState) error {
	if s.hard != s.saved {
		s.fx.Saved, s.fx.State = true, s.hard
		s.saved = s.hard
	}
	for i := range s.fx.Send {
		m := &s.fx.Send[i]
		m.From, m.Incarnation = s.hard.Self, s.hard.Incarnation
		m.Promised, m.Record = s.hard.Promised, s.hard.Record
	}
	for p := range s.peers {
		if q := &s.peers[p]; q.promised <= s.hard.Promised || s.hard.Self == Witness {
			q.promised = 0 // overtaken; and a witness asks for nothing
		}
	}
	s.duty = s.wanted()
	s.fx.Duty = s.duty
	return s.show(before)
}

// send adds a message; settle fills in what its sender has on disk.
func (s *Session) send(m Message) { s.fx.Send = append(s.fx.Send, m) }

func (s *Session) note(e Entry) { s.fx.Journal = append(s.fx.Journal, e) }

// role is what this server is in the session, as it knows.
func (c *core) role() Role {
	switch {
	case !c.hard.Record.Established() || c.hard.Removed:
		return RoleNone
	case c.hard.Self == Witness:
		return RoleWitness
	case c.hard.Record.Principal == c.hard.Self:
		return RolePrincipal
	}
	return RoleMirror
}

// lead says whether this server is principal of the newest role sequence that it has promised anything for. Only then
// may it change the record.
func (c *core) lead() bool {
	return c.role() == RolePrincipal && c.hard.Record.Seq == c.hard.Promised
}

// mirror is the server that mirrors, as this one knows; Nobody before a session exists.
func (c *core) mirror() Server { return c.hard.Record.Principal.Other() }

// reached says whether p was heard within the timeout and did not say good-bye.
func (s *Session) reached(p Server) bool {
	return s.peers[p].silent < s.cfg.Timing.Timeout && !s.peers[p].left
}

// linked says whether p was reached and is of this session. One that has lost its state is there, but what it was is
// lost: a principal does not wait for it.
func (s *Session) linked(p Server) bool {
	i := s.peers[p].incarnation
	return s.reached(p) && (i == 0 || !s.hard.Record.Established() || s.hard.Record.lists(p, i))
}

// heard notes that p is alive.
func (s *Session) heard(p Server) {
	s.peers[p].silent = 0
	s.peers[p].left = false
}

// others lists the servers that this one talks to.
func (s *Session) others() []Server {
	switch s.hard.Self {
	case PartnerA:
		return []Server{PartnerB, Witness}
	case PartnerB:
		return []Server{PartnerA, Witness}
	}
	return []Server{PartnerA, PartnerB}
}

// Hard returns what must be on disk.
func (s *Session) Hard() HardState { return s.hard }

// Snapshot is all that a session knows, as one comparable value. Exploration keeps snapshots instead of sessions.
type Snapshot struct {
	core  core
	saved HardState
}

// Hard returns what the snapshot's server has on disk.
func (n *Snapshot) Hard() HardState { return n.core.hard }

// Duty returns what the snapshot's data path has to do.
func (n *Snapshot) Duty() Duty { return n.core.duty }

// State returns the state that is shown.
func (n *Snapshot) State() State { return n.core.shown }

// Hears says whether the other server was heard since the last tick.
func (n *Snapshot) Hears(p Server) bool { return n.core.peers[p].silent == 0 }

// Confirmed says whether a principal's record is confirmed by a second server.
func (n *Snapshot) Confirmed() bool { return n.core.confirmed }

// Now returns the count of ticks.
func (n *Snapshot) Now() Tick { return n.core.now }

// At returns the snapshot with another count of ticks. A session looks at differences only: between its count, where
// Config.Clock began it, and the nonces of messages that are in flight.
func (n Snapshot) At(now Tick) Snapshot {
	n.core.now = now
	return n
}

// Promises says whether the server elects nobody but p now: a lease that it gave lives, or may, since it has just started.
func (n *Snapshot) Promises(p Server) bool {
	return n.core.promise.To == p && n.core.promise.Left > 0 || n.core.starting > 0
}

// Snapshot returns all that the session knows.
func (s *Session) Snapshot() Snapshot { return Snapshot{s.core, s.saved} }

// Restore puts the session back to what a snapshot of a session with the same Config knew.
func (s *Session) Restore(n Snapshot) {
	s.core, s.saved = n.core, n.saved
	s.fx = Effects{}
}
