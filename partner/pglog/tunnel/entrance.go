package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

const (
	// Port is the port in the name of the socket. PostgreSQL's programs make the name of directory and port.
	Port = 5432
	// maxPath is the longest path of a Unix socket on every system, in bytes.
	maxPath = 103
	// maxConnections bounds those in the tunnel at a time. Beyond it a connection waits to be accepted.
	maxConnections = 128
	// acceptPause is how long the entrance waits when the system has no more descriptors.
	acceptPause = 100 * time.Millisecond
)

// Entrance is the near end of the tunnel: a Unix socket that programs take for a server's.
type Entrance struct {
	dir      string
	dial     func(ctx context.Context) (net.Conn, error)
	logger   *slog.Logger
	listener *net.UnixListener
	places   chan struct{}
	stop     context.CancelFunc
	running  sync.WaitGroup
}

// Listen opens an entrance in a directory, which it makes where it is missing, with mode 0700: whoever gets at the socket
// gets at the other side's server. One program uses a directory at a time. dial gives a stream to the other side; its
// context ends with Close. Close must be called.
func Listen(dir string, dial func(ctx context.Context) (net.Conn, error), logger *slog.Logger) (*Entrance, error) {
	listener, dir, err := listen(dir)
	if err != nil {
		return nil, fmt.Errorf("open the entrance of the tunnel: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	e := &Entrance{dir: dir, dial: dial, logger: logger, listener: listener, places: make(chan struct{}, maxConnections), stop: stop}
	e.running.Go(func() { e.accept(ctx) })
	return e, nil
}

func listen(dir string) (*net.UnixListener, string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, "", err
	}
	path := filepath.Join(dir, ".s.PGSQL."+strconv.Itoa(Port))
	if len(path) > maxPath {
		return nil, "", fmt.Errorf("the path %s of its socket has %d bytes, systems allow %d: choose a shorter directory", path, len(path), maxPath)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, "", err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, "", fmt.Errorf("others may enter %s (mode %04o): chmod 700 it", dir, mode)
	}
	// One that a program left behind which was killed. No other program has it: the directory is this one's.
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, "", err
		}
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	return listener, dir, err
}

// Dir is the absolute path of the directory, which programs take as the host of the server.
func (e *Entrance) Dir() string { return e.dir }

// Close ends the entrance and every connection through it.
func (e *Entrance) Close() error {
	e.stop()
	err := e.listener.Close()
	e.running.Wait()
	return err
}

func (e *Entrance) accept(ctx context.Context) {
	for {
		select {
		case e.places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		client, err := e.listener.AcceptUnix()
		if err != nil {
			<-e.places
			if ctx.Err() != nil {
				return
			}
			e.logger.Error("a connection was not let into the tunnel", "reason", err.Error())
			pause(ctx, acceptPause)
			continue
		}
		e.running.Go(func() {
			defer func() { <-e.places }()
			e.carry(ctx, client)
		})
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// unanswered is what a program hears whose connection ended before its server said anything.
const unanswered = "the tunnel to the other side's server: the other partner ended the connection before its server answered, " +
	"as it does while it starts or stops"

// carry carries one connection. Its errors are for the program that made it, which hears of them.
func (e *Entrance) carry(ctx context.Context, client net.Conn) {
	server, err := e.dial(ctx)
	if err != nil {
		err = errors.Join(err, Refuse(ctx, client, "the tunnel to the other side's server: "+err.Error()))
	} else {
		err = join(ctx, client, server, unanswered)
	}
	if err != nil {
		e.logger.Debug("connection through the tunnel ended", "reason", err.Error())
	}
}
