package endpoint

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

const (
	// maxOpening is how many streams a Client opens at a time. Until it is upgraded a stream counts among the
	// connections of messages at the server, and must not take the places of those that are in use.
	maxOpening = 2
	// maxHeader bounds the headers of an answer, in bytes.
	maxHeader = 8 << 10
)

// Open opens a stream to the server: a connection of its own, so that messages never wait behind what it carries. The
// name is one that the other side serves. Connecting is bounded by ctx and [ClientConfig].Timeout; afterwards the stream
// lives until either side closes it, or until one of the certificates it was opened with is not good any more. It has
// deadlines as every net.Conn, and CloseWrite. The errors are those of Send; one that serves no streams, or not this one,
// or not to us, gives a [*DeniedError].
func (c *Client) Open(ctx context.Context, name Kind) (net.Conn, error) {
	if !name.valid() {
		return nil, fmt.Errorf("open stream %q to %s: the name is not valid", name, c.cfg.Peer)
	}
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	opened, err := c.openInTurn(limited, name)
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", name, c.classify(ctx, err, time.Since(began)))
	}
	return opened, nil
}

func (c *Client) openInTurn(ctx context.Context, name Kind) (net.Conn, error) {
	select {
	case c.opening <- struct{}{}:
		defer func() { <-c.opening }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	dial := c.dialTLS
	if c.own == nil {
		dial = c.dialPlain
	}
	conn, err := dial(ctx, "tcp", c.cfg.Addr)
	if err != nil {
		return nil, err
	}
	if err := c.upgrade(ctx, conn, name); err != nil {
		_ = underTLS(conn).Close() // nothing was said on it that would need a farewell
		return nil, err
	}
	c.counters.logins[ResultSuccess].Add(1)
	return newStream(conn, c.reverifier(conn), &c.counters.streams, nil), nil
}

// reverifier verifies the other side of a connection anew. It is nil in plaintext.
func (c *Client) reverifier(conn net.Conn) func() error {
	secure, ok := conn.(*tls.Conn)
	if !ok {
		return nil
	}
	chain := secure.ConnectionState().PeerCertificates
	return func() error {
		_, err := c.verifier.verify(chain)
		return err
	}
}

// upgrade asks the server to make a stream of a connection.
func (c *Client) upgrade(ctx context.Context, conn net.Conn, name Kind) (err error) {
	interrupt := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // it can only fail when closed
	defer func() {
		if !interrupt() {
			err = cmp.Or(err, ctx.Err())
		}
	}()
	request, err := c.newStreamRequest(ctx, name)
	if err != nil {
		return err
	}
	if err := request.Write(conn); err != nil {
		return err
	}
	// Byte for byte, so that nothing is taken of what follows the headers.
	response, err := http.ReadResponse(bufio.NewReader(io.LimitReader(byteReader{conn}, maxHeader)), request)
	if err != nil {
		return err
	}
	return c.checkUpgrade(response)
}

// checkUpgrade looks at who answered, and whether it is now a stream.
func (c *Client) checkUpgrade(response *http.Response) error {
	from := response.Header.Get(headerFrom)
	switch response.StatusCode {
	case http.StatusSwitchingProtocols:
		if from != c.cfg.Peer.String() || response.Header.Get("Upgrade") != streamProtocol {
			return fmt.Errorf("it was answered by %q; check the address, and that the endpoint is mounted at %s",
				oneLine(from), PathPrefix)
		}
		return nil
	case http.StatusMethodNotAllowed:
		return &DeniedError{Peer: c.cfg.Peer, Addr: c.cfg.Addr, Status: response.StatusCode,
			Text: "it knows messages and no streams; run the same release there"}
	}
	// What cannot be read of the text does not matter: the status has said no.
	text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	return &DeniedError{Peer: c.cfg.Peer, Addr: c.cfg.Addr, Status: response.StatusCode, Text: oneLine(string(text))}
}

func (c *Client) newStreamRequest(ctx context.Context, name Kind) (*http.Request, error) {
	request, err := c.newRequest(ctx, http.MethodGet, name, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", streamProtocol)
	return request, nil
}

// byteReader reads no more than is asked for one byte.
type byteReader struct{ from io.Reader }

func (r byteReader) Read(p []byte) (int, error) { return r.from.Read(p[:min(1, len(p))]) }
