package endpoint

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"strings"
)

// Role is the part an identity has in its session.
type Role string

// The roles. The two partners have names of their own because who of them is principal changes.
const (
	PartnerA Role = "partner-a"
	PartnerB Role = "partner-b"
	Witness  Role = "witness"
	Admin    Role = "admin"
)

func (r Role) valid() bool {
	return r == PartnerA || r == PartnerB || r == Witness || r == Admin
}

// Identity says who somebody is: one role in one session.
type Identity struct {
	Session string // 32 lower-case hexadecimal digits
	Role    Role
}

// String returns session and role with a slash between them.
func (i Identity) String() string { return i.Session + "/" + string(i.Role) }

// URI is the identity as it stands in a certificate. The domain is the trust domain, see [ServerConfig].
func (i Identity) URI(domain string) *url.URL {
	return &url.URL{Scheme: "spiffe", Host: domain, Path: "/mirror/" + i.String()}
}

// ParseIdentity reads what URI returns, and nothing else: another domain, an escape, a query or a port is an error.
func ParseIdentity(domain string, uri *url.URL) (Identity, error) {
	rest, ok := strings.CutPrefix(uri.Path, "/mirror/")
	if !ok {
		return Identity{}, fmt.Errorf("parse identity %q: the path does not begin with /mirror/", uri)
	}
	identity, err := parseIdentity(rest)
	if err != nil {
		return Identity{}, fmt.Errorf("parse identity %q: %w", uri, err)
	}
	if uri.String() != identity.URI(domain).String() {
		return Identity{}, fmt.Errorf("parse identity %q: it is not %s", uri, identity.URI(domain))
	}
	return identity, nil
}

func parseIdentity(s string) (Identity, error) {
	session, role, _ := strings.Cut(s, "/")
	identity := Identity{Session: session, Role: Role(role)}
	return identity, identity.validate()
}

func (i Identity) validate() error {
	if !isSession(i.Session) {
		return fmt.Errorf("session %q is not 32 lower-case hexadecimal digits", i.Session)
	}
	if !i.Role.valid() {
		return fmt.Errorf("role %q is none of partner-a, partner-b, witness and admin", i.Role)
	}
	return nil
}

func isSession(s string) bool {
	return len(s) == 32 && strings.Trim(s, "0123456789abcdef") == ""
}

// DefaultDomain is the trust domain where none is configured.
const DefaultDomain = "dbmirror"

// domainOrDefault checks that a trust domain can stand in a URI and in a TLS server name.
func domainOrDefault(domain string) (string, error) {
	if domain == "" {
		return DefaultDomain, nil
	}
	const allowed = "abcdefghijklmnopqrstuvwxyz0123456789-."
	last := domain[len(domain)-1]
	if len(domain) > 200 || strings.Trim(domain, allowed) != "" || last == '.' || last >= '0' && last <= '9' {
		return "", fmt.Errorf("domain %q is not a lower-case DNS name", domain)
	}
	return domain, nil
}

// serverName is what a client asks for in TLS.
func serverName(session, domain string) string { return session + "." + domain }

// Kind is a kind of message, or the name of a stream: 1 to 32 lower-case letters, digits and hyphens. It is the last part of the path.
type Kind string

func (k Kind) valid() bool {
	return len(k) >= 1 && len(k) <= 32 && strings.Trim(string(k), "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// PathPrefix is where a Server must be mounted in a service that listens already. A message of kind k for session s is
// POST /dbmirror/v1/<s>/<k>; a stream of name k is a GET there that upgrades the connection.
const PathPrefix = "/dbmirror/v1/"

func pathOf(session string, kind Kind) string { return PathPrefix + session + "/" + string(kind) }

func parsePath(path string) (session string, kind Kind, ok bool) {
	rest, ok := strings.CutPrefix(path, PathPrefix)
	session, last, _ := strings.Cut(rest, "/")
	return session, Kind(last), ok && isSession(session) && Kind(last).valid()
}

// Table says who may say what to a server, or open which streams. What is not in it is refused.
type Table map[Role]map[Kind]bool

func (t Table) clone() Table {
	copied := make(Table, len(t))
	for role, kinds := range t {
		copied[role] = maps.Clone(kinds)
	}
	return copied
}

func (t Table) validate() error {
	for role, kinds := range t {
		if !role.valid() {
			return fmt.Errorf("allow: role %q is none of partner-a, partner-b, witness and admin", role)
		}
		for kind := range kinds {
			if !kind.valid() {
				return fmt.Errorf("allow: kind %q is not 1 to 32 lower-case letters, digits and hyphens", kind)
			}
		}
	}
	return nil
}

// Handler receives one message. The body is its own. The context ends with the connection, with [Limits].Handler, and
// soon after Serve's. A reply has at most [MaxBody] bytes and may be nil. An error from [Deny] is shown to the sender;
// of any other the sender learns only that there was one, and the text is logged here. It is called concurrently.
type Handler func(ctx context.Context, from Identity, kind Kind, body []byte) (reply []byte, err error)

// MaxBody is the greatest length of a body in either direction, in bytes.
const MaxBody = 64 << 10
