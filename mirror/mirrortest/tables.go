package mirrortest

// The containers of exploration. They hold hundreds of millions of numbers, so none of them holds pointers, and none
// allocates but to grow.

// mix spreads a number over 64 bits, so that numbers that differ have unrelated images (the finalizer of splitmix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// table numbers values in the order in which they are met.
type table[T comparable] struct {
	number map[T]uint32
	values []T
}

func newTable[T comparable]() *table[T] { return &table[T]{number: map[T]uint32{}} }

func (t *table[T]) of(v T) uint32 {
	if n, ok := t.number[v]; ok {
		return n
	}
	n := uint32(len(t.values))
	t.number[v], t.values = n, append(t.values, v)
	return n
}

func (t *table[T]) at(n uint32) T { return t.values[n] }

// ref is at without the copy; it holds until the next of.
func (t *table[T]) ref(n uint32) *T { return &t.values[n] }

// memo maps keys to numbers: open addressing, linear probing, at most half full. The key of all ones is not allowed.
type memo struct {
	keys   []uint64 // plus one, so that zero is an empty place
	values []uint32
	used   int
}

func (m *memo) get(key uint64) (uint32, bool) {
	if len(m.keys) == 0 {
		return 0, false
	}
	mask := uint64(len(m.keys) - 1)
	for i := mix(key) & mask; ; i = (i + 1) & mask {
		switch m.keys[i] {
		case key + 1:
			return m.values[i], true
		case 0:
			return 0, false
		}
	}
}

// put adds a key that is not there.
func (m *memo) put(key uint64, value uint32) {
	if 2*m.used >= len(m.keys) {
		old := *m
		size := max(1<<10, 2*len(old.keys))
		*m = memo{keys: make([]uint64, size), values: make([]uint32, size)}
		for i, k := range old.keys {
			if k != 0 {
				m.put(k-1, old.values[i])
			}
		}
	}
	m.used++
	mask := uint64(len(m.keys) - 1)
	i := mix(key) & mask
	for m.keys[i] != 0 {
		i = (i + 1) & mask
	}
	m.keys[i], m.values[i] = key+1, value
}

// set holds fingerprints: open addressing, linear probing, at most three quarters full. Fingerprints are spread already.
type set struct {
	places []uint64
	used   int
	zero   bool // whether the fingerprint zero, which marks an empty place, is in the set
}

// add says whether the fingerprint was not in the set before.
func (s *set) add(print uint64) bool {
	if print == 0 {
		fresh := !s.zero
		s.zero = true
		return fresh
	}
	if 4*s.used >= 3*len(s.places) {
		s.grow()
	}
	mask := uint64(len(s.places) - 1)
	for i := print & mask; ; i = (i + 1) & mask {
		switch s.places[i] {
		case print:
			return false
		case 0:
			s.places[i] = print
			s.used++
			return true
		}
	}
}

func (s *set) addAll(prints []uint64) {
	for _, print := range prints {
		s.add(print)
	}
}

func (s *set) has(print uint64) bool {
	if print == 0 || len(s.places) == 0 {
		return print == 0 && s.zero
	}
	mask := uint64(len(s.places) - 1)
	for i := print & mask; s.places[i] != 0; i = (i + 1) & mask {
		if s.places[i] == print {
			return true
		}
	}
	return false
}

func (s *set) grow() {
	old := s.places
	s.places = make([]uint64, max(1<<12, 2*len(old)))
	mask := uint64(len(s.places) - 1)
	for _, print := range old {
		if print == 0 {
			continue
		}
		i := print & mask
		for s.places[i] != 0 {
			i = (i + 1) & mask
		}
		s.places[i] = print
	}
}

// queue holds encoded worlds first in, first out, in blocks that are used again.
type queue struct {
	blocks [][]byte // the first is being read, the last being written
	read   int
	spare  [][]byte
	length int
}

const blockSize = 1 << 20

// push adds what write appends to a block.
func (q *queue) push(write func([]byte) []byte) {
	last := len(q.blocks) - 1
	if last < 0 || cap(q.blocks[last])-len(q.blocks[last]) < maxKey {
		var b []byte
		if n := len(q.spare); n > 0 {
			b, q.spare = q.spare[n-1][:0], q.spare[:n-1]
		} else {
			b = make([]byte, 0, blockSize)
		}
		q.blocks, last = append(q.blocks, b), last+1
	}
	q.blocks[last] = write(q.blocks[last])
	q.length++
}

// pop lets read consume the oldest world and return how many bytes it was.
func (q *queue) pop(read func([]byte) int) {
	for q.read == len(q.blocks[0]) {
		q.spare = append(q.spare, q.blocks[0])
		q.blocks, q.read = q.blocks[1:], 0
	}
	q.read += read(q.blocks[0][q.read:])
	q.length--
}
