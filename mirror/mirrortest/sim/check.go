package sim

import (
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// The checkers: what must hold. They look at what is on disks and in databases, and know
// nothing of how the rules work.

// holdsAll is everything that a partner has, in its database or hardened and to be redone.
func (m *machine) holds(id uint32) bool { return m.db.holds.has(id) || m.queue.holds.has(id) }

// lacks finds an acknowledged commit that a partner does not have, and that was not given up.
func (m *machine) lacks() (uint32, bool) {
	return m.ledger.acked.first(m.ledger.forgiven, m.db.holds, m.queue.holds)
}

// canWin says whether a partner could win an election without force right now, and with whose vote.
func (m *machine) canWin() (mirror.Server, bool) {
	own := m.hard()
	r := own.Record
	promotable := r.Principal == m.self || r.InSync && r.Safety == mirror.SafetyFull && !r.Suspended && r.HasWitness() &&
		own.Aligned > 0 && !m.queue.damaged
	promotable = promotable && !m.restored && !m.logBack && !own.Dirty // elected, it would not become whole
	if !r.Established() || own.Removed || r.Members[m.self] != own.Incarnation || !promotable {
		return 0, false
	}
	for _, voter := range [...]mirror.Server{mirror.Witness, m.self.Other()} {
		v := m.machines[voter]
		theirs := v.hard()
		if theirs.Removed || r.Members[voter] != theirs.Incarnation || theirs.Record.NewerThan(r) || v.serving() {
			continue
		}
		return voter, true
	}
	return 0, false
}

// serving says whether a principal would refuse to vote for another, because it serves.
func (m *machine) serving() bool {
	p := m.program
	return m.db != nil && p != nil && m.db.up && p.status.Role == mirror.RolePrincipal && (p.status.Confirmed || p.status.Serving)
}

// checkCandidates is I5: nobody who could win an election right now lacks an acknowledged commit.
func (s *sim) checkCandidates(when string) {
	for _, m := range s.machines[mirror.PartnerA:mirror.Witness] {
		voter, could := m.canWin()
		if !could {
			continue
		}
		if id, lacks := m.lacks(); lacks {
			s.fail("I5 %s: %s could win with the vote of %s and lacks commit %d", when, m.name(), voter, id)
		}
	}
}

// checkAcknowledged looks at one commit that was just acknowledged.
func (c *client) checkAcknowledged(d *database, id uint32, value uint64) {
	if other, taken := c.ledger.values[value]; taken && !c.ledger.reset {
		c.fail("I6: commits %d and %d have the same value %d of the sequence", other, id, value)
	}
	c.ledger.values[value] = id
	if !d.holds.has(id) {
		c.fail("commit %d was acknowledged by %s and is not there", id, d.name())
	}
	o := d.other()
	if o.holds(id) {
		c.noteAck(d, true)
		return
	}
	c.noteAck(d, false)
	if c.newest.server == o.self {
		c.acknowledgedByDeposed(d, id)
		return
	}
	if voter, could := o.canWin(); could {
		c.fail("I3: %s acknowledged commit %d alone, and %s could win with the vote of %s", d.name(), id, o.name(), voter)
	}
}

// acknowledgedByDeposed: a server that was deposed acknowledges nothing, unless service was forced and what its lease
// rests on is not given: then the guarantees say that there may be two.
func (c *client) acknowledgedByDeposed(d *database, id uint32) {
	r := c.newest
	unbound := d.hard().Record.OldWitness == 0 && !d.hard().Record.HasWitness() || c.plan.wild || c.plan.options.StayAlone ||
		d.watchedFor() < c.unwatchedBound()
	if r.forced && unbound {
		c.meet(twoPrincipalsAcknowledged)
		c.ledger.forgiven.add(id)
		return
	}
	c.fail("I2: %s acknowledged commit %d though %s is principal of role sequence %d and lacks it", d.name(), id, r.server, r.seq)
}

// checkLoaded is I10 over a restart: what was saved last, or was being saved, is what is there.
func (m *machine) checkLoaded(hard mirror.HardState) {
	known := &m.saved[m.self]
	if known.Incarnation == hard.Incarnation && (hard.Promised < known.Promised || known.Record.NewerThan(hard.Record)) {
		m.fail("I10: %s has forgotten %s, it finds %s", m.name(), describeHard(*known), describeHard(hard))
	}
	m.noteRecord(hard)
	if r := hard.Record; r.Forced && r.Principal == m.self && r.Change == 0 && m.newest.seq < r.Seq {
		// It died after its election had reached the disk: what that gives up was not noted yet.
		for id, lacks := m.lacks(); lacks; id, lacks = m.lacks() {
			m.ledger.forgiven.add(id)
		}
		m.ledger.reset = true
	}
}

// noteRecord remembers what a server has on disk (I11: each version has one value).
func (m *machine) noteRecord(hard mirror.HardState) {
	m.saved[m.self] = hard
	r := hard.Record
	if !r.Established() {
		return
	}
	if known, ok := m.values[r.Version()]; ok && known != r {
		m.fail("I11: record %s has two values, %+v and %+v", r.Version(), known, r)
	}
	m.values[r.Version()] = r
}

// checkSaved looks at a state that has just reached the disk.
func (p *program) checkSaved(before *mirror.Status, hard mirror.HardState) {
	known := p.saved[p.self]
	if known.Incarnation == hard.Incarnation && (hard.Promised < known.Promised || known.Record.NewerThan(hard.Record)) {
		p.fail("I10: %s saved %s after %s", p.name(), describeHard(hard), describeHard(known))
	}
	p.noteRecord(hard)
	r := hard.Record
	if r.Forced && r.Change == 0 && r.Seq > before.Record.Seq {
		if p.self == mirror.Witness {
			p.forcedOn = before.Record.Version()
		} else if r.Principal == p.self {
			p.forcedService(before.Record, r)
		}
	}
	if r.Seq > max(before.Record.Seq, p.newest.seq) && r.Principal == p.self && r.InSync && r.Fork.Seq > 0 && before.Record.Principal != p.self {
		p.checkTransfer()
	}
	p.checkCandidates("after a save")
	p.noteSaved(before, hard)
}

// forcedService gives up what the new principal lacks. When the record said that nothing is missing, and the witness
// knew no newer one, nothing may be.
func (p *program) forcedService(basis, won mirror.Record) {
	id, lacks := p.lacks()
	honest := !p.restored && basis.InSync && basis.HasWitness() && p.forcedOn == basis.Version()
	if lacks && honest {
		p.fail("I18: %s was forced into service on record %s, which says in sync, and lacks commit %d", p.name(), basis.Version(), id)
	}
	switch {
	case lacks && basis.InSync:
		p.meet(forcedOnStaleRecord)
	case lacks:
		p.meet(forcedWithLoss)
	default:
		p.meet(forcedWithoutLoss)
	}
	for ; lacks; id, lacks = p.lacks() {
		p.ledger.forgiven.add(id)
	}
	p.ledger.reset = true
	o := p.other()
	if o.program != nil && o.up {
		p.meet(forcedPrincipalAlive)
	}
	if !won.Suspended {
		p.fail("I18: forced service of %s is not suspended", p.name())
	}
}

// checkTransfer is I13: whoever hands over leaves nothing behind. One whose log was lost after its vote, or whose server was
// restored before it, finds that it lacks something and does not serve (checkOpen); then the former principal must have
// everything.
func (p *program) checkTransfer() {
	p.meet(handedOver)
	if p.hard().Dirty || p.restored {
		if id, lacks := p.other().lacks(); lacks || p.other().hard().Dirty {
			p.fail("I13: %s took over and is not whole, and %s is not either, it lacks commit %d", p.name(), p.other().name(), id)
		}
		return
	}
	if id, lacks := p.other().db.holds.first(p.db.holds, p.queue.holds); lacks {
		p.fail("I13: %s took over and lacks commit %d of %s", p.name(), id, p.other().name())
	}
}

// reignRecord is who was confirmed as principal of the newest role sequence.
type reignRecord struct {
	seq    mirror.RoleSeq
	server mirror.Server
	forced bool
}

// checkReign is I1, and I2 at the moment in which somebody becomes principal.
func (p *program) checkReign() {
	st := &p.status
	seq := st.Record.Seq
	if st.Role != mirror.RolePrincipal || !st.Confirmed || st.Promised != seq {
		return
	}
	if who, known := p.reigns[seq]; known {
		if who != p.self {
			p.fail("I1: %s and %s are principals in role sequence %d", who, p.self, seq)
		}
		return
	}
	p.reigns[seq] = p.self
	if seq < p.newest.seq {
		return
	}
	was := p.newest
	p.newest = reignRecord{seq, p.self, st.Record.Forced}
	if id, lacks := p.lacks(); lacks && !p.restored && !p.hard().Dirty {
		p.fail("I2: %s is principal of role sequence %d and lacks commit %d", p.self, seq, id)
	}
	if was.server == p.self {
		p.meet(electedAgain)
	}
	if was.server == p.self || was.server == mirror.Nobody {
		return
	}
	p.roleChanges++
	p.say("%s is principal of role sequence %d now", p.name(), seq)
	p.noteRoleChange()
	if !st.Record.InSync && !st.Record.Forced {
		p.checkLease()
	}
}

// checkLease: when a mirror has been elected, the lease of the former principal has run out, and long enough ago to have
// closed its database (I12).
func (p *program) checkLease() {
	o := p.other()
	if p.plan.wild || o.program == nil || o.watchedFor() < p.unwatchedBound() {
		return
	}
	if at := o.program.expiry; at > 0 && o.clock() < at+p.plan.fence-2*p.plan.tick {
		p.fail("I12: %s was elected while the lease of %s, with the fence after it, had %s to go", p.name(), o.name(), at+p.plan.fence-o.clock())
	}
}

// unwatchedBound is how long a database must have been looked after for the promise about leases to hold.
func (s *sim) unwatchedBound() time.Duration { return s.plan.timeout() + 2*s.plan.fence }

// watchedFor is for how long a program has been looking after its database without standing still.
func (m *machine) watchedFor() time.Duration {
	if m.program == nil || m.program.paused || m.program.broken {
		return 0
	}
	return m.now - m.unwatched
}

// checkService is I12: two databases do not answer at the same time.
func (d *database) checkService() {
	o := d.other().db
	if !o.up || o.gate != mirror.GateOpen || !d.up || d.gate != mirror.GateOpen {
		return
	}
	mine, theirs := d.hard().Record, o.hard().Record
	if !mine.Established() || !theirs.Established() || d.leftOpen || o.leftOpen {
		return // one of them lost its state, or there is no session yet
	}
	alone := !mine.HasWitness() || !theirs.HasWitness()
	unwatched := d.watchedFor() < d.unwatchedBound() || o.watchedFor() < d.unwatchedBound()
	switch {
	case alone || d.plan.options.StayAlone:
		d.meet(twoOpenAlone)
	case d.plan.wild:
		d.meet(twoOpenWildClocks)
	case unwatched:
		d.meet(twoOpenUnwatched)
	default:
		d.fail("I12: %s opens while %s is open", d.name(), o.name())
	}
}

// checkOpen is I6 and I2 at the moment in which a database opens.
func (d *database) checkOpen() {
	hard := d.hard()
	r := hard.Record
	latest, began := d.latestReign(r.Seq)
	began = began && latest.seq > r.Fork.Seq // the log of a former role sequence of the same principal goes on
	switch {
	case d.machine.program == nil:
		return // the step was under way when the program died
	case d.partial:
		d.fail("I6: %s opens with half a copy", d.name())
	case d.newest.server != d.self || d.newest.seq != r.Seq || d.machine.program.busy:
		return // deposed meanwhile: closed again in a moment
	case hard.Dirty:
		d.fail("I6: %s opens though its copy is not whole", d.name())
	case r.Principal == d.self && !began:
		d.fail("I6: %s opens before its reign %d is written down, with a slot", d.name(), r.Seq)
	}
	if id, lacks := d.ledger.acked.first(d.ledger.forgiven, d.holds); lacks {
		d.fail("I2: %s opens in role sequence %d and lacks commit %d", d.name(), r.Seq, id)
	}
}

// checkDeaf is I4: nothing is hardened for a role sequence older than the one promised.
func (t *stream) checkDeaf(seq mirror.RoleSeq) {
	if promised := t.to.p.hard().Promised; promised > seq {
		t.fail("I4: %s hardens for role sequence %d after promising %d", t.to.p.name(), seq, promised)
	}
}

// checkRedone is I9: nothing is redone twice.
func (d *path) checkRedone(e logEntry) {
	if e.id > 0 && d.p.db.holds.has(e.id) {
		d.fail("I9: %s redoes commit %d twice", d.p.name(), e.id)
	}
	if at := d.p.db.redone; at.Compare(e.at) >= 0 {
		d.fail("I9: %s redoes %s after %s", d.p.name(), e.at, at)
	}
}

// checkEqual is the end of every run: both databases hold the same, everything acknowledged is there, and nothing that
// was not attempted.
func (s *sim) checkEqual() {
	a, b := s.machines[mirror.PartnerA].db, s.machines[mirror.PartnerB].db
	for _, pair := range [...][2]*database{{a, b}, {b, a}} {
		if id, differs := pair[0].holds.first(pair[1].holds); differs {
			s.fail("I17: commit %d is at %s and not at %s", id, pair[0].name(), pair[1].name())
		}
	}
	if id, lost := s.ledger.acked.first(s.ledger.forgiven, a.holds); lost {
		s.fail("I2: commit %d was acknowledged and is lost", id)
	}
	if a.holds.has(0) || a.holds.count() > int(s.ledger.attempted) {
		s.fail("there are commits that nobody has attempted")
	}
}
