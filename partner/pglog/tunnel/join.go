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
// closes both. A server that ends without a word is explained to the client where unanswered is not empty.
func join(ctx context.Context, client, server net.Conn, unanswered string) error {
	closeBoth := func() {
		_ = client.Close() // what could not be passed on is lost with it, and the reader on that side knows
		_ = server.Close()
	}
	stop := context.AfterFunc(ctx, closeBoth)
	defer stop()
	defer closeBoth()
	sent := make(chan error, 1)
	go func() {
		_, err := pass(server, client)
		if err == nil {
			err = closeWrite(server)
		}
		if err != nil {
			closeBoth()
		}
		sent <- err
	}()
	said, err := pass(client, server)
	if said == 0 && unanswered != "" {
		err = errors.Join(err, sayNoWay(client, unanswered))
	}
	// Nothing that a client says after the end of its server matters to anybody.
	if err = errors.Join(err, closeWrite(client), client.SetReadDeadline(time.Now().Add(linger))); err != nil {
		closeBoth()
	}
	return errors.Join(err, <-sent)
}

// pass passes on what comes from one side until that ends, and says how many bytes it was.
func pass(to, from net.Conn) (passed int64, err error) {
	buffer := make([]byte, bufferSize)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			passed += int64(n)
			if _, err := to.Write(buffer[:n]); err != nil {
				return passed, err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return passed, nil
		case err != nil:
			return passed, err
		}
	}
}

func closeWrite(conn net.Conn) error { return conn.(interface{ CloseWrite() error }).CloseWrite() }
