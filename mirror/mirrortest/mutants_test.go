package mirrortest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror/internal/seeded"
)

// longestTrace is how many steps of a planted error's story a person can be asked to follow.
const longestTrace = 22

// mutants are the planted errors, each in a space large enough to show it. M, F and W are those of the protocol's
// reference model, all fifteen; N are mistakes that the code as it is written makes easy. Where two rules cover each
// other, an error leaves out both: see package seeded.
var mutants = []Space{
	inRules("M1", seeded.AckAlone, "the principal acknowledges alone without recording that it is exposed", Space{Writes: 1}),
	inRules("M2", seeded.IgnoreVersions, "the witness grants without comparing versions or promotability", Space{Changes: 1, Writes: 1}),
	inWorld("M3", WitnessForgets, "the witness loses its state and votes", Space{Changes: 1, Writes: 1, Restarts: 1}),
	inRules("M4", seeded.AnnounceEarly, "in_sync is recorded before the mirror has hardened everything", Space{Changes: 2, Writes: 1}),
	inRules("M5", seeded.HardenAfterPromise, "a mirror hardens on for a role sequence older than it has promised", Space{}),
	inWorld("M6", KeepsTail, "a returning partner keeps what the principal never had", Space{Changes: 1, Writes: 2}),
	inRules("M7", seeded.RememberConfirm, "confirmed survives a restart", Space{Changes: 1, Writes: 1, Restarts: 1}),
	inRules("M8", seeded.StoreBeforeGrant, "a candidate stores the new record before it is granted", Space{Changes: 1, Writes: 1}),
	inWorld("M10", TruncatesLate, "a mirror cuts its log back to a late, shorter message of the same role sequence", Space{Writes: 1}),
	inRules("M11", seeded.GrantUndrained, "a hand-over is granted without looking whether the principal still drains, and where", Space{Writes: 1, Failover: true}),
	inRules("M12", seeded.VoteTwice, "the witness votes twice in one role sequence", Space{Seqs: 3, Writes: 1}),
	inRules("M13", seeded.TrustOwnExposure, "the principal acts on its own exposure without a second server", Space{Changes: 1, Writes: 1}),
	inRules("F1", seeded.SoloUnleased, "an exposed principal acknowledges alone without a lease", Space{Changes: 1, Writes: 1, Forces: 1, Leases: true}),
	inRules("W1", seeded.ReplaceWitnessAtOnce, "a witness is replaced in one step", Space{Changes: 3, Writes: 1, NewWitness: true}),
	inWorld("W2", RemovedForgets, "a witness that was removed forgets the session", Space{Changes: 3, Writes: 1, NewWitness: true}),

	inRules("N1", seeded.AcceptOlder, "an answer to an older change of the record confirms the present one", Space{Changes: 1, Writes: 1}),
	inRules("N2", seeded.AskWithoutPromise, "a candidate asks for a role sequence that it has not promised itself", Space{Seqs: 3, Changes: 1, Writes: 1, Restarts: 1}),
	inRules("N3", seeded.RememberExposure, "exposed survives that the session was SYNCHRONIZED again", Space{Changes: 3, Writes: 1}),
	inRules("N4", seeded.SoloWhileSyncing, "the principal goes on acknowledging alone while it proves that the mirror has everything", Space{Changes: 2, Writes: 2}),
	inRules("N5", seeded.KeepAligned, "a deposed partner takes its own log for the new principal's", Space{Changes: 1, Writes: 2}),
	inRules("N6", seeded.OpenWhileDraining, "clients still write while the principal hands over", Space{Writes: 1, Failover: true}),
	inRules("N7", seeded.OpenBeforeWhole, "an elected principal opens before its database is whole", Space{}),
	inRules("N8", seeded.TrustBasis, "a voter believes the candidate's record where its own is newer", Space{Changes: 1, Writes: 1}),
	inRules("N9", seeded.HandOverBehind, "the principal hands over to a mirror that lacks what was committed", Space{Writes: 1, Failover: true}),
	inRules("N10", seeded.IgnorePromised, "an answer of a server that has promised a newer role sequence confirms the older record", Space{Changes: 1, Writes: 1}),
	inRules("N11", seeded.StandOn, "a candidate that learns a newer record stands on and takes any grant of its role sequence", Space{Seqs: 3, Writes: 1}),
	inRules("N12", seeded.HandOverUnsynced, "a hand-over begins before in_sync is recorded", Space{Changes: 1, Failover: true}),
	inWorld("N13", GrantsUnsaved, "a voter grants before its promise is on its disk", Space{Writes: 1, Restarts: 1}),
	inWorld("N14", AcceptsUnsaved, "a server accepts a record before it is on its disk", Space{Changes: 1, Writes: 1, Restarts: 1}),
	inWorld("N15", AsksUnsaved, "a candidate asks before its promise is on its disk", Space{Changes: 1, Writes: 1, Restarts: 1}),
	inWorld("N16", HardensAfterHalt, "the data path of a mirror hardens on after it was told to stop", Space{Writes: 1}),
	inWorld("N17", ReportsForeign, "a mirror reports positions of its own server's log", Space{Writes: 1, Restarts: 1}),
	inRules("N18", seeded.ForceDespiteLease, "the witness grants forced service while its promise to the principal lives", Space{Changes: 1, Writes: 1, Forces: 1, Leases: true}),
	inRules("N19", seeded.VoteAfterRestart, "a voter votes before the promises of its former life must have run out", Space{Restarts: 1, Leases: true}),
	inRules("N20", seeded.ServeWithoutQuorum, "a principal without quorum stays open", Space{Leases: true}),
	inRules("N21", seeded.ResumeForced, "service that was forced resumes by itself", Space{Changes: 1, Forces: 1, Leases: true}),
	inRules("N22", seeded.SyncWithSafety, "safety FULL records in_sync at once", Space{Changes: 3, Writes: 1, Safety: true}),
	inRules("N23", seeded.SuspendInSync, "a suspended session stays in sync", Space{Changes: 2, Writes: 1, Suspends: true}),
	inRules("N24", seeded.ChangeUnconfirmed, "the record is changed again before a second server has the first change", Space{Changes: 3, Writes: 1, NewWitness: true}),
	inRules("N25", seeded.CountStrangers, "the answer of a server that is no member counts", Space{Changes: 3, Writes: 1, NewWitness: true}),
}

func inRules(number string, rules seeded.Error, what string, space Space) Space {
	return plant(number, Mutant{Name: what, Rules: rules}, space)
}

func inWorld(number string, world WorldError, what string, space Space) Space {
	return plant(number, Mutant{Name: what, World: world}, space)
}

func plant(number string, m Mutant, space Space) Space {
	space.Name, space.Planted = number, m
	space.Seqs = max(space.Seqs, 2)
	return space
}

// findMutants explores with each planted error until it is found, and counts those found and the states it took. A search
// of as many states without the error finds nothing: what was found is due to the error.
func findMutants(t *testing.T) (found, states int) {
	for _, space := range mutants {
		t.Run(space.Name, func(t *testing.T) {
			r := Explore(space)
			states += r.States
			require.NotNil(t, r.Violation, "%s was not found in %s", space.Planted.Name, r)
			t.Logf("%s (%s)\n%s", r, space.Planted.Name, r.Violation)
			require.LessOrEqual(t, len(r.Violation.Trace), longestTrace, "the trace is too long for a person")
			require.Len(t, r.Violation.Trace, len(storedSteps(t, space)), "the stored story is not the shortest: -update writes it anew")
			sound := space
			sound.Planted, sound.Limit.States = Mutant{}, r.States
			without := Explore(sound)
			require.Nil(t, without.Violation, "without the error: %s", without.Violation)
			found++
		})
	}
	return found, states
}
