package mirror

// Server names one of the three servers of a session. Its zero value is nobody.
type Server uint8

// The servers of a session. PartnerA and PartnerB hold the database; which of them is principal changes, their names
// do not.
const (
	Nobody Server = iota
	PartnerA
	PartnerB
	Witness
	numServers // size of an array indexed by Server
)

// String returns the server's name as the configuration and the journal write it.
func (s Server) String() string {
	return nameOf([]string{"nobody", "partner-a", "partner-b", "witness"}, uint8(s))
}

// IsPartner says whether the server holds the database.
func (s Server) IsPartner() bool { return s == PartnerA || s == PartnerB }

// Other returns the other partner; Nobody when s is not a partner.
func (s Server) Other() Server {
	switch s {
	case PartnerA:
		return PartnerB
	case PartnerB:
		return PartnerA
	}
	return Nobody
}

// Role is what a server is in the session at present.
type Role uint8

// The roles. A partner without a session has RoleNone.
const (
	RoleNone Role = iota
	RolePrincipal
	RoleMirror
	RoleWitness
)

// String returns the role in lower case.
func (r Role) String() string {
	return nameOf([]string{"none", "principal", "mirror", "witness"}, uint8(r))
}

// State is the mirroring state that is shown. There are exactly five; a server whose session is not established shows
// StateNone.
type State uint8

// The five states, as SQL Server names them, and the one before a session exists.
const (
	StateNone State = iota
	StateSynchronizing
	StateSynchronized
	StateSuspended
	StatePendingFailover
	StateDisconnected
)

// States lists the five states in the order in which they are exported.
func States() []State {
	return []State{StateSynchronizing, StateSynchronized, StateSuspended, StatePendingFailover, StateDisconnected}
}

// String returns the state in capitals.
func (s State) String() string {
	return nameOf([]string{"NONE", "SYNCHRONIZING", "SYNCHRONIZED", "SUSPENDED", "PENDING_FAILOVER", "DISCONNECTED"}, uint8(s))
}

// Safety says whether a commit waits until its log is hardened on the mirror.
type Safety uint8

// The safety levels.
const (
	SafetyFull Safety = iota + 1 // a commit waits for the mirror
	SafetyOff                    // it does not
)

// String returns FULL or OFF.
func (s Safety) String() string {
	return nameOf([]string{"NONE", "FULL", "OFF"}, uint8(s))
}

// Mode is the operating mode: derived from safety and witness, never stored.
type Mode uint8

// The operating modes.
const (
	ModeNone Mode = iota
	ModeHighSafetyAutomatic
	ModeHighSafety
	ModeHighPerformance
)

// String returns the operating mode's usual name.
func (m Mode) String() string {
	return nameOf([]string{"none", "high safety with automatic failover", "high safety", "high performance"}, uint8(m))
}

// Quorum says which of the servers see each other, as this server knows it.
type Quorum uint8

// The kinds of quorum.
const (
	QuorumNone     Quorum = iota // no other server is connected
	QuorumPartners               // the partners see each other
	QuorumWitness                // a partner and the witness see each other
	QuorumFull                   // all three
)

// Quorums lists the kinds in the order in which they are exported.
func Quorums() []Quorum { return []Quorum{QuorumNone, QuorumPartners, QuorumWitness, QuorumFull} }

// String returns the kind of quorum in lower case.
func (q Quorum) String() string {
	return nameOf([]string{"none", "partners", "witness", "full"}, uint8(q))
}

// Gate is who may use a partner's database.
type Gate uint8

// The positions of the gate. GateKeep leaves the gate as it was found: a principal whose program has just started does
// not disturb clients while it asks whether it still is principal.
const (
	GateKeep     Gate = iota + 1
	GateClosed        // nobody but the session's own connections
	GateReadOnly      // readers; a mirror in service
	GateOpen          // everybody; a serving principal
)

// String returns the position in lower case.
func (g Gate) String() string {
	return nameOf([]string{"none", "keep", "closed", "read-only", "open"}, uint8(g))
}

// Wait is whom a commit on the principal waits for.
type Wait uint8

// The ways to wait. WaitMirror is always safe: without a mirror nothing is acknowledged.
const (
	WaitNone   Wait = iota + 1 // the principal acknowledges alone
	WaitMirror                 // until the mirror of this role sequence has hardened the commit
)

// String returns whom a commit waits for.
func (w Wait) String() string {
	return nameOf([]string{"unset", "nobody", "mirror"}, uint8(w))
}

// Work is a task that the data path has to finish on the session's behalf.
type Work uint8

// The tasks.
const (
	WorkNone    Work = iota
	WorkPromote      // make the database whole for serving: redo drained, slot for the mirror made, sequences advanced
	WorkDrain        // manual failover: no client left, every commit at the mirror, position of the end reported
)

// String returns the task in lower case.
func (w Work) String() string {
	return nameOf([]string{"none", "promote", "drain"}, uint8(w))
}

func nameOf(names []string, i uint8) string {
	if int(i) < len(names) {
		return names[i]
	}
	return "invalid"
}
