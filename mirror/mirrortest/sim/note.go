package sim

import "github.com/f19126b3/dbmirror/mirror"

// What a step of a session says of the situation it is in.

// noteStep looks at one step, before its effects are carried out.
func (p *program) noteStep(ev mirror.Event, fx mirror.Effects, now *mirror.Status) {
	was := &p.status
	if was.Serving && !now.Serving && ev.Kind == mirror.EventTicked && now.Lease == 0 && was.Lease > 0 {
		p.meet(leaseExpired)
	}
	if was.Serving && now.Role == mirror.RoleMirror {
		p.meet(deposedServing)
	}
	if was.Electing && !now.Electing && now.Role == mirror.RoleMirror {
		p.noteLostCandidacy(was, now)
	}
	for _, e := range fx.Journal {
		p.noteEntry(e)
	}
	if now.Serving {
		p.meet(served)
	}
	if p.returned && now.Confirmed {
		p.returned = false
		p.meet(confirmedAfterRestart)
	}
}

func (p *program) noteLostCandidacy(was, now *mirror.Status) {
	switch {
	case now.Record.NewerThan(was.Record):
		p.meet(candidateBeaten)
	case p.forcing:
		p.meet(candidateForced)
	default:
		p.meet(candidateGaveUp)
	}
	p.forcing = false
}

var refusals = map[mirror.Reason]situation{
	mirror.ReasonLease: voteRefusedLease, mirror.ReasonStale: voteRefusedStale,
	mirror.ReasonServing: voteRefusedServing, mirror.ReasonNotDraining: voteRefusedNotDraining,
	mirror.ReasonNotMember: voteRefusedNotMember, mirror.ReasonPromised: voteRefusedPromised,
	mirror.ReasonFailoverTimedOut: failoverTimedOut,
}

func (p *program) noteEntry(e mirror.Entry) {
	switch e.Kind {
	case mirror.EntryRefused:
		if what, ok := refusals[e.Reason]; ok {
			p.meet(what)
		}
	case mirror.EntryState:
		if e.To == mirror.StateSynchronized {
			p.meet(synchronized)
		}
	}
}

// noteSaved looks at a record that has just reached the disk.
func (p *program) noteSaved(before *mirror.Status, hard mirror.HardState) {
	was, r := before.Record, hard.Record
	if r.Version() == was.Version() || !was.Established() {
		return
	}
	if p.self != r.Principal {
		if r.Seq == was.Seq && was.InSync && !r.InSync {
			if p.self == mirror.Witness {
				p.meet(exposedByWitness)
			} else {
				p.meet(exposedByMirror)
			}
		}
		return
	}
	switch {
	case r.Suspended && !was.Suspended && r.Why == mirror.ReasonLogBudget:
		p.meet(suspendedBudget)
	case r.Suspended && !was.Suspended && r.Why != mirror.ReasonCommand && r.Seq == was.Seq:
		p.meet(suspendedByMirror)
	case !r.Suspended && was.Suspended:
		p.meet(resumed)
	case r.Safety == mirror.SafetyOff && was.Safety == mirror.SafetyFull:
		p.meet(safetyOff)
	case r.Safety == mirror.SafetyFull && was.Safety == mirror.SafetyOff:
		p.meet(safetyFull)
	case !r.HasWitness() && was.HasWitness():
		p.meet(witnessRemoved)
	case r.HasWitness() && !was.HasWitness():
		p.meet(witnessSet)
	case r.Members[p.self.Other()] != was.Members[p.self.Other()] && r.Members[p.self.Other()] != 0:
		p.meet(partnerAdmitted)
	}
}

// noteRoleChange looks at a principal that has just been confirmed.
func (p *program) noteRoleChange() {
	r := p.status.Record
	switch {
	case r.Forced:
		p.meet(electedForced)
	case !r.InSync:
		p.meet(electedAutomatic)
	}
	if p.torn {
		p.meet(tornPromoted)
	}
}

// noteAck looks at a commit that returned.
func (s *sim) noteAck(d *database, hardened bool) {
	if hardened {
		s.meet(ackedHardened)
	} else {
		s.meet(ackedAlone)
	}
}

func (m *machine) noteAccepted(c mirror.Command) {
	if c.Kind == mirror.CommandForceService && m.program != nil {
		m.program.forcing = true
	}
}

// witnessCrash notes what a program was doing when it died.
func (m *machine) witnessCrash() {
	p := m.program
	if p == nil {
		return
	}
	st := &p.status
	switch {
	case st.Electing:
		m.meet(crashedElecting)
	case st.Role == mirror.RolePrincipal && st.Duty.Work == mirror.WorkPromote:
		m.meet(crashedPromoting)
	case st.Role == mirror.RoleMirror && st.Dirty:
		m.meet(crashedSeeding)
	case st.Serving && st.Exposed:
		m.meet(crashedExposed)
	case st.Serving:
		m.meet(crashedServing)
	}
	if p.busy {
		m.meet(crashedSaving)
	}
	m.noteHandover(p)
}

// noteHandover notes the stage of a hand-over that a crash interrupts.
func (m *machine) noteHandover(p *program) {
	o := m.other()
	if m.db == nil || o.program == nil {
		return
	}
	mine, theirs := &p.status, &o.program.status
	switch {
	case mine.State == mirror.StatePendingFailover:
		m.handoverStage(p)
	case theirs.State == mirror.StatePendingFailover:
		m.handoverStage(o.program)
	case mine.Record.Seq != theirs.Record.Seq && (mine.Record.InSync && mine.Record.Change == 0 && mine.Record.Fork.Seq > 0):
		m.meet(handoverGranted)
	}
}

func (m *machine) handoverStage(principal *program) {
	o := principal.other()
	switch {
	case o.program != nil && o.program.status.Electing:
		m.meet(handoverVoting)
	case principal.path.have.drained != 0:
		m.meet(handoverDrained)
	case principal.db.gate == mirror.GateClosed:
		m.meet(handoverDraining)
	default:
		m.meet(handoverBeforeDrain)
	}
}
