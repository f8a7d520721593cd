package witness

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"

	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
)

// Config is what a Witness is made with. Dir and Sessions are required. Nothing here changes while the witness runs.
type Config struct {
	Dir      string      // of the state files, one a session; nobody else's, made with mode 0700
	Listen   string      // address of the endpoint, host:port; empty when Handler is mounted elsewhere
	Domain   string      // trust domain of the identities; default endpoint.DefaultDomain
	Timing   host.Timing // of sessions that have none of their own; the partners' must be the same
	Sessions []Session
	Logger   *slog.Logger // default: nothing is logged
}

// Session is one session that a Witness belongs to.
type Session struct {
	ID                 string // 32 hexadecimal digits, the same on all three servers
	PartnerA, PartnerB string // addresses of their endpoints, host:port
	Credentials        endpoint.Credentials
	Timing             host.Timing // the zero value: that of the Config
}

// ErrConfig is wrapped by errors about a Config.
var ErrConfig = errors.New("invalid witness configuration")

func (c Config) withDefaults() Config {
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	return c
}

func (c Config) validate() error {
	switch {
	case c.Dir == "":
		return fmt.Errorf("%w: Dir is empty; name a directory for the state files", ErrConfig)
	case len(c.Sessions) == 0:
		return fmt.Errorf("%w: Sessions is empty; name at least one", ErrConfig)
	}
	seen := map[host.SessionID]bool{}
	for i, s := range c.Sessions {
		id, err := host.ParseSessionID(s.ID)
		switch {
		case err != nil:
			return fmt.Errorf("%w: Sessions[%d]: %w", ErrConfig, i, err)
		case seen[id]:
			return fmt.Errorf("%w: Sessions[%d]: session %s is named twice; each has one identity of its own", ErrConfig, i, id)
		case s.PartnerA == "" || s.PartnerB == "":
			return fmt.Errorf("%w: session %s: an address is empty; name PartnerA and PartnerB", ErrConfig, id)
		case s.PartnerA == s.PartnerB || c.Listen != "" && (s.PartnerA == c.Listen || s.PartnerB == c.Listen):
			return fmt.Errorf("%w: session %s: Listen, PartnerA and PartnerB must be three addresses", ErrConfig, id)
		case s.Credentials.Plaintext != c.Sessions[0].Credentials.Plaintext:
			return fmt.Errorf("%w: session %s: Plaintext holds for all sessions at one address, or for none", ErrConfig, id)
		}
		seen[id] = true
	}
	return nil
}
