// Package memory holds decoders to what their input can explain: a few bytes of a stranger's must not ask for a
// gigabyte. It imports nothing of the module, so that every package's tests can use it.
package memory

import (
	"math"
	"runtime/metrics"
	"testing"
)

// spare is what a decoder may ask for whatever its input is, in bytes.
const spare = 64 << 10

// Bound runs f, which reads input bytes, and ends the test when it asks for more heap than they can explain: four times as
// many bytes, and 64 KiB. Others may ask for heap at the same time, so f runs up to three times, and the least counts.
func Bound(t testing.TB, input int, f func()) {
	t.Helper()
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	most, least := uint64(4*input+spare), uint64(math.MaxUint64)
	for range 3 {
		metrics.Read(sample)
		before := sample[0].Value.Uint64()
		f()
		metrics.Read(sample)
		if least = min(least, sample[0].Value.Uint64()-before); least <= spare {
			return
		}
	}
	if least > most {
		t.Fatalf("%d bytes of memory for %d bytes of input: at most %d", least, input, most)
	}
}
