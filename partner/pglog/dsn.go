package pglog

import (
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// parseDSN keeps the parser's error to itself: it may quote the text.
func parseDSN(dsn Secret) (*pgx.ConnConfig, error) {
	base, err := pgx.ParseConfig(string(dsn))
	if err != nil {
		return nil, errors.New("the connection string (not shown) is not valid: give a URL postgres://user@host:port/database or key=value words")
	}
	for _, f := range base.Fallbacks {
		if f.Host != base.Host || f.Port != base.Port {
			return nil, errors.New("the connection string (not shown) names several servers: name the one that is administered")
		}
	}
	if base.User == "" {
		return nil, errors.New("the connection string (not shown) names no role to connect as, and the system has no name for who runs " +
			"this program, or the string says user= and nothing: name the role")
	}
	if base.Database == "" {
		base.Database = base.User
	}
	base.ValidateConnect = nil // target_session_attrs is for clients
	return base, nil
}

// libpqEnv returns the environment for a program that uses libpq and shall connect as dsn says. Everything goes by the
// environment, which other users of the machine cannot read as they can a command line. Parameters that only pgx knows
// are left behind.
func libpqEnv(environ []string, dsn Secret) ([]string, error) {
	cfg, err := parseDSN(dsn)
	if err != nil {
		return nil, err
	}
	env := slices.DeleteFunc(slices.Clone(environ), func(v string) bool {
		return slices.ContainsFunc([]string{"PGHOSTADDR=", "PGSERVICE=", "PGOPTIONS="}, func(name string) bool {
			return strings.HasPrefix(v, name)
		})
	})
	env = append(env, "PGHOST="+cfg.Host, "PGPORT="+strconv.Itoa(int(cfg.Port)), "PGUSER="+cfg.User,
		"PGDATABASE="+cfg.Database, "PGAPPNAME="+namePrefix+"baseline", "LC_ALL=C",
		"PGSSLMODE="+sslMode(cfg), "PGCHANNELBINDING="+cfg.ChannelBinding)
	optional := map[string]string{"PGPASSWORD": cfg.Password, "PGOPTIONS": cfg.RuntimeParams["options"], "PGREQUIREAUTH": cfg.RequireAuth}
	for name, value := range dsnWords(string(dsn)) {
		switch name {
		case "sslrootcert", "sslcert", "sslkey":
			optional["PG"+strings.ToUpper(name)] = value
		}
	}
	for name, value := range optional {
		if value != "" {
			env = append(env, name+"="+value)
		}
	}
	return env, nil
}

// sslMode is the sslmode that led to a configuration, wherever it was written. What was made of it is looked at and not
// the text, so that no program connects with less than the library does.
func sslMode(cfg *pgx.ConnConfig) string {
	switch tls := cfg.TLSConfig; {
	case tls == nil && len(cfg.Fallbacks) == 0:
		return "disable"
	case tls == nil:
		return "allow"
	case len(cfg.Fallbacks) != 0:
		return "prefer"
	case !tls.InsecureSkipVerify:
		return "verify-full"
	case tls.VerifyPeerCertificate != nil:
		return "verify-ca"
	}
	return "require"
}

// dsnWords reads the parameters of a connection string in either form, which parseDSN has found to be valid. pgx does not
// tell them, but for those that it sends to the server.
func dsnWords(dsn string) map[string]string {
	if strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://") {
		return urlWords(dsn)
	}
	// name = value, where a value with blanks stands in quotes and a backslash takes the next character as it is.
	word := regexp.MustCompile(`(?s)([^=]*)=[ \t-\r]*('(?:[^'\\]|\\.)*'|(?:[^ \t-\r\\]|\\.)*\\?)`)
	escaped := regexp.MustCompile(`(?s)\\(.?)`)
	words := map[string]string{}
	for _, match := range word.FindAllStringSubmatch(dsn, -1) {
		value := match[2]
		if strings.HasPrefix(value, "'") {
			value = value[1 : len(value)-1]
		}
		words[strings.Trim(match[1], " \t\n\v\f\r")] = escaped.ReplaceAllString(value, "$1")
	}
	return words
}

// urlWords reads what stands behind the question mark of a connection URL as libpq and pgx do: up to the first @ all is
// role and password, a plus sign is no blank, and blanks around a name or a value do not count.
func urlWords(dsn string) map[string]string {
	_, rest, _ := strings.Cut(dsn, "://")
	if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
		rest = rest[i+1:]
	}
	if end := strings.IndexByte(rest, ']'); strings.HasPrefix(rest, "[") && end > 0 {
		rest = rest[end:]
	}
	words := map[string]string{}
	_, query, _ := strings.Cut(rest, "?")
	for pair := range strings.SplitSeq(query, "&") {
		if name, value, is := strings.Cut(pair, "="); is { // or it is what follows the last &
			words[percentDecoded(name)] = percentDecoded(value)
		}
	}
	return words
}

func percentDecoded(s string) string {
	// Its only error is a percent sign that nothing good follows, which parseDSN has refused.
	decoded, _ := url.PathUnescape(strings.Trim(s, " "))
	return decoded
}
