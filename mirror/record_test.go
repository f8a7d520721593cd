package mirror

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// inSyncRecord is a session in which B may be promoted.
func inSyncRecord() Record {
	return Record{
		Seq: 3, Change: 4, Principal: PartnerA, InSync: true, Safety: SafetyFull, SuspendedSeq: 5,
		Fork: Position{2, 77}, Members: [numServers]Incarnation{0, 11, 21, 31},
	}
}

func TestPromotable(t *testing.T) {
	for name, edit := range map[string]func(*Record){
		"not in sync": func(r *Record) { r.InSync = false },
		"safety OFF":  func(r *Record) { r.Safety = SafetyOff },
		"suspended":   func(r *Record) { r.Suspended = true },
		"no witness":  func(r *Record) { r.Members[Witness] = 0 },
	} {
		r := inSyncRecord()
		require.True(t, r.promotable(PartnerB))
		edit(&r)
		require.False(t, r.promotable(PartnerB), name)
		require.True(t, r.promotable(PartnerA), "%s: the principal of the record always is", name)
	}
}

func TestElect(t *testing.T) {
	base := inSyncRecord()
	for how, want := range map[Election]Record{
		ElectionAutomatic: {InSync: false},
		ElectionTransfer:  {InSync: true},
		ElectionForced:    {Forced: true, Suspended: true, Why: ReasonForcedService, SuspendedSeq: 1},
	} {
		r := base.elect(7, PartnerB, how, 99)
		require.Equal(t, Version{7, 0}, r.Version(), how)
		require.Equal(t, PartnerB, r.Principal)
		require.Equal(t, Position{3, 99}, r.Fork, "where the log of role sequence 3 ends")
		require.Equal(t, want.InSync, r.InSync)
		require.Equal(t, want.Forced, r.Forced)
		require.Equal(t, want.Suspended, r.Suspended)
		require.Equal(t, want.Why, r.Why)
		require.Equal(t, base.SuspendedSeq+want.SuspendedSeq, r.SuspendedSeq)
		require.Equal(t, base.Members, r.Members)
		require.True(t, r.NewerThan(base))
	}
	forced := base
	forced.Forced = true
	again := forced.elect(7, PartnerA, ElectionAgain, 99)
	want := forced
	want.Seq, want.Change, want.Forced = 7, 0, false
	require.Equal(t, want, again, "the same principal keeps its history; this role sequence did not begin by force")
}

func TestVotesAndLists(t *testing.T) {
	r := inSyncRecord()
	for _, c := range []struct {
		name         string
		server       Server
		incarnation  Incarnation
		lists, votes bool
	}{
		{"mirror", PartnerB, 21, true, true},
		{"principal: lists itself, and does not confirm itself", PartnerA, 11, true, false},
		{"witness", Witness, 31, true, true},
		{"another life of the witness", Witness, 32, false, false},
		{"another life of the mirror", PartnerB, 22, false, false},
		{"no identity", Witness, 0, false, false},
	} {
		require.Equal(t, c.lists, r.lists(c.server, c.incarnation), c.name)
		require.Equal(t, c.votes, r.votes(c.server, c.incarnation), c.name)
	}
	r.Members[Witness], r.OldWitness = 0, 31
	require.True(t, r.lists(Witness, 31))
	require.True(t, r.votes(Witness, 31), "the old witness has a vote until its removal is confirmed")
	require.False(t, r.alone())
	r.Members[Witness] = 41
	require.False(t, r.votes(Witness, 31), "a new witness replaces it")
	require.True(t, r.votes(Witness, 41))
	r.Members[Witness], r.OldWitness = 0, 0
	require.True(t, r.alone())
	require.False(t, r.lists(Witness, 0), "nobody is not a member")
}

func TestMode(t *testing.T) {
	r := inSyncRecord()
	require.Equal(t, ModeHighSafetyAutomatic, r.Mode())
	r.Members[Witness] = 0
	require.Equal(t, ModeHighSafety, r.Mode())
	r.Safety = SafetyOff
	require.Equal(t, ModeHighPerformance, r.Mode())
	require.Equal(t, ModeNone, Record{}.Mode())
}

func TestVersionOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) Version {
			return Version{RoleSeq(rapid.Uint64Range(0, 3).Draw(t, name)), rapid.Uint64Range(0, 3).Draw(t, name)}
		}
		v, w := draw("v"), draw("w")
		newer := v.Seq > w.Seq || v.Seq == w.Seq && v.Change > w.Change
		require.Equal(t, newer, v.Compare(w) > 0)
		require.Equal(t, v == w, v.Compare(w) == 0)
		require.Equal(t, -v.Compare(w), w.Compare(v))
	})
}

// TestNames: every value of a closed list has its own name, and what is outside is "invalid".
func TestNames(t *testing.T) {
	for what, c := range map[string]struct {
		count uint8
		name  func(uint8) string
	}{
		"server":   {uint8(numServers), func(i uint8) string { return Server(i).String() }},
		"reason":   {uint8(numReasons), func(i uint8) string { return Reason(i).String() }},
		"message":  {uint8(numMessageKinds), func(i uint8) string { return MessageKind(i).String() }},
		"event":    {uint8(numEventKinds), func(i uint8) string { return EventKind(i).String() }},
		"command":  {uint8(numCommandKinds), func(i uint8) string { return CommandKind(i).String() }},
		"state":    {uint8(StateDisconnected) + 1, func(i uint8) string { return State(i).String() }},
		"role":     {uint8(RoleWitness) + 1, func(i uint8) string { return Role(i).String() }},
		"election": {uint8(ElectionAgain) + 1, func(i uint8) string { return Election(i).String() }},
		"trigger":  {uint8(TriggerFailoverEnded) + 1, func(i uint8) string { return Trigger(i).String() }},
		"gate":     {uint8(GateOpen) + 1, func(i uint8) string { return Gate(i).String() }},
		"work":     {uint8(WorkDrain) + 1, func(i uint8) string { return Work(i).String() }},
		"wait":     {uint8(WaitMirror) + 1, func(i uint8) string { return Wait(i).String() }},
		"quorum":   {uint8(QuorumFull) + 1, func(i uint8) string { return Quorum(i).String() }},
		"safety":   {uint8(SafetyOff) + 1, func(i uint8) string { return Safety(i).String() }},
		"mode":     {uint8(ModeHighPerformance) + 1, func(i uint8) string { return Mode(i).String() }},
		"entry":    {uint8(EntryRecord) + 1, func(i uint8) string { return EntryKind(i).String() }},
	} {
		seen := map[string]bool{}
		for i := range c.count {
			name := c.name(i)
			require.NotEmpty(t, name, "%s %d", what, i)
			require.NotEqual(t, "invalid", name, "%s %d", what, i)
			require.False(t, seen[name], "%s: %q twice", what, name)
			seen[name] = true
		}
		require.Equal(t, "invalid", c.name(c.count), what)
	}
}
