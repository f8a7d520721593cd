package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// dialTime bounds connecting to the server.
const dialTime = 5 * time.Second

// Exit is the far end of the tunnel for one stream: it connects the stream to the server that dial leads to, and returns
// when the connection has ended, the stream has, or ctx. It closes the stream. Its error is that of dial: how a connection
// that was made came to its end is for those to say who used it.
func Exit(ctx context.Context, stream net.Conn, dial func(ctx context.Context) (net.Conn, error)) error {
	dialing, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	server, err := dial(dialing)
	if err != nil {
		return fmt.Errorf("connect the tunnel to the server: %w",
			errors.Join(err, Refuse(ctx, stream, "the other partner cannot reach its own server: "+err.Error())))
	}
	_ = join(ctx, stream, server, "")
	return nil
}
