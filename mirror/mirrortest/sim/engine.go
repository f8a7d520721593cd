package sim

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// engine is virtual time: things to be done, in the order of their times, and of their making when those are equal.
type engine struct {
	rng   *rand.Rand
	now   time.Duration
	heap  []timed
	order uint64

	hash    uint64 // of everything that has happened
	tracing bool
	trace   []string
	failure string
}

type timed struct {
	at    time.Duration
	order uint64
	do    func()
}

func (t timed) before(u timed) bool { return t.at < u.at || t.at == u.at && t.order < u.order }

// after does something when so much time has passed.
func (e *engine) after(d time.Duration, do func()) {
	e.order++
	e.heap = append(e.heap, timed{e.now + d, e.order, do})
	i := len(e.heap) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !e.heap[i].before(e.heap[up]) {
			return
		}
		e.heap[i], e.heap[up] = e.heap[up], e.heap[i]
		i = up
	}
}

func (e *engine) pop() timed {
	first, last := e.heap[0], len(e.heap)-1
	e.heap[0] = e.heap[last]
	e.heap[last] = timed{}
	e.heap = e.heap[:last]
	for i := 0; ; {
		least := i
		for down := 2*i + 1; down <= 2*i+2 && down < last; down++ {
			if e.heap[down].before(e.heap[least]) {
				least = down
			}
		}
		if least == i {
			return first
		}
		e.heap[i], e.heap[least] = e.heap[least], e.heap[i]
		i = least
	}
}

// runUntil lets time pass until then, or until something has failed or done says so.
func (e *engine) runUntil(end time.Duration, done func() bool) {
	for len(e.heap) > 0 && e.failure == "" && e.heap[0].at <= end && !done() {
		next := e.pop()
		e.now = next.at
		next.do()
	}
	if e.failure == "" && !done() {
		e.now = max(e.now, end)
	}
}

func never() bool { return false }

// mix adds to the hash of the run.
func (e *engine) mix(values ...uint64) {
	for _, v := range values {
		e.hash = (e.hash ^ v) * 0x9e3779b97f4a7c15
		e.hash ^= e.hash >> 29
	}
}

// traceLimit is how many lines of a trace are kept: the last ones.
const traceLimit = 400

// say adds a line to the trace, if one is kept. Callers on hot paths look at tracing first.
func (e *engine) say(format string, args ...any) {
	if !e.tracing {
		return
	}
	if len(e.trace) >= 2*traceLimit {
		e.trace = append(e.trace[:0], e.trace[traceLimit:]...)
	}
	e.trace = append(e.trace, fmt.Sprintf("%10.3f ", e.now.Seconds())+fmt.Sprintf(format, args...))
}

// fail ends the run: something that must hold does not.
func (e *engine) fail(format string, args ...any) {
	if e.failure == "" {
		e.failure = fmt.Sprintf(format, args...)
		e.say("FAILED: %s", e.failure)
	}
}

// chance is true with probability p.
func (e *engine) chance(p float64) bool { return p > 0 && e.rng.Float64() < p }

// between draws a time.
func (e *engine) between(from, to time.Duration) time.Duration {
	if to <= from {
		return from
	}
	return from + time.Duration(e.rng.Int64N(int64(to-from)))
}

// about draws a time of that mean, most often shorter and sometimes much longer.
func (e *engine) about(mean time.Duration) time.Duration {
	return time.Duration(float64(mean) * min(e.rng.ExpFloat64(), 20))
}
