package host

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint/certs"
	"github.com/f19126b3/dbmirror/mirror/host/statefile"
)

const abusedSession = "0123456789abcdef0123456789abcdef"

var abusedMembers = [4]mirror.Incarnation{0, 5, 7, 9}

// abusedRecord is where the session of these tests stands: partner-a is principal, for the third time.
func abusedRecord() mirror.Record {
	return mirror.Record{Seq: 5, Change: 2, Principal: mirror.PartnerA, InSync: true, Safety: mirror.SafetyFull, Members: abusedMembers}
}

// abused is a server as it runs in production, with its state on disk, an endpoint on loopback and certificates.
type abused struct {
	t         *testing.T
	self      mirror.Server
	authority *certs.Authority
	addr      string
	server    *endpoint.Server
	host      *Host

	mu      sync.Mutex
	log     bytes.Buffer
	journal []mirror.Entry
}

func (a *abused) Write(b []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.log.Write(b)
}

func (a *abused) logged() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.log.String()
}

func newAbused(t *testing.T, self mirror.Server) *abused {
	t.Helper()
	a := &abused{t: t, self: self}
	var err error
	a.authority, err = certs.NewAuthority("abused", time.Hour)
	require.NoError(t, err)
	id, err := ParseSessionID(abusedSession)
	require.NoError(t, err)
	store, err := statefile.Open(filepath.Join(t.TempDir(), "state"), id)
	require.NoError(t, err)
	hard := mirror.HardState{Self: self, Incarnation: abusedMembers[self], Promised: 5, Record: abusedRecord()}
	if self != mirror.Witness {
		hard.Aligned = 5
	}
	_, _, err = store.Load()
	require.NoError(t, err)
	require.NoError(t, store.Save(hard.Append(nil)))
	logger := slog.New(slog.NewTextHandler(a, &slog.HandlerOptions{Level: slog.LevelDebug}))
	a.host, err = New(Config{Session: id, Self: self, Store: store, Logger: logger, Journal: func(l Line) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.journal = append(a.journal, l.Entry)
	}})
	require.NoError(t, err)
	a.server, err = endpoint.NewServer(endpoint.ServerConfig{Logger: logger, Limits: endpoint.Limits{Rate: 100000, Burst: 100000}})
	require.NoError(t, err)
	require.NoError(t, a.server.Register(endpoint.SessionConfig{Self: a.identity(abusedSession, Role(self)),
		Credentials: a.credentials(a.identity(abusedSession, Role(self))), Allow: Allow(self), Handler: a.host.Receive}))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	a.addr = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { _ = a.server.Serve(ctx, listener) })
	all.Go(func() { _ = a.host.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		all.Wait()
		require.NoError(t, store.Close())
	})
	return a
}

func (a *abused) identity(session string, role endpoint.Role) endpoint.Identity {
	return endpoint.Identity{Session: session, Role: role}
}

func (a *abused) credentials(to endpoint.Identity) endpoint.Credentials {
	a.t.Helper()
	certificate, err := a.authority.Issue(to.URI(endpoint.DefaultDomain), time.Hour)
	require.NoError(a.t, err)
	return endpoint.Credentials{Certificate: certificate, Authorities: a.authority.Pool()}
}

// client is somebody with a certificate of the session's authority.
func (a *abused) client(session string, role endpoint.Role) *endpoint.Client {
	a.t.Helper()
	self := a.identity(session, role)
	c, err := endpoint.NewClient(endpoint.ClientConfig{Self: self, Peer: a.identity(session, Role(a.self)), Addr: a.addr, Credentials: a.credentials(self)})
	require.NoError(a.t, err)
	a.t.Cleanup(c.Close)
	return c
}

// unmoved requires that the server has on disk, and shows, what it had before.
func (a *abused) unmoved(before mirror.HardState, shown mirror.Status) {
	a.t.Helper()
	require.NoError(a.t, a.host.Ask(a.t.Context(), mirror.Event{Kind: mirror.EventTicked}), "the session is unharmed")
	require.Equal(a.t, before, a.host.Hard())
	now := a.host.Status()
	require.Equal(a.t, [...]any{shown.Role, shown.Serving, shown.Confirmed, shown.Lease, shown.Hardened, shown.Record},
		[...]any{now.Role, now.Serving, now.Confirmed, now.Lease, now.Hardened, now.Record})
}

func (a *abused) refusals(result endpoint.Result) uint64 {
	stats, ok := a.server.Stats(abusedSession)
	require.True(a.t, ok)
	return stats.Logins[result]
}

// S1: a certificate of one role says what is another's: everything but what the table allows is refused, whoever asks, and
// noted.
func TestAbuseS1(t *testing.T) {
	for _, self := range []mirror.Server{mirror.PartnerA, mirror.PartnerB, mirror.Witness} {
		a := newAbused(t, self)
		before, shown := a.host.Hard(), a.host.Status()
		refused := uint64(0)
		for from := mirror.PartnerA; from <= mirror.Witness; from++ {
			if from == self {
				continue
			}
			c := a.client(abusedSession, Role(from))
			kinds := []endpoint.Kind{"log", "hardened", "admin", "command", "note", "establish", "force-service"}
			for _, k := range mirror.MessageKinds() {
				kinds = append(kinds, endpoint.Kind(k.String()))
			}
			for _, kind := range kinds {
				if Allow(self)[Role(from)][kind] {
					continue
				}
				m := mirror.Message{Kind: mirror.MessagePropose, From: from, To: self, Incarnation: abusedMembers[from], Promised: 9, Record: abusedRecord()}
				_, err := c.Send(t.Context(), kind, m.Append(nil))
				var denied *endpoint.DeniedError
				require.ErrorAs(t, err, &denied, "%s says %s to %s", from, kind, self)
				refused++
				require.Equal(t, refused, a.refusals(endpoint.ResultAuthorizationFailure))
			}
		}
		require.Greater(t, refused, uint64(7))
		require.Contains(t, a.logged(), "may not send")
		a.unmoved(before, shown)
	}
}

// S1: what a message says of its sender is not what its certificate says, or its body is another kind than its path.
func TestAbuseS1Disguise(t *testing.T) {
	a := newAbused(t, mirror.PartnerA)
	before, shown := a.host.Hard(), a.host.Status()
	witness := a.client(abusedSession, endpoint.Witness)
	for name, m := range map[string]mirror.Message{
		"the partner's name": {Kind: mirror.MessagePing, From: mirror.PartnerB, To: mirror.PartnerA},
		"to somebody else":   {Kind: mirror.MessagePing, From: mirror.Witness, To: mirror.PartnerB},
		"another kind":       {Kind: mirror.MessageVote, From: mirror.Witness, To: mirror.PartnerA},
	} {
		m.Incarnation, m.Record, m.Promised = abusedMembers[m.From], abusedRecord(), 9
		_, err := witness.Send(t.Context(), "ping", m.Append(nil))
		var denied *endpoint.DeniedError
		require.ErrorAs(t, err, &denied, name)
	}
	a.unmoved(before, shown)
}

// S2: a certificate of another session, of the same authority, opens nothing.
func TestAbuseS2(t *testing.T) {
	a := newAbused(t, mirror.PartnerA)
	before, shown := a.host.Hard(), a.host.Status()
	const other = "fedcba9876543210fedcba9876543210"
	for _, role := range []endpoint.Role{endpoint.PartnerB, endpoint.Witness, endpoint.Admin} {
		self := a.identity(other, role)
		c, err := endpoint.NewClient(endpoint.ClientConfig{Self: self, Peer: a.identity(other, endpoint.PartnerA), Addr: a.addr, Credentials: a.credentials(self)})
		require.NoError(t, err)
		_, err = c.Send(t.Context(), "ping", nil)
		require.Error(t, err)
		c.Close()
	}
	require.Contains(t, a.logged(), "no session that is served here")
	a.unmoved(before, shown)
}

// S4: what was recorded in earlier role sequences is sent again, on new connections, by those who sent it then: nothing
// is granted, confirmed, leased or changed by it.
func TestAbuseS4(t *testing.T) {
	const captures, connections = 1000, 20
	for _, self := range []mirror.Server{mirror.PartnerA, mirror.PartnerB, mirror.Witness} {
		a := newAbused(t, self)
		before, shown := a.host.Hard(), a.host.Status()
		random := rand.New(rand.NewPCG(4, uint64(self)))
		clients := map[mirror.Server]*endpoint.Client{}
		accepted := 0
		for i := range captures {
			if i%(captures/connections) == 0 {
				for from := mirror.PartnerA; from <= mirror.Witness; from++ {
					if from != self {
						clients[from] = a.client(abusedSession, Role(from))
					}
				}
			}
			m := capture(random, self)
			_, err := clients[m.From].Send(t.Context(), endpoint.Kind(m.Kind.String()), m.Append(nil))
			if err == nil {
				accepted++
			}
			if i%100 == 99 {
				a.unmoved(before, shown)
			}
		}
		require.Greater(t, accepted, captures/10, "the session itself has heard them")
		a.unmoved(before, shown)
		if self != mirror.PartnerA {
			a.mu.Lock()
			require.NotEmpty(t, a.journal, "refused votes are in the journal")
			for _, e := range a.journal {
				require.NotEqual(t, mirror.EntryRole, e.Kind)
			}
			a.mu.Unlock()
		}
	}
}

// capture is a message as another server sent it to this one in an earlier role sequence: an election, a proposal or the
// everyday talk around it.
func capture(random *rand.Rand, self mirror.Server) mirror.Message {
	seq := mirror.RoleSeq(1 + random.IntN(4))
	r := mirror.Record{Seq: seq, Change: uint64(random.IntN(6)), Principal: mirror.PartnerA + mirror.Server(1-seq%2), Safety: mirror.SafetyFull, Members: abusedMembers}
	r.InSync = random.IntN(2) == 0
	if !r.InSync && random.IntN(3) == 0 {
		r.Suspended, r.Why = true, mirror.ReasonCommand
	}
	r.Fork = mirror.Position{Seq: seq - 1, LSN: mirror.LSN(random.Uint32())}
	m := mirror.Message{To: self, Record: r, Promised: seq, Seq: seq, LSN: mirror.LSN(random.Uint32()), End: mirror.LSN(random.Uint32())}
	for m.From == 0 || m.From == self {
		m.From = mirror.PartnerA + mirror.Server(random.IntN(3))
	}
	m.Incarnation = abusedMembers[m.From]
	m.Kind = mirror.MessageKinds()[random.IntN(len(mirror.MessageKinds()))]
	m.Nonce = mirror.Tick(random.Uint32())
	m.Ready, m.Sees = random.IntN(2) == 0, uint8(random.IntN(8)<<1)
	switch m.Kind {
	case mirror.MessageVote:
		m.Seq = seq + 1
		m.How = []mirror.Election{mirror.ElectionAutomatic, mirror.ElectionTransfer, mirror.ElectionForced, mirror.ElectionAgain}[random.IntN(4)]
	case mirror.MessageRequest:
		m.Command = mirror.Command{Kind: mirror.CommandSuspend, Reason: mirror.ReasonCommand, Expect: r.Version()}
	}
	return m
}

// S5: bytes and paths of an older version of the protocol are refused; nobody can be talked down to it.
func TestAbuseS5(t *testing.T) {
	a := newAbused(t, mirror.PartnerA)
	before, shown := a.host.Hard(), a.host.Status()
	c := a.client(abusedSession, endpoint.PartnerB)
	m := mirror.Message{Kind: mirror.MessagePing, From: mirror.PartnerB, To: mirror.PartnerA, Incarnation: 7, Promised: 5, Record: abusedRecord()}
	for _, version := range []byte{0, 2, 255} {
		b := m.Append(nil)
		b[0] = version
		_, err := c.Send(t.Context(), "ping", b)
		var denied *endpoint.DeniedError
		require.ErrorAs(t, err, &denied)
		require.Contains(t, denied.Text, fmt.Sprintf("version is %d, this program reads 1", version))
	}
	a.unmoved(before, shown)
}

// S6: commands that rest on what is no longer so, or are given twice, or without what they demand, change nothing and are
// in the journal.
func TestAbuseS6(t *testing.T) {
	a := newAbused(t, mirror.PartnerB)
	before, shown := a.host.Hard(), a.host.Status()
	for name, c := range map[string]mirror.Command{
		"force without a record":     {Kind: mirror.CommandForceService},
		"force of an older change":   {Kind: mirror.CommandForceService, Expect: mirror.Version{Seq: 5, Change: 1}},
		"force of an older sequence": {Kind: mirror.CommandForceService, Expect: mirror.Version{Seq: 4, Change: 2}},
		"force of a newer one":       {Kind: mirror.CommandForceService, Expect: mirror.Version{Seq: 6}},
		"safety of the mirror":       {Kind: mirror.CommandSetSafety, Safety: mirror.SafetyOff},
		"witness of the mirror":      {Kind: mirror.CommandSetWitness},
		"serve":                      {Kind: mirror.CommandServe},
		"admit nobody":               {Kind: mirror.CommandAdmit},
		"unknown":                    {Kind: 200},
	} {
		for range 2 {
			a.mu.Lock()
			entries := len(a.journal)
			a.mu.Unlock()
			err := a.host.Ask(t.Context(), mirror.Event{Kind: mirror.EventCommanded, Command: c})
			require.ErrorIs(t, err, mirror.ErrRefused, name)
			a.mu.Lock()
			require.Greater(t, len(a.journal), entries, "%s: no entry", name)
			require.Equal(t, mirror.EntryRefused, a.journal[len(a.journal)-1].Kind, name)
			a.mu.Unlock()
		}
		a.unmoved(before, shown)
	}
}

// S8: a report that is of another role sequence, or from somebody who is no mirror, does not count.
func TestAbuseS8(t *testing.T) {
	a := newAbused(t, mirror.PartnerA)
	before, shown := a.host.Hard(), a.host.Status()
	c := a.client(abusedSession, endpoint.PartnerB)
	for _, seq := range []mirror.RoleSeq{0, 4, 6, 1 << 63} {
		m := mirror.Message{Kind: mirror.MessageReport, From: mirror.PartnerB, To: mirror.PartnerA, Incarnation: 7, Promised: 5,
			Record: abusedRecord(), Seq: seq, LSN: 1<<64 - 1, Redone: 1<<64 - 1}
		_, err := c.Send(t.Context(), "report", m.Append(nil))
		require.NoError(t, err)
		a.unmoved(before, shown)
	}
	stranger := mirror.Message{Kind: mirror.MessageReport, From: mirror.PartnerB, To: mirror.PartnerA, Incarnation: 8, Promised: 5,
		Record: abusedRecord(), Seq: 5, LSN: 1<<64 - 1}
	_, err := c.Send(t.Context(), "report", stranger.Append(nil))
	require.NoError(t, err)
	a.unmoved(before, shown)
}

// S16: the state of a principal was put back to an older copy of itself. The first word of anybody who knows more tells
// it so: it is no member any more, serves nothing, votes for nobody, and says so to every operator.
func TestAbuseS16(t *testing.T) {
	a := newAbused(t, mirror.PartnerA)
	before := a.host.Hard()
	newer := abusedRecord()
	newer.Change += 3
	c := a.client(abusedSession, endpoint.Witness)
	m := mirror.Message{Kind: mirror.MessagePing, From: mirror.Witness, To: mirror.PartnerA, Incarnation: 9, Promised: 5, Record: newer}
	_, err := c.Send(t.Context(), "ping", m.Append(nil))
	require.NoError(t, err)
	require.NoError(t, a.host.Ask(t.Context(), mirror.Event{Kind: mirror.EventTicked}))
	hard := a.host.Hard()
	require.True(t, hard.Removed)
	require.NotEqual(t, before.Incarnation, hard.Incarnation, "it is another server now")
	st := a.host.Status()
	require.False(t, st.Serving)
	require.Equal(t, mirror.GateClosed, st.Duty.Gate)
	vote := mirror.Message{Kind: mirror.MessageVote, From: mirror.PartnerB, To: mirror.PartnerA, Incarnation: 7, Promised: 5, Record: newer,
		Seq: 6, How: mirror.ElectionAutomatic}
	_, err = a.client(abusedSession, endpoint.PartnerB).Send(t.Context(), "vote", vote.Append(nil))
	require.NoError(t, err)
	require.NoError(t, a.host.Ask(t.Context(), mirror.Event{Kind: mirror.EventTicked}))
	require.Equal(t, hard, a.host.Hard(), "no vote")
	for _, k := range []mirror.CommandKind{mirror.CommandServe, mirror.CommandForceService, mirror.CommandFailover, mirror.CommandResume} {
		command := mirror.Command{Kind: k, Expect: newer.Version()}
		require.ErrorIs(t, a.host.Ask(t.Context(), mirror.Event{Kind: mirror.EventCommanded, Command: command}), mirror.ErrRefused)
	}
}

// S16: a state file that was edited is not believed: a host is not made with it.
func TestAbuseS16Edited(t *testing.T) {
	id, err := ParseSessionID(abusedSession)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "state")
	f, err := statefile.Open(path, id)
	require.NoError(t, err)
	_, _, err = f.Load()
	require.NoError(t, err)
	for change := range uint64(4) {
		r := abusedRecord()
		r.Change = change
		require.NoError(t, f.Save(mirror.HardState{Self: mirror.Witness, Incarnation: 9, Promised: 5, Record: r}.Append(nil)))
	}
	require.NoError(t, f.Close())
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	half := len(whole) / 2
	for name, edit := range map[string]func(b []byte) []byte{
		"a bit in every copy of the newest": func(b []byte) []byte {
			for at := 0; at < len(b); at += len(b) / 4 {
				b[at+60] ^= 1
			}
			return b
		},
		"two records swapped": func(b []byte) []byte { return append(b[half:len(b):len(b)], b[:half]...) },
		"one record twice":    func(b []byte) []byte { return append(b[:half:half], b[:half]...) },
		"cut off":             func(b []byte) []byte { return b[:half] },
		"empty":               func(b []byte) []byte { return nil },
	} {
		require.NoError(t, os.WriteFile(path, edit(bytes.Clone(whole)), 0o600))
		f, err := statefile.Open(path, id)
		require.NoError(t, err)
		_, err = New(Config{Session: id, Self: mirror.Witness, Store: f})
		var corrupt *statefile.CorruptError
		require.ErrorAs(t, err, &corrupt, name)
		require.NoError(t, f.Close())
	}
}
