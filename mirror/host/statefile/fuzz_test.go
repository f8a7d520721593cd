package statefile

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror/mirrortest/memory"
)

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
			memory.Bound(t, len(b), func() { c, err = decodeCopy(b, slot) })
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
	written := headerSize + len(recordOf(8)) // what follows is zero in every copy
	f.Add(uint64(10), uint16(0), image(9)[:copySize+written], uint16(0), []byte{})
	f.Add(uint64(10), uint16(0), image(9)[:written], uint16(copySize), []byte("damaged"))
	f.Fuzz(func(t *testing.T, n uint64, at uint16, over []byte, at2 uint16, over2 []byte) {
		n = max(n, 1)
		whole := image(n)
		b := bytes.Clone(whole)
		copy(b[min(int(at), len(b)):], over)
		copy(b[min(int(at2), len(b)):], over2)
		var c content
		var err error
		memory.Bound(t, len(b), func() { c, err = decodeFile(b) })
		if err == nil && !c.equal(saved(n)) {
			// Only a whole copy that this package wrote at another time can say otherwise.
			require.True(t, c.equal(saved(c.counter)) && hasForeignCopy(b, whole), "counter %d, want %d", c.counter, n)
		}
		_, err = decodeFile(append(b, 0))
		require.Error(t, err, "trailing bytes")
	})
}

// hasForeignCopy says whether a file has a whole copy, byte for byte as this package writes it, where whole has another.
func hasForeignCopy(b, whole []byte) bool {
	for at := 0; at < fileSize; at += copySize {
		got := b[at : at+copySize]
		counter := binary.LittleEndian.Uint64(got[offCounter:])
		if !bytes.Equal(got, whole[at:at+copySize]) && bytes.Equal(got, encodeSlot(saved(counter))[:copySize]) {
			return true
		}
	}
	return false
}
