package conformance

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
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
	patience = 30 * time.Second       // for what must happen
	restless = 400 * time.Millisecond // for what must not
)

// rig is what two partners would be around a pair.
type rig struct {
	t       *testing.T
	session string
	a, b    *side
}

// side is one partner's part: its database, open, and its hardened log.
type side struct {
	Side
	r        *rig
	self     mirror.Server
	dir      string
	listener net.Listener
	db       backend.Database
	queue    *redo.Queue
	rows     map[int]string // what must be in the table, as principal

	taking struct {
		sync.Mutex
		by   backend.Acceptor // nil: streams are not taken
		ctx  context.Context  // of those that are
		end  context.CancelFunc
		open sync.WaitGroup
	}
}

func newRig(t *testing.T, pair Pair) *rig {
	id := make([]byte, 16)
	_, err := rand.Read(id)
	require.NoError(t, err)
	r := &rig{t: t, session: hex.EncodeToString(id)}
	r.a, r.b = r.newSide(pair.A, mirror.PartnerA), r.newSide(pair.B, mirror.PartnerB)
	r.a.rows, err = r.a.Client.Rows(r.within(patience))
	require.NoError(t, err)
	require.Contains(t, r.a.rows, 1)
	require.Len(t, r.a.rows, 1)
	r.a.open()
	r.b.open()
	return r
}

// within is a context of the test that lasts no longer.
func (r *rig) within(limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	r.t.Cleanup(cancel)
	return ctx
}

func (r *rig) ctx() context.Context { return r.within(patience) }

func (r *rig) newSide(of Side, self mirror.Server) *side {
	s := &side{Side: of, r: r, self: self, dir: shortDir(r.t)}
	var err error
	s.listener, err = net.Listen("tcp", "127.0.0.1:0")
	require.NoError(r.t, err)
	var loop sync.WaitGroup
	loop.Go(s.acceptAll)
	s.queue = s.openQueue(filepath.Join(s.dir, "log"))
	r.t.Cleanup(func() {
		s.leave()
		s.listener.Close()
		loop.Wait()
		s.queue.Close()
	})
	return s
}

func (s *side) openQueue(dir string) *redo.Queue {
	q, err := redo.Open(redo.Config{Dir: dir, Identity: [32]byte{31: byte(s.self)}})
	require.NoError(s.r.t, err)
	return q
}

func (s *side) other() *side {
	if s == s.r.a {
		return s.r.b
	}
	return s.r.a
}

// open does what a partner does that begins to run.
func (s *side) open() {
	db, err := s.Backend().Open(s.r.ctx(), backend.Env{
		Session: s.r.session, Self: s.self, Dir: filepath.Join(s.dir, "backend"), Logger: slog.New(slog.DiscardHandler),
		Dial: func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", s.other().listener.Addr().String())
		},
		LogBudget: 16 << 30, CopyWorkers: 2,
	})
	require.NoError(s.r.t, err, "open the database")
	s.db = db
	s.taking.Lock()
	defer s.taking.Unlock()
	s.taking.by, _ = db.(backend.Acceptor)
	s.taking.ctx, s.taking.end = context.WithCancel(context.Background())
}

// close does what a partner does that stops: the database stays as it is.
func (s *side) close() {
	s.taking.Lock()
	s.taking.by = nil
	s.taking.Unlock()
	s.taking.end()
	s.taking.open.Wait()
	s.db.Close()
	s.db = nil
}

// restart ends program and database, and begins both anew.
func (s *side) restart() {
	s.close()
	s.Restart()
	s.open()
}

// leave takes out of a database what would be in the way of the next case on its server.
func (s *side) leave() {
	if s.db == nil {
		return
	}
	ctx := s.r.ctx()
	if err := s.db.SetGate(ctx, mirror.GateReadOnly, 0); err != nil {
		s.r.t.Logf("%s: %v", s.self, err)
	}
	if err := s.db.WaitRemove(ctx); err != nil {
		s.r.t.Logf("%s: %v", s.self, err)
	}
	if err := s.db.DropLogs(ctx); err != nil {
		s.r.t.Logf("%s: %v", s.self, err)
	}
	s.close()
}

// acceptAll hands connections to the database while it is open.
func (s *side) acceptAll() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.taking.Lock()
		by, ctx := s.taking.by, s.taking.ctx
		if by == nil {
			s.taking.Unlock()
			conn.Close()
			continue
		}
		s.taking.open.Go(func() {
			defer conn.Close()
			_ = by.Accept(ctx, conn) // why it ended is for the side that dialled to tell
		})
		s.taking.Unlock()
	}
}

// gate moves the gate and sees that it is there, from both sides.
func (s *side) gate(g mirror.Gate) {
	s.r.t.Helper()
	require.NoError(s.r.t, s.db.SetGate(s.r.ctx(), g, 0))
	found, err := s.db.Gate(s.r.ctx())
	require.NoError(s.r.t, err)
	require.Equal(s.r.t, g, found)
}

// serve begins a reign and lets clients in, with commits that wait for nobody. fork is zero for the first reign.
func (s *side) serve(seq mirror.RoleSeq, fork mirror.Position) backend.Reign {
	t, ctx := s.r.t, s.r.ctx()
	t.Helper()
	require.NoError(t, s.db.WaitNone(ctx))
	require.NoError(t, s.db.Prepare(ctx))
	_, err := s.db.Reign(ctx, seq)
	require.ErrorIs(t, err, backend.ErrNoReign)
	if fork.Seq > 0 {
		s.gate(mirror.GateClosed)
	}
	reign, err := s.db.BeginLog(ctx, seq)
	require.NoError(t, err)
	if fork.Seq > 0 {
		require.NoError(t, s.db.MoveOn(ctx, false))
	}
	require.Equal(t, seq, reign.Seq)
	require.NotZero(t, reign.Start)
	reign.Fork = fork
	require.NoError(t, s.db.WriteReign(ctx, reign))
	s.seeReign(reign, s.db.Reign)
	s.seeReign(reign, s.other().db.Peer().Reign)
	s.gate(mirror.GateOpen)
	return reign
}

func (s *side) seeReign(want backend.Reign, read func(context.Context, mirror.RoleSeq) (backend.Reign, error)) {
	s.r.t.Helper()
	found, err := read(s.r.ctx(), want.Seq)
	require.NoError(s.r.t, err)
	require.WithinDuration(s.r.t, time.Now(), found.OpenedAt, time.Hour)
	found.OpenedAt = want.OpenedAt
	require.Equal(s.r.t, want, found)
}

// seed makes this database a copy of the principal's, and the hardened log begin where the copy stands.
func (s *side) seed(seq mirror.RoleSeq) {
	t, ctx := s.r.t, s.r.ctx()
	t.Helper()
	reign, err := s.db.Peer().Reign(ctx, seq)
	require.NoError(t, err)
	s.gate(mirror.GateClosed)
	require.NoError(t, s.db.WaitRemove(ctx))
	require.NoError(t, s.db.DropLogs(ctx))
	require.NoError(t, s.db.Prepare(ctx))
	seeded, err := s.db.Seed(ctx, reign, true)
	require.NoError(t, err)
	s.begin(mirror.Position{Seq: seq, LSN: seeded.Start})
}

// begin makes the hardened log and the redone position begin there, and lets readers in.
func (s *side) begin(at mirror.Position) {
	t := s.r.t
	t.Helper()
	require.NotZero(t, at.LSN)
	require.NoError(t, s.db.SetProgress(s.r.ctx(), at))
	require.NoError(t, s.queue.Reset(at))
	found, err := s.db.Progress(s.r.ctx())
	require.NoError(t, err)
	require.Equal(t, at, found)
	s.readOnly()
}

// readOnly is the gate of a mirror in service, which keeps nothing of a principal.
func (s *side) readOnly() {
	s.r.t.Helper()
	s.gate(mirror.GateReadOnly)
	require.NoError(s.r.t, s.db.WaitRemove(s.r.ctx()))
	require.NoError(s.r.t, s.db.DropLogs(s.r.ctx()))
}

// do makes changes as a client, which must be acknowledged.
func (s *side) do(changes ...Change) {
	s.r.t.Helper()
	require.NoError(s.r.t, s.Client.Do(s.r.ctx(), changes...))
	for _, c := range changes {
		c.apply(s.rows)
	}
}

// holds requires the table to be as it must be, at both sides, and the databases to be equal.
func (s *side) holds() {
	t := s.r.t
	t.Helper()
	for _, at := range []*side{s, s.other()} {
		found, err := at.Client.Rows(s.r.ctx())
		require.NoError(t, err)
		require.Equal(t, s.rows, found, "rows at %s", at.self)
	}
	require.NoError(t, s.r.differ())
	s.other().rows = maps.Clone(s.rows)
}

// differ says in what the two databases differ.
func (r *rig) differ() error {
	a, err := r.a.db.Sums(r.ctx())
	require.NoError(r.t, err)
	b, err := r.b.db.Sums(r.ctx())
	require.NoError(r.t, err)
	require.NotEmpty(r.t, a)
	if c := backend.Compare(a, b); !c.Equal() {
		return fmt.Errorf("the databases differ: %s", c)
	}
	return nil
}

// name is what the mirror of a role sequence is called; incarnation tells two of them apart.
func (r *rig) name(seq mirror.RoleSeq, incarnation int) string {
	return fmt.Sprintf("dbmirror_%s_%08x_%d", r.session[:8], incarnation, seq)
}

// eventually waits until something is so.
func (r *rig) eventually(what string, so func() bool) {
	r.t.Helper()
	require.Eventually(r.t, so, patience, 5*time.Millisecond, what)
}

// shortDir is a directory for this test, with a path that leaves room for the name of a socket, wherever TMPDIR is.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "pair")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}
