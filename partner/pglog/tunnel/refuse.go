package tunnel

import (
	"context"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// CodeNoWay is the SQLSTATE of the error that a program gets when the tunnel does not reach the server. It is
// sqlclient_unable_to_establish_sqlconnection, which a server says of no connection that is made to it.
const CodeNoWay = "08001"

// Refuse tells a client in PostgreSQL's protocol why there is no connection, and closes it. A client that does not hear
// is given up after a few seconds, or when ctx ends.
func Refuse(ctx context.Context, client net.Conn, cause string) error {
	defer client.Close()
	stop := context.AfterFunc(ctx, func() { _ = client.Close() }) // which ends what is under way
	defer stop()
	if err := client.SetDeadline(time.Now().Add(linger)); err != nil {
		return err
	}
	if err := sayNoWay(client, cause); err != nil {
		return err
	}
	if err := closeWrite(client); err != nil {
		return err
	}
	// What the client says meanwhile must have been read, or the system would throw the answer away.
	_, err := io.Copy(io.Discard, client)
	return err
}

func sayNoWay(client net.Conn, cause string) error {
	message := pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: CodeNoWay, Message: cause}
	encoded, err := message.Encode(nil)
	if err != nil {
		return err
	}
	_, err = client.Write(encoded)
	return err
}
