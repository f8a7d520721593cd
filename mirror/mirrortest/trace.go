package mirrortest

import (
	"fmt"
	"strings"

	"github.com/f19126b3/dbmirror/mirror"
)

var shortName = [...]string{"nobody", "a", "b", "w"}

// describe writes one step of a trace: the event, if it led to anything, and what came of it.
func (s *stage) describe(p *player, ev mirror.Event, fx mirror.Effects) {
	if s.brief {
		for _, e := range fx.Journal {
			s.say("%s: %s", p.name, e)
		}
		return
	}
	var lines []string
	say := func(format string, args ...any) { lines = append(lines, "  "+fmt.Sprintf(format, args...)) }
	if fx.Halt {
		say("halt")
	}
	if fx.Saved {
		say("save %s", hardState(fx.State))
	}
	for _, m := range fx.Send {
		if s.pings || !isPing(m) {
			say("send %s", s.message(m))
		}
	}
	if fx.Duty != p.duty {
		say("duty %s", duty(fx.Duty))
	}
	for _, e := range fx.Journal {
		say("note %s", e)
	}
	if st := status(p.session.Status()); st != p.shown {
		p.shown = st
		say("%s", st)
	}
	if len(lines) > 0 {
		s.say("%s: %s", p.name, event(ev))
		s.trace = append(s.trace, lines...)
	}
}

func isPing(m mirror.Message) bool {
	return m.Kind == mirror.MessagePing || m.Kind == mirror.MessagePong
}

func event(ev mirror.Event) string {
	switch ev.Kind {
	case mirror.EventReceived:
		return fmt.Sprintf("%s from %s", ev.Message.Kind, shortName[ev.Message.From])
	case mirror.EventUnlinked:
		return "unlinked " + shortName[ev.Peer]
	case mirror.EventEnded:
		return fmt.Sprintf("%s %s", ev.Kind, ev.LSN)
	case mirror.EventAligned, mirror.EventWhole:
		return fmt.Sprintf("%s %d:%s", ev.Kind, ev.Seq, ev.LSN)
	}
	return ev.String()
}

func (s *stage) message(m mirror.Message) string {
	t := fmt.Sprintf("%s to %s", m.Kind, shortName[m.To])
	switch m.Kind {
	case mirror.MessageVote:
		t += fmt.Sprintf(" seq=%d how=%s has=%s", m.Seq, m.How, m.LSN)
	case mirror.MessageGrant:
		t += fmt.Sprintf(" seq=%d", m.Seq)
	case mirror.MessageRefuse:
		t += fmt.Sprintf(" seq=%d %s", m.Seq, m.Reason)
	case mirror.MessageTransfer:
		t += fmt.Sprintf(" end=%s", m.End)
	case mirror.MessageReport:
		t += fmt.Sprintf(" %d:%s", m.Seq, m.LSN)
	case mirror.MessageRequest:
		t += " " + m.Command.Kind.String()
	case mirror.MessagePing, mirror.MessagePong:
		if m.Nonce > 0 {
			t += fmt.Sprintf(" lease=%d", m.Nonce)
		}
	}
	if s.cut[m.From][m.To] {
		t += " (cut)"
	}
	return t
}

func duty(d mirror.Duty) string {
	if d == (mirror.Duty{}) {
		return "none"
	}
	t := fmt.Sprintf("%s of %d gate=%s", d.Role, d.Seq, d.Gate)
	if d.Role == mirror.RoleWitness {
		return fmt.Sprintf("witness of %d", d.Seq)
	}
	if d.Role == mirror.RolePrincipal {
		t += " wait=" + d.Wait.String()
	}
	if d.Ship {
		t += " ship"
	}
	if d.Prove {
		t += " prove"
	}
	if d.Work != mirror.WorkNone {
		t += " " + d.Work.String()
	}
	return t
}

func hardState(h mirror.HardState) string {
	t := fmt.Sprintf("promised=%d %s", h.Promised, record(h))
	if h.Record.Established() && h.Self != mirror.Witness {
		t += fmt.Sprintf(" aligned=%d", h.Aligned)
	}
	return t
}

// record is the record of a server, with what else of its hard state bears on its vote.
func record(h mirror.HardState) string {
	r := h.Record
	t := "record=" + r.Version().String()
	if !r.Established() {
		return t
	}
	t += fmt.Sprintf(" principal=%s %s", shortName[r.Principal], r.Safety)
	flags := []struct {
		on   bool
		name string
	}{
		{r.InSync, "in_sync"}, {r.Suspended, "suspended(" + r.Why.String() + ")"}, {r.Forced, "forced"},
		{h.Dirty, "dirty"}, {h.Removed, "removed"},
	}
	for _, f := range flags {
		if f.on {
			t += " " + f.name
		}
	}
	if r.Fork != (mirror.Position{}) {
		t += " fork=" + r.Fork.String()
	}
	t += fmt.Sprintf(" members=%d,%d,%d", r.Members[mirror.PartnerA], r.Members[mirror.PartnerB], r.Members[mirror.Witness])
	if r.OldWitness != 0 {
		t += fmt.Sprintf(" old_witness=%d", r.OldWitness)
	}
	return t
}

func status(st mirror.Status) string {
	t := fmt.Sprintf("%s %s (%s) quorum=%s", st.Role, st.State, st.Reason, st.Quorum)
	if st.Serving {
		t += " serving"
	}
	if st.Exposed {
		t += " exposed"
	}
	if st.Electing {
		t += " electing"
	}
	return t
}

// show writes a line for each server: what it shows, what it has on disk, and how its database stands.
func (s *stage) show([]string) error {
	for i := range s.players[1:] {
		p := &s.players[i+1]
		if !p.up {
			s.say("%s: down, gate=%s", p.name, p.gate)
			continue
		}
		st := p.session.Status()
		line := fmt.Sprintf("%s: %s record=%s promised=%d", p.name, status(st), st.Record.Version(), st.Promised)
		if p.self != mirror.Witness {
			line += fmt.Sprintf(" gate=%s hardened=%s", p.gate, st.Hardened)
		}
		if s.timing.Lease > 0 {
			line += fmt.Sprintf(" lease=%d promise=%d", st.Lease, st.PromiseLeft)
		}
		s.say("%s", line)
	}
	return nil
}

// explain writes what an automatic failover needs, as one server sees it.
func (s *stage) explain(p *player) error {
	if !p.up {
		return fmt.Errorf("%w: %s is down", ErrScript, p.name)
	}
	for _, c := range p.session.Explain() {
		met := "no "
		if c.Met {
			met = "yes"
		}
		s.say("  %s %s: %s (%d ticks old)", met, c.Name, strings.TrimSpace(c.Value), c.Age)
	}
	return nil
}

// why writes what stands against an automatic failover and against service, as one server sees it, and the mend.
func (s *stage) why(p *player) error {
	if !p.up {
		return fmt.Errorf("%w: %s is down", ErrScript, p.name)
	}
	for _, c := range p.session.Explain() {
		if !c.Met {
			s.say("  %s: %s; %s", c.Name, c.Value, c.Mend)
		}
	}
	return nil
}
