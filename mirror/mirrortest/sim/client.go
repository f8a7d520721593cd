package sim

import (
	"slices"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// client commits rows, one after the other, at whichever partner's database is open, and keeps a ledger.
type client struct {
	*sim
	at    mirror.Server
	db    *database // while a commit is under way
	id    uint32
	value uint64 // of the sequence
	end   mirror.LSN
	since time.Duration
	waits bool
	turn  int // counts attempts: what is still on its way for an earlier one is void
}

// ledger is what all clients know.
type ledger struct {
	attempted uint32
	acked     set
	forgiven  set // acknowledged, and given up for a reason that the guarantees name
	commits   int
	values    map[uint64]uint32 // acknowledged values of the sequence
	reset     bool              // the sequence was put back by an operator who restored a backup, or forced
	lastAck   time.Duration
	slowest   time.Duration // of an acknowledged commit
}

func (c *client) run() {
	c.after(c.about(c.plan.think), c.attempt)
}

// attempt finds an open database and commits there.
func (c *client) attempt() {
	if c.quiet {
		c.after(500*time.Millisecond, c.attempt)
		return
	}
	d := c.open(c.at)
	if d == nil {
		if d = c.open(c.at.Other()); d == nil {
			c.after(500*time.Millisecond, c.attempt)
			return
		}
		c.at = c.at.Other()
	}
	c.turn++
	c.ledger.attempted++
	c.db, c.id, c.waits, c.since = d, c.ledger.attempted, false, c.now
	c.value = d.sequence
	d.sequence++
	d.logged = max(d.logged, d.sequence+32)
	r := walRecord{id: c.id, client: true, size: uint32(100 + c.rng.IntN(400)), poison: c.chance(c.plan.poison)}
	if c.chance(c.plan.huge) {
		r.size = 40_000_000
		c.meet(hugeCommit)
	}
	record := d.append(r, mirror.LSN(r.size))
	c.end = d.next
	d.clients = append(d.clients, c)
	turn, life := c.turn, d.life
	c.after(d.latency(c.plan.flush), func() {
		if d.life == life && d.up {
			c.flushed(d, turn, record)
		}
	})
}

func (c *client) open(s mirror.Server) *database {
	if d := c.machines[s].db; d.up && d.gate == mirror.GateOpen {
		return d
	}
	return nil
}

// flushed: the commit is on the server's disk. It returns when nobody is waited for, or the mirror has gone beyond it;
// else it waits. The record is found anew: the log may have been made shorter.
func (c *client) flushed(d *database, turn, record int) {
	d.flush(record)
	if c.turn != turn || c.db == nil {
		return // its session was ended: the commit is there all the same
	}
	if d.inForce.kind == waitNobody || c.end <= d.reported {
		c.acknowledged()
		return
	}
	c.waits = true
	if c.chance(c.plan.abandonment) {
		c.after(c.between(time.Second, 15*time.Second), func() {
			if c.turn == turn && c.waits {
				c.meet(commitAbandoned)
				c.unknown()
			}
		})
	}
}

// done takes the commit off the server's hands.
func (c *client) done() *database {
	d := c.db
	d.clients = slices.DeleteFunc(d.clients, func(o *client) bool { return o == c })
	c.db, c.waits = nil, false
	c.turn++
	c.after(c.about(c.plan.think), c.attempt)
	return d
}

// unknown: the commit may be there or not.
func (c *client) unknown() {
	c.meet(outcomeUnknown)
	c.done()
}

// acknowledged: the client was told that its row is safe. It is not when a stranger had changed whom commits wait for.
func (c *client) acknowledged() {
	id := c.id
	d := c.done()
	if d.strange {
		c.meet(ackedUnderStranger)
		return
	}
	c.ledger.commits++
	c.ledger.lastAck = c.now
	c.ledger.slowest = max(c.ledger.slowest, c.now-c.since)
	c.mix(uint64(id), uint64(c.now))
	c.ledger.acked.add(id)
	c.checkAcknowledged(d, id, c.value)
}
