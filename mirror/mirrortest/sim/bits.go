package sim

import (
	"math/bits"
	"slices"
)

// set is a set of commits, by number.
type set []uint64

func (s set) has(id uint32) bool {
	return int(id/64) < len(s) && s[id/64]&(1<<(id%64)) != 0
}

func (s *set) add(id uint32) {
	for int(id/64) >= len(*s) {
		*s = append(*s, 0)
	}
	(*s)[id/64] |= 1 << (id % 64)
}

func (s set) remove(id uint32) {
	if s.has(id) {
		s[id/64] &^= 1 << (id % 64)
	}
}

func (s set) clone() set { return slices.Clone(s) }

// first is the lowest number in s that is in none of the others.
func (s set) first(others ...set) (uint32, bool) {
	for i, w := range s {
		for _, o := range others {
			if i < len(o) {
				w &^= o[i]
			}
		}
		if w != 0 {
			return uint32(i*64 + bits.TrailingZeros64(w)), true
		}
	}
	return 0, false
}

func (s set) count() int {
	n := 0
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}
