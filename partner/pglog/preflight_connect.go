package pglog

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/f19126b3/dbmirror/partner/pglog/tunnel"
)

// ConnectFinding turns the error of a failed connection to a server ("principal" or "mirror") into a fatal finding that
// says what in the DSN, or at the server, has to change. The text holds neither the DSN nor its password.
func ConnectFinding(server string, err error) Finding {
	return Finding{Severity: Fatal, Code: CodeConnect, Server: server, Text: connectCause(err)}
}

func connectCause(err error) string {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return refusalCause(refused)
	}
	var lookup *net.DNSError
	var syntax *pgconn.ParseConfigError
	var network *net.OpError
	switch {
	case errors.Is(err, context.Canceled):
		return "it was broken off"
	case errors.As(err, &syntax):
		return "the DSN cannot be read; write it as postgres://user@host:port/database or as key=value pairs"
	case errors.As(err, &lookup):
		return "the host " + lookup.Name + " of the DSN is not known to name resolution"
	case errors.Is(err, context.DeadlineExceeded) || pgconn.Timeout(err):
		return "the server did not answer in time; check host, port and the firewall between"
	case errors.As(err, &network):
		return "nothing listens at " + network.Addr.String() + ", or it cannot be reached; check host, port and listen_addresses"
	}
	return tlsCause(err)
}

// tlsCause explains why TLS did not come about. The texts of crypto/x509 name hosts, times and authorities only.
func tlsCause(err error) string {
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case strings.Contains(err.Error(), "server refused TLS connection"): // pgconn has no error of its own for it
		return "the server does without TLS, which sslmode of the DSN demands; set ssl = on there, or another sslmode"
	case errors.As(err, &authority):
		return "no authority that is known here has issued the server's certificate; name the one that has as sslrootcert in the DSN"
	case errors.As(err, &name):
		return name.Error() + "; use a name that is in the server's certificate as host of the DSN"
	case errors.As(err, &invalid):
		return invalid.Error() + "; give the server a certificate that is valid"
	}
	return "the connection failed before the server answered; check sslmode and the certificates of the DSN"
}

// refusalCause explains an answer of the server. Its message names user, database or address, never a password.
func refusalCause(refused *pgconn.PgError) string {
	if refused.Code == tunnel.CodeNoWay {
		return refused.Message
	}
	mend := ""
	switch refused.Code {
	case "28P01":
		mend = "; the role or its password in the DSN is wrong"
	case "28000":
		mend = "; the role does not exist, may not log in, or pg_hba.conf has no line that admits it"
	case "3D000":
		mend = "; the DSN names a database that does not exist"
	case "42501":
		mend = "; the role lacks the right to connect to the database"
	case "53300":
		mend = "; raise max_connections or the limit of the database or role"
	case "57P03":
		mend = "; the server is starting or stopping"
	}
	return "the server refuses: " + refused.Message + " (SQLSTATE " + refused.Code + ")" + mend
}
