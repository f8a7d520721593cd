package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/f19126b3/dbmirror/examples/internal/operator"
	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner"
	"github.com/f19126b3/dbmirror/partner/pglog"
)

// settings are what a partner is told.
type settings struct {
	partner.Config
	database pglog.Config
	page     string // address of the operator's page; empty: none
}

// parse reads the command line, and the connection strings from the environment, where no list of processes shows them.
func parse(args []string, getenv func(string) string, stderr io.Writer) (s settings, err error) {
	cfg := &s.Config
	flags := flag.NewFlagSet("partner", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&cfg.Session, "session", "", "`identity` of the session, 32 hexadecimal digits: openssl rand -hex 16")
	self := flags.String("self", "", "this `server`: partner-a or partner-b")
	flags.StringVar(&cfg.Dir, "dir", "", "`directory` of state, hardened log and journal")
	dsn := flags.String("dsn", "", "database on this side; better in the environment as DBMIRROR_DSN")
	peerDSN := flags.String("peer-dsn", "", "database on the other side; better in the environment as DBMIRROR_PEER_DSN")
	flags.StringVar(&cfg.Listen, "listen", "", "`address` for the other servers, host:port")
	flags.StringVar(&cfg.Peer, "peer", "", "`address` of the other partner")
	flags.StringVar(&cfg.Witness, "witness", "", "`address` of the witness; none: no automatic failover")
	flags.BoolVar(&cfg.Establish, "establish", false, "make the session, with this partner as principal, when there is none")
	safety := flags.String("safety", "FULL", "`level` of a session that is made: FULL or OFF")
	profile := flags.String("profile", "default", "`name` of the timeouts, the same on all three servers: default or fast")
	flags.Int64Var(&cfg.Limits.LogBudget, "log-budget", 0, "`bytes` of log that the principal keeps for the mirror; 0: the default, 16 GiB")
	flags.BoolVar(&cfg.Limits.Replace, "replace", false, "let the first copy overwrite a mirror database that is not empty")
	operator.CredentialFlags(flags, &cfg.Credentials)
	flags.StringVar(&s.page, "http", "", "loopback `address` of the operator's page; none: no page")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	if flags.NArg() > 0 {
		return s, fmt.Errorf("%q is not a flag; see -help", flags.Arg(0))
	}
	s.database.DSN = pglog.Secret(cmp.Or(*dsn, getenv("DBMIRROR_DSN")))
	s.database.PeerDSN = pglog.Secret(cmp.Or(*peerDSN, getenv("DBMIRROR_PEER_DSN")))
	err = s.words(*self, *safety, *profile)
	return s, err
}

// words sets what is chosen from a list.
func (s *settings) words(self, safety, profile string) (err error) {
	cfg := &s.Config
	var known bool
	if cfg.Self, known = map[string]mirror.Server{"partner-a": mirror.PartnerA, "partner-b": mirror.PartnerB}[self]; !known {
		return fmt.Errorf("-self %q: want partner-a or partner-b", self)
	}
	if cfg.Safety, known = map[string]mirror.Safety{"FULL": mirror.SafetyFull, "OFF": mirror.SafetyOff}[safety]; !known {
		return fmt.Errorf("-safety %q: want FULL or OFF", safety)
	}
	switch {
	case s.database.DSN == "":
		return errors.New("the local database is not named; set DBMIRROR_DSN or -dsn")
	case s.database.PeerDSN == "":
		return errors.New("the other partner's database is not named; set DBMIRROR_PEER_DSN or -peer-dsn")
	case cfg.Listen == "":
		return errors.New("-listen is empty; name an address that the other servers reach, such as :7000")
	}
	if err := operator.CheckCredentials(cfg.Credentials); err != nil {
		return err
	}
	cfg.Timing, err = operator.Profile(profile)
	return err
}
