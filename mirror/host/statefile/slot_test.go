package statefile

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

var testID = [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

func recordOf(n uint64) []byte {
	return bytes.Repeat([]byte{byte(n), byte(n >> 8), 0x5a}, 40+int(n%7))
}

func saved(n uint64) content {
	return content{counter: n, identity: testID, stored: true, record: recordOf(n)}
}

// image is a file whose newest content has counter n.
func image(n uint64) []byte {
	older, newer := encodeSlot(saved(n-1)), encodeSlot(saved(n))
	if saved(n).slot() == 0 {
		return append(newer, older...)
	}
	return append(older, newer...)
}

func TestRoundTrip(t *testing.T) {
	for _, length := range []int{0, 1, 100, MaxRecord} {
		c := content{counter: 7, identity: testID, stored: true, record: bytes.Repeat([]byte{0xab}, length)}
		got, err := decodeSlot(encodeSlot(c), 1)
		require.NoError(t, err)
		require.True(t, c.equal(got), "length %d", length)
	}
}

// A single changed bit anywhere in the file changes nothing: the other copy is there.
func TestEverySingleBit(t *testing.T) {
	want, file := saved(10), image(10)
	for bit := range len(file) * 8 {
		file[bit/8] ^= 1 << (bit % 8)
		got, err := decodeFile(file)
		if err != nil || !want.equal(got) {
			t.Fatalf("bit %d: %v %v", bit, got.counter, err)
		}
		file[bit/8] ^= 1 << (bit % 8)
	}
}

// A copy with any one bit changed is refused, and so is a copy with any two. All pairs are 5e8; but CRCs are linear, so a
// pair goes unseen only where two bits change the checksum alike, and it is enough that all single changes differ.
func TestEveryPairOfBitsInACopy(t *testing.T) {
	b := encodeSlot(saved(10))[:copySize]
	whole := checksum(b)
	seen := make(map[uint32]int, copySize*8)
	for bit := range copySize * 8 {
		b[bit/8] ^= 1 << (bit % 8)
		_, err := decodeCopy(b, 0)
		require.ErrorIs(t, err, errDamaged)
		syndrome := checksum(b) ^ whole
		if bit/8 >= offCRC && bit/8 < offCRC+4 {
			syndrome = 1 << (bit - offCRC*8)
		}
		require.NotZero(t, syndrome)
		if other, dup := seen[syndrome]; dup {
			t.Fatalf("bits %d and %d cancel out", bit, other)
		}
		seen[syndrome] = bit
		b[bit/8] ^= 1 << (bit % 8)
	}
}

// Two changed bits anywhere in the file give the newest record or a refusal, never an older record or another one.
func TestPairsOfBitsInTheFile(t *testing.T) {
	want, file := saved(11), image(11)
	random := rand.New(rand.NewPCG(1, 2))
	refused := 0
	for range 50_000 {
		i, j := random.IntN(len(file)*8), random.IntN(len(file)*8)
		file[i/8] ^= 1 << (i % 8)
		file[j/8] ^= 1 << (j % 8)
		got, err := decodeFile(file)
		if err != nil {
			refused++
		} else if !want.equal(got) {
			t.Fatalf("bits %d and %d: accepted counter %d", i, j, got.counter)
		}
		file[i/8] ^= 1 << (i % 8)
		file[j/8] ^= 1 << (j % 8)
	}
	require.NotZero(t, refused, "both copies of a slot were never hit")
}

// A write that stops after any byte leaves the old record or the new one.
func TestTornAtEveryByte(t *testing.T) {
	for _, n := range []uint64{10, 11} {
		old, next := saved(n), saved(n+1)
		file, written := image(n), encodeSlot(saved(n+1))
		at := next.slot() * slotSize
		for torn := range len(written) + 1 {
			copy(file[at:], written[:torn])
			got, err := decodeFile(file)
			require.NoError(t, err, "torn after %d bytes", torn)
			// Once the first copy is written the new record counts.
			if known := got.equal(old) || got.equal(next); !known || torn >= copySize && !got.equal(next) {
				t.Fatalf("torn after %d bytes: counter %d", torn, got.counter)
			}
		}
	}
}

// A disk that writes the sectors of a slot in any order leaves the old record, the new one, or a refusal; a refusal only
// when both copies are torn.
func TestSectorsInAnyOrder(t *testing.T) {
	const sectors = slotSize / 512
	old, next := saved(10), saved(11)
	old.record, next.record = bytes.Repeat([]byte{1}, MaxRecord), bytes.Repeat([]byte{2}, MaxRecord)
	older := old
	older.counter, older.record = 9, bytes.Repeat([]byte{3}, MaxRecord)
	before, after := encodeSlot(older), encodeSlot(next)
	file := append(encodeSlot(old), before...)
	for set := range 1 << sectors {
		slot := file[slotSize:]
		for s := range sectors {
			from := before
			if set&(1<<s) != 0 {
				from = after
			}
			copy(slot[s*512:(s+1)*512], from[s*512:])
		}
		got, err := decodeFile(file)
		low, high := set&0xff, set>>8
		torn := low != 0 && low != 0xff && high != 0 && high != 0xff
		require.Equal(t, torn, err != nil, "sectors %016b", set)
		require.True(t, err != nil || got.equal(old) || got.equal(next), "sectors %016b", set)
	}
}

func TestImpossibleFiles(t *testing.T) {
	slots := func(a, b content) []byte { return append(encodeSlot(a), encodeSlot(b)...) }
	foreign := saved(11)
	foreign.identity[0]++
	other := saved(10)
	other.record = []byte("another record with the same counter")
	contradiction := append(append(encodeSlot(saved(10))[:copySize:copySize], encodeSlot(other)[:copySize]...),
		encodeSlot(saved(11))...)
	apart := append(append(encodeSlot(saved(10))[:copySize:copySize], encodeSlot(saved(6))[:copySize]...),
		encodeSlot(saved(11))...)
	for name, file := range map[string][]byte{
		"copies apart":    apart,
		"empty":           {},
		"zeroed":          make([]byte, fileSize),
		"one slot":        image(10)[:slotSize],
		"grown":           append(image(10), 0),
		"slots swapped":   append(image(10)[slotSize:], image(10)[:slotSize]...),
		"stale slot":      slots(saved(8), saved(11)),
		"stale newest":    slots(saved(10), saved(7)),
		"two sessions":    slots(saved(10), foreign),
		"slot twice":      append(image(10)[:slotSize:slotSize], image(10)[:slotSize]...),
		"contradiction":   contradiction,
		"one slot zeroed": append(make([]byte, slotSize), image(10)[slotSize:]...),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decodeFile(file)
			require.Error(t, err)
			require.NotErrorIs(t, err, ErrNewer)
		})
	}
}
