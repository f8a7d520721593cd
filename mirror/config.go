package mirror

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/f19126b3/dbmirror/mirror/internal/seeded"
)

// Config is what a session is made with. It does not change while the session runs.
type Config struct {
	Self        Server
	Incarnation Incarnation // of the hard state; used when there is none yet
	Timing      Timing
	Options     Options
	// Clock is where the count of ticks begins: a random number, so that a lease granted to an earlier life of this
	// server is not taken for one of the present life.
	Clock  Tick
	Seeded seeded.Error // zero but in exploration
}

// Timing is how long things take, in ticks.
type Timing struct {
	Ping    Tick // between pings; default 1
	Timeout Tick // a peer not heard for so long is lost; also how long a voter keeps its promise. Default 10
	// Lease is how long a principal may serve after it asked for a lease that was granted. It must be shorter than
	// Timeout by what fencing takes: (Lease+fence)(1+r)/(1-r) <= Timeout. Zero: no leases, for exploration, whose safety
	// must not rest on any clock.
	Lease    Tick
	Campaign Tick // an election not won in so long is given up. Default Timeout
	Drain    Tick // a manual failover not done in so long is given up. Default 3 x Timeout
}

// Options are choices of the user.
type Options struct {
	StayAlone    bool // a principal that is exposed and without quorum goes on serving (forced service is then not honest)
	ServeAtOnce  bool // without a witness, a restarted principal serves without asking its partner
	MirrorClosed bool // a mirror's database refuses readers
	SyncLag      LSN  // commits begin to wait for a mirror that is this near to the end of log, in bytes; 0: at any distance (package partner puts 16 MiB for it)
}

func (t Timing) withDefaults() Timing {
	t.Ping = cmp.Or(t.Ping, 1)
	t.Timeout = cmp.Or(t.Timeout, 10)
	t.Campaign = cmp.Or(t.Campaign, t.Timeout)
	t.Drain = cmp.Or(t.Drain, 3*t.Timeout)
	return t
}

// ErrConfig is wrapped by every error about a Config.
var ErrConfig = errors.New("invalid session configuration")

func (c Config) validate() error {
	switch {
	case c.Self == Nobody || c.Self >= numServers:
		return fmt.Errorf("%w: Self is %s, want partner-a, partner-b or witness", ErrConfig, c.Self)
	case c.Incarnation == 0:
		return fmt.Errorf("%w: Incarnation is zero, want a random number", ErrConfig)
	case c.Timing.Lease >= c.Timing.Timeout:
		return fmt.Errorf("%w: Lease of %d ticks is not below Timeout of %d", ErrConfig, c.Timing.Lease, c.Timing.Timeout)
	case c.Timing.Ping >= c.Timing.Timeout:
		return fmt.Errorf("%w: Ping of %d ticks is not below Timeout of %d", ErrConfig, c.Timing.Ping, c.Timing.Timeout)
	}
	return nil
}

// breaks says whether exploration has planted an error in this session, to show that it would find it. Each of them
// leaves out one rule, where that rule is decided.
func (s *Session) breaks(e seeded.Error) bool { return s.cfg.Seeded.Has(e) }
