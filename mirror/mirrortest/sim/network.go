package sim

import (
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// network carries messages between the servers. Each direction of each link is its own: it may be cut, or clogged, which
// holds messages back until it is unclogged.
type network struct {
	*sim
	cut     [4][4]bool
	clogged [4][4]bool
	held    [4][4][]mirror.Message
	refused [4][4]int // times in a row that nobody was listening
	sent    uint64
}

// both says whether two servers reach each other in both directions: what a stream of log needs.
func (n *network) both(a, b mirror.Server) bool { return !n.cut[a][b] && !n.cut[b][a] }

func (n *network) send(m mirror.Message) {
	n.sent++
	if n.cut[m.From][m.To] || n.chance(n.plan.loss) {
		n.lost(m)
		return
	}
	if n.clogged[m.From][m.To] {
		if held := &n.held[m.From][m.To]; len(*held) < 64 {
			*held = append(*held, m)
		}
		return
	}
	n.carry(m)
	if n.chance(n.plan.double) {
		n.meet(messageDoubled)
		n.carry(m)
	}
}

func (n *network) carry(m mirror.Message) {
	delay := n.between(n.plan.delay/2, n.plan.delay*3/2)
	if n.chance(n.plan.slow) {
		delay += n.between(0, n.plan.slowest)
	}
	n.after(delay, func() { n.arrive(m) })
}

func (n *network) lost(m mirror.Message) {
	switch m.Kind {
	case mirror.MessageGrant:
		n.meet(grantLost)
	case mirror.MessageAccept:
		n.meet(acceptLost)
	case mirror.MessageTransfer:
		n.meet(transferLost)
	case mirror.MessageBye:
		n.meet(goodbyeLost)
	}
}

// arrive hands a message over. What servers decide by goes through its bytes.
func (n *network) arrive(m mirror.Message) {
	to := n.machines[m.To]
	if n.cut[m.From][m.To] || !to.up {
		n.lost(m)
		return
	}
	if to.program == nil {
		n.nobody(m)
		return
	}
	n.refused[m.From][m.To] = 0
	if m.Kind != mirror.MessagePing && m.Kind != mirror.MessagePong || n.sent%16 == 0 {
		decoded, err := mirror.DecodeMessage(m.Append(nil))
		if err != nil || decoded != m {
			n.fail("codec: %s is read as %s: %v", m, decoded, err)
			return
		}
	}
	n.late(m, to.program)
	to.program.tell(mirror.Event{Kind: mirror.EventReceived, Message: m})
}

// late notes messages that come after what they are about.
func (n *network) late(m mirror.Message, to *program) {
	own := to.session.Hard()
	switch {
	case m.Kind == mirror.MessageGrant && m.Seq < own.Promised:
		n.meet(grantLate)
	case m.Kind == mirror.MessageAccept && own.Record.NewerThan(m.Record):
		n.meet(acceptLate)
	case m.Kind == mirror.MessagePropose && own.Promised > m.Record.Seq:
		n.meet(proposeDeaf)
	case m.Kind == mirror.MessageVote && own.Promised > m.Seq:
		n.meet(voteLate)
	case m.Kind == mirror.MessageReport && own.Record.Seq > m.Seq:
		n.meet(reportLate)
	}
}

// nobody is listening at a machine that is up: the sender's host learns it at once, and tells its session when it has
// happened three times in a row.
func (n *network) nobody(m mirror.Message) {
	n.lost(m)
	from := n.machines[m.From].program
	if from == nil || n.cut[m.To][m.From] {
		return
	}
	n.refused[m.From][m.To]++
	if n.refused[m.From][m.To] == 3 {
		n.meet(unlinked)
		from.tell(mirror.Event{Kind: mirror.EventUnlinked, Peer: m.To})
	}
}

// unclog lets go what was held, in any order.
func (n *network) unclog(from, to mirror.Server) {
	n.clogged[from][to] = false
	held := n.held[from][to]
	n.held[from][to] = nil
	n.rng.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
	for _, m := range held {
		n.after(n.between(0, 50*time.Millisecond), func() { n.arrive(m) })
	}
	if len(held) > 8 {
		n.meet(unclogged)
	}
}

// mend makes all links whole.
func (n *network) mend() {
	for from := mirror.PartnerA; from <= mirror.Witness; from++ {
		for to := mirror.PartnerA; to <= mirror.Witness; to++ {
			n.cut[from][to] = false
			if n.clogged[from][to] {
				n.unclog(from, to)
			}
		}
	}
}

// isolate cuts or mends all links of a server.
func (n *network) isolate(s mirror.Server, cut bool) {
	for o := mirror.PartnerA; o <= mirror.Witness; o++ {
		n.cut[s][o], n.cut[o][s] = cut, cut
	}
}
