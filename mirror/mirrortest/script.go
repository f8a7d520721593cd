package mirrortest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/f19126b3/dbmirror/mirror"
)

// ErrScript is wrapped by the errors of a story that cannot be played as it is written.
var ErrScript = errors.New("script")

// ErrUntrue is wrapped by the error of a claim of a story, a row of links or a table that does not hold.
var ErrUntrue = errors.New("untrue")

// Play plays a story with three real sessions and returns it with the trace that it has. A story is text: prose (lines
// that are empty or begin with #), and commands (lines that begin with >), one a line. What follows a command is its
// trace; Play replaces it. A test compares the result with the story, or writes it over the story. The language is
// described at the package. An error that wraps ErrScript says that a story cannot be played as it is written, one that
// wraps ErrUntrue that something does not hold that the story says must hold.
func Play(story string) (string, error) {
	s := newStage()
	var out []string
	for i, line := range strings.Split(strings.TrimRight(story, "\n"), "\n") {
		silent := strings.HasPrefix(line, ">> ")
		command, is := strings.CutPrefix(line, "> ")
		if silent {
			command, is = line[3:], true
		}
		switch {
		case is:
			if err := s.command(strings.Fields(command)); err != nil {
				return "", fmt.Errorf("line %d: %q: %w", i+1, line, err)
			}
			out = append(out, line)
			if trace := s.taken(); !silent {
				out = append(out, trace...)
			}
		case line == "" || strings.HasPrefix(line, "#"):
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n") + "\n", nil
}

// verbs is what a story may say.
var verbs = map[string]func(*stage, []string) error{
	"timing": (*stage).setTiming, "option": (*stage).setOption,
	"start": each((*stage).start), "stop": each((*stage).stop), "crash": each((*stage).crash), "kill": each((*stage).kill),
	"wipe": each((*stage).wipe), "database": (*stage).setDatabase,
	"tick": (*stage).tickWords, "deliver": (*stage).deliverWords, "again": (*stage).deliverAgain, "drop": (*stage).dropWords,
	"work": (*stage).workWords, "run": (*stage).runWords,
	"cut":    func(s *stage, words []string) error { return s.setLinks(words, true) },
	"mend":   func(s *stage, words []string) error { return s.setLinks(words, false) },
	"unlink": (*stage).unlink, "pings": (*stage).setPings,
	"wrote": position(mirror.EventEnded), "hardened": position(mirror.EventHardened), "redone": position(mirror.EventRedone),
	"waiting": position(mirror.EventWaiting), "drained": position(mirror.EventDrained), "aligned": position(mirror.EventAligned),
	"whole": position(mirror.EventWhole), "halted": position(mirror.EventHalted),
	"seeding": each(func(s *stage, p *player) error { return s.step(p, mirror.Event{Kind: mirror.EventSeeding}) }),
	"stream":  (*stage).setStream, "failed": (*stage).failed,
	"command": (*stage).operator, "show": (*stage).show, "explain": each((*stage).explain), "why": each((*stage).why),
	"brief": (*stage).setBrief, "hold": each((*stage).hold), "release": each((*stage).release), "log": (*stage).setLog, "wait": (*stage).waitLost,
	"copy": (*stage).copyDisk, "restore": (*stage).restoreDisk,
	"new": (*stage).renew, "mark": (*stage).setMark, "back": (*stage).back,
	"serves": (*stage).serves, "shows": (*stage).states, "table": (*stage).table, "links": (*stage).links,
}

func (s *stage) command(words []string) error {
	if len(words) == 0 {
		return fmt.Errorf("%w: no command", ErrScript)
	}
	verb := verbs[words[0]]
	if verb == nil {
		return fmt.Errorf("%w: unknown command", ErrScript)
	}
	if err := verb(s, words[1:]); err != nil {
		return err
	}
	return s.judge()
}

// each is a verb that is done to every server it names.
func each(do func(*stage, *player) error) func(*stage, []string) error {
	return func(s *stage, words []string) error {
		for _, w := range words {
			p, err := s.named(w)
			if err != nil {
				return err
			}
			if err := do(s, p); err != nil {
				return err
			}
		}
		return nil
	}
}

func (s *stage) named(word string) (*player, error) {
	if i := slices.Index([]string{"a", "b", "w"}, word); i >= 0 {
		return &s.players[i+1], nil
	}
	return nil, fmt.Errorf("%w: %q is not a, b or w", ErrScript, word)
}

func (s *stage) pair(words []string) (from, to *player, err error) {
	if len(words) < 2 {
		return nil, nil, fmt.Errorf("%w: name two servers", ErrScript)
	}
	if from, err = s.named(words[0]); err == nil {
		to, err = s.named(words[1])
	}
	return from, to, err
}

func (s *stage) setTiming(words []string) error {
	fields := map[string]*mirror.Tick{
		"ping": &s.timing.Ping, "timeout": &s.timing.Timeout, "lease": &s.timing.Lease, "campaign": &s.timing.Campaign,
		"drain": &s.timing.Drain,
	}
	for _, w := range words {
		name, value, _ := strings.Cut(w, "=")
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil || fields[name] == nil {
			return fmt.Errorf("%w: %q is no timing", ErrScript, w)
		}
		*fields[name] = mirror.Tick(n)
	}
	return nil
}

func (s *stage) setOption(words []string) error {
	if len(words) != 2 {
		return fmt.Errorf("%w: an option is a server and a word", ErrScript)
	}
	p, err := s.named(words[0])
	if err != nil {
		return err
	}
	name, value, _ := strings.Cut(words[1], "=")
	switch name {
	case "stay-alone":
		p.options.StayAlone = true
	case "serve-at-once":
		p.options.ServeAtOnce = true
	case "mirror-closed":
		p.options.MirrorClosed = true
	case "lag":
		p.options.SyncLag, err = mirror.ParseLSN(value)
		return err
	default:
		return fmt.Errorf("%w: unknown option", ErrScript)
	}
	return nil
}

// count reads the optional number at the end of words.
func count(words []string) (int, []string, error) {
	if len(words) == 0 {
		return 1, words, nil
	}
	last := words[len(words)-1]
	if last[0] < '0' || last[0] > '9' {
		return 1, words, nil
	}
	n, err := strconv.Atoi(last)
	if err != nil || n > 1000 {
		return 0, nil, fmt.Errorf("%w: %q is no count up to 1000", ErrScript, last)
	}
	return n, words[:len(words)-1], nil
}

func (s *stage) tickWords(words []string) error {
	n, words, err := count(words)
	if err != nil {
		return err
	}
	for range n {
		if err := s.eachOf(words, s.tick); err != nil {
			return err
		}
	}
	return nil
}

// eachOf does something to the servers named, or to all.
func (s *stage) eachOf(words []string, do func(*player) error) error {
	if len(words) == 0 {
		words = []string{"a", "b", "w"}
	}
	return each(func(_ *stage, p *player) error { return do(p) })(s, words)
}

func (s *stage) workWords(words []string) error {
	return s.eachOf(words, func(p *player) error {
		for {
			if did, err := s.work(p); err != nil || !did {
				return err
			}
		}
	})
}

func (s *stage) runWords(words []string) error {
	n, _, err := count(words)
	if err != nil {
		return err
	}
	return s.runFor(n)
}

func (s *stage) unlink(words []string) error {
	p, peer, err := s.pair(words)
	if err != nil {
		return err
	}
	return s.step(p, mirror.Event{Kind: mirror.EventUnlinked, Peer: peer.self})
}

func (s *stage) setPings(words []string) error {
	s.pings = len(words) == 1 && words[0] == "on"
	return nil
}

func (s *stage) setBrief(words []string) error {
	s.brief = len(words) == 1 && words[0] == "on"
	return nil
}

// setLog says where log flows; log lost b: what b has hardened is not there any more.
func (s *stage) setLog(words []string) error {
	if len(words) == 2 && words[0] == "lost" {
		p, err := s.named(words[1])
		if err != nil {
			return err
		}
		p.hardened = mirror.Position{}
		return s.step(p, mirror.Event{Kind: mirror.EventLogLost})
	}
	flows := map[string]flow{"linked": logLinked, "up": logUp, "down": logDown}
	if len(words) != 1 {
		return fmt.Errorf("%w: log is linked, up or down, or lost at a server", ErrScript)
	}
	f, known := flows[words[0]]
	if !known {
		return fmt.Errorf("%w: log is linked, up or down, or lost at a server", ErrScript)
	}
	s.log = f
	return nil
}

// waitLost: the data path of a principal found that commits did not wait.
func (s *stage) waitLost(words []string) error {
	if len(words) != 2 || words[0] != "lost" {
		return fmt.Errorf("%w: wait lost, and a server", ErrScript)
	}
	p, err := s.named(words[1])
	if err != nil {
		return err
	}
	return s.step(p, mirror.Event{Kind: mirror.EventWaitLost, Seq: p.duty.Seq})
}

// position is a verb that reports a position of a data path.
func position(kind mirror.EventKind) func(*stage, []string) error {
	return func(s *stage, words []string) error {
		if len(words) == 0 {
			return fmt.Errorf("%w: name a server", ErrScript)
		}
		p, err := s.named(words[0])
		if err != nil {
			return err
		}
		ev := mirror.Event{Kind: kind, Seq: p.duty.Seq}
		for _, w := range words[1:] {
			if seq, is := strings.CutPrefix(w, "@"); is {
				n, err := strconv.ParseUint(seq, 10, 64)
				if err != nil {
					return fmt.Errorf("%w: %q is no role sequence", ErrScript, w)
				}
				ev.Seq = mirror.RoleSeq(n)
			} else if ev.LSN, err = mirror.ParseLSN(w); err != nil {
				return err
			}
		}
		return s.report(p, ev)
	}
}

func (s *stage) setStream(words []string) error {
	p, err := s.named(words[0])
	if err != nil {
		return err
	}
	kind := mirror.EventStreamed
	if slices.Contains(words, "lost") {
		kind = mirror.EventStreamLost
	}
	return s.step(p, mirror.Event{Kind: kind})
}

func (s *stage) failed(words []string) error {
	p, err := s.named(words[0])
	if err != nil {
		return err
	}
	for _, r := range mirror.Reasons() {
		if r.String() == strings.Join(words[1:], " ") {
			return s.step(p, mirror.Event{Kind: mirror.EventFailed, Reason: r})
		}
	}
	return fmt.Errorf("%w: unknown reason", ErrScript)
}

func (s *stage) operator(words []string) error {
	if len(words) < 2 {
		return fmt.Errorf("%w: name a server and a command", ErrScript)
	}
	p, err := s.named(words[0])
	if err != nil {
		return err
	}
	if !p.up {
		return fmt.Errorf("%w: %s is down", ErrScript, p.name)
	}
	c, err := s.operation(p, words[1], words[2:])
	if err != nil {
		return err
	}
	return s.step(p, mirror.Event{Kind: mirror.EventCommanded, Command: c})
}

// operation reads a command that is given at p.
func (s *stage) operation(p *player, verb string, words []string) (mirror.Command, error) {
	var c mirror.Command
	arg := strings.Join(words, " ")
	switch verb {
	case "establish":
		c.Kind = mirror.CommandEstablish
		if arg == "witness" {
			c.Incarnation = s.players[mirror.Witness].incarnation
		}
	case "failover":
		c.Kind = mirror.CommandFailover
	case "force":
		c.Kind = mirror.CommandForceService
		if arg == "" {
			c.Expect = p.session.Status().Record.Version()
			return c, nil
		}
		var err error
		c.Expect, err = version(arg)
		return c, err
	case "suspend":
		c.Kind, c.Reason = mirror.CommandSuspend, mirror.ReasonCommand
	case "resume":
		c.Kind = mirror.CommandResume
	case "safety":
		c.Kind, c.Safety = mirror.CommandSetSafety, map[string]mirror.Safety{"off": mirror.SafetyOff, "full": mirror.SafetyFull}[arg]
	case "witness":
		c.Kind = mirror.CommandSetWitness
		if arg == "w" {
			c.Incarnation = s.players[mirror.Witness].incarnation
		}
	case "admit":
		p, err := s.named(arg)
		if err != nil {
			return c, err
		}
		c.Kind, c.Incarnation = mirror.CommandAdmit, p.incarnation
	case "serve":
		c.Kind = mirror.CommandServe
	default:
		return c, fmt.Errorf("%w: unknown operator's command", ErrScript)
	}
	return c, nil
}

func version(word string) (mirror.Version, error) {
	seq, change, _ := strings.Cut(word, ".")
	s, errSeq := strconv.ParseUint(seq, 10, 64)
	k, errChange := strconv.ParseUint(change, 10, 64)
	if err := errors.Join(errSeq, errChange); err != nil {
		return mirror.Version{}, fmt.Errorf("%w: %q is no version of a record: %w", ErrScript, word, err)
	}
	return mirror.Version{Seq: mirror.RoleSeq(s), Change: k}, nil
}
