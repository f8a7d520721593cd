package sqlitelog

import (
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/redo"
)

const (
	session = "0123456789abcdef0123456789abcdef"
	first   = mirror.RoleSeq(1)
	name    = "dbmirror_01234567_m_1"

	// silence ends a stream that nothing comes on. Nobody follows anew here, so only what is stuck may take so long.
	silence = time.Minute
)

// link is a principal and its mirror, connected by pipes, as two partners would have them.
type link struct {
	a, b  *DB
	p, m  *database
	queue *redo.Queue
	reign backend.Reign

	mu struct {
		sync.Mutex
		cut   bool // nobody gets through
		conns []net.Conn
	}
	served sync.WaitGroup
}

func newLink(t *testing.T, cfg Config) *link {
	return newLinkTo(t, cfg, t.TempDir())
}

// newLinkTo has the mirror's database in a directory.
func newLinkTo(t *testing.T, cfg Config, mirrored string) *link {
	dir := t.TempDir()
	l := &link{}
	cfg.Path = filepath.Join(dir, "a")
	l.a = open(t, cfg)
	cfg.Path = filepath.Join(mirrored, "b")
	l.b = open(t, cfg)
	l.p, l.m = l.open(t, l.a, mirror.PartnerA), l.open(t, l.b, mirror.PartnerB)
	var err error
	l.queue, err = redo.Open(redo.Config{Dir: filepath.Join(dir, "log")})
	require.NoError(t, err)
	t.Cleanup(func() {
		l.sever()
		l.served.Wait()
		require.NoError(t, l.queue.Close())
	})
	ctx := context.Background()
	require.NoError(t, l.p.Prepare(ctx))
	l.reign, err = l.p.BeginLog(ctx, first)
	require.NoError(t, err)
	require.NoError(t, l.p.WriteReign(ctx, l.reign))
	return l
}

func (l *link) open(t *testing.T, db *DB, self mirror.Server) *database {
	opened, err := db.Backend().Open(context.Background(), backend.Env{
		Session: session, Self: self, Dir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Dial: func(ctx context.Context) (net.Conn, error) {
			other := l.p
			if other.env.Self == self {
				other = l.m
			}
			return l.dial(other)
		},
	})
	require.NoError(t, err)
	return opened.(*database)
}

func (l *link) dial(to *database) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.cut {
		return nil, io.ErrClosedPipe
	}
	near, far, err := loopback()
	if err != nil {
		return nil, err
	}
	l.mu.conns = append(l.mu.conns, near, far)
	l.served.Go(func() {
		_ = to.Accept(context.Background(), far) // how a connection ends is seen at the near end
		_ = far.Close()
	})
	return near, nil
}

// loopback is a connection with itself that buffers, unlike net.Pipe.
func loopback() (near, far net.Conn, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer listener.Close()
	if near, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		return nil, nil, err
	}
	far, err = listener.Accept()
	return near, far, err
}

// sever breaks what is connected, and lets nobody connect; mend lets everybody.
func (l *link) sever() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.cut = true
	for _, c := range l.mu.conns {
		_ = c.Close()
	}
	l.mu.conns = nil
}

func (l *link) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.cut = false
}

// seed copies the principal's database to the mirror and begins its hardened log there.
func (l *link) seed(t *testing.T) {
	ctx := context.Background()
	require.NoError(t, l.m.SetGate(ctx, mirror.GateClosed, 0))
	seeded, err := l.m.Seed(ctx, l.reign, true)
	require.NoError(t, err)
	base := mirror.Position{Seq: first, LSN: seeded.Start}
	require.NoError(t, l.m.SetProgress(ctx, base))
	require.NoError(t, l.queue.Reset(base))
}

// running is a stream and redo that run.
type running struct {
	stream backend.Stream
	redo   backend.Redo
	cancel context.CancelFunc
	ended  chan error // of the stream, then of redo
}

func (l *link) follow(t *testing.T) *running {
	stream, err := l.m.Follow(backend.Source{Reign: l.reign, Name: name, Silence: silence})
	require.NoError(t, err)
	redoes, err := l.m.NewRedo()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{stream, redoes, cancel, make(chan error, 2)}
	var both sync.WaitGroup
	streamed := make(chan error, 1)
	both.Go(func() { streamed <- stream.Run(ctx, l.queue) })
	redone := make(chan error, 1)
	both.Go(func() { redone <- redoes.Run(ctx, l.queue) })
	go func() {
		both.Wait()
		r.ended <- <-streamed
		r.ended <- <-redone
	}()
	return r
}

func (r *running) stop(t *testing.T) {
	r.cancel()
	require.ErrorIs(t, <-r.ended, context.Canceled)
	require.ErrorIs(t, <-r.ended, context.Canceled)
}

// same waits until everything is redone and requires both databases to be equal.
func (l *link) same(t *testing.T, r *running) {
	t.Helper()
	require.NoError(t, r.redo.Drain(context.Background(), mirror.Position{Seq: first, LSN: l.a.End()}))
	requireEqual(t, l.a, l.b)
}

// reported waits until the principal knows that the mirror, which follows, has hardened everything.
func (l *link) reported(t *testing.T) {
	t.Helper()
	ctx := context.Background()
	end, err := l.p.WaitMirror(ctx, name)
	require.NoError(t, err)
	require.NoError(t, l.a.settled(ctx, end))
	require.NoError(t, l.p.WaitNone(ctx))
}

func TestPrincipalAndMirror(t *testing.T) {
	ctx := context.Background()
	l := newLink(t, Config{})
	must(t, l.a, "CREATE TABLE t (id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES (1, 'before the copy')")
	l.seed(t)
	r := l.follow(t)
	must(t, l.a, "INSERT INTO t VALUES (2, 'after the copy')")
	l.same(t, r)

	_, err := l.p.WaitMirror(ctx, name)
	require.NoError(t, err)
	var writers sync.WaitGroup
	for i := range 8 {
		writers.Go(func() {
			for k := range 20 {
				must(t, l.a, "INSERT INTO t (a) VALUES ('"+string(rune('a'+i))+string(rune('a'+k))+"')")
				require.GreaterOrEqual(t, l.queue.Hardened().LSN, firstLSN+mirror.LSN(1))
			}
		})
	}
	writers.Wait()
	require.Equal(t, l.a.End(), l.queue.Hardened().LSN, "all that was acknowledged is hardened")
	l.same(t, r)
	require.NotEqual(t, l.a.ID(), l.b.ID())
	beat, err := l.p.Heartbeat(ctx, name)
	require.NoError(t, err)
	require.False(t, beat.Unwaited)
	r.stop(t)
}
