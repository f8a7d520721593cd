package mirror

import "fmt"

// MessageKind is what one server tells another.
type MessageKind uint8

// The messages. Every one of them also carries what its sender has on disk.
const (
	MessagePing     MessageKind = iota + 1 // I am here; the principal also asks for its lease
	MessagePong                            // the answer to a ping; grants the lease
	MessagePropose                         // the principal's record, to be stored
	MessageAccept                          // I have stored your record
	MessageVote                            // let me be principal of Seq
	MessageGrant                           // you are principal of Seq as far as I am asked
	MessageRefuse                          // I refuse, for Reason
	MessageTransfer                        // the principal is drained at End: take over
	MessageReport                          // the mirror has hardened up to LSN of Seq
	MessageRequest                         // the mirror asks the principal to carry out Command
	MessageBye                             // the sender's program is being stopped in order
	numMessageKinds
)

var messageNames = [numMessageKinds]string{
	"none", "ping", "pong", "propose", "accept", "vote", "grant", "refuse", "transfer", "report", "request", "bye",
}

// String returns the kind in lower case: the last part of the path under which it is sent.
func (k MessageKind) String() string { return nameOf(messageNames[:], uint8(k)) }

// MessageKinds lists every kind.
func MessageKinds() []MessageKind {
	all := make([]MessageKind, 0, numMessageKinds)
	for k := MessagePing; k < numMessageKinds; k++ {
		all = append(all, k)
	}
	return all
}

// Message is what one server tells another. It may be lost, doubled, late or out of order; a session does not care.
// Fields that a kind does not use are zero.
type Message struct {
	Kind        MessageKind
	From, To    Server
	Incarnation Incarnation // the sender's
	Promised    RoleSeq     // the sender's, on its disk
	Record      Record      // the sender's, on its disk; in a vote it is the basis of the election

	Seq     RoleSeq  // vote, grant, refuse: the role sequence asked for; ping, report: that of LSN
	LSN     LSN      // ping, report: hardened to; vote: the candidate's end of the principal's log
	End     LSN      // transfer and the vote that answers it: where the principal is drained; ping: end of its own log
	Redone  LSN      // ping: redone to
	How     Election // vote
	Reason  Reason   // refuse: why; ping: why the sender is not ready; request: why it asks
	Nonce   Tick     // ping of a principal, echoed by the pong: when the lease was asked for
	Sees    uint8    // ping, pong: bit per server heard within the timeout
	Ready   bool     // ping: the mirror follows the stream, or the principal's database answers
	Command Command  // request
}

// String is for traces: what is needed to follow a story, not every field.
func (m Message) String() string {
	s := fmt.Sprintf("%s %s->%s promised=%d record=%s", m.Kind, m.From, m.To, m.Promised, m.Record.Version())
	switch m.Kind {
	case MessagePropose:
		s += fmt.Sprintf(" principal=%s in_sync=%t", m.Record.Principal, m.Record.InSync)
	case MessageVote:
		s += fmt.Sprintf(" seq=%d how=%s lsn=%s", m.Seq, m.How, m.LSN)
	case MessageGrant:
		s += fmt.Sprintf(" seq=%d", m.Seq)
	case MessageRefuse:
		s += fmt.Sprintf(" seq=%d reason=%q", m.Seq, m.Reason)
	case MessageTransfer:
		s += fmt.Sprintf(" end=%s", m.End)
	case MessageReport:
		s += fmt.Sprintf(" hardened=%d:%s", m.Seq, m.LSN)
	}
	return s
}
