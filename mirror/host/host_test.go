package host

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
)

// disk keeps the state in memory, as a disk that can fail.
type disk struct {
	mu    sync.Mutex
	state []byte
	fails error
	saves int
}

func (d *disk) Load() ([]byte, bool, error) { return d.state, d.state != nil, nil }

func (d *disk) Save(state []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fails != nil {
		return d.fails
	}
	d.state = append([]byte(nil), state...)
	d.saves++
	return nil
}

func (d *disk) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fails = err
}

// wishes are the duties that a host has told its data path.
type wishes struct {
	mu     sync.Mutex
	last   mirror.Duty
	number uint64
}

func (w *wishes) want(d mirror.Duty, number uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last, w.number = d, number
}

func (w *wishes) now() (mirror.Duty, uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last, w.number
}

// principalAlone is the state of a principal without a witness, which serves as soon as its database is whole.
func principalAlone() []byte {
	r := mirror.Record{Seq: 1, Principal: mirror.PartnerA, Safety: mirror.SafetyFull}
	r.Members[mirror.PartnerA], r.Members[mirror.PartnerB] = 5, 7
	return mirror.HardState{Self: mirror.PartnerA, Incarnation: 5, Promised: 1, Record: r, Aligned: 1}.Append(nil)
}

// run starts a host in a bubble of fake time and returns what ends it.
func run(t *testing.T, store *disk, data DataPath) (*Host, func() error) {
	t.Helper()
	h, err := New(Config{Self: mirror.PartnerA, Store: store, Options: mirror.Options{ServeAtOnce: true}, Data: data})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	synctest.Wait()
	return h, func() error {
		cancel()
		return <-ended
	}
}

func TestEvidenceOfAnOlderWish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w wishes
		h, stop := run(t, &disk{state: principalAlone()}, DataPath{Duty: w.want})
		require.True(t, h.Tell(mirror.Event{Kind: mirror.EventDatabaseUp}))
		synctest.Wait()
		wish, number := w.now()
		require.Equal(t, mirror.WorkPromote, wish.Work)
		require.True(t, h.TellUnder(number-1, mirror.Event{Kind: mirror.EventWhole, Seq: 1}))
		synctest.Wait()
		require.False(t, h.Status().Whole, "what was proven under an older wish does not count")
		require.True(t, h.TellUnder(number, mirror.Event{Kind: mirror.EventWhole, Seq: 1}))
		synctest.Wait()
		require.True(t, h.Status().Whole)
		wish, after := w.now()
		require.Equal(t, mirror.GateOpen, wish.Gate)
		require.Greater(t, after, number)
		require.NoError(t, stop())
	})
}

func TestAStateThatCannotBeSavedFences(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w wishes
		store := &disk{state: principalAlone()}
		h, stop := run(t, store, DataPath{Duty: w.want})
		require.NoError(t, h.Ask(t.Context(), mirror.Event{Kind: mirror.EventDatabaseUp}))
		require.NoError(t, h.Ask(t.Context(), mirror.Event{Kind: mirror.EventWhole, Seq: 1}))
		wish, _ := w.now()
		require.Equal(t, mirror.GateOpen, wish.Gate)
		broken := errors.New("no more disk")
		store.fail(broken)
		c := mirror.Command{Kind: mirror.CommandSuspend, Reason: mirror.ReasonCommand}
		require.ErrorIs(t, h.Ask(t.Context(), mirror.Event{Kind: mirror.EventCommanded, Command: c}), broken)
		synctest.Wait()
		wish, _ = w.now()
		require.Equal(t, mirror.GateClosed, wish.Gate, "a session that cannot go on closes its database")
		require.ErrorIs(t, stop(), broken)
		require.ErrorIs(t, h.Ask(t.Context(), mirror.Event{Kind: mirror.EventTicked}), ErrStopped)
		require.False(t, h.Tell(mirror.Event{Kind: mirror.EventTicked}))
	})
}

func TestANewServerSavesItsIdentityFirst(t *testing.T) {
	store := &disk{}
	first, err := New(Config{Self: mirror.Witness, Store: store})
	require.NoError(t, err)
	require.Equal(t, 1, store.saves)
	again, err := New(Config{Self: mirror.Witness, Store: store})
	require.NoError(t, err)
	require.Equal(t, first.Hard(), again.Hard())
	require.NotZero(t, again.Hard().Incarnation)
	store.state[0] ^= 0xff
	_, err = New(Config{Self: mirror.Witness, Store: store})
	require.ErrorContains(t, err, "read state")
}

func TestReceiveBelievesTheEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, stop := run(t, &disk{state: principalAlone()}, DataPath{})
		ping := mirror.Message{Kind: mirror.MessagePing, From: mirror.PartnerB, To: mirror.PartnerA, Incarnation: 7}.Append(nil)
		for _, wrong := range []struct {
			role endpoint.Role
			kind endpoint.Kind
			body []byte
		}{
			{endpoint.Witness, "ping", ping},
			{endpoint.PartnerB, "vote", ping},
			{endpoint.PartnerB, "ping", ping[:len(ping)-1]},
			{endpoint.PartnerB, "ping", mirror.Message{Kind: mirror.MessagePing, From: mirror.PartnerB, To: mirror.Witness}.Append(nil)},
		} {
			_, err := h.Receive(t.Context(), endpoint.Identity{Role: wrong.role}, wrong.kind, wrong.body)
			require.Error(t, err)
		}
		_, err := h.Receive(t.Context(), endpoint.Identity{Role: endpoint.PartnerB}, "ping", ping)
		require.NoError(t, err)
		synctest.Wait()
		require.True(t, h.Status().Peers[mirror.PartnerB].Connected)
		require.EqualValues(t, 1, h.Counts().Received[mirror.PartnerB].Messages)
		require.NoError(t, stop())
	})
}

func TestALeaseRunsOutWithoutTheSession(t *testing.T) {
	h, err := New(Config{Self: mirror.PartnerA, Store: &disk{state: principalAlone()}})
	require.NoError(t, err)
	require.Zero(t, h.expires(mirror.Status{Serving: true}), "no lease, no end: there is no witness")
	require.Zero(t, h.expires(mirror.Status{Lease: 3}), "nothing is served")
	h.counted = sinceBoot() - time.Minute // the session has been held up for a minute since it counted its last tick
	require.EqualValues(t, h.counted+3*h.Tick(), h.expires(mirror.Status{Serving: true, Lease: 3}))
	kept := mirror.Duty{Role: mirror.RolePrincipal, Gate: mirror.GateKeep}
	require.EqualValues(t, h.counted+5*h.Tick(), h.expires(mirror.Status{Keep: 5, Lease: 3, Duty: kept}), "found open, and not closed by anybody else")
	require.EqualValues(t, h.counted+6*h.Tick(), h.expires(mirror.Status{Keep: 5, Lease: 6, Duty: kept}))
	h.expiry.Store(int64(sinceBoot() - time.Nanosecond))
	require.True(t, h.Overdue())
	h.expiry.Store(int64(sinceBoot() + time.Hour))
	require.False(t, h.Overdue())
}

func TestTiming(t *testing.T) {
	require.NoError(t, Timing{}.Validate())
	require.NoError(t, Fast().Validate())
	for name, bad := range map[string]Timing{
		"timeout":      {Timeout: time.Second},
		"ping":         {Ping: time.Millisecond},
		"third":        {Ping: 5 * time.Second},
		"lease":        {Lease: time.Second},
		"together":     {Lease: 8 * time.Second, Fence: 3 * time.Second},
		"clock errors": {Lease: 7990 * time.Millisecond, Fence: 2 * time.Second},
	} {
		require.Error(t, bad.Validate(), name)
	}
	ticks, err := Fast().ticks()
	require.NoError(t, err)
	require.Less(t, ticks.Lease, ticks.Timeout)
}

// The log tells what an entry has: no state that did not change, no peer and no position that it does not rest on.
func TestAttributesAreWhatIsSet(t *testing.T) {
	role := mirror.Entry{Kind: mirror.EntryRole, Role: mirror.RolePrincipal, Seq: 4, Reason: mirror.ReasonForcedService, LSN: 16}
	state := mirror.Entry{Kind: mirror.EntryState, Role: mirror.RoleMirror, Peer: mirror.Witness, From: mirror.StateSuspended, To: mirror.StateDisconnected}
	names := func(e mirror.Entry) (all []any) {
		found := attributes(e)
		for i := 0; i < len(found); i += 2 {
			all = append(all, found[i])
		}
		return all
	}
	require.Equal(t, []any{"role", "role_seq", "reason", "record", "lsn"}, names(role))
	require.Equal(t, []any{"role", "role_seq", "reason", "record", "from", "to", "peer"}, names(state))
}
