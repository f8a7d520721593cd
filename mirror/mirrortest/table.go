package mirrortest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/f19126b3/dbmirror/mirror"
)

// Every command in a state: table tries each of them at each server, from the same stage, and tells what became of it.

// tableTicks is how long a table lets a stage run after a command: until campaigns, drains and timeouts are over.
const tableTicks = 20

// attempts is every way in which an operator may give a command. PARTNER stands for the other partner.
func attempts(k mirror.CommandKind) []string {
	return map[mirror.CommandKind][]string{
		mirror.CommandEstablish:    {"establish", "establish witness"},
		mirror.CommandFailover:     {"failover"},
		mirror.CommandForceService: {"force", "force 9.9"},
		mirror.CommandSuspend:      {"suspend"},
		mirror.CommandResume:       {"resume"},
		mirror.CommandSetSafety:    {"safety off", "safety full"},
		mirror.CommandSetWitness:   {"witness none", "witness w"},
		mirror.CommandAdmit:        {"admit PARTNER"},
		mirror.CommandServe:        {"serve"},
	}[k]
}

// table writes what is shown, what that comes to when nobody asks for anything, and what becomes of each command.
func (s *stage) table([]string) error {
	rest, _, err := s.afterwards(nil, "")
	if err != nil {
		return err
	}
	for i, now := range s.portrait() {
		s.say("%s", now)
		if rest[i] != now {
			s.say("    and left alone: %s", rest[i][len("a: "):])
		}
	}
	for i := range s.players {
		if p := &s.players[i]; p.up {
			if err := s.tableOf(p, rest); err != nil {
				return err
			}
		}
	}
	return nil
}

// tableOf tries everything at one server. What comes to the same is one entry.
func (s *stage) tableOf(p *player, rest []string) error {
	var outcomes []string
	ways := map[string][]string{}
	for _, k := range mirror.CommandKinds() {
		tries := attempts(k)
		if len(tries) == 0 {
			return fmt.Errorf("%w: no table has the command %s", ErrScript, k)
		}
		for _, way := range tries {
			way = strings.Replace(way, "PARTNER", map[string]string{"a": "b", "b": "a", "w": "b"}[p.name], 1)
			outcome, err := s.outcome(p, way, rest)
			if err != nil {
				return fmt.Errorf("%s %s: %w", p.name, way, err)
			}
			if ways[outcome] == nil {
				outcomes = append(outcomes, outcome)
			}
			ways[outcome] = append(ways[outcome], way)
		}
	}
	for _, outcome := range outcomes {
		s.say("%s %s: %s", p.name, strings.Join(ways[outcome], " | "), outcome)
	}
	return nil
}

// outcome tells what became of a command, set against what would have been without it.
func (s *stage) outcome(p *player, way string, rest []string) (string, error) {
	after, refusals, err := s.afterwards(p, way)
	var refused *mirror.RefusedError
	if errors.As(err, &refused) {
		return fmt.Sprintf("refused: %s; %s", refused.Reason, refused.Mend), nil
	}
	if err != nil {
		return "", err
	}
	told := "accepted"
	if len(refusals) == 0 && slices.Equal(rest, after) {
		return "accepted, changes nothing", nil
	}
	for _, r := range refusals {
		told += "\n    " + r
	}
	for i := range after {
		if after[i] != rest[i] {
			told += "\n    " + after[i]
		}
	}
	return told, nil
}

// afterwards returns what each server shows some time after a command, and what was refused on the way. The stage itself
// stays as it is. The error of a command that is refused is returned as it is.
func (s *stage) afterwards(p *player, way string) (shown, refusals []string, err error) {
	c, err := s.clone()
	if err != nil {
		return nil, nil, err
	}
	c.brief = true
	if p != nil {
		if err := c.give(&c.players[p.self], way); err != nil {
			return nil, nil, err
		}
	}
	if err := c.runFor(tableTicks); err != nil {
		return nil, nil, err
	}
	for _, line := range c.taken() {
		worth := strings.Contains(line, "refused") || line == bothOpen
		if worth && !slices.Contains(refusals, line) {
			refusals = append(refusals, line)
		}
	}
	return c.portrait(), refusals, nil
}

// give gives a command that may be refused, and lets what it leads to at once come to rest.
func (s *stage) give(p *player, way string) error {
	words := strings.Fields(way)
	c, err := s.operation(p, words[0], words[1:])
	if err != nil {
		return err
	}
	ev := mirror.Event{Kind: mirror.EventCommanded, Command: c}
	before := p.session.Snapshot()
	fx, err := p.session.Step(ev)
	if err != nil && p.session.Snapshot() != before {
		return fmt.Errorf("%w: a refusal changed something: %s", ErrUntrue, err) // not %w: it must not pass for a refusal
	}
	if err != nil {
		return err
	}
	if err := s.carryOut(p, ev, fx); err != nil {
		return err
	}
	return s.settle()
}

// portrait is a line for each server: what it shows and what its record says.
func (s *stage) portrait() []string {
	var lines []string
	for i := range s.players[1:] {
		p := &s.players[i+1]
		if !p.up {
			lines = append(lines, fmt.Sprintf("%s: down, gate=%s", p.name, p.gate))
			continue
		}
		lines = append(lines, fmt.Sprintf("%s: %s; %s", p.name, status(p.session.Status()), record(p.session.Hard())))
	}
	return lines
}
