package crashpoint

import "sync/atomic"

// Point is a place at which the program can be ended. Its text says what has been done there and what has not.
type Point uint8

// String returns what is so at the point, as "subject: what is so".
func (p Point) String() string {
	if p >= numPoints {
		return "invalid"
	}
	return names[p]
}

// Points lists every point.
func Points() []Point {
	all := make([]Point, 0, numPoints)
	for p := Point(1); p < numPoints; p++ {
		all = append(all, p)
	}
	return all
}

// The one point at which the program ends, and how. It is the state of the whole program, as its end is; zero in
// production.
var (
	armed atomic.Uint32
	crash atomic.Pointer[func()]
)

// Hit ends the program if it is armed at p, and otherwise does nothing. It may be called from any goroutine, under any
// lock. The zero Point is never hit.
func Hit(p Point) {
	if at := armed.Load(); at != 0 && at == uint32(p) {
		end(p)
	}
}

// After ends the program at p when the step that returned err was taken, and hands err on.
func After(p Point, err error) error {
	if err == nil {
		Hit(p)
	}
	return err
}

func end(p Point) {
	if armed.CompareAndSwap(uint32(p), 0) {
		(*crash.Load())()
	}
}

// Arm has the program call end the next time it comes to p, once; end must not return before the program is gone. It
// takes the place of what was armed before. It is for the child processes of tests.
func Arm(p Point, end func()) {
	armed.Store(0)
	crash.Store(&end)
	armed.Store(uint32(p))
}
