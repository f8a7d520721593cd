package pglog

import (
	"context"
	"errors"
	"net"

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
	case errors.As(err, &syntax):
		return "the DSN cannot be read; write it as postgres://user@host:port/database or as key=value pairs"
	case errors.As(err, &lookup):
		return "the host " + lookup.Name + " of the DSN is not known to name resolution"
	case errors.Is(err, context.DeadlineExceeded) || pgconn.Timeout(err):
		return "the server did not answer in time; check host, port and the firewall between"
	case errors.As(err, &network):
		return "nothing listens at " + network.Addr.String() + ", or it cannot be reached; check host, port and listen_addresses"
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
		mend = "; the password of the DSN is wrong"
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
