package host

import "time"

// clock counts ticks on a clock that also runs while the machine sleeps.
type clock struct {
	tick   time.Duration
	ticker *time.Ticker
	last   time.Duration
}

func newClock(tick, wakes time.Duration) *clock {
	return &clock{tick: tick, ticker: time.NewTicker(wakes), last: sinceBoot()}
}

// C is a wake-up.
func (c *clock) C() <-chan time.Time { return c.ticker.C }

func (c *clock) stop() { c.ticker.Stop() }

// due is how many ticks have passed since it was last asked.
func (c *clock) due() int {
	now := sinceBoot()
	n := int((now - c.last) / c.tick)
	c.last += time.Duration(n) * c.tick
	return n
}
