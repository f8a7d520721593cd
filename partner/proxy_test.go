package partner

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// cable is a link between two servers on which it can storm: bytes are held up, late or few, in one direction or in
// both, and a connection can end at one side without the other side's knowledge. A cable that is cut keeps its
// connections open and lets nothing pass, not even their ends, as when a network is lost; new connections are accepted
// and lead nowhere until it is whole.
type cable struct {
	listener net.Listener
	to       string

	mu      sync.Mutex
	storms  [2][]*weather // by direction; the worst of each counts
	changed chan struct{} // closed when a storm begins or ends
	calls   map[*call]bool
	closed  bool
}

// direction is that of bytes on a cable: outward comes from the side that dials.
type direction int

const (
	outward direction = iota
	inward
)

// weather is what happens to bytes that go in one direction.
type weather struct {
	cut     bool
	late    time.Duration // each byte arrives so much later than it was sent
	trickle time.Duration // between a byte and the next
}

// call is one connection over a cable: what came in, and what leads on.
type call struct {
	in, out net.Conn
	torn    bool // one end is closed and the other does not know: nothing is carried any more
}

// parcel is what was read at once.
type parcel struct {
	bytes []byte // none: the sender has closed its side
	sent  time.Time
}

func newCable(t *testing.T, to string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &cable{listener: l, to: to, changed: make(chan struct{}), calls: map[*call]bool{}}
	go c.accept()
	t.Cleanup(c.close)
	return c
}

func (c *cable) addr() string { return c.listener.Addr().String() }

func (c *cable) accept() {
	for {
		in, err := c.listener.Accept()
		if err != nil {
			return
		}
		go c.join(&call{in: in})
	}
}

// join leads a new connection on, when it can pass in both directions.
func (c *cable) join(k *call) {
	defer c.hangUp(k)
	if !c.keep(k, nil) || !c.pass(outward, time.Now()) || !c.pass(inward, time.Now()) {
		return
	}
	out, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	if !c.keep(k, out) {
		out.Close()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { c.carry(k, outward, k.out, k.in) })
	both.Go(func() { c.carry(k, inward, k.in, k.out) })
	both.Wait()
}

// carry takes bytes from one end to the other until one of them ends.
func (c *cable) carry(k *call, d direction, to, from net.Conn) {
	parcels := make(chan parcel, 64)
	go func() {
		defer close(parcels)
		for {
			buf := make([]byte, 32<<10)
			n, err := from.Read(buf)
			if n > 0 {
				parcels <- parcel{buf[:n], time.Now()}
			}
			if err != nil {
				parcels <- parcel{sent: time.Now()}
				return
			}
		}
	}()
	for p := range parcels {
		if !c.deliver(k, d, to, p) {
			if !c.isTorn(k) {
				to.Close()
				from.Close()
			}
			break
		}
	}
	for range parcels { // what still comes goes nowhere
	}
}

// deliver hands a parcel over as the weather allows; false: nothing more can be.
func (c *cable) deliver(k *call, d direction, to net.Conn, p parcel) bool {
	for rest := p.bytes; ; {
		if !c.pass(d, p.sent) || c.isTorn(k) {
			return false
		}
		if p.bytes == nil {
			t, ok := to.(interface{ CloseWrite() error })
			return ok && t.CloseWrite() == nil
		}
		now := len(rest)
		pace := c.now(d).trickle
		if pace > 0 {
			now = 1
		}
		if _, err := to.Write(rest[:now]); err != nil {
			return false
		}
		if rest = rest[now:]; len(rest) == 0 {
			return true
		}
		c.linger(pace)
	}
}

// now is the weather in a direction.
func (c *cable) now(d direction) weather {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.worst(d)
}

func (c *cable) worst(d direction) weather {
	var w weather
	for _, s := range c.storms[d] {
		w.cut = w.cut || s.cut
		w.late, w.trickle = max(w.late, s.late), max(w.trickle, s.trickle)
	}
	return w
}

// pass waits until what was sent at a time may go on; false: the cable is gone for good.
func (c *cable) pass(d direction, sent time.Time) bool {
	for {
		c.mu.Lock()
		w, changed, closed := c.worst(d), c.changed, c.closed
		c.mu.Unlock()
		wait := time.Until(sent.Add(w.late))
		switch {
		case closed:
			return false
		case w.cut:
			<-changed
		case wait > 0:
			due := time.NewTimer(wait)
			select {
			case <-due.C:
			case <-changed:
			}
			due.Stop()
		default:
			return true
		}
	}
}

// linger waits between two bytes, or until the weather changes.
func (c *cable) linger(d time.Duration) {
	if d <= 0 {
		return
	}
	c.mu.Lock()
	changed := c.changed
	c.mu.Unlock()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-changed:
	}
}

// keep notes a connection and where it leads; false: the cable is gone, or the connection is.
func (c *cable) keep(k *call, out net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || out != nil && !c.calls[k] {
		return false
	}
	k.out, c.calls[k] = out, true
	return true
}

func (c *cable) hangUp(k *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(k)
}

func (c *cable) drop(k *call) {
	delete(c.calls, k)
	k.in.Close()
	if k.out != nil {
		k.out.Close()
	}
}

func (c *cable) isTorn(k *call) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return k.torn
}

// tear ends each connection at one side only: the side that dialed is left with one that leads nowhere, or the side that
// was dialed is. Neither hears of it before it gives up by itself.
func (c *cable) tear(left direction) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.calls {
		if k.torn || k.out == nil {
			continue
		}
		k.torn = true
		if left == outward {
			k.out.Close()
		} else {
			k.in.Close()
		}
	}
}

// reset ends every connection at both sides, as routers do with what was silent for long.
func (c *cable) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.calls {
		c.drop(k)
	}
}

// storm begins a weather in one direction, beside those that are.
func (c *cable) storm(d direction, w *weather) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.storms[d] = append(c.storms[d], w)
	c.turn()
}

// calm ends a weather.
func (c *cable) calm(d direction, w *weather) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var left []*weather
	for _, s := range c.storms[d] {
		if s != w {
			left = append(left, s)
		}
	}
	c.storms[d] = left
	c.turn()
}

func (c *cable) turn() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// sever cuts the cable in both directions until it is mended.
func (c *cable) sever() (mend func()) {
	w := &weather{cut: true}
	c.storm(outward, w)
	c.storm(inward, w)
	return func() {
		c.reset()
		c.calm(outward, w)
		c.calm(inward, w)
	}
}

func (c *cable) close() {
	c.listener.Close()
	c.reset()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.turn()
}
