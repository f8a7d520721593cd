package partner

import (
	"slices"
	"strings"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
	"github.com/f19126b3/dbmirror/partner/internal/testflag"
)

// crashCase is one point in one role, and the scene in which a program comes to it.
type crashCase struct {
	at    crash
	scene scene
}

func (c crashCase) String() string { return c.at.String() + " / " + c.scene.name }

// in lists points that are met in a scene by a program in a role.
func in(of scene, role mirror.Role, points ...crashpoint.Point) []crashCase {
	cases := make([]crashCase, len(points))
	for i, p := range points {
		cases[i] = crashCase{crash{p, role}, of}
	}
	return cases
}

// crashCases are all points in all roles, in the order of the scenes, for two sessions that take about as long.
func crashCases() [][]crashCase {
	return [][]crashCase{
		slices.Concat(whileMaking(), whileShipping(), whileCopying()),
		slices.Concat(whileStarting(), whileHandingOver(), whileTakingOver(), whileReturning()),
	}
}

// chosen takes those out of the cases that this run is to meet: all of them, or each point once and each role in each
// scene once.
func chosen(all [][]crashCase) [][]crashCase {
	type cast struct {
		scene string
		role  mirror.Role
	}
	points, casts := map[crashpoint.Point]bool{}, map[cast]bool{}
	for i := range all {
		all[i] = slices.DeleteFunc(all[i], func(c crashCase) bool {
			as := cast{c.scene.name, c.at.Role}
			again := points[c.at.Point] && casts[as] && !*testflag.CrashAll
			points[c.at.Point], casts[as] = true, true
			return again || !strings.Contains(c.String(), *testflag.CrashOnly)
		})
	}
	return all
}

// whileMaking begins with an empty disk at each server; what is met leaves the next still to be met.
func whileMaking() []crashCase {
	var cases []crashCase
	for _, server := range everyServer {
		cases = append(cases, in(firstStart(server), mirror.RoleNone, crashpoint.StateFileUnmade, crashpoint.StateFileFilled,
			crashpoint.StateFileNamed, crashpoint.StateFileSettled, crashpoint.StateUnwritten, crashpoint.StateWritten, crashpoint.StateSynced)...)
	}
	return slices.Concat(cases,
		in(making(mirror.PartnerA, mirror.PartnerB, mirror.Witness), mirror.RoleNone, crashpoint.StateUnwritten, crashpoint.StateSynced),
		in(making(mirror.PartnerB, mirror.PartnerA), mirror.RoleNone, crashpoint.StateWritten),
		in(making(mirror.Witness, mirror.PartnerA), mirror.RoleNone, crashpoint.StateSynced))
}

func whileShipping() []crashCase {
	return slices.Concat(
		in(commits, mirror.RoleMirror,
			crashpoint.LogUnwritten, crashpoint.LogWritten, crashpoint.LogSynced, crashpoint.StatusUnsent, crashpoint.StatusSent,
			crashpoint.RedoUnbegun, crashpoint.RedoRows, crashpoint.RedoCommitted, crashpoint.RedoFlushed, crashpoint.RedoTrimmed,
			crashpoint.ReportUnsent, crashpoint.ReportSent, crashpoint.SampleUnstored, crashpoint.SampleStored),
		in(bulk, mirror.RoleMirror,
			crashpoint.RedoBegun, crashpoint.RedoPiece, crashpoint.SegmentUnmade, crashpoint.SegmentFilled, crashpoint.SegmentNamed,
			crashpoint.SegmentMade, crashpoint.SegmentKept, crashpoint.SegmentRemoved, crashpoint.SegmentGone),
		in(withServer(commits), mirror.RoleMirror,
			crashpoint.RedoCommitted, crashpoint.RedoUnbegun, crashpoint.RedoRows, crashpoint.RedoFlushed, crashpoint.RedoTrimmed,
			crashpoint.LogSynced, crashpoint.StatusSent),
		in(withServer(bulk), mirror.RoleMirror, crashpoint.SegmentKept, crashpoint.RedoPiece, crashpoint.SegmentGone),
		in(suspend, mirror.RolePrincipal,
			crashpoint.StateUnwritten, crashpoint.StateWritten, crashpoint.StateSynced, crashpoint.ProposeUnsent, crashpoint.ProposeSent,
			crashpoint.Unconfirmed, crashpoint.Confirmed, crashpoint.WaitUnwritten, crashpoint.WaitWritten, crashpoint.WaitReloaded,
			crashpoint.WaitUnproven, crashpoint.WaitProven, crashpoint.ReleaseUnproven, crashpoint.ReleaseProven,
			crashpoint.JournalUnwritten, crashpoint.JournalWritten),
		in(suspend, mirror.RoleMirror,
			crashpoint.StateUnwritten, crashpoint.StateWritten, crashpoint.StateSynced, crashpoint.AcceptUnsent, crashpoint.AcceptSent,
			crashpoint.JournalUnwritten, crashpoint.JournalWritten),
		in(suspend, mirror.RoleWitness,
			crashpoint.StateUnwritten, crashpoint.StateWritten, crashpoint.StateSynced, crashpoint.AcceptUnsent, crashpoint.AcceptSent),
		in(safety, mirror.RolePrincipal,
			crashpoint.StateSynced, crashpoint.ProposeSent, crashpoint.Confirmed, crashpoint.WaitWritten, crashpoint.ReleaseProven,
			crashpoint.WaitProven),
		in(safety, mirror.RoleMirror, crashpoint.StateSynced),
		in(otherWitness, mirror.RolePrincipal,
			crashpoint.StateWritten, crashpoint.StateSynced, crashpoint.ProposeUnsent, crashpoint.Confirmed),
		in(otherWitness, mirror.RoleMirror, crashpoint.StateSynced, crashpoint.AcceptUnsent),
		in(otherWitness, mirror.RoleWitness, crashpoint.StateWritten, crashpoint.StateSynced, crashpoint.AcceptUnsent),
	)
}

func whileCopying() []crashCase {
	return slices.Concat(in(reseed, mirror.RoleMirror,
		crashpoint.SeedingUntold, crashpoint.SeedingTold, crashpoint.SnapshotUnmade, crashpoint.SnapshotMade, crashpoint.CopyMarked,
		crashpoint.CopyCleared, crashpoint.CopyDefined, crashpoint.TableCopied, crashpoint.RowsCopied, crashpoint.CopyIndexed,
		crashpoint.CopyFinished, crashpoint.ReignUnwritten, crashpoint.ReignWritten),
		in(withServer(reseed), mirror.RoleMirror,
			crashpoint.AlignedTold, crashpoint.LogBegun, crashpoint.ProgressSet, crashpoint.CopyFinished))
}

func whileStarting() []crashCase {
	return slices.Concat(
		in(opening("principal starts", principalSide, asItWas), mirror.RoleNone, crashpoint.StateFileNamed),
		in(opening("mirror starts", mirrorSide, asItWas), mirror.RoleNone, crashpoint.StateFileSettled),
		in(opening("principal starts", principalSide, withoutPlace), mirror.RolePrincipal, crashpoint.PlaceUnnamed, crashpoint.PlaceNamed),
		in(opening("mirror starts", mirrorSide, withoutPlace), mirror.RoleMirror, crashpoint.PlaceUnnamed, crashpoint.PlaceNamed),
		in(opening("mirror starts with a torn log", mirrorSide, tornTail), mirror.RoleNone,
			crashpoint.TornTailFound, crashpoint.TornTailCut, crashpoint.TornTailGone),
		in(opening("mirror starts with a damaged log", mirrorSide, spoiltLog), mirror.RoleNone,
			crashpoint.LossUnwritten, crashpoint.LossWritten, crashpoint.LogSetAside),
		in(newWitnessDisk, mirror.RoleNone, crashpoint.StateFileFilled, crashpoint.StateSynced),
	)
}

func whileHandingOver() []crashCase {
	return slices.Concat(
		in(handover, mirror.RolePrincipal,
			crashpoint.GateUnwritten, crashpoint.GateWritten, crashpoint.SessionsUnended, crashpoint.SessionsEnded,
			crashpoint.BarrierUnwritten, crashpoint.BarrierWritten, crashpoint.BarrierKept, crashpoint.DrainedTold,
			crashpoint.TransferUnsent, crashpoint.TransferSent,
			crashpoint.RedoUndrained, crashpoint.RedoDrained, crashpoint.SlotUnmade, crashpoint.SlotMade, crashpoint.SequencesUnmoved,
			crashpoint.SequenceMoved, crashpoint.SequencesMoved, crashpoint.ReignUnwritten, crashpoint.ReignWritten, crashpoint.WholeTold,
			crashpoint.Unopened, crashpoint.Opened),
		in(handover, mirror.RoleMirror,
			crashpoint.Unhalted, crashpoint.Halted, crashpoint.VoteUnsent, crashpoint.VoteSent,
			crashpoint.GrantUnsent, crashpoint.GrantSent, // the old principal, which is mirror by its own vote
			crashpoint.ForkUnread, crashpoint.ForkRead, crashpoint.TailUnread, crashpoint.TailRead, crashpoint.ProgressUnset,
			crashpoint.ProgressSet, crashpoint.LogBegun, crashpoint.AlignedTold, crashpoint.SlotKept, crashpoint.SlotDropped,
			crashpoint.GateUnwritten, crashpoint.GateWritten, crashpoint.WaitUnwritten, crashpoint.WaitWritten, crashpoint.WaitReloaded,
			crashpoint.ReleaseUnproven, crashpoint.ReleaseProven, crashpoint.SegmentUnmade, crashpoint.SegmentFilled,
			crashpoint.SegmentNamed, crashpoint.SegmentMade, crashpoint.SegmentKept, crashpoint.SegmentRemoved, crashpoint.SegmentGone),
		in(withServer(handover), mirror.RolePrincipal,
			crashpoint.SequencesMoved, crashpoint.SlotMade, crashpoint.ReignWritten, crashpoint.WholeTold, crashpoint.Opened,
			crashpoint.RedoDrained, crashpoint.BarrierWritten, crashpoint.BarrierKept, crashpoint.TransferSent, crashpoint.GateWritten),
		in(withServer(handover), mirror.RoleMirror,
			crashpoint.AlignedTold, crashpoint.ProgressSet, crashpoint.VoteSent, crashpoint.GateWritten, crashpoint.WaitWritten),
	)
}

func whileTakingOver() []crashCase {
	return slices.Concat(
		in(backlog, mirror.RolePrincipal, crashpoint.RedoUnbegun, crashpoint.RedoRows, crashpoint.RedoCommitted, crashpoint.RedoFlushed,
			crashpoint.RedoTrimmed),
		in(loss, mirror.RoleWitness, crashpoint.GrantUnsent, crashpoint.GrantSent, crashpoint.StateUnwritten),
		in(loss, mirror.RoleMirror, crashpoint.VoteUnsent, crashpoint.VoteSent, crashpoint.Halted),
		in(loss, mirror.RolePrincipal, crashpoint.SequencesMoved, crashpoint.SlotMade, crashpoint.Opened),
	)
}

func whileReturning() []crashCase {
	return in(tail, mirror.RoleMirror, crashpoint.LostUnsynced, crashpoint.LostSynced, crashpoint.LostNamed)
}
