package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"time"
)

const (
	// bufferSize is how much is read at a time: a full record of TLS, twice.
	bufferSize = 32 << 10
	// linger is how long a client may still send to a server that has ended the conversation.
	linger = 5 * time.Second
)

// join passes bytes on between a client and a server until both directions have ended, either fails, or ctx ends. It
// closes both.
func join(ctx context.Context, client, server net.Conn) error {
	closeBoth := func() {
		_ = client.Close() // what could not be passed on is lost with it, and the reader on that side knows
		_ = server.Close()
	}
	stop := context.AfterFunc(ctx, closeBoth)
	defer stop()
	defer closeBoth()
	sent := make(chan error, 1)
	go func() {
		err := pass(server, client)
		if err != nil {
			closeBoth()
		}
		sent <- err
	}()
	err := pass(client, server)
	if err != nil {
		closeBoth()
	} else {
		// Nothing that a client says after the end of its server matters to anybody.
		err = client.SetReadDeadline(time.Now().Add(linger))
	}
	return errors.Join(err, <-sent)
}

// pass passes on what comes from one side until that ends, and then ends the direction on the other.
func pass(to, from net.Conn) error {
	buffer := make([]byte, bufferSize)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return to.(interface{ CloseWrite() error }).CloseWrite()
		case err != nil:
			return err
		}
	}
}
