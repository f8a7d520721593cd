package mirror

import (
	"cmp"
	"fmt"
)

// Incarnation is a random number made when a server's state is first stored. A server that lost its state has another
// one, and is not a voter until the session admits it. Zero means none.
type Incarnation uint64

// Version orders the records of a session: by role sequence, then by change within it.
type Version struct {
	Seq    RoleSeq
	Change uint64
}

// Compare orders versions.
func (v Version) Compare(w Version) int {
	return cmp.Or(cmp.Compare(v.Seq, w.Seq), cmp.Compare(v.Change, w.Change))
}

// String writes the version as role sequence and change.
func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Seq, v.Change) }

// Record is the configuration of a session: one small versioned value that all three servers hold. A change of it counts
// when two of the three have it on disk. Only the principal of Seq raises Change (invariant I11).
type Record struct {
	Seq          RoleSeq
	Change       uint64
	Principal    Server
	InSync       bool // the mirror holds every acknowledged commit: it may be promoted
	Safety       Safety
	SafetySeq    uint64 // changes of safety so far
	Suspended    bool
	SuspendedSeq uint64 // changes of suspended so far
	Why          Reason // why it is suspended
	Forced       bool   // this role sequence began by forced service
	// Fork is where the present principal's history branches from the other partner's: a position of the other partner's
	// log. LSN zero: at the start of that role sequence.
	Fork       Position
	Members    [numServers]Incarnation // Members[Witness] is zero when no witness is set
	OldWitness Incarnation             // the witness being removed, until its removal is confirmed
}

// Version returns the record's version.
func (r Record) Version() Version { return Version{r.Seq, r.Change} }

// NewerThan says whether r has the higher version.
func (r Record) NewerThan(o Record) bool { return r.Version().Compare(o.Version()) > 0 }

// Established says whether the record belongs to a session.
func (r Record) Established() bool { return r.Seq > 0 }

// HasWitness says whether a witness is set.
func (r Record) HasWitness() bool { return r.Members[Witness] != 0 }

// Mode returns the operating mode.
func (r Record) Mode() Mode {
	switch {
	case !r.Established():
		return ModeNone
	case r.Safety != SafetyFull:
		return ModeHighPerformance
	case r.HasWitness():
		return ModeHighSafetyAutomatic
	}
	return ModeHighSafety
}

// lists says whether the server with that incarnation is part of the session, a witness that is being removed included.
func (r Record) lists(s Server, i Incarnation) bool {
	if i == 0 {
		return false
	}
	return r.Members[s] == i || s == Witness && r.OldWitness == i
}

// votes says whether the answer of that server counts towards two of three. While a witness is being removed the old
// one still does; a witness that is set replaces it.
func (r Record) votes(s Server, i Incarnation) bool {
	if i == 0 || s == r.Principal {
		return false
	}
	if s == Witness {
		return i == cmp.Or(r.Members[Witness], r.OldWitness)
	}
	return r.Members[s] == i
}

// alone says whether the principal needs nobody's consent: no witness is set or being removed.
func (r Record) alone() bool { return !r.HasWitness() && r.OldWitness == 0 }

// promotable says whether an election without force may make s principal.
func (r Record) promotable(s Server) bool {
	return r.Principal == s || r.InSync && r.Safety == SafetyFull && !r.Suspended && r.HasWitness()
}

// contradiction says why no server that keeps the rules can hold this record, or nothing.
func (r Record) contradiction() string {
	switch {
	case r.Established() != (r.Principal != Nobody):
		return fmt.Sprintf("of role sequence %d has %s as principal", r.Seq, r.Principal)
	case r.InSync && (r.Suspended || r.Safety == SafetyOff):
		return "is in sync though it is suspended or of safety OFF"
	case r.Forced && r.Change == 0 && !r.Suspended:
		return "was begun by force and is not suspended"
	}
	return ""
}

// Election is how a server asks to become principal.
type Election uint8

// The kinds of election.
const (
	ElectionNone      Election = iota
	ElectionAutomatic          // the principal is lost
	ElectionTransfer           // the principal hands over, drained
	ElectionForced             // an operator accepts loss
	ElectionAgain              // the principal itself, because a newer role sequence was promised meanwhile
)

// String returns the kind in lower case.
func (e Election) String() string {
	return nameOf([]string{"none", "automatic", "transfer", "forced", "again"}, uint8(e))
}

func (e Election) reason() Reason {
	return [...]Reason{ReasonNone, ReasonAutomaticFailover, ReasonManualFailover, ReasonForcedService, ReasonReelected}[e]
}

// elect returns the record of the role sequence that begins when candidate is elected on the basis of r. Voter and
// candidate both compute it, so that it does not have to be believed. hardened is the end of what the candidate had of
// the log of r's principal.
func (r Record) elect(seq RoleSeq, candidate Server, how Election, hardened LSN) Record {
	n := r
	n.Seq, n.Change, n.Forced = seq, 0, how == ElectionForced
	if candidate == r.Principal {
		return n
	}
	n.Principal = candidate
	n.Fork = Position{r.Seq, hardened}
	n.InSync = how == ElectionTransfer
	if how == ElectionForced {
		n.Suspended, n.Why = true, ReasonForcedService
		n.SuspendedSeq++
	}
	return n
}

// HardState is what a server must find again after a restart. The host saves it before it sends anything.
type HardState struct {
	Self        Server
	Incarnation Incarnation
	Promised    RoleSeq // the highest role sequence this server has voted for or accepted; never falls (I10)
	Record      Record
	Aligned     RoleSeq // partners: the role sequence whose log this database continues
	Dirty       bool    // partners: a copy is half done; the database must not be used
	Removed     bool    // the session went on without this server: it refuses for ever
}
