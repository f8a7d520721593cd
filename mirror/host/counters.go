package host

import (
	"sync"

	"github.com/f19126b3/dbmirror/mirror"
)

// Counts are what has happened since the host was made.
type Counts struct {
	Transitions [6][6]uint64 // by mirror.State from and to
	Roles       [50]uint64   // role changes by mirror.Reason
	Refused     uint64       // votes and commands
	LastState   mirror.Entry
}

type counters struct {
	mu struct {
		sync.Mutex
		Counts
	}
}

func (c *counters) entry(e mirror.Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e.Kind {
	case mirror.EntryState:
		c.mu.Transitions[e.From][e.To]++
		c.mu.LastState = e
	case mirror.EntryRole:
		c.mu.Roles[e.Reason]++
	case mirror.EntryRefused:
		c.mu.Refused++
	}
}

// Counts returns what has happened so far.
func (h *Host) Counts() Counts {
	h.counts.mu.Lock()
	defer h.counts.mu.Unlock()
	return h.counts.mu.Counts
}
