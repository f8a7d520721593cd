package mirrortest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/f19126b3/dbmirror/mirror"
)

// What must hold in a story, whatever its trace is.

const bothOpen = "both databases are open"

// judge writes down what no story may hide, and returns an error when nobody serves and nobody explains it.
func (s *stage) judge() error {
	a, b := &s.players[mirror.PartnerA], &s.players[mirror.PartnerB]
	both := a.gate == mirror.GateOpen && b.gate == mirror.GateOpen
	if both && !s.both {
		s.say(bothOpen)
	}
	s.both = both
	for _, p := range []*player{a, b} {
		if p.up && s.mute(p) {
			return fmt.Errorf("%w: nobody serves, and %s does not explain it", ErrUntrue, p.name)
		}
	}
	return nil
}

// mute says whether nobody serves and a partner neither does anything about it nor explains it (L4).
func (s *stage) mute(p *player) bool {
	st := p.session.Status()
	if len(s.open()) > 0 || st.Electing || st.Serving || st.Duty.Work != mirror.WorkNone {
		return false
	}
	return !slices.ContainsFunc(p.session.Explain(), func(c mirror.Condition) bool { return !c.Met && c.Mend != "" })
}

// open lists the servers whose database clients can use, their programs dead or alive.
func (s *stage) open() []string {
	var names []string
	for i := range s.players {
		if p := &s.players[i]; p.gate == mirror.GateOpen && !p.databaseDown {
			names = append(names, p.name)
		}
	}
	return names
}

// serves claims whose databases are open.
func (s *stage) serves(words []string) error {
	open := s.open()
	if len(open) == 0 {
		open = []string{"nobody"}
	}
	if !slices.Equal(open, words) {
		return fmt.Errorf("%w: open is the database of %s", ErrUntrue, strings.Join(open, " and "))
	}
	return nil
}

// states claims what servers show.
func (s *stage) states(words []string) error {
	if len(words) == 0 || len(words)%2 != 0 {
		return fmt.Errorf("%w: name servers, each with its state", ErrScript)
	}
	for pair := range slices.Chunk(words, 2) {
		p, err := s.named(pair[0])
		if err != nil {
			return err
		}
		if !p.up {
			return fmt.Errorf("%w: %s is down", ErrUntrue, p.name)
		}
		if shown := p.session.Status().State.String(); shown != pair[1] {
			return fmt.Errorf("%w: %s shows %s", ErrUntrue, p.name, shown)
		}
	}
	return nil
}
