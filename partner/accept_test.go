package partner

import (
	"context"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// echoing is a backend whose database says who it is and then what it is told.
type echoing struct {
	backend.Backend
	env  chan backend.Env
	told chan struct{} // one for each stream that has ended
}

type echo struct {
	backend.Database
	name string
	told chan struct{}
}

func (e echoing) Open(ctx context.Context, env backend.Env) (backend.Database, error) {
	database, err := e.Backend.Open(ctx, env)
	e.env <- env
	return echo{database, env.Self.String(), e.told}, err
}

func (e echo) Accept(ctx context.Context, conn net.Conn) error {
	defer func() { e.told <- struct{}{} }()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := io.WriteString(conn, e.name+" hears "); err != nil {
		return err
	}
	_, err := io.Copy(conn, conn)
	return err
}

// TestStreamBetweenBackends: the backends of two partners reach each other through them, as long as both run.
func TestStreamBetweenBackends(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	made := map[mirror.Server]echoing{}
	p.edit = func(c *Config) {
		made[c.Self] = echoing{c.Backend, make(chan backend.Env, 1), make(chan struct{}, 1)}
		c.Backend, c.Establish, c.Witness = made[c.Self], false, ""
	}
	p.startUp(mirror.PartnerA)
	env := <-made[mirror.PartnerA].env
	_, err := env.Dial(t.Context())
	require.Error(t, err, "nobody is there")

	p.startUp(mirror.PartnerB)
	var conn net.Conn
	hears := "partner-b hears you"
	require.Eventually(t, func() bool {
		if conn, err = env.Dial(t.Context()); err != nil {
			return false
		}
		heard := make([]byte, len(hears))
		if _, err = io.WriteString(conn, "you"); err == nil {
			_, err = io.ReadFull(conn, heard)
		}
		if err != nil { // its endpoint listens before the database is open
			conn.Close()
			return false
		}
		return string(heard) == hears
	}, patience, 20*time.Millisecond, "%v", err)
	defer conn.Close()

	p.halt(mirror.PartnerB)
	<-made[mirror.PartnerB].told
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
	_, err = io.ReadAll(conn)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the stream of a partner that has stopped is open")
	_, err = env.Dial(t.Context())
	require.Error(t, err, "nobody is there any more")
}

// startUp starts a partner and waits until it takes messages.
func (p *pair) startUp(s mirror.Server) {
	p.t.Helper()
	made := p.start(s)
	require.Eventually(p.t, made.running.Load, patience, 10*time.Millisecond)
}

// deaf is a backend whose database takes no streams.
type deaf struct{ backend.Backend }

func (d deaf) Open(ctx context.Context, env backend.Env) (backend.Database, error) {
	database, err := d.Backend.Open(ctx, env)
	return struct{ backend.Database }{database}, err
}

// TestStreamIsNotTaken: a stream to a backend that takes none ends at once.
func TestStreamIsNotTaken(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	envs := make(chan backend.Env, 1)
	p.edit = func(c *Config) {
		c.Establish, c.Witness = false, ""
		if c.Self == mirror.PartnerA {
			c.Backend = echoing{c.Backend, envs, nil}
		} else {
			c.Backend = deaf{c.Backend}
		}
	}
	p.startUp(mirror.PartnerB)
	p.startUp(mirror.PartnerA)
	env := <-envs
	require.Eventually(t, func() bool {
		conn, err := env.Dial(t.Context())
		if err != nil {
			return false // its endpoint does not listen yet
		}
		defer conn.Close()
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
		b, err := io.ReadAll(conn)
		require.Empty(t, b)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
		return true
	}, patience, 20*time.Millisecond)
}
