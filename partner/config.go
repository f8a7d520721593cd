package partner

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
	"github.com/f19126b3/dbmirror/partner/pglog"
)

// Config is what a Partner is made with. Session, Self, Dir, DSN, PeerDSN, Listen and Peer are required; the rest has
// defaults. Nothing here changes while the partner runs.
type Config struct {
	Session string        // 32 hexadecimal digits, the same on all three servers
	Self    mirror.Server // PartnerA or PartnerB
	Dir     string        // of the state file, the hardened log and the journal; nobody else's, mode 0700

	// DSN leads to the database that is mirrored, on this side; PeerDSN to the one on the other side, as reachable from
	// here. Both roles must be superusers.
	DSN, PeerDSN pglog.Secret

	Listen  string // address of this endpoint, host:port; empty when Handler is mounted elsewhere
	Peer    string // address of the other partner's endpoint
	Witness string // address of the witness's endpoint; empty: no witness

	Credentials endpoint.Credentials
	Domain      string // trust domain of the identities; default endpoint.DefaultDomain

	// Establish makes the session when there is none yet, with this partner as principal. It has no effect afterwards.
	Establish bool
	Safety    mirror.Safety // of a session that is established; default SafetyFull

	Timing  host.Timing
	Options mirror.Options
	Limits  Limits
	Logger  *slog.Logger // default: nothing is logged
}

// Limits are the bounds of what mirroring may cost.
type Limits struct {
	// LogBudget is how much log, in bytes, the principal's server may keep for the mirror. Beyond it the session is
	// SUSPENDED (log budget), the log is given up and the mirror must be copied anew. Default 16 GiB.
	LogBudget int64
	// RedoQueue bounds the mirror's hardened log on disk, in bytes. At the bound the mirror stops reading. Default 16 GiB.
	RedoQueue int64
	// Grace is how long clients may finish what they do when the principal hands over. Default 500 ms.
	Grace time.Duration
	// CopyWorkers is how many tables are copied at a time. Default 2.
	CopyWorkers int
	// Replace lets the first copy overwrite a mirror database that is not empty.
	Replace bool
}

// ErrConfig is wrapped by errors about a Config.
var ErrConfig = errors.New("invalid partner configuration")

func (c Config) withDefaults() Config {
	c.Safety = cmp.Or(c.Safety, mirror.SafetyFull)
	c.Limits.LogBudget = cmp.Or(c.Limits.LogBudget, 16<<30)
	c.Limits.RedoQueue = cmp.Or(c.Limits.RedoQueue, 16<<30)
	c.Limits.Grace = cmp.Or(c.Limits.Grace, 500*time.Millisecond)
	c.Limits.CopyWorkers = cmp.Or(c.Limits.CopyWorkers, 2)
	c.Options.SyncLag = cmp.Or(c.Options.SyncLag, 16<<20)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	for _, required := range []struct{ name, value string }{
		{"Session", c.Session}, {"Dir", c.Dir}, {"DSN", string(c.DSN)}, {"PeerDSN", string(c.PeerDSN)}, {"Peer", c.Peer},
	} {
		if required.value == "" {
			return fmt.Errorf("%w: %s is empty", ErrConfig, required.name)
		}
	}
	switch {
	case !c.Self.IsPartner():
		return fmt.Errorf("%w: Self is %s, want partner-a or partner-b", ErrConfig, c.Self)
	case c.Safety != mirror.SafetyFull && c.Safety != mirror.SafetyOff:
		return fmt.Errorf("%w: Safety is %s, want FULL or OFF", ErrConfig, c.Safety)
	case c.DSN == c.PeerDSN:
		return fmt.Errorf("%w: DSN and PeerDSN lead to the same database", ErrConfig)
	case c.Peer == c.Witness || c.Listen != "" && (c.Listen == c.Peer || c.Listen == c.Witness):
		return fmt.Errorf("%w: Listen, Peer and Witness must be three addresses", ErrConfig)
	case c.Limits.LogBudget < 1<<20 || c.Limits.RedoQueue < 1<<20:
		return fmt.Errorf("%w: LogBudget and RedoQueue must be at least 1 MiB", ErrConfig)
	}
	return nil
}
