package mirror

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestConfigIsChecked(t *testing.T) {
	good := Config{Self: PartnerA, Incarnation: 1}
	_, err := New(good, HardState{})
	require.NoError(t, err)
	for want, edit := range map[string]func(*Config){
		"Self is nobody, want partner-a, partner-b or witness": func(c *Config) { c.Self = Nobody },
		"Self is invalid":                              func(c *Config) { c.Self = numServers },
		"Incarnation is zero":                          func(c *Config) { c.Incarnation = 0 },
		"Lease of 10 ticks is not below Timeout of 10": func(c *Config) { c.Timing.Lease = 10 },
		"Ping of 11 ticks is not below Timeout of 10":  func(c *Config) { c.Timing.Ping = 11 },
	} {
		c := good
		edit(&c)
		_, err := New(c, HardState{})
		require.ErrorIs(t, err, ErrConfig)
		require.ErrorContains(t, err, want)
	}
	_, err = New(good, HardState{Self: PartnerB, Incarnation: 1})
	require.ErrorIs(t, err, ErrConfig)
	require.ErrorContains(t, err, "the stored state is of partner-b, this server is partner-a")
}

func TestDefaults(t *testing.T) {
	require.Equal(t, Timing{Ping: 1, Timeout: 10, Campaign: 10, Drain: 30}, Timing{}.withDefaults())
	given := Timing{Ping: 2, Timeout: 20, Lease: 3, Campaign: 4, Drain: 5}
	require.Equal(t, given, given.withDefaults())
}

func TestStepRefusesUnknownEvents(t *testing.T) {
	s := facts(t, RolePrincipal, StateSynchronized)
	before := s.Snapshot()
	for _, kind := range []EventKind{0, numEventKinds, 255} {
		fx, err := s.Step(Event{Kind: kind})
		require.ErrorContains(t, err, "unknown event")
		require.Zero(t, fx)
	}
	require.Equal(t, before, s.Snapshot())
}

// refusals: which command is refused in which role, and why, when everybody is connected and the session SYNCHRONIZED.
var refusals = map[Role]map[CommandKind]Reason{
	RoleNone: {
		CommandEstablish: ReasonPartnerLost, CommandFailover: ReasonNotEstablished, CommandForceService: ReasonNotEstablished,
		CommandSuspend: ReasonNotEstablished, CommandResume: ReasonNotEstablished, CommandSetSafety: ReasonNotEstablished,
		CommandSetWitness: ReasonNotEstablished, CommandAdmit: ReasonNotEstablished, CommandServe: ReasonNotEstablished,
	},
	RolePrincipal: {
		CommandEstablish: ReasonBusy, CommandForceService: ReasonWrongRole, CommandAdmit: ReasonPartnerLost, CommandServe: ReasonWrongRole,
		CommandSetSafety: ReasonCommand, // no level named
	},
	RoleMirror: {
		CommandEstablish: ReasonBusy, CommandForceService: ReasonPrincipalConnected, CommandSetSafety: ReasonWrongRole,
		CommandSetWitness: ReasonWrongRole, CommandAdmit: ReasonWrongRole, CommandServe: ReasonWrongRole,
	},
	RoleWitness: {
		CommandEstablish: ReasonWrongRole, CommandFailover: ReasonWrongRole, CommandForceService: ReasonWrongRole,
		CommandSuspend: ReasonWrongRole, CommandResume: ReasonWrongRole, CommandSetSafety: ReasonWrongRole,
		CommandSetWitness: ReasonWrongRole, CommandAdmit: ReasonWrongRole, CommandServe: ReasonWrongRole,
	},
}

func established(t *testing.T, role Role) *Session {
	if role == RoleNone {
		s, err := New(Config{Self: PartnerA, Incarnation: 1}, HardState{})
		require.NoError(t, err)
		return s
	}
	s := facts(t, role, StateSynchronized)
	s.hard.Aligned = s.hard.Record.Seq
	s.standing, s.whole, s.shown = s.confirmed, s.confirmed, StateSynchronized
	s.peers[s.mirror()].ready = true
	s.saved = s.hard
	return s
}

func TestRefusals(t *testing.T) {
	for role := RoleNone; role <= RoleWitness; role++ {
		for kind := CommandEstablish; kind < numCommandKinds; kind++ {
			s := established(t, role)
			c := Command{Kind: kind, Expect: s.hard.Record.Version()}
			before := s.Snapshot()
			_, err := s.Step(Event{Kind: EventCommanded, Command: c})
			want, refused := refusals[role][kind]
			if !refused {
				require.NoError(t, err, "%s, %s", role, kind)
				continue
			}
			requireRefused(t, err, kind, want, role.String())
			require.Equal(t, before, s.Snapshot(), "%s, %s: a refusal changes nothing", role, kind)
		}
	}
	s := established(t, RolePrincipal)
	_, err := s.Step(Event{Kind: EventCommanded, Command: Command{Kind: numCommandKinds}})
	requireRefused(t, err, numCommandKinds, ReasonWrongRole, "unknown")
}

func requireRefused(t *testing.T, err error, kind CommandKind, why Reason, what string) {
	var refused *RefusedError
	require.ErrorAs(t, err, &refused, "%s, %s", what, kind)
	require.ErrorIs(t, err, ErrRefused)
	require.Equal(t, why, refused.Reason, "%s, %s: %s", what, kind, err)
	require.Equal(t, kind, refused.Command)
	require.NotEmpty(t, refused.Mend)
	require.ErrorContains(t, err, refused.Mend)
}

// TestRefusalsOnFacts: what else stands against a command whose role is right.
func TestRefusalsOnFacts(t *testing.T) {
	lost := func(p Server) func(*Session) { return func(s *Session) { s.peers[p].silent = s.cfg.Timing.Timeout } }
	forceable := func(s *Session) { lost(PartnerA)(s); s.streamIdle = s.cfg.Timing.Timeout }
	for name, c := range map[string]struct {
		role    Role
		command Command
		facts   func(*Session)
		want    Reason
	}{
		"establish with a taken partner": {RoleNone, Command{Kind: CommandEstablish}, func(s *Session) {
			s.peers[PartnerB] = peer{incarnation: 2, taken: true}
		}, ReasonBusy},
		"establish without the witness": {RoleNone, Command{Kind: CommandEstablish, Incarnation: 3}, func(s *Session) {
			s.peers[PartnerB] = peer{incarnation: 2}
		}, ReasonNoWitness},
		"establish with a taken witness": {RoleNone, Command{Kind: CommandEstablish, Incarnation: 3}, func(s *Session) {
			s.peers[PartnerB], s.peers[Witness] = peer{incarnation: 2}, peer{incarnation: 3, taken: true}
		}, ReasonBusy},
		"fail over, unconfirmed":            {RolePrincipal, Command{Kind: CommandFailover}, func(s *Session) { s.hard.Promised++ }, ReasonNotConfirmed},
		"fail over, not shown SYNCHRONIZED": {RolePrincipal, Command{Kind: CommandFailover}, func(s *Session) { s.shown = StateSynchronizing }, ReasonNotSynchronized},
		"fail over, not whole":              {RolePrincipal, Command{Kind: CommandFailover}, func(s *Session) { s.whole = false }, ReasonBusy},
		"fail over, mirror lost":            {RolePrincipal, Command{Kind: CommandFailover}, lost(PartnerB), ReasonPartnerLost},
		"fail over from a lonely mirror":    {RoleMirror, Command{Kind: CommandFailover}, lost(PartnerA), ReasonPartnerLost},
		"suspend from a lonely mirror":      {RoleMirror, Command{Kind: CommandSuspend}, lost(PartnerA), ReasonPartnerLost},
		"suspend, unconfirmed":              {RolePrincipal, Command{Kind: CommandSuspend}, func(s *Session) { s.confirmed = false }, ReasonNotConfirmed},
		"suspend while changing safety":     {RolePrincipal, Command{Kind: CommandSuspend}, func(s *Session) { s.goal.Kind = CommandSetSafety }, ReasonBusy},
		"set a witness that is not there":   {RolePrincipal, Command{Kind: CommandSetWitness, Incarnation: 99}, func(*Session) {}, ReasonNoWitness},
		"admit nobody":                      {RolePrincipal, Command{Kind: CommandAdmit}, func(*Session) {}, ReasonPartnerLost},
		"force while the server is heard":   {RoleMirror, Command{Kind: CommandForceService}, func(s *Session) { forceable(s); s.streamIdle = 0 }, ReasonPrincipalConnected},
		"force under a promise":             {RoleMirror, Command{Kind: CommandForceService}, func(s *Session) { forceable(s); s.promise = promise{PartnerA, 1} }, ReasonLease},
		"force just after the start":        {RoleMirror, Command{Kind: CommandForceService}, func(s *Session) { forceable(s); s.starting = 1 }, ReasonLease},
		"force without the witness":         {RoleMirror, Command{Kind: CommandForceService}, func(s *Session) { forceable(s); lost(Witness)(s) }, ReasonNoWitness},
		"force with a witness that forgot":  {RoleMirror, Command{Kind: CommandForceService}, func(s *Session) { forceable(s); s.peers[Witness].incarnation = 99 }, ReasonNoWitness},
		"force half a copy":                 {RoleMirror, Command{Kind: CommandForceService}, func(s *Session) { forceable(s); s.hard.Dirty = true }, ReasonSeeding},
		"force an empty mirror":             {RoleMirror, Command{Kind: CommandForceService}, func(s *Session) { forceable(s); s.hard.Aligned = 0 }, ReasonSeeding},
		"force while electing":              {RoleMirror, Command{Kind: CommandForceService}, func(s *Session) { forceable(s); s.claim.How = ElectionAutomatic }, ReasonBusy},
	} {
		s := established(t, c.role)
		c.facts(s)
		c.command.Expect = s.hard.Record.Version()
		_, err := s.Step(Event{Kind: EventCommanded, Command: c.command})
		requireRefused(t, err, c.command.Kind, c.want, name)
	}
	s := established(t, RoleMirror)
	forceable(s)
	_, err := s.Step(Event{Kind: EventCommanded, Command: Command{Kind: CommandForceService, Expect: Version{9, 9}}})
	requireRefused(t, err, CommandForceService, ReasonStale, "force on an old plan")
}

// TestInvariants breaks each of them by hand: the step says which.
func TestInvariants(t *testing.T) {
	for name, c := range map[string]struct {
		role Role
		edit func(*Session)
		want string
	}{
		"promise falls":       {RoleMirror, func(s *Session) { s.hard.Promised-- }, "I10: promised fell from 2 to 1"},
		"record falls":        {RoleMirror, func(s *Session) { s.hard.Record.Change-- }, "I10: record fell from 2.4 to 2.3"},
		"two values":          {RoleMirror, func(s *Session) { s.hard.Record.SafetySeq++ }, "I11: record 2.4 has two values"},
		"beyond the promise":  {RoleMirror, func(s *Session) { s.hard.Record.Seq++ }, "I10: record 3.4 is newer than the promise 2"},
		"alone, not exposed":  {RolePrincipal, func(s *Session) { s.duty.Wait = WaitNone }, "I3: acknowledges alone with record 2.4"},
		"open, not whole":     {RolePrincipal, func(s *Session) { s.duty.Gate, s.whole = GateOpen, false }, "I6: serves without being whole"},
		"open, half a copy":   {RolePrincipal, func(s *Session) { s.duty.Gate = GateOpen; s.hard.Dirty = true }, "I6: serves without being whole"},
		"hardens for another": {RoleMirror, func(s *Session) { s.hard.Promised++ }, "I4: hardens for 2 after promising 3"},
		"in sync and OFF":     {RoleMirror, func(s *Session) { s.hard.Record.Safety = SafetyOff; s.hard.Record.Change++ }, "I15: record 2.5 is in sync though suspended or OFF"},
		"in sync, suspended":  {RoleMirror, func(s *Session) { s.hard.Record.Suspended = true; s.hard.Record.Change++ }, "I15: record 2.5 is in sync though suspended or OFF"},
		"forced, not suspended": {RoleMirror, func(s *Session) {
			s.hard.Promised, s.duty.Seq = 3, 3
			s.hard.Record.Seq, s.hard.Record.Change, s.hard.Record.Forced, s.hard.Record.InSync = 3, 0, true, false
		}, "I18: forced service of 3.0 is not suspended"},
	} {
		s := established(t, c.role)
		before := s.hard
		s.duty = s.wanted()
		require.NoError(t, s.check(before), name)
		c.edit(s)
		err := s.check(before)
		require.ErrorIs(t, err, ErrInvariant, name)
		require.ErrorContains(t, err, c.want, name)
	}
}

// TestExplainIsWhole: a mirror stands for election exactly when every condition that it explains is met.
func TestExplainIsWhole(t *testing.T) {
	tried := map[bool]int{}
	rapid.Check(t, func(t *rapid.T) {
		s := drawMirror(t)
		met := true
		for _, c := range s.Explain() {
			met = met && c.Met
			require.NotEmpty(t, c.Mend, c.Name)
		}
		require.Equal(t, s.automatic() == ReasonNone, met, "automatic: %s; %+v", s.automatic(), s.Explain())
		tried[met]++
	})
	require.NotZero(t, tried[true])
	require.NotZero(t, tried[false])
}

// drawMirror draws a mirror that may stand for election, and breaks some of that.
func drawMirror(t *rapid.T) *Session {
	hard := HardState{Self: PartnerB, Incarnation: 21, Promised: 3, Record: inSyncRecord(), Aligned: 3}
	s, err := New(Config{Self: PartnerB, Incarnation: 21}, hard)
	require.NoError(t, err)
	s.heard(Witness)
	s.peers[Witness].incarnation = 31
	breaks := []func(){
		func() { s.hard.Record.InSync = false }, func() { s.hard.Record.Safety = SafetyOff },
		func() { s.hard.Record.Suspended = true }, func() { s.hard.Record.Members[Witness] = 0 },
		func() { s.hard.Dirty = true }, func() { s.hard.Aligned = 0 }, func() { s.failed = ReasonRedoError },
		func() { s.databaseUp = false }, func() { s.promise = promise{PartnerA, 2} }, func() { s.starting = 2 },
		func() { s.peers[Witness].silent = 10 }, func() { s.peers[Witness].incarnation = 32 },
		func() { s.peers[Witness].sees = 1 << PartnerA }, func() { s.streamIdle = 0 },
		func() { s.heard(PartnerA) }, func() { s.heard(PartnerA); s.peers[PartnerA].reason = ReasonDatabaseDown },
		func() { s.peers[PartnerA].left = true },
	}
	for range rapid.IntRange(0, 3).Draw(t, "breaks") {
		breaks[rapid.IntRange(0, len(breaks)-1).Draw(t, "break")]()
	}
	return s
}

// TestSeedingIsRefused: the database of a server that is principal, or may become it, is not overwritten.
func TestSeedingIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		role  Role
		facts func(*Session)
	}{
		"principal":         {RolePrincipal, func(*Session) {}},
		"without a session": {RoleNone, func(*Session) {}},
		"candidate":         {RoleMirror, func(s *Session) { s.claim = claim{How: ElectionAutomatic, Left: 3} }},
		"a grant may come":  {RoleMirror, func(s *Session) { s.hard.Promised++ }},
	} {
		s := established(t, c.role)
		c.facts(s)
		before := s.Snapshot()
		_, err := s.Step(Event{Kind: EventSeeding})
		require.ErrorIs(t, err, ErrRefused, name)
		require.Equal(t, before, s.Snapshot(), name)
	}
	s := established(t, RoleMirror)
	fx, err := s.Step(Event{Kind: EventSeeding})
	require.NoError(t, err)
	require.True(t, fx.Saved && fx.State.Dirty)
	require.Zero(t, fx.State.Aligned)
}

// TestWaitLostBeforeElectedAgain: a principal that is about to be elected again finds that commits did not wait for the
// mirror. The record that it wins says that the mirror has everything: it is put right.
func TestWaitLostBeforeElectedAgain(t *testing.T) {
	s := established(t, RolePrincipal)
	members := s.hard.Record.Members
	_, err := s.Step(Event{Kind: EventReceived, Message: Message{
		Kind: MessagePing, From: PartnerB, To: PartnerA, Incarnation: members[PartnerB], Promised: 5, Record: s.hard.Record, Reason: ReasonPromised,
	}})
	require.NoError(t, err)
	require.Equal(t, ElectionAgain, s.claim.How)
	_, err = s.Step(Event{Kind: EventWaitLost, Seq: s.hard.Record.Seq})
	require.NoError(t, err)
	won := s.elected()
	require.True(t, won.InSync)
	fx, err := s.Step(Event{Kind: EventReceived, Message: Message{
		Kind: MessageGrant, From: Witness, To: PartnerA, Incarnation: members[Witness], Promised: won.Seq, Record: won, Seq: won.Seq,
	}})
	require.NoError(t, err)
	require.Equal(t, won.Seq, fx.State.Record.Seq)
	require.False(t, fx.State.Record.InSync, "record %s", fx.State.Record.Version())
}

// TestRemovedWitnessGrantsNothing: a witness that was removed has learned of the next role sequence, and is asked to vote
// for that by a candidate that does not know yet that it has won.
func TestRemovedWitnessGrantsNothing(t *testing.T) {
	basis := Record{Seq: 1, Change: 3, Principal: PartnerA, InSync: true, Safety: SafetyFull}
	basis.Members[PartnerA], basis.Members[PartnerB], basis.Members[Witness] = 1, 2, 4
	won := basis.elect(2, PartnerB, ElectionAutomatic, 100)
	s, err := New(Config{Self: Witness, Incarnation: 3}, HardState{Self: Witness, Incarnation: 3, Promised: 2, Record: won, Removed: true})
	require.NoError(t, err)
	fx, err := s.Step(Event{Kind: EventReceived, Message: Message{
		Kind: MessageVote, From: PartnerB, To: Witness, Incarnation: 2, Promised: 2, Record: basis, Seq: 2, LSN: 100, How: ElectionAutomatic,
	}})
	require.NoError(t, err)
	require.Len(t, fx.Send, 1)
	require.Equal(t, MessageRefuse, fx.Send[0].Kind)
	require.Equal(t, ReasonNotMember, fx.Send[0].Reason)
}

// TestWitnessIsAskedAtEachTick: what the witness said last may be as old as a ping. Where nothing else stands against an
// automatic failover the mirror asks it at each tick, and only then.
func TestWitnessIsAskedAtEachTick(t *testing.T) {
	const timeout, ping = 20, 5
	orphan := func(t *testing.T) *Session {
		hard := HardState{Self: PartnerB, Incarnation: 21, Promised: 3, Record: inSyncRecord(), Aligned: 3}
		s, err := New(Config{Self: PartnerB, Incarnation: 21, Timing: Timing{Ping: ping, Timeout: timeout, Lease: 10}}, hard)
		require.NoError(t, err)
		s.starting, s.streamIdle, s.databaseUp = 0, timeout, true
		s.heard(Witness)
		s.peers[Witness].incarnation, s.peers[Witness].sees = 31, 1<<PartnerA
		s.peers[PartnerA].silent = timeout
		return s
	}
	asked := func(t *testing.T, s *Session) (n int) {
		for range ping {
			fx, err := s.Step(Event{Kind: EventTicked})
			require.NoError(t, err)
			require.False(t, fx.Halt, "the witness hears the principal")
			for _, m := range fx.Send {
				if m.To == Witness {
					require.Equal(t, MessagePing, m.Kind)
					n++
				}
			}
		}
		return n
	}
	s := orphan(t)
	require.Equal(t, ping, asked(t, s))
	fx, err := s.Step(Event{Kind: EventReceived, Message: Message{Kind: MessagePong, From: Witness, To: PartnerB, Incarnation: 31,
		Promised: 3, Record: s.hard.Record, Sees: 1 << PartnerB}})
	require.NoError(t, err)
	require.True(t, fx.Halt, "the election has begun")

	for name, stands := range map[string]func(*Session){
		"principal heard": func(s *Session) { s.heard(PartnerA) },
		"stream heard":    func(s *Session) { s.streamIdle = 0 },
		"promise":         func(s *Session) { s.promise = promise{PartnerA, timeout} },
		"not in sync":     func(s *Session) { s.hard.Record.InSync = false },
		"safety off":      func(s *Session) { s.hard.Record.Safety, s.hard.Record.InSync = SafetyOff, false },
		"database down":   func(s *Session) { s.databaseUp = false },
		"seeding":         func(s *Session) { s.hard.Dirty = true },
	} {
		t.Run(name, func(t *testing.T) {
			s := orphan(t)
			stands(s)
			require.Equal(t, 1, asked(t, s))
		})
	}
}
