package mirror

import "fmt"

// Tick counts a host's ticks. How long one is, only the host knows.
type Tick uint32

// EventKind is what has happened.
type EventKind uint8

// The events. Those of the data path name the role sequence on whose behalf they happened; a session drops those of
// another one.
const (
	EventTicked       EventKind = iota + 1 // a tick has passed
	EventReceived                          // Message arrived
	EventLinked                            // Peer was reached
	EventUnlinked                          // Peer was lost for certain: its host says that nobody listens
	EventCommanded                         // an operator asks for Command
	EventHardened                          // mirror: the log of Seq is hardened up to LSN
	EventRedone                            // mirror: redone up to LSN of Seq
	EventEnded                             // principal: the end of its own log is LSN
	EventHalted                            // mirror: hardening was stopped; nothing after LSN of Seq will be hardened
	EventWaiting                           // principal: proven that commits wait for the mirror of Seq; all before is below LSN
	EventWhole                             // principal: the database is whole for serving in Seq
	EventDrained                           // principal: no client is left; the end of everything committed is LSN
	EventAligned                           // mirror: the database now continues the log of Seq
	EventSeeding                           // mirror: its database is about to be overwritten, unless the step is refused
	EventStreamed                          // mirror: the principal's server was heard
	EventStreamLost                        // mirror: the principal's server is gone for certain
	EventDatabaseUp                        // the local database answers
	EventDatabaseDown                      // the local database does not answer
	EventFailed                            // the data path cannot go on, for Reason
	EventStopping                          // the host is about to stop in order
	EventWaitLost                          // principal: found that commits do not wait for the mirror of Seq, though they should
	EventLogLost                           // mirror: hardened log is missing; the database can not be trusted until it is copied anew
	numEventKinds
)

var eventNames = [numEventKinds]string{
	"none", "ticked", "received", "linked", "unlinked", "commanded", "hardened", "redone", "ended", "halted", "waiting",
	"whole", "drained", "aligned", "seeding", "streamed", "stream lost", "database up", "database down", "failed", "stopping", "wait lost", "log lost",
}

// String returns the kind in lower case.
func (k EventKind) String() string { return nameOf(eventNames[:], uint8(k)) }

// Event is anything that happens to a session. Fields that a kind does not use are zero.
type Event struct {
	Kind    EventKind
	Peer    Server
	Message Message
	Command Command
	Seq     RoleSeq
	LSN     LSN
	Reason  Reason
}

// String is for traces.
func (e Event) String() string {
	switch e.Kind {
	case EventReceived:
		return "received " + e.Message.String()
	case EventLinked, EventUnlinked:
		return fmt.Sprintf("%s %s", e.Kind, e.Peer)
	case EventCommanded:
		return fmt.Sprintf("commanded %s", e.Command.Kind)
	case EventHardened, EventRedone, EventHalted, EventWaiting, EventDrained:
		return fmt.Sprintf("%s %d:%s", e.Kind, e.Seq, e.LSN)
	case EventFailed:
		return fmt.Sprintf("%s %s", e.Kind, e.Reason)
	}
	return e.Kind.String()
}

// CommandKind is what an operator asks for.
type CommandKind uint8

// The commands.
const (
	CommandEstablish    CommandKind = iota + 1 // make the session; this server becomes principal
	CommandFailover                            // principal or mirror: exchange roles without loss
	CommandForceService                        // mirror: serve although log may be lost; needs Expect
	CommandSuspend                             // stop shipping
	CommandResume                              // ship again
	CommandSetSafety                           // principal: Safety
	CommandSetWitness                          // principal: Incarnation of the witness, zero to remove it
	CommandAdmit                               // principal: the other partner's new Incarnation
	CommandServe                               // principal without witness, restarted: serve without asking the partner
	numCommandKinds
)

var commandNames = [numCommandKinds]string{
	"none", "establish", "failover", "force service", "suspend", "resume", "set safety", "set witness", "admit", "serve",
}

// String returns the command in lower case.
func (k CommandKind) String() string { return nameOf(commandNames[:], uint8(k)) }

// CommandKinds lists every command.
func CommandKinds() []CommandKind {
	all := make([]CommandKind, 0, numCommandKinds)
	for k := CommandEstablish; k < numCommandKinds; k++ {
		all = append(all, k)
	}
	return all
}

// Command is an operator's request.
type Command struct {
	Kind        CommandKind
	Safety      Safety
	Incarnation Incarnation
	Expect      Version // forced service: the record the operator has seen
	Reason      Reason  // suspend: why
}
