package mirror

import "fmt"

// Duty is what the data path has to do now. It is a wish: the host brings the database and the stream there, in its own
// time, and reports what it has proven as events that name Seq.
type Duty struct {
	Role Role
	Seq  RoleSeq
	Gate Gate
	Wait Wait // principals only
	// Prove: show that commits do wait, and answer with EventWaiting and the end of all that was written before.
	Prove bool
	// Drained: the former principal handed over with nothing left behind, so that what it handed out last is known.
	Drained bool
	Ship    bool // mirror: harden the log of Seq; principal: keep the log that the mirror needs
	Work    Work
	// Principal is the server whose log a mirror follows, and Fork where that log branches from this server's own.
	Principal Server
	Fork      Position
}

// String is for traces.
func (d Duty) String() string {
	return fmt.Sprintf("%s seq=%d gate=%s wait=%s ship=%t work=%s", d.Role, d.Seq, d.Gate, d.Wait, d.Ship, d.Work)
}

// Effects is all that a host must do after a step, in the order of the fields. It has done a field's work BEFORE it
// begins the next one's.
type Effects struct {
	// Halt: stop hardening and reporting, and wait until it has stopped, BEFORE anything is saved: what is saved next
	// promises that nothing older will be hardened (I4). Answer with EventHalted.
	Halt bool
	// Save: when Saved, State must be on disk BEFORE any message leaves (I10). If it cannot be saved the session is over.
	Saved bool
	State HardState
	// Send: messages to others, AFTER the save. They may be lost.
	Send []Message
	// Duty: what the data path has to do from now on, AFTER the save.
	Duty Duty
	// Journal: what to write down for people.
	Journal []Entry
}

// EntryKind is the kind of a journal entry.
type EntryKind uint8

// The kinds of entry.
const (
	EntryState   EntryKind = iota + 1 // the shown state changed
	EntryRole                         // the role or the role sequence changed
	EntryRefused                      // a vote or a command was refused
	EntryRecord                       // the record changed
)

// String returns the kind in lower case.
func (k EntryKind) String() string {
	return nameOf([]string{"none", "state", "role", "refused", "record"}, uint8(k))
}

// Entry is one line of the journal: what changed or was refused, by which rule, on which evidence.
type Entry struct {
	Kind     EntryKind
	Role     Role
	Seq      RoleSeq
	From, To State  // EntryState
	Peer     Server // whom it concerns
	Reason   Reason
	Version  Version // the record it rests on
	LSN      LSN     // the position it rests on: the fork of a role change
}

// String writes the entry as one line.
func (e Entry) String() string {
	switch e.Kind {
	case EntryState:
		return fmt.Sprintf("%s %s -> %s (%s)", e.Role, e.From, e.To, e.Reason)
	case EntryRole:
		return fmt.Sprintf("%s in role sequence %d (%s), record %s, fork %s", e.Role, e.Seq, e.Reason, e.Version, e.LSN)
	case EntryRefused:
		return fmt.Sprintf("refused %s, role sequence %d (%s), own record %s", e.Peer, e.Seq, e.Reason, e.Version)
	}
	return fmt.Sprintf("record %s (%s)", e.Version, e.Reason)
}
