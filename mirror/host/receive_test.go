package host

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
)

const testSession = "00112233445566778899aabbccddeeff"

func identityOf(s mirror.Server) endpoint.Identity {
	return endpoint.Identity{Session: testSession, Role: Role(s)}
}

// dials is a way to the partners on which nobody is reached, and counts who was to be.
type dials struct{ count atomic.Int64 }

func (d *dials) client(t *testing.T, self, peer mirror.Server) *endpoint.Client {
	t.Helper()
	client, err := endpoint.NewClient(endpoint.ClientConfig{
		Self: identityOf(self), Peer: identityOf(peer), Addr: "192.0.2.1:1", Credentials: endpoint.Credentials{Plaintext: true},
		Dial: func(context.Context, string) (net.Conn, error) {
			d.count.Add(1)
			return nil, errors.New("nobody is reached")
		},
	})
	require.NoError(t, err)
	return client
}

func ping(from, to mirror.Server) mirror.Message {
	return mirror.Message{Kind: mirror.MessagePing, From: from, To: to, Incarnation: 7}
}

// Goal: the pong travels on the connection that the ping came by.
func TestPongIsTheReplyToItsPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, stop := run(t, &disk{state: principalAlone()}, DataPath{})
		reply, err := h.Receive(t.Context(), identityOf(mirror.PartnerB), "ping", ping(mirror.PartnerB, mirror.PartnerA).Append(nil))
		require.NoError(t, err)
		pong, err := mirror.DecodeMessage(reply)
		require.NoError(t, err)
		require.Equal(t, [3]any{mirror.MessagePong, mirror.PartnerA, mirror.PartnerB}, [3]any{pong.Kind, pong.From, pong.To})
		require.Equal(t, Replied{Messages: 1, Bytes: uint64(len(reply))}, h.Counts().Replied[mirror.PartnerB])
		require.NoError(t, stop())
	})
}

// Goal: a witness makes no connections to a server that pings it, and goes on pinging one that does not.
func TestWitnessPingsOnlyWhoDoesNotPingIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d dials
		id, err := ParseSessionID(testSession)
		require.NoError(t, err)
		h, err := New(Config{Session: id, Self: mirror.Witness, Store: &disk{}, Peers: map[mirror.Server]*endpoint.Client{
			mirror.PartnerA: d.client(t, mirror.Witness, mirror.PartnerA),
			mirror.PartnerB: d.client(t, mirror.Witness, mirror.PartnerB),
		}})
		require.NoError(t, err)
		for _, o := range h.outbox {
			o.sending = t.Context()
		}
		second := func(at int, from ...mirror.Server) { // as the goroutine of Run lives it
			for tick := range ticksPerPing {
				for _, p := range from {
					if tick == at {
						require.NoError(t, h.serve(&request{
							event:  mirror.Event{Kind: mirror.EventReceived, Message: ping(p, mirror.Witness)},
							answer: make(chan error, 1),
						}))
					}
				}
				h.counted += h.Tick()
				require.NoError(t, h.step(mirror.Event{Kind: mirror.EventTicked}))
			}
			synctest.Wait()
		}
		h.counted = time.Hour
		for i := range 20 {
			second(2*(i%2), mirror.PartnerA, mirror.PartnerB)
		}
		require.Zero(t, d.count.Load(), "nobody who pings is pinged, be it early or late in the interval")
		second(0, mirror.PartnerA)
		second(0, mirror.PartnerA)
		before := d.count.Load()
		for range 20 {
			second(0, mirror.PartnerA)
		}
		require.EqualValues(t, before+20, d.count.Load(), "one who does not is")
	})
}

// Goal: a reply counts as a message of the server that was asked, and of no other kind than a pong.
func TestReplyIsAPongOfThePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, stop := run(t, &disk{state: principalAlone()}, DataPath{})
		pong := func(kind mirror.MessageKind, from, to mirror.Server) []byte {
			return mirror.Message{Kind: kind, From: from, To: to, Incarnation: 7}.Append(nil)
		}
		for _, bad := range [][]byte{
			[]byte("OK"),
			pong(mirror.MessagePong, mirror.Witness, mirror.PartnerA),
			pong(mirror.MessagePong, mirror.PartnerB, mirror.Witness),
			pong(mirror.MessageGrant, mirror.PartnerB, mirror.PartnerA),
		} {
			require.Error(t, h.replied(mirror.PartnerB, bad))
		}
		require.NoError(t, h.replied(mirror.PartnerB, nil), "most messages have no reply")
		synctest.Wait()
		require.False(t, h.Status().Peers[mirror.PartnerB].Connected)
		require.NoError(t, h.replied(mirror.PartnerB, pong(mirror.MessagePong, mirror.PartnerB, mirror.PartnerA)))
		synctest.Wait()
		require.True(t, h.Status().Peers[mirror.PartnerB].Connected)
		require.NoError(t, stop())
	})
}

// TestRunEndsWhatItHasStarted: a server that never answers is not waited for, and nothing is sent to it when Run has
// returned.
func TestRunEndsWhatItHasStarted(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			client, err := endpoint.NewClient(endpoint.ClientConfig{
				Self: identityOf(mirror.PartnerA), Peer: identityOf(mirror.PartnerB), Addr: "127.0.0.1:1", Credentials: endpoint.Credentials{Plaintext: true}, Timeout: time.Hour,
				Dial: func(context.Context, string) (net.Conn, error) {
					near, far := net.Pipe()
					t.Cleanup(func() { far.Close() })
					return near, nil
				},
			})
			require.NoError(t, err)
			h, err := New(Config{Self: mirror.PartnerA, Store: &disk{state: principalAlone()}, Peers: map[mirror.Server]*endpoint.Client{mirror.PartnerB: client}})
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			require.NoError(t, h.Run(ctx))
			o := h.outbox[mirror.PartnerB]
			o.mu.Lock()
			sending := o.mu.empty != nil
			o.mu.Unlock()
			require.False(t, sending)
			client.Close()
		})
	}
}
