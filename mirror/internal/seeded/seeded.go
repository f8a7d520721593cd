// Package seeded names the errors that exploration plants in the rules of a session, to prove that it would find them.
//
// A session is built without any; only the packages under mirror can name one, so no program that imports mirror can
// switch a rule off. M, F and W are the numbers of the protocol's reference model; N are mistakes that the code as it is
// written makes easy.
//
// Some rules cover each other, and only an error that leaves out both is found:
//
//   - GrantUndrained: a principal that no longer drains hears that its mirror has promised more, and stands for election.
//   - HandOverBehind: the principal waits until the mirror has everything, and the mirror compares as well.
//   - StandOn: a newer record ends a candidacy, and a grant counts only with the record that would be won now.
//   - IgnorePromised: both places where a principal looks at what another server has promised. That server refuses the
//     older record as well, which alone changes nothing.
//
// Others have no error of their own. That a voter looks at suspended and at safety is covered by in_sync, which is false
// with either of them (I15); that a mirror hands over only what its own record calls in sync (hole (b)), by every
// message bearing its sender's record, which is stored first.
package seeded

// Error is a set of rules that are broken on purpose.
type Error uint64

// The planted errors.
const (
	AckAlone           Error = 1 << iota // M1: the principal acknowledges alone without recording that it is exposed
	IgnoreVersions                       // M2: the witness grants without comparing versions or promotability
	AnnounceEarly                        // M4: in_sync is recorded before the mirror has hardened everything
	HardenAfterPromise                   // M5: a mirror hardens on for a role sequence older than it has promised
	RememberConfirm                      // M7: "confirmed" survives a restart
	StoreBeforeGrant                     // M8: a candidate stores the new record before it is granted
	GrantUndrained                       // M11: a hand-over is granted without looking whether the principal still drains, and where
	VoteTwice                            // M12: the witness votes twice in one role sequence
	TrustOwnExposure                     // M13: the principal acts on its own exposure without a second server

	AcceptOlder       // N1: an answer to an older change of the record confirms the present one
	AskWithoutPromise // N2: a candidate asks for a role sequence that it has not promised itself (hole (a))
	RememberExposure  // N3: "exposed" survives that the session was SYNCHRONIZED again
	SoloWhileSyncing  // N4: the principal goes on acknowledging alone while it proves that the mirror has everything
	KeepAligned       // N5: a deposed partner takes its own log for the new principal's
	OpenWhileDraining // N6: clients still write while the principal hands over
	OpenBeforeWhole   // N7: an elected principal opens before its database is whole
	TrustBasis        // N8: a voter believes the candidate's record where its own is newer
	HandOverBehind    // N9: the principal hands over to a mirror that lacks what was committed
	IgnorePromised    // N10: an answer of a server that has promised a newer role sequence confirms the older record
	StandOn           // N11: a candidate that learns a newer record stands on, and takes any grant of its role sequence (hole (c))
	HandOverUnsynced  // N12: a hand-over begins before in_sync is recorded (hole (b))

	SoloUnleased         // F1: an exposed principal acknowledges alone without a lease
	ReplaceWitnessAtOnce // W1: a witness is replaced in one step
	ForceDespiteLease    // N18: the witness grants forced service while its promise to the principal lives
	VoteAfterRestart     // N19: a voter votes before the promises of its former life must have run out
	ServeWithoutQuorum   // N20: a principal without quorum stays open
	ResumeForced         // N21: service that was forced resumes by itself
	SyncWithSafety       // N22: safety FULL records in_sync at once
	SuspendInSync        // N23: a suspended session stays in sync
	ChangeUnconfirmed    // N24: the record is changed again before a second server has the first change
	CountStrangers       // N25: the answer of a server that is no member counts
)

// Has says whether the set holds e.
func (s Error) Has(e Error) bool { return s&e != 0 }
