package mirrortest

import (
	"fmt"
	"maps"
	"slices"

	"github.com/f19126b3/dbmirror/mirror"
)

// Whole stages: remembered, begun anew, and disks that are copied.

// machine is what a copy of a server's disks holds.
type machine struct {
	disk        mirror.HardState
	incarnation mirror.Incarnation
	hardened    mirror.Position
	end, began  mirror.LSN
}

// clone returns a stage that goes its own way from here.
func (s *stage) clone() (*stage, error) {
	c := *s
	c.flight, c.trace, c.copies = slices.Clone(s.flight), nil, maps.Clone(s.copies)
	for i := range c.players {
		p := &c.players[i]
		if !p.up {
			continue
		}
		session, err := mirror.New(c.config(p), p.session.Hard())
		if err != nil {
			return nil, err
		}
		session.Restore(p.session.Snapshot())
		p.session = session
	}
	return &c, nil
}

func (s *stage) renew([]string) error {
	*s = *newStage()
	return nil
}

func (s *stage) setMark([]string) error {
	c, err := s.clone()
	s.marked = c
	return err
}

func (s *stage) back([]string) error {
	if s.marked == nil {
		return fmt.Errorf("%w: nothing is marked", ErrScript)
	}
	c, err := s.marked.clone()
	if err != nil {
		return err
	}
	c.marked = s.marked
	*s = *c
	return nil
}

func (s *stage) copyDisk(words []string) error {
	p, name, err := s.serverAndName(words)
	if err == nil {
		s.copies[p.name+" "+name] = machine{p.disk, p.incarnation, p.hardened, p.end, p.began}
	}
	return err
}

func (s *stage) restoreDisk(words []string) error {
	p, name, err := s.serverAndName(words)
	if err != nil {
		return err
	}
	m, known := s.copies[p.name+" "+name]
	if !known || p.up {
		return fmt.Errorf("%w: %s is up, or %q is no copy of its disk", ErrScript, p.name, name)
	}
	p.disk, p.incarnation, p.hardened, p.end, p.began = m.disk, m.incarnation, m.hardened, m.end, m.began
	return nil
}

func (s *stage) serverAndName(words []string) (*player, string, error) {
	if len(words) != 2 {
		return nil, "", fmt.Errorf("%w: name a server and a copy", ErrScript)
	}
	p, err := s.named(words[0])
	return p, words[1], err
}

func (s *stage) hold(p *player) error {
	p.held = true
	return nil
}

func (s *stage) release(p *player) error {
	p.held = false
	return nil
}
