package pglog

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// TestBadBackendConfig: connection strings that cannot be, and such that contradict each other, are refused before
// anything is done.
func TestBadBackendConfig(t *testing.T) {
	good := Config{DSN: "postgres://u:hidden@127.0.0.1:1/db", PeerDSN: "postgres://u:hidden@127.0.0.1:2/db"}
	_, err := New(good)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		edit        func(*Config)
		cause, mend string
	}{
		"no DSN":             {func(c *Config) { c.DSN = "" }, "DSN is empty", "connection string of the database on this side"},
		"no PeerDSN":         {func(c *Config) { c.PeerDSN = "" }, "PeerDSN is empty", "connection string of the database on the other side"},
		"unreadable DSN":     {func(c *Config) { c.DSN = "postgres://u:hidden@h:port/db" }, "DSN: the connection string (not shown) is not valid", "postgres://user@host:port/database"},
		"unreadable PeerDSN": {func(c *Config) { c.PeerDSN = "host=h password=hidden port" }, "PeerDSN: the connection string", "key=value"},
		"DSN of two servers": {func(c *Config) { c.DSN = "postgres://u:hidden@a,b/db" }, "names several servers", "name the one that is administered"},
		"lent without TLS": {func(c *Config) { c.DSN, c.ThroughPartner = "postgres://u:hidden@db/x?sslmode=require", true },
			"without TLS, which sslmode forbids", "run the partner on the server's machine"},
		"one database": {func(c *Config) { c.PeerDSN = c.DSN }, "lead to the same database", "PeerDSN for the other"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			c.edit(&cfg)
			_, err := New(cfg)
			require.ErrorIs(t, err, ErrConfig)
			require.ErrorContains(t, err, c.cause)
			require.ErrorContains(t, err, c.mend)
			require.NotContains(t, err.Error(), "hidden", "a password is shown")
			require.NotContains(t, err.Error(), "\n", "one error on one line")
			require.NotContains(t, fmt.Sprintf("%+v %#v", cfg, cfg), "hidden", "a password is shown")
		})
	}
}

// TestErrorsHaveTheirReasons: what trying again cannot mend suspends the session for the reason that people look up.
func TestErrorsHaveTheirReasons(t *testing.T) {
	full := &pgconn.PgError{Code: codeDiskFull, Message: "no space left on device"}
	for _, c := range []struct {
		err  error
		want mirror.Reason
	}{
		{gap(GapIdentity, "", ""), mirror.ReasonIdentity},
		{gap(GapDatabase, "", ""), mirror.ReasonIdentity},
		{gap(GapSlotMissing, "", ""), mirror.ReasonLogGap},
		{gap(GapTrimmed, "", ""), mirror.ReasonLogGap},
		{&RedoError{Action: "insert", Err: full}, mirror.ReasonRedoError},
		{fmt.Errorf("redo: %w", ErrNoProgress), mirror.ReasonIdentity},
		{fmt.Errorf("%w (it holds t)", ErrMirrorNotEmpty), mirror.ReasonPreflight},
		{fmt.Errorf("copy: %w", full), mirror.ReasonDiskFull},
		{&SlotActiveError{Slot: "s"}, mirror.ReasonNone},
		{ErrRedoneElsewhere, mirror.ReasonNone},
		{&pgconn.PgError{Code: "57P01"}, mirror.ReasonNone},
		{nil, mirror.ReasonNone},
	} {
		err := withReason(c.err)
		require.Equal(t, c.want, backend.ReasonOf(err), "%v", c.err)
		require.ErrorIs(t, err, c.err)
		if c.err != nil {
			require.Equal(t, c.err.Error(), err.Error())
		}
	}
	require.ErrorAs(t, withReason(fmt.Errorf("copy: %w", full)), &full)
}
