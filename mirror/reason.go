package mirror

// Reason says why a session is in its state, or why a command or a vote was refused. The list is closed: operators and
// alerts may match on it.
type Reason uint8

// The reasons.
const (
	ReasonNone               Reason = iota
	ReasonStarting                  // the server has just started and asks the others what is true
	ReasonPartnerLost               // nothing heard from the other partner within the timeout
	ReasonPartnerLeft               // the other partner's program was stopped in order
	ReasonCatchingUp                // the mirror is behind
	ReasonCaughtUp                  // everything is hardened on the mirror
	ReasonLinked                    // the other partner was heard again
	ReasonCommand                   // an operator asked for it
	ReasonFailover                  // a manual failover is under way
	ReasonFailoverTimedOut          // a manual failover was not finished in time and was given up
	ReasonAutomaticFailover         // the principal was lost and the witness agreed
	ReasonManualFailover            // the principal handed over
	ReasonForcedService             // an operator forced service
	ReasonReelected                 // the same principal serves on in a new role sequence
	ReasonEstablished               // the session was made
	ReasonDeposed                   // another partner is principal of a newer role sequence
	ReasonNoQuorum                  // neither the other partner nor the witness vouches for this principal
	ReasonNotConfirmed              // no second server has confirmed the record since the start
	ReasonMirrorNotReady            // the mirror is connected but cannot follow: see its own reason
	ReasonStreamLost                // the mirror no longer reads the principal's server
	ReasonSeeding                   // the mirror's database is being copied and must not be used
	ReasonRedoError                 // a transaction could not be redone
	ReasonLogGap                    // log is missing between the mirror's end and what the principal still has
	ReasonLogBudget                 // the log kept for the mirror reached its bound
	ReasonLogDamaged                // the mirror's hardened log is damaged
	ReasonDiskFull                  // no room for the mirror's hardened log
	ReasonIdentity                  // the server is not the one the session was made with
	ReasonDiverged                  // the databases differ in a way that needs a new copy
	ReasonStrayWrite                // somebody wrote to the mirror
	ReasonPreflight                 // a requirement is not met: see the findings
	ReasonDatabaseDown              // the local database does not answer
	ReasonNotMember                 // this server's identity is not part of the session
	ReasonStale                     // the request rests on an older record
	ReasonPromised                  // a newer role sequence has been promised
	ReasonNotPromotable             // the newest record does not allow it
	ReasonLease                     // a promise to the principal has not run out
	ReasonServing                   // the voter itself serves
	ReasonNotDraining               // no manual failover waits at that position
	ReasonWrongRole                 // the server's role does not allow it
	ReasonBusy                      // another change is under way
	ReasonNotSynchronized           // the mirror is not synchronized
	ReasonSafetyOff                 // safety is OFF
	ReasonPrincipalConnected        // the principal is connected
	ReasonNoWitness                 // a witness is set and not connected, or none is set
	ReasonNotEstablished            // there is no session yet
	ReasonWaitLost                  // somebody changed synchronous_standby_names: commits did not wait for the mirror
	numReasons
)

var reasonNames = [numReasons]string{
	"none", "starting", "partner lost", "partner left", "catching up", "caught up", "linked", "command",
	"failover", "failover timed out", "automatic failover", "manual failover", "forced service", "re-elected",
	"established", "deposed", "no quorum", "not confirmed", "mirror not ready", "stream lost", "seeding",
	"redo error", "log gap", "log budget", "log damaged", "disk full", "identity changed", "diverged", "stray write",
	"preflight", "database down", "not a member", "stale", "promised", "not promotable", "lease", "serving",
	"not draining", "wrong role", "busy", "not synchronized", "safety off", "principal connected", "no witness",
	"not established", "wait lost",
}

// String returns the reason in lower case.
func (r Reason) String() string { return nameOf(reasonNames[:], uint8(r)) }

// Reasons lists every reason.
func Reasons() []Reason {
	all := make([]Reason, 0, numReasons)
	for r := ReasonNone; r < numReasons; r++ {
		all = append(all, r)
	}
	return all
}
