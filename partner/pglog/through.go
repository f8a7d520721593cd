package pglog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/pglog/tunnel"
)

var _ backend.Acceptor = (*database)(nil)

// errNotLent is what the other partner hears that wants to reach a server which is not lent to it.
var errNotLent = errors.New("the other partner does not let this one reach its server: set ThroughPartner on both sides")

// openTunnel makes PeerDSN lead to a socket of our own, and from there through the other partner to its server.
func (d *database) openTunnel() error {
	entrance, err := tunnel.Listen(d.env.Dir, d.env.Dial, d.env.Logger)
	if err != nil {
		return err
	}
	if d.cfg.PeerDSN, err = throughSocket(d.cfg.PeerDSN, entrance.Dir(), tunnel.Port); err != nil {
		return errors.Join(fmt.Errorf("PeerDSN: %w", err), entrance.Close())
	}
	d.tunnel = entrance
	return nil
}

func (d *database) closeTunnel() {
	if d.tunnel != nil {
		_ = d.tunnel.Close() // whatever it says of its socket, nobody uses that any more
	}
}

// Accept connects the other partner to this side's server, and to nothing else, where ThroughPartner says so.
func (d *database) Accept(ctx context.Context, conn net.Conn) error {
	if !d.cfg.ThroughPartner {
		return errors.Join(errNotLent, tunnel.Refuse(ctx, conn, errNotLent.Error()))
	}
	return tunnel.Exit(ctx, conn, d.cfg.dialServer)
}

// dialServer connects to the server of this side as its DSN says, but for TLS.
func (c Config) dialServer(ctx context.Context) (net.Conn, error) {
	cfg, err := parseDSN(c.DSN)
	if err != nil {
		return nil, err
	}
	network, address := pgconn.NetworkAddress(cfg.Host, cfg.Port)
	return cfg.DialFunc(ctx, network, address)
}

// checkLending says whether this side's server may be lent: the tunnel reaches it without TLS.
func checkLending(dsn Secret) error {
	cfg, err := parseDSN(dsn)
	if err != nil {
		return err
	}
	plain := cfg.TLSConfig == nil
	for _, f := range cfg.Fallbacks {
		plain = plain || f.TLSConfig == nil
	}
	if !plain && !onThisMachine(cfg) {
		return errors.New("with ThroughPartner the partner reaches its server without TLS, which sslmode forbids: run the partner on the " +
			"server's machine and name that as localhost or by its Unix socket, or leave out ThroughPartner")
	}
	return nil
}

func onThisMachine(cfg *pgx.ConnConfig) bool {
	network, _ := pgconn.NetworkAddress(cfg.Host, cfg.Port)
	addr, err := netip.ParseAddr(cfg.Host)
	return network == "unix" || cfg.Host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

// throughSocket is a connection string that leads to the same role and database, with the same settings, by a Unix socket
// in a directory, whatever server it named before. There is no TLS on such a socket.
func throughSocket(dsn Secret, dir string, port int) (Secret, error) {
	cfg, err := parseDSN(dsn)
	if err != nil {
		return "", err
	}
	words := map[string]string{
		"host": dir, "port": strconv.Itoa(port), "sslmode": "disable", "channel_binding": "disable",
		"user": cfg.User, "dbname": cfg.Database,
		"password": cfg.Password, // which may have stood in a file, under the name of the server
	}
	if seconds := int64(cfg.ConnectTimeout.Seconds()); seconds > 0 {
		words["connect_timeout"] = strconv.FormatInt(seconds, 10)
	}
	if cfg.RequireAuth != "" {
		words["require_auth"] = cfg.RequireAuth // which the server at the other end still asks, or does not
	}
	maps.Copy(words, cfg.RuntimeParams)
	var text strings.Builder
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	for _, name := range slices.Sorted(maps.Keys(words)) {
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == '=' }) {
			return "", fmt.Errorf("the connection string (not shown) has the setting %q, which cannot be", name)
		}
		fmt.Fprintf(&text, "%s='%s' ", name, quote.Replace(words[name]))
	}
	return Secret(text.String()), nil
}
