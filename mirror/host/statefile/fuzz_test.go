package statefile

import (
	"bytes"
	"encoding/binary"
	"math"
	"runtime/metrics"
	"testing"

	"github.com/stretchr/testify/require"
)

// allocated returns how many bytes of heap f asks for. Others may ask for some at the same time, so the least of several
// runs counts.
func allocated(f func()) uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	least := uint64(math.MaxUint64)
	for range 3 {
		metrics.Read(sample)
		before := sample[0].Value.Uint64()
		f()
		metrics.Read(sample)
		if least = min(least, sample[0].Value.Uint64()-before); least <= 64<<10 {
			break
		}
	}
	return least
}

// FuzzDecodeCopy mends the checksum of what it is given, so that the fields behind it are reached. What is accepted must
// be exactly what this package writes.
func FuzzDecodeCopy(f *testing.F) {
	f.Add(encodeSlot(saved(10))[:copySize])
	f.Add(encodeSlot(content{counter: 1, identity: testID})[:copySize])
	f.Add(encodeSlot(saved(10))[:copySize-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == copySize {
			b = bytes.Clone(b)
			binary.LittleEndian.PutUint32(b[offCRC:], checksum(b))
		}
		for slot := range 2 {
			var c content
			var err error
			used := allocated(func() { c, err = decodeCopy(b, slot) })
			require.LessOrEqual(t, used, uint64(4*len(b)+64<<10))
			if err == nil {
				require.Equal(t, b, encodeSlot(c)[:copySize])
				require.Equal(t, slot, c.slot())
			}
			_, err = decodeCopy(append(b[:len(b):len(b)], 0), slot)
			require.True(t, err != nil || len(b) == copySize-1, "trailing bytes")
		}
	})
}

// FuzzDecodeFile overwrites places of a file whose newest record is known. It must be refused, or tell that record: never
// an older one, never another.
func FuzzDecodeFile(f *testing.F) {
	f.Add(uint64(10), uint16(0), []byte{}, uint16(0), []byte{})
	f.Add(uint64(11), uint16(offCounter), []byte{7}, uint16(0), []byte{})
	f.Add(uint64(10), uint16(0), make([]byte, copySize), uint16(copySize), make([]byte, copySize))
	f.Add(uint64(11), uint16(0), image(9)[:slotSize], uint16(slotSize), image(9)[slotSize:])
	f.Add(uint64(10), uint16(headerSize), []byte("another"), uint16(copySize+headerSize), []byte("another"))
	f.Fuzz(func(t *testing.T, n uint64, at uint16, over []byte, at2 uint16, over2 []byte) {
		n = max(n, 1)
		b := image(n)
		copy(b[min(int(at), len(b)):], over)
		copy(b[min(int(at2), len(b)):], over2)
		var c content
		var err error
		used := allocated(func() { c, err = decodeFile(b) })
		require.LessOrEqual(t, used, uint64(4*len(b)+64<<10))
		if err == nil && !c.equal(saved(n)) {
			// Only a whole file, or a whole slot, that this package wrote at another time can say otherwise.
			require.True(t, c.equal(saved(c.counter)) && len(over)+len(over2) >= slotSize, "counter %d, want %d", c.counter, n)
		}
		_, err = decodeFile(append(b, 0))
		require.Error(t, err, "trailing bytes")
	})
}
