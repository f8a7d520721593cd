package mirrortest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/f19126b3/dbmirror/mirror"
)

// player is one server of a story: a program that may be down, its disk, and a database that goes on by itself.
type player struct {
	self        mirror.Server
	name        string
	up          bool
	lives       mirror.Tick
	session     *mirror.Session
	options     mirror.Options
	disk        mirror.HardState
	incarnation mirror.Incarnation
	duty        mirror.Duty
	shown       string

	held         bool // its data path does nothing
	databaseDown bool
	gate         mirror.Gate     // as the data path last set it; it stays so when the program dies
	end          mirror.LSN      // of its own log
	began        mirror.LSN      // where its own log stood when it became whole for serving
	drained      bool            // its duty to drain is done
	hardened     mirror.Position // of the log it mirrors
}

// stage is three players and the messages between them.
type stage struct {
	timing  mirror.Timing
	players [4]player
	cut     [4][4]bool
	flight  []mirror.Message
	log     flow
	pings   bool
	brief   bool
	both    bool // it has been said that both databases are open
	trace   []string
	marked  *stage
	copies  map[string]machine
}

// flow says where log flows.
type flow uint8

const (
	logLinked flow = iota // as the mirror's link to the principal is
	logUp
	logDown
)

func newStage() *stage {
	s := &stage{copies: map[string]machine{}}
	for i, name := range []string{"", "a", "b", "w"} {
		s.players[i] = player{self: mirror.Server(i), name: name, gate: mirror.GateClosed, end: mirror.LSN(0x1000 * i)}
		s.players[i].incarnation = mirror.Incarnation(10*i + 1)
	}
	return s
}

func (s *stage) say(format string, args ...any) {
	s.trace = append(s.trace, fmt.Sprintf(format, args...))
}

func (s *stage) taken() []string {
	t := s.trace
	s.trace = nil
	return t
}

func (s *stage) start(p *player) error {
	if p.up {
		return fmt.Errorf("%w: %s is up", ErrScript, p.name)
	}
	p.lives++
	session, err := mirror.New(s.config(p), p.disk)
	if err != nil {
		return err
	}
	p.session, p.up, p.duty, p.shown = session, true, mirror.Duty{}, ""
	if p.self == mirror.Witness {
		return nil
	}
	if p.databaseDown {
		return s.step(p, mirror.Event{Kind: mirror.EventDatabaseDown})
	}
	if err := s.step(p, mirror.Event{Kind: mirror.EventEnded, LSN: p.end}); err != nil {
		return err
	}
	if p.disk.Aligned == 0 || p.hardened.Seq != p.disk.Aligned {
		return nil
	}
	return s.step(p, mirror.Event{Kind: mirror.EventHardened, Seq: p.hardened.Seq, LSN: p.hardened.LSN})
}

func (s *stage) config(p *player) mirror.Config {
	return mirror.Config{
		Self: p.self, Incarnation: p.incarnation, Timing: s.timing, Options: p.options, Clock: 1000 * p.lives,
	}
}

func (s *stage) stop(p *player) error {
	if err := s.step(p, mirror.Event{Kind: mirror.EventStopping}); err != nil {
		return err
	}
	return s.crash(p)
}

func (s *stage) crash(p *player) error {
	if !p.up {
		return fmt.Errorf("%w: %s is down", ErrScript, p.name)
	}
	p.up, p.session = false, nil
	return nil
}

func (s *stage) kill(p *player) error {
	p.databaseDown, p.gate = true, mirror.GateClosed
	return s.crash(p)
}

func (s *stage) wipe(p *player) error {
	if p.up {
		return fmt.Errorf("%w: %s is up", ErrScript, p.name)
	}
	p.disk, p.hardened = mirror.HardState{}, mirror.Position{}
	p.incarnation++
	return nil
}

func (s *stage) setDatabase(words []string) error {
	if len(words) != 2 {
		return fmt.Errorf("%w: name a server, and up or down", ErrScript)
	}
	p, err := s.named(words[0])
	if err != nil {
		return err
	}
	kind := mirror.EventDatabaseUp
	if p.databaseDown = words[1] == "down"; p.databaseDown {
		kind, p.gate = mirror.EventDatabaseDown, mirror.GateClosed
	}
	if !p.up {
		return nil
	}
	return s.step(p, mirror.Event{Kind: kind})
}

// setLinks cuts or mends: a pair of servers, all links of one, or with a>b one direction.
func (s *stage) setLinks(words []string, cut bool) error {
	if len(words) == 1 && strings.Contains(words[0], ">") {
		from, to, err := s.pair(strings.Split(words[0], ">"))
		if err == nil {
			s.cut[from.self][to.self] = cut
		}
		return err
	}
	if len(words) == 0 {
		return fmt.Errorf("%w: name a server or two", ErrScript)
	}
	p, err := s.named(words[0])
	if err != nil {
		return err
	}
	for i := range s.players {
		if len(words) == 2 && s.players[i].name != words[1] {
			continue
		}
		s.cut[p.self][i], s.cut[i][p.self] = cut, cut
	}
	return nil
}

// tick lets time pass for one server. A mirror whose stream is alive hears the principal's database. When it hears that
// and not the principal, it looks whether the database is closed: then that it streams is no sign of life.
func (s *stage) tick(p *player) error {
	if !p.up {
		return nil
	}
	if s.streams(p) {
		kind := mirror.EventStreamed
		if d := p.duty; s.players[d.Principal].gate == mirror.GateClosed && !p.session.Status().Peers[d.Principal].Connected {
			kind = mirror.EventStreamLost
		}
		if err := s.step(p, mirror.Event{Kind: kind}); err != nil {
			return err
		}
	}
	return s.step(p, mirror.Event{Kind: mirror.EventTicked})
}

// streams says whether a mirror reads the database it is to follow: that needs no program there.
func (s *stage) streams(p *player) bool {
	from := &s.players[p.duty.Principal]
	if p.duty.Role != mirror.RoleMirror || !p.duty.Ship || from.databaseDown {
		return false
	}
	return s.log == logUp || s.log == logLinked && !s.cut[p.self][from.self]
}

// runFor is run, n times: tick, then deliver and work until nothing is left to do.
func (s *stage) runFor(n int) error {
	for range n {
		if err := s.tickWords(nil); err != nil {
			return err
		}
		if err := s.settle(); err != nil {
			return err
		}
		if err := s.judge(); err != nil {
			return err
		}
	}
	return nil
}

// settle delivers and works until nothing is left to do.
func (s *stage) settle() error {
	for range 200 {
		busy := false
		if err := s.deliverAll(&busy); err != nil {
			return err
		}
		for i := 1; i <= 2; i++ {
			did, err := s.work(&s.players[i])
			if err != nil {
				return err
			}
			busy = busy || did
		}
		if !busy {
			return nil
		}
	}
	return fmt.Errorf("%w: it does not come to rest", ErrScript)
}

// work does one thing that a duty asks for, as a data path without trouble would.
func (s *stage) work(p *player) (bool, error) {
	if !p.up || p.databaseDown || p.held || p.self == mirror.Witness {
		return false, nil
	}
	d := p.duty
	ev := mirror.Event{Seq: d.Seq, LSN: p.end}
	switch {
	case d.Prove:
		ev.Kind = mirror.EventWaiting
	case d.Work == mirror.WorkPromote:
		ev.Kind = mirror.EventWhole
	case d.Work == mirror.WorkDrain && !p.drained:
		ev.Kind = mirror.EventDrained
	case s.streams(p):
		ev.LSN = s.players[d.Principal].end
		if ev.Kind = mirror.EventHardened; !p.session.Status().Aligned {
			ev.Kind, ev.LSN = mirror.EventAligned, s.players[d.Principal].began
		} else if p.hardened == (mirror.Position{Seq: ev.Seq, LSN: ev.LSN}) {
			return false, nil
		}
	default:
		return false, nil
	}
	return true, s.report(p, ev)
}

// report tells a session what its data path has done, and remembers it.
func (s *stage) report(p *player, ev mirror.Event) error {
	switch ev.Kind {
	case mirror.EventEnded:
		p.end = ev.LSN
	case mirror.EventHardened, mirror.EventAligned:
		p.hardened = mirror.Position{Seq: ev.Seq, LSN: ev.LSN}
	case mirror.EventWhole:
		p.began = p.end
	case mirror.EventDrained:
		p.drained = true
	}
	if !p.up {
		return nil
	}
	return s.step(p, ev)
}

// step gives a session one event and carries out what it asks for.
func (s *stage) step(p *player, ev mirror.Event) error {
	if !p.up {
		return fmt.Errorf("%w: %s is down", ErrScript, p.name)
	}
	fx, err := p.session.Step(ev)
	if errors.Is(err, mirror.ErrRefused) {
		s.say("%s: %s", p.name, err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %s: %w", p.name, ev, err)
	}
	return s.carryOut(p, ev, fx)
}

// carryOut does what a session asked for.
func (s *stage) carryOut(p *player, ev mirror.Event, fx mirror.Effects) error {
	s.describe(p, ev, fx)
	if fx.Saved {
		p.disk, p.incarnation = fx.State, fx.State.Incarnation
	}
	for _, m := range fx.Send {
		if !s.cut[m.From][m.To] {
			s.flight = append(s.flight, m)
		}
	}
	p.duty = fx.Duty
	p.drained = p.drained && p.duty.Work == mirror.WorkDrain
	if fx.Duty.Gate != mirror.GateKeep && fx.Duty.Gate != 0 && !p.databaseDown {
		p.gate = fx.Duty.Gate
	}
	if fx.Halt {
		return s.step(p, mirror.Event{Kind: mirror.EventHalted, Seq: p.hardened.Seq, LSN: p.hardened.LSN})
	}
	return nil
}

func (s *stage) deliverAll(busy *bool) error {
	for range 500 {
		i := slices.IndexFunc(s.flight, func(m mirror.Message) bool { return !s.cut[m.From][m.To] })
		if i < 0 {
			return nil
		}
		m := s.flight[i]
		*busy = *busy || m.Kind != mirror.MessagePing && m.Kind != mirror.MessagePong
		s.flight = slices.Delete(s.flight, i, i+1)
		if err := s.arrive(m); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: messages do not come to an end", ErrScript)
}

func (s *stage) arrive(m mirror.Message) error {
	to := &s.players[m.To]
	if !to.up {
		return nil
	}
	return s.step(to, mirror.Event{Kind: mirror.EventReceived, Message: m})
}

// chosen lists the messages in flight that the words name: from, to, kind.
func (s *stage) chosen(words []string) ([]mirror.Message, error) {
	from, to, err := s.pair(words)
	if err != nil {
		return nil, err
	}
	var found []mirror.Message
	for _, m := range s.flight {
		if m.From == from.self && m.To == to.self && (len(words) < 3 || m.Kind.String() == words[2]) {
			found = append(found, m)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%w: no such message is in flight", ErrScript)
	}
	return found, nil
}

func (s *stage) deliverWords(words []string) error {
	if len(words) == 0 {
		busy := false
		return s.deliverAll(&busy)
	}
	found, err := s.chosen(words)
	if err != nil {
		return err
	}
	s.remove(found)
	return s.arriveAll(found)
}

func (s *stage) deliverAgain(words []string) error {
	found, err := s.chosen(words)
	if err != nil {
		return err
	}
	return s.arriveAll(found)
}

func (s *stage) arriveAll(found []mirror.Message) error {
	for _, m := range found {
		if err := s.arrive(m); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) dropWords(words []string) error {
	if len(words) == 0 {
		s.flight = nil
		return nil
	}
	found, err := s.chosen(words)
	s.remove(found)
	return err
}

func (s *stage) remove(found []mirror.Message) {
	s.flight = slices.DeleteFunc(s.flight, func(m mirror.Message) bool { return slices.Contains(found, m) })
}
