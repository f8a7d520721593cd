package host

import (
	"sync"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// Counts are what has happened since the host was made.
type Counts struct {
	Transitions  [mirror.StateDisconnected + 1][mirror.StateDisconnected + 1]uint64 // by mirror.State from and to
	Automatic    uint64                                                             // times this server became principal by an automatic failover
	Manual       uint64                                                             // by a manual failover
	Forced       uint64                                                             // by forced service
	Refused      uint64                                                             // votes and commands
	LastChange   time.Time                                                          // of the shown state; zero: none yet
	ExposedTotal time.Duration                                                      // as principal, acknowledging without a mirror
	Received     [mirror.Witness + 1]Received                                       // by mirror.Server
	Replied      [mirror.Witness + 1]Replied                                        // by mirror.Server
}

// Received is what came from another server.
type Received struct {
	Messages, Bytes uint64
	Timeouts        uint64 // times it was not heard within the timeout
}

// Replied is what was sent to another server as the reply to its messages. What was sent in other ways its client counts.
type Replied struct {
	Messages, Bytes uint64
}

type counters struct {
	mu struct {
		sync.Mutex
		Counts
		shown mirror.Status
		since time.Time // of shown
	}
}

// Counts returns what has happened so far.
func (h *Host) Counts() Counts {
	h.counts.mu.Lock()
	defer h.counts.mu.Unlock()
	h.counts.exposedLocked(time.Now())
	return h.counts.mu.Counts
}

func (c *counters) entry(l Line) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e := l.Entry; e.Kind {
	case mirror.EntryState:
		c.mu.Transitions[e.From][e.To]++
		c.mu.LastChange = l.At
	case mirror.EntryRole:
		c.roleLocked(e)
	case mirror.EntryRefused:
		c.mu.Refused++
	}
}

func (c *counters) roleLocked(e mirror.Entry) {
	if e.Role != mirror.RolePrincipal {
		return
	}
	switch e.Reason {
	case mirror.ReasonAutomaticFailover:
		c.mu.Automatic++
	case mirror.ReasonManualFailover:
		c.mu.Manual++
	case mirror.ReasonForcedService:
		c.mu.Forced++
	}
}

// show takes in what the session shows after a step.
func (c *counters) show(st mirror.Status) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.exposedLocked(now)
	for p := range c.mu.shown.Peers {
		if c.mu.shown.Peers[p].Connected && !st.Peers[p].Connected && !st.Peers[p].Left {
			c.mu.Received[p].Timeouts++
		}
	}
	c.mu.shown = st
}

func (c *counters) exposedLocked(now time.Time) {
	if c.mu.shown.Exposed {
		c.mu.ExposedTotal += now.Sub(c.mu.since)
	}
	c.mu.since = now
}

func (c *counters) received(from mirror.Server, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.Received[from].Messages++
	c.mu.Received[from].Bytes += uint64(bytes)
}

func (c *counters) replied(to mirror.Server, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.Replied[to].Messages++
	c.mu.Replied[to].Bytes += uint64(bytes)
}
