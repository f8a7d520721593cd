package endpoint

import (
	"fmt"
	"sync"
	"time"
)

// Limits bound what others can make a Server do. A zero field has its default.
type Limits struct {
	Handshake      time.Duration // to log in, and to send headers and body of one message; 5 s
	Handler        time.Duration // for the Handler to answer; 10 s
	Idle           time.Duration // an open connection without messages; 90 s
	MaxHandshakes  int           // connections that have not logged in; 128
	MaxPerPeer     int           // connections, and messages at a time, of one identity; 8
	MaxStreams     int           // streams of one identity; 128
	MaxConnections int           // connections that have logged in, of all sessions; 8192
	Rate           int           // messages, and streams opened, of one identity per second; 100 each
	Burst          int           // messages, and streams opened, of one identity at once; 200 each
}

func (l Limits) withDefaults() Limits {
	setDefault(&l.Handshake, 5*time.Second)
	setDefault(&l.Handler, 10*time.Second)
	setDefault(&l.Idle, 90*time.Second)
	setDefault(&l.MaxHandshakes, 128)
	setDefault(&l.MaxPerPeer, 8)
	setDefault(&l.MaxStreams, 128)
	setDefault(&l.MaxConnections, 8192)
	setDefault(&l.Rate, 100)
	setDefault(&l.Burst, 200)
	return l
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

func (l Limits) validate() error {
	for name, value := range map[string]int64{
		"Handshake": int64(l.Handshake), "Handler": int64(l.Handler), "Idle": int64(l.Idle),
		"MaxHandshakes": int64(l.MaxHandshakes), "MaxPerPeer": int64(l.MaxPerPeer),
		"MaxStreams": int64(l.MaxStreams), "MaxConnections": int64(l.MaxConnections), "Rate": int64(l.Rate), "Burst": int64(l.Burst),
	} {
		if value < 0 {
			return fmt.Errorf("limits: %s is negative", name)
		}
	}
	return nil
}

// bucket is a token bucket. It is safe for concurrent use. Its zero value is full.
type bucket struct {
	mu struct {
		sync.Mutex
		used float64 // tokens taken and not yet filled up again
		last time.Time
	}
}

// take takes a token, of which there are burst, filled up at rate per second. It reports whether there was one.
func (b *bucket) take(rate, burst int) bool {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if filled := now.Sub(b.mu.last).Seconds() * float64(rate); filled > 0 {
		b.mu.used = max(0, b.mu.used-filled)
		b.mu.last = now
	}
	if b.mu.used+1 > float64(burst) {
		return false
	}
	b.mu.used++
	return true
}
