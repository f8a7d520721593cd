package partner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// Each partner tells the other what troubles it, so that whoever looks at one of them sees the cause and the mend. No
// rule of the session rests on it, but one: a session is made only when both have found nothing against it.

// kindNote is a message that is not the session's.
const kindNote endpoint.Kind = "note"

// note is what a partner says of itself. It holds no row data and no connection string.
type note struct {
	Ready     bool   // it has looked at both servers, and nothing is against making the session
	Stopped   bool   // its program ends, for Trouble
	Establish bool   // it is told to make the session
	Trouble   string // what it fails at; empty: nothing
	Findings  findings
	Timing    host.Timing
	Database  backend.Identity // zero until it has reached its server
}

// findings are at most noteLimit when they are read.
type findings []backend.Finding

// UnmarshalJSON counts before it reads: a note of many small findings must not take many times its size.
func (f *findings) UnmarshalJSON(b []byte) error {
	_, commas := countCommas(b)
	if commas >= noteLimit {
		return fmt.Errorf("more than %d findings", noteLimit)
	}
	read := make([]backend.Finding, 0, commas+1)
	err := json.Unmarshal(b, &read)
	*f = read
	return err
}

// decodeNote reads what the other partner has said. What no partner says is refused before it is read: JSON that is made
// for it takes ten times its size.
func decodeNote(body []byte) (n note, err error) {
	if !utf8.Valid(body) {
		return n, errors.New("it is no UTF-8")
	}
	if commas, _ := countCommas(body); commas > commaLimit {
		return n, fmt.Errorf("it has more than %d parts", commaLimit)
	}
	err = json.Unmarshal(body, &n)
	return n, err
}

// countCommas counts the commas of JSON that stand in no string: all of them, and those of the outermost list or object.
func countCommas(b []byte) (all, outermost int) {
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			i++
		case quoted:
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			depth--
		case c == ',':
			all++
			if depth == 1 {
				outermost++
			}
		}
	}
	return all, outermost
}

const (
	noteEvery   = 2 * time.Second
	noteRetry   = 250 * time.Millisecond
	noteFresh   = 5 * noteEvery  // an older one says nothing of the present
	noteLimit   = 30             // findings in a note
	commaLimit  = 10 * noteLimit // between the parts of a note: one with noteLimit findings has two thirds of them
	noteTimeout = 2 * time.Second
	// troubleLimit bounds the trouble in a note, in bytes: in JSON a byte takes six at most.
	troubleLimit = 8 << 10
)

// notes are the last ones of both partners.
type notes struct {
	sync.Mutex
	theirs note
	heard  time.Time
	news   chan struct{} // has room for one: look again at once
}

// receive takes notes, and leaves everything else to the session.
func (p *Partner) receive(ctx context.Context, from endpoint.Identity, kind endpoint.Kind, body []byte) ([]byte, error) {
	if kind != kindNote {
		if !p.running.Load() {
			return nil, endpoint.Deny("%s is starting; send again", p.cfg.Self) // what it lost comes before what it hears
		}
		return p.host.Receive(ctx, from, kind, body)
	}
	n, err := decodeNote(body)
	if err != nil {
		return nil, endpoint.Deny("note cannot be read: %v", err)
	}
	p.notes.Lock()
	changed := n.Trouble != p.notes.theirs.Trouble || !slices.Equal(n.Findings, p.notes.theirs.Findings)
	p.notes.theirs, p.notes.heard = n, time.Now()
	p.notes.Unlock()
	if changed && (n.Trouble != "" || backend.Refuse(n.Findings) != nil) {
		p.cfg.Logger.Warn("the other partner is in trouble", "peer", p.cfg.Self.Other(), "trouble", n.Trouble, "findings", n.Findings)
	}
	select {
	case p.notes.news <- struct{}{}:
	default:
	}
	return nil, nil
}

// allow is who may say what to this partner.
func (p *Partner) allow() endpoint.Table {
	table := host.Allow(p.cfg.Self)
	table[host.Role(p.cfg.Self.Other())][kindNote] = true
	return table
}

// peerNote returns what the other partner last said of itself, and whether that is of the present.
func (p *Partner) peerNote() (note, bool) {
	p.notes.Lock()
	defer p.notes.Unlock()
	return p.notes.theirs, time.Since(p.notes.heard) < noteFresh
}

// ownNote is what this partner says of itself now.
func (p *Partner) ownNote() note {
	n := note{Establish: p.cfg.Establish, Timing: p.host.Timing(), Trouble: p.data.troubles(false)}
	p.data.mu.Lock()
	n.Ready, n.Findings, n.Database = p.data.mu.ready, p.data.mu.findings, p.data.mu.place
	p.data.mu.Unlock()
	n.Findings = foremost(n.Findings)
	return n
}

// foremost are the gravest findings, as many as a note may have.
func foremost(all []backend.Finding) []backend.Finding {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b backend.Finding) int { return int(b.Severity) - int(a.Severity) })
	return all[:min(len(all), noteLimit)]
}

// exchange tells the other partner what this one has to say, when it changes and every now and then.
func (p *Partner) exchange(ctx context.Context) {
	tick := time.NewTicker(noteRetry)
	defer tick.Stop()
	var said string
	var at time.Time
	for {
		p.observe()
		body := p.ownNote().encode()
		if string(body) != said || time.Since(at) >= noteEvery {
			if p.tell(ctx, body) == nil {
				said, at = string(body), time.Now()
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// encode writes the note, without what is too long for one.
func (n note) encode() []byte {
	if len(n.Trouble) > troubleLimit {
		n.Trouble = strings.ToValidUTF8(n.Trouble[:troubleLimit], "") + "..."
	}
	b, err := json.Marshal(n)
	for err == nil && len(b) > endpoint.MaxBody && len(n.Findings) > 0 {
		n.Findings = n.Findings[:len(n.Findings)/2]
		b, err = json.Marshal(n)
	}
	return b
}

func (p *Partner) tell(ctx context.Context, body []byte) error {
	_, err := p.clients[p.cfg.Self.Other()].Send(ctx, kindNote, body)
	return err
}

// farewell tells the other partner, once, why this one does not run.
func (p *Partner) farewell(why error) {
	p.cfg.Logger.Error("this partner cannot run", "error", why)
	ctx, cancel := context.WithTimeout(context.Background(), noteTimeout)
	defer cancel()
	n := note{Stopped: true, Trouble: why.Error()}
	if p.data != nil {
		p.data.mu.Lock()
		n.Findings = foremost(p.data.mu.findings)
		p.data.mu.Unlock()
	}
	if err := p.tell(ctx, n.encode()); err != nil {
		p.cfg.Logger.Warn("the other partner does not know why this one stops", "error", err)
	}
}

// showPeers adds to a status what stands between the servers, and what the other partner says of itself. What it said
// last stays while it is away: that may be why.
func (p *Partner) showPeers(st *Status) {
	other := p.cfg.Self.Other()
	for s := range p.clients {
		st.Links[s] = p.host.LinkTrouble(s)
	}
	n, fresh := p.peerNote()
	switch {
	case n.Trouble == "" || !fresh && st.Peers[other].Connected:
	case n.Stopped:
		st.Trouble = join(st.Trouble, fmt.Sprintf("%s has stopped: %s", other, n.Trouble))
	default:
		st.Trouble = join(st.Trouble, fmt.Sprintf("%s: %s", other, n.Trouble))
	}
	for _, f := range n.Findings {
		if !slices.Contains(st.Findings, f) && (fresh || !st.Peers[other].Connected) {
			st.Findings = append(slices.Clip(st.Findings), f)
		}
	}
}

// observe turns what is wrong between the partners, and what the session shows without a word, into troubles.
func (p *Partner) observe() {
	st, other := p.host.Status(), p.cfg.Self.Other()
	var lost error
	if st.Role == mirror.RolePrincipal && st.Peers[other].Newcomer != 0 {
		lost = fmt.Errorf("%s has lost its state, or is another server: Admit, asked of %s, takes it in as a new mirror", other, p.cfg.Self)
	}
	p.data.trouble(tryAdmit, lost)
	p.data.trouble(trySettings, p.disagreement())
}

// disagreement says how the settings of the two partners contradict each other.
func (p *Partner) disagreement() error {
	theirs, fresh := p.peerNote()
	if !fresh || theirs.Stopped || theirs.Timing == p.host.Timing() {
		return nil
	}
	return fmt.Errorf("%s has other timeouts (%+v) than this partner (%+v): set the same Timing on all three servers",
		p.cfg.Self.Other(), theirs.Timing, p.host.Timing())
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}
