package mirrortest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/f19126b3/dbmirror/mirror"
)

// The 64 patterns of links: each of the six directed links between three servers is up or down.

// restTicks is how long a pattern lasts before its outcome is taken, and how long healing may take.
const restTicks = 24

// pattern is which links are up, a bit for each pair in both directions; see directed.
type pattern uint8

// allLinks is the pattern in which every link is up; there are as many patterns as numbers up to it.
const allLinks pattern = 1<<6 - 1

// directed lists the links in the order of their bits.
func directed() [][2]mirror.Server {
	a, b, w := mirror.PartnerA, mirror.PartnerB, mirror.Witness
	return [][2]mirror.Server{{a, b}, {b, a}, {a, w}, {w, a}, {b, w}, {w, b}}
}

// up says whether messages get from one server to the other.
func (x pattern) up(from, to mirror.Server) bool {
	for i, link := range directed() {
		if link == [2]mirror.Server{from, to} {
			return x&(1<<i) != 0
		}
	}
	return false
}

// String draws the three pairs: a-b, a-w, b-w.
func (x pattern) String() string {
	var pairs []string
	for i := 0; i < len(directed()); i += 2 {
		pairs = append(pairs, []string{" x ", "-->", "<--", "<->"}[x>>i&3])
	}
	return strings.Join(pairs, " ")
}

// links writes a row for each pattern: who serves in the end, what each server shows, and who serves when all links are
// up again. That never two databases are open, and that it heals, must hold in each row.
func (s *stage) links([]string) error {
	if slices.ContainsFunc(s.players[1:], func(p player) bool { return !p.up }) {
		return fmt.Errorf("%w: links are tried with three servers that are up", ErrScript)
	}
	s.say("a-b a-w b-w  serves  %-42s%-42s%-36shealed", "a", "b", "w")
	for i := range int(allLinks) + 1 {
		x := allLinks - pattern(i)
		row, err := s.row(x)
		if err != nil {
			return fmt.Errorf("links %s: %w", x, err)
		}
		s.say("%s", row)
	}
	return nil
}

func (s *stage) row(x pattern) (string, error) {
	c, err := s.clone()
	if err != nil {
		return "", err
	}
	c.brief = true
	for _, link := range directed() {
		c.cut[link[0]][link[1]] = !x.up(link[0], link[1])
	}
	if err := c.runFor(restTicks); err != nil {
		return "", err
	}
	cells := make([]string, 0, 3)
	for _, p := range c.players[1:] {
		cells = append(cells, cell(p.session.Status()))
	}
	serves := "nobody"
	if open := c.open(); len(open) > 0 {
		serves = open[0]
	}
	healed, err := c.healed()
	if err != nil {
		return "", err
	}
	row := fmt.Sprintf("%s  %-8s%-42s%-42s%-36s%s", x, serves, cells[0], cells[1], cells[2], healed)
	return row, nil
}

// cell is what a server shows, without the reason.
func cell(st mirror.Status) string {
	t := fmt.Sprintf("%s %s %s", st.Role, st.State, st.Quorum)
	if st.Exposed {
		t += " exposed"
	}
	return t
}

// healed puts all links up and returns who serves then.
func (s *stage) healed() (string, error) {
	s.cut, s.log = [4][4]bool{}, logLinked
	if err := s.runFor(restTicks); err != nil {
		return "", err
	}
	if slices.Contains(s.taken(), bothOpen) {
		return "", fmt.Errorf("%w: %s", ErrUntrue, bothOpen)
	}
	open := s.open()
	if len(open) != 1 {
		return "", fmt.Errorf("%w: with all links up %d databases are open", ErrUntrue, len(open))
	}
	return open[0], s.states(strings.Fields("a SYNCHRONIZED b SYNCHRONIZED w SYNCHRONIZED"))
}
