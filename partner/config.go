package partner

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// Config is what a Partner is made with. Session, Self, Dir, Backend, Peer, Credentials and, unless Handler is mounted,
// Listen are required; the rest has defaults. Nothing here changes while the partner runs.
type Config struct {
	Session string        // 32 hexadecimal digits, the same on all three servers
	Self    mirror.Server // PartnerA or PartnerB
	Dir     string        // of the state file, the hardened log and the journal; nobody else's, mode 0700

	// Backend leads to the database that is mirrored: that of pglog.New for one of PostgreSQL.
	Backend backend.Backend

	Listen  string // address of this endpoint, host:port; empty when Handler is mounted elsewhere
	Peer    string // address of the other partner's endpoint
	Witness string // address of the witness's endpoint; empty: no witness

	Credentials endpoint.Credentials
	Domain      string // trust domain of the identities; default endpoint.DefaultDomain

	// Establish makes the session when there is none yet, with this partner as principal. It has no effect afterwards.
	Establish bool
	Safety    mirror.Safety // of a session that is established; default SafetyFull

	Timing  host.Timing    // the same on all three servers; default as its fields say
	Options mirror.Options // default: all off, SyncLag 16 MiB
	Limits  Limits
	Logger  *slog.Logger // default: nothing is logged
}

// Limits are the bounds of what mirroring may cost.
type Limits struct {
	// LogBudget is how much log, in bytes, the principal's server may keep for the mirror. Beyond it the session is
	// SUSPENDED (log budget), the log is given up and the mirror must be copied anew. Default 16 GiB.
	LogBudget int64
	// RedoQueue bounds the mirror's hardened log on disk, in bytes. At the bound the mirror stops reading. A transaction
	// that is larger can never be hardened, which Status.Trouble says then. Default 16 GiB.
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
	for _, part := range []func(Config) error{Config.validateNames, Config.validateAddresses, Config.validateChoices, Config.validateLimits} {
		if err := part(c); err != nil {
			return fmt.Errorf("%w: %w", ErrConfig, err)
		}
	}
	return nil
}

func (c Config) validateNames() error {
	for _, required := range []struct{ name, value, mend string }{
		{"Session", c.Session, "make one for the three servers with `openssl rand -hex 16`"},
		{"Dir", c.Dir, "name a directory of this partner's own"},
		{"Peer", c.Peer, "give the address of the other partner's endpoint"},
	} {
		if required.value == "" {
			return fmt.Errorf("%s is empty: %s", required.name, required.mend)
		}
	}
	if c.Backend == nil {
		return errors.New("field Backend is empty: give the database on this side, as pglog.New makes it for one of PostgreSQL")
	}
	return nil
}

func (c Config) validateAddresses() error {
	seen := map[string]string{}
	for _, address := range []struct{ name, value string }{{"Listen", c.Listen}, {"Peer", c.Peer}, {"Witness", c.Witness}} {
		if address.value == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(address.value); err != nil {
			return fmt.Errorf("%s: %w: write it as host:port", address.name, err)
		}
		if other, taken := seen[address.value]; taken {
			return fmt.Errorf("%s and %s are both %s: the three servers have an address each", other, address.name, address.value)
		}
		seen[address.value] = address.name
	}
	return nil
}

func (c Config) validateChoices() error {
	switch {
	case !c.Self.IsPartner():
		return fmt.Errorf("field Self is %s: set it to partner-a on one side and partner-b on the other", c.Self)
	case c.Safety != mirror.SafetyFull && c.Safety != mirror.SafetyOff:
		return fmt.Errorf("field Safety is %s: set it to FULL or OFF", c.Safety)
	case c.Options.ServeAtOnce && c.Witness != "":
		return errors.New("Options.ServeAtOnce contradicts Witness: with a witness a restarted principal always asks; leave out one of them")
	}
	return c.Timing.Validate()
}

func (c Config) validateLimits() error {
	const least, most = 1 << 20, 64
	switch l := c.Limits; {
	case l.LogBudget < least || l.RedoQueue < least:
		return fmt.Errorf("Limits.LogBudget is %d and RedoQueue %d bytes: give each 1 MiB or more, or zero for the default", l.LogBudget, l.RedoQueue)
	case l.Grace < 0 || l.Grace > time.Minute:
		return fmt.Errorf("Limits.Grace is %s: give up to a minute, or zero for the default", l.Grace)
	case l.CopyWorkers < 1 || l.CopyWorkers > most:
		return fmt.Errorf("Limits.CopyWorkers is %d: give 1 to %d, or zero for the default", l.CopyWorkers, most)
	}
	return nil
}
