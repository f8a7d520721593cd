package host

import (
	"cmp"
	"fmt"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// Timing is how long the session's timeouts are, which must be the same on all three servers. The zero value is the
// default profile.
type Timing struct {
	Ping    time.Duration // between pings; default 1 s, at least 50 ms, at most a third of Timeout
	Timeout time.Duration // a server not heard for so long is lost; default 10 s, at least 3 s
	// Lease is how long a principal serves after it last asked a voter that answered, and Fence the time that closing its
	// database may take. Both, with 0.1 % of clock error and a fifth of Ping, must not exceed Timeout: nobody else is
	// elected before that, so no two databases are open. Defaults: 7 and 2 tenths of Timeout; Lease is at least twice Ping.
	Lease, Fence time.Duration
}

// Fast is the profile for a failover within five seconds, on a network that is never silent for long.
func Fast() Timing {
	return Timing{Ping: 400 * time.Millisecond, Timeout: 3500 * time.Millisecond, Lease: 2 * time.Second, Fence: time.Second}
}

const (
	minTimeout   = 3 * time.Second
	ticksPerPing = 5
)

func (t Timing) withDefaults() Timing {
	t.Ping = cmp.Or(t.Ping, time.Second)
	t.Timeout = cmp.Or(t.Timeout, 10*time.Second)
	t.Lease = cmp.Or(t.Lease, t.Timeout*7/10)
	t.Fence = cmp.Or(t.Fence, t.Timeout*2/10)
	return t
}

// Validate says what is wrong with a Timing, and what would mend it.
func (t Timing) Validate() error {
	_, err := t.withDefaults().ticks()
	return err
}

func (t Timing) tick() time.Duration { return t.Ping / ticksPerPing }

// ticks turns durations into ticks. What a principal counts is rounded down, what a voter counts up.
func (t Timing) ticks() (mirror.Timing, error) {
	switch {
	case t.Ping < 50*time.Millisecond:
		return mirror.Timing{}, fmt.Errorf("ping interval %s is below 50ms: raise it, or leave it zero for the default", t.Ping)
	case t.Timeout < minTimeout:
		return mirror.Timing{}, fmt.Errorf("timeout %s is below %s, so that stalls would be taken for failures: raise it", t.Timeout, minTimeout)
	case t.Ping*3 > t.Timeout:
		return mirror.Timing{}, fmt.Errorf("ping interval %s is more than a third of timeout %s: lower Ping or raise Timeout", t.Ping, t.Timeout)
	case t.Lease < 2*t.Ping:
		return mirror.Timing{}, fmt.Errorf("lease %s is below two ping intervals of %s: raise Lease or lower Ping", t.Lease, t.Ping)
	case time.Duration(float64(t.Lease+t.Fence)*1.001/0.999)+t.tick() > t.Timeout:
		return mirror.Timing{}, fmt.Errorf("lease %s and fence %s together exceed timeout %s, by which another could serve too: lower them or raise Timeout", t.Lease, t.Fence, t.Timeout)
	}
	tick := t.tick()
	return mirror.Timing{
		Ping:    ticksPerPing,
		Timeout: mirror.Tick((t.Timeout + tick - 1) / tick),
		Lease:   mirror.Tick(t.Lease / tick),
	}, nil
}
