package sim

// situation is something that a run may meet. Simulation is worth no more than what it meets: a run over many seeds says
// by name what it has not met.
type situation uint8

// The situations.
const (
	messageDoubled situation = iota
	unclogged
	grantLost
	acceptLost
	transferLost
	goodbyeLost
	grantLate
	acceptLate
	proposeDeaf
	voteLate
	reportLate
	unlinked
	cutOneWay
	pauseCounted
	pausedWhileSaving
	commandRefused
	saveFailed
	saveFailedServing
	stateTorn
	stateDamaged
	bitFlipped
	stoppedInOrder
	partnerForgot
	witnessForgot
	logTorn
	tornPromoted
	logLostAtStart
	logDamaged
	logOlder
	logSyncFailed
	logGap
	logTrimmed
	haltedUnsynced
	stepBrokenOff
	overdueClosed
	principalFencedStreams
	wentAlone
	promotedWithRedo
	cannotBecomeWhole
	reignGoesOn
	sequenceExact
	drained
	waitFoundLost
	slotGivenUp
	rejoinedWithoutTail
	formerPrincipalOlder
	handedOverPutBack
	tailUnknown
	tailSaved
	seeding
	copyFailed
	copied
	poisoned
	hugeCommit
	commitAbandoned
	commitCanceled
	commitTorn
	outcomeUnknown
	ackedUnderStranger
	closedAfterService
	serverStartsOpen
	slotSteppedBack
	slotDropped
	principalCutOff
	allCrash
	principalRestored
	mirrorRestored
	wildClock
	clockJumped
	twoPrincipalsAcknowledged
	twoOpenAlone
	twoOpenWildClocks
	twoOpenUnwatched
	forcedOnStaleRecord
	forcedWithLoss
	forcedWithoutLoss
	forcedPrincipalAlive
	handedOver
	principalGivenUp
	exposedByMirror
	exposedByWitness
	ackedHardened
	ackedAlone
	handoverBeforeDrain
	handoverDraining
	handoverDrained
	handoverVoting
	handoverGranted
	leaseExpired
	candidateGaveUp
	candidateBeaten
	candidateForced
	electedAgain
	electedAutomatic
	electedForced
	voteRefusedLease
	voteRefusedStale
	voteRefusedServing
	voteRefusedNotDraining
	voteRefusedNotMember
	voteRefusedPromised
	failoverTimedOut
	synchronized
	suspendedByMirror
	suspendedBudget
	resumed
	safetyOff
	safetyFull
	witnessRemoved
	witnessSet
	partnerAdmitted
	deposedServing
	confirmedAfterRestart
	crashedServing
	crashedExposed
	crashedSaving
	crashedElecting
	crashedPromoting
	crashedSeeding
	served
	clockWrapped
	goalsMet // and one for each goal
)

var situationNames = [goalsMet]string{
	messageDoubled:            "a message arrived twice",
	unclogged:                 "many messages arrived at once, in any order",
	grantLost:                 "a grant was lost",
	acceptLost:                "an accept was lost",
	transferLost:              "a transfer was lost",
	goodbyeLost:               "a good-bye was lost",
	grantLate:                 "a grant came after something newer was promised",
	acceptLate:                "an accept came after a newer record",
	proposeDeaf:               "a proposal came to a server that had promised more",
	voteLate:                  "a vote came after a newer promise",
	reportLate:                "a report came for an older role sequence",
	unlinked:                  "nobody was listening three times in a row",
	cutOneWay:                 "one direction of a link was cut",
	pauseCounted:              "more ticks were missed than a timeout has",
	pausedWhileSaving:         "a program stood still while it saved",
	commandRefused:            "a command was refused",
	saveFailed:                "the state could not be saved",
	saveFailedServing:         "the state of a serving principal could not be saved",
	stateTorn:                 "the state was torn by a crash",
	stateDamaged:              "the state was damaged beyond use",
	bitFlipped:                "a bit of the state flipped",
	stoppedInOrder:            "a program was stopped in order",
	partnerForgot:             "a partner lost its state",
	witnessForgot:             "the witness lost its state",
	logTorn:                   "the hardened log lost its tail in a crash",
	tornPromoted:              "a mirror with a torn tail was promoted",
	logLostAtStart:            "the hardened log was found lost at the start",
	logDamaged:                "the hardened log was damaged",
	logOlder:                  "the hardened log was found to be an older copy",
	logSyncFailed:             "a sync of the hardened log failed",
	logGap:                    "the principal's log did not continue the hardened one",
	logTrimmed:                "the hardened log began after the redone position",
	haltedUnsynced:            "hardening was halted in the middle of a sync",
	stepBrokenOff:             "a step of the data path was broken off and had its effect",
	overdueClosed:             "a database was closed for an overdue lease while its session was held up",
	principalFencedStreams:    "a principal that was cut off closed, and its server streamed on",
	wentAlone:                 "a principal let commits go on alone",
	promotedWithRedo:          "a mirror was promoted with redo before it",
	cannotBecomeWhole:         "an elected principal could not become whole",
	reignGoesOn:               "the same principal went on in a newer role sequence",
	sequenceExact:             "a sequence went on exactly",
	drained:                   "a principal was drained",
	waitFoundLost:             "commits were found not to wait",
	slotGivenUp:               "the log kept for the mirror was given up",
	rejoinedWithoutTail:       "a former principal had nothing beyond the fork",
	formerPrincipalOlder:      "a former principal had less than the fork",
	handedOverPutBack:         "a server was put back to an older state after it had handed over",
	tailUnknown:               "the tail of a former principal could not be read",
	tailSaved:                 "a former principal had a tail",
	seeding:                   "a copy began",
	copyFailed:                "a copy failed",
	copied:                    "a copy was made",
	poisoned:                  "a transaction could not be redone",
	hugeCommit:                "a commit was huge",
	commitAbandoned:           "a client gave up waiting",
	commitCanceled:            "a waiting commit was canceled",
	commitTorn:                "a commit was torn off by a crash",
	outcomeUnknown:            "an outcome was unknown",
	ackedUnderStranger:        "a commit returned because a stranger had changed whom it waits for",
	closedAfterService:        "a database in service was closed",
	serverStartsOpen:          "a server started open",
	slotSteppedBack:           "a slot stepped back in a crash",
	slotDropped:               "the mirror's slot was dropped",
	principalCutOff:           "the principal was cut off",
	allCrash:                  "all machines crashed",
	principalRestored:         "the principal's server was restored from a backup",
	mirrorRestored:            "the mirror's server was restored from a backup",
	wildClock:                 "a clock kept no bound",
	clockJumped:               "a clock jumped",
	twoPrincipalsAcknowledged: "a deposed principal acknowledged after forced service",
	twoOpenAlone:              "two databases were open without a witness",
	twoOpenWildClocks:         "two databases were open with clocks that keep no bound",
	twoOpenUnwatched:          "two databases were open, one of them without its program",
	forcedOnStaleRecord:       "service was forced on a record that was not the newest",
	forcedWithLoss:            "service was forced with loss",
	forcedWithoutLoss:         "service was forced without loss",
	forcedPrincipalAlive:      "service was forced while the principal was alive",
	handedOver:                "a principal handed over",
	principalGivenUp:          "an operator gave a principal up",
	exposedByMirror:           "the mirror confirmed that the principal is exposed",
	exposedByWitness:          "the witness confirmed that the principal is exposed",
	ackedHardened:             "a commit returned because the mirror had it",
	ackedAlone:                "a commit returned though the mirror had it not",
	handoverBeforeDrain:       "a hand-over was interrupted before the drain",
	handoverDraining:          "a hand-over was interrupted while draining",
	handoverDrained:           "a hand-over was interrupted when drained",
	handoverVoting:            "a hand-over was interrupted while the mirror asked for the vote",
	handoverGranted:           "a hand-over was interrupted after the principal's vote",
	leaseExpired:              "a lease expired while serving",
	candidateGaveUp:           "a candidate gave up",
	candidateBeaten:           "a candidate was beaten by the principal's return",
	candidateForced:           "a forced candidacy was refused or unanswered",
	electedAgain:              "a principal was elected again",
	electedAutomatic:          "a mirror was elected",
	electedForced:             "a mirror was forced into service",
	voteRefusedLease:          "a vote was refused for a lease",
	voteRefusedStale:          "a vote was refused for a stale record",
	voteRefusedServing:        "a vote was refused by a serving principal",
	voteRefusedNotDraining:    "a vote was refused because nobody drained",
	voteRefusedNotMember:      "a vote was refused to one that is no member",
	voteRefusedPromised:       "a vote was refused for a newer promise",
	failoverTimedOut:          "a manual failover timed out",
	synchronized:              "the session was SYNCHRONIZED",
	suspendedByMirror:         "the mirror's trouble suspended the session",
	suspendedBudget:           "the log budget suspended the session",
	resumed:                   "the session was resumed",
	safetyOff:                 "safety was set OFF",
	safetyFull:                "safety was set FULL again",
	witnessRemoved:            "the witness was removed",
	witnessSet:                "a witness was set",
	partnerAdmitted:           "a new partner was admitted",
	deposedServing:            "a serving principal learned that it was deposed",
	confirmedAfterRestart:     "a principal was confirmed after a restart",
	crashedServing:            "the program of a serving principal died",
	crashedExposed:            "the program of an exposed principal died",
	crashedSaving:             "a program died while it saved",
	crashedElecting:           "a candidate's program died",
	crashedPromoting:          "an elected principal's program died before it was whole",
	crashedSeeding:            "a mirror's program died during its copy",
	served:                    "a principal served",
	clockWrapped:              "the count of ticks began anew",
}

// numSituations is how many there are, the goals included.
const numSituations = int(goalsMet) + numGoals

// Situations lists every situation by name.
func Situations() []string {
	names := append([]string(nil), situationNames[:]...)
	for _, g := range goals {
		names = append(names, g.name)
	}
	return names
}

// meet notes that a situation was met.
func (s *sim) meet(what situation) { s.met[what] = true }
