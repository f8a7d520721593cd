package sim

import (
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// plan is what a seed draws before the run begins. Each kind of fault is left out of many seeds altogether, so that what
// one kind hides from another is found as well.
type plan struct {
	timing  mirror.Timing
	tick    time.Duration
	fence   time.Duration // that a principal's database takes at most to close
	witness bool
	first   mirror.Server // who establishes the session
	options mirror.Options

	wild  bool // clocks keep no bound: what rests on leases is not promised
	drift [4]float64

	delay, slowest     time.Duration // of messages
	loss, double, slow float64
	save, sync, flush  time.Duration // of the state file, the hardened log, the databases' own log
	gate               time.Duration // to move the gate
	copying            time.Duration // of a baseline copy
	look               time.Duration

	clients                            int
	think                              time.Duration
	huge, poison, cancels, abandonment float64

	every  [numFaults]time.Duration // between two faults of a kind; zero: none
	faulty time.Duration            // how long faults strike
}

// newPlan draws a plan.
func (e *engine) newPlan() plan {
	p := plan{witness: e.chance(0.85), first: mirror.Server(1 + e.rng.IntN(2)), wild: e.chance(0.15)}
	e.drawTiming(&p)
	rho := 0.001
	for s := range p.drift {
		p.drift[s] = 1 + rho*(2*e.rng.Float64()-1)
	}
	p.options = mirror.Options{
		StayAlone: e.chance(0.05), ServeAtOnce: e.chance(0.1), MirrorClosed: e.chance(0.2), SyncLag: mirror.LSN(e.rng.IntN(3)) * 20000,
	}
	p.delay, p.slowest = e.between(100*time.Microsecond, 20*time.Millisecond), e.between(0, 4*time.Second)
	p.loss, p.double, p.slow = e.maybe(0.3, 0.2), e.maybe(0.3, 0.2), e.maybe(0.4, 0.1)
	p.save, p.sync = e.between(time.Millisecond, 20*time.Millisecond), e.between(time.Millisecond, 20*time.Millisecond)
	p.flush, p.gate = e.between(500*time.Microsecond, 5*time.Millisecond), e.between(2*time.Millisecond, 100*time.Millisecond)
	p.copying = e.between(time.Second, 12*time.Second)
	p.look = 250 * time.Millisecond
	p.clients, p.think = 1+e.rng.IntN(4), e.between(300*time.Millisecond, 3*time.Second)
	p.huge, p.poison = e.maybe(0.2, 0.01), e.maybe(0.15, 0.01)
	p.cancels, p.abandonment = e.maybe(0.4, 0.5), e.maybe(0.4, 0.3)
	p.faulty = e.between(130*time.Second, 190*time.Second)
	for f := range p.every {
		if e.chance(faults[f].often) {
			p.every[f] = e.between(faults[f].mean/2, 3*faults[f].mean)
		}
	}
	return p
}

// maybe is zero as often as not, else up to most.
func (e *engine) maybe(often, most float64) float64 {
	if !e.chance(often) {
		return 0
	}
	return most * e.rng.Float64()
}

// drawTiming draws one of the profiles. What a principal counts is rounded down, what a voter counts up, as package
// mirror/host does it; most seeds have coarser ticks than a host, which is faster.
func (e *engine) drawTiming(p *plan) {
	ping, timeout, lease, ticks := time.Second, 10*time.Second, 7*time.Second, 2
	p.fence = 2 * time.Second
	switch n := e.rng.IntN(10); {
	case n < 2:
		ticks = 5
	case n == 2:
		ping, timeout, lease, ticks = 400*time.Millisecond, 3500*time.Millisecond, 2*time.Second, 5
		p.fence = time.Second
	}
	p.tick = ping / time.Duration(ticks)
	p.timing = mirror.Timing{
		Ping:    mirror.Tick(ticks),
		Timeout: mirror.Tick((timeout + p.tick - 1) / p.tick),
		Lease:   mirror.Tick(lease / p.tick),
	}
}

// long is a number of ticks as a time.
func (p *plan) long(t mirror.Tick) time.Duration { return time.Duration(t) * p.tick }

func (p *plan) timeout() time.Duration { return p.long(p.timing.Timeout) }
