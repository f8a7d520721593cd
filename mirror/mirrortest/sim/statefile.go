package sim

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// stateFile is a model of package statefile: two slots, each with two equal copies of counter, hard state and checksum.
// A record is written to the slot that holds the older one, with one write and one sync. The bytes of the hard state are
// the real ones.
type stateFile struct {
	e       *engine
	disk    [2][2][]byte // what outlives a crash of the machine
	pending []byte       // a copy that was written and not synced: it outlives the program only
	counter uint64
	state   mirror.HardState // as last known to be on disk
	failing float64          // probability that a sync fails
	failed  bool             // one has failed: nothing more is written in this life of the program
	flipped bool             // a copy is bad already: one that was torn as well would be a second fault
	writing uint64           // numbers the saves, so that one that was cut off is known
}

var (
	errDamaged = errors.New("the state file is damaged")
	errDisk    = errors.New("the disk failed")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encodeCopy(counter uint64, state []byte) []byte {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, len(state)+12), counter)
	b = append(b, state...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeCopy(b []byte, slot uint64) (counter uint64, state []byte, err error) {
	if len(b) < 12 || crc32.Checksum(b[:len(b)-4], castagnoli) != binary.LittleEndian.Uint32(b[len(b)-4:]) {
		return 0, nil, errDamaged
	}
	if counter = binary.LittleEndian.Uint64(b); counter%2 != slot {
		return 0, nil, errDamaged
	}
	return counter, b[8 : len(b)-4], nil
}

// decodeSlot prefers the newer of two whole copies: a crash may have fallen between them.
func decodeSlot(slot [2][]byte, number uint64) (counter uint64, state []byte, err error) {
	c0, s0, err0 := decodeCopy(slot[0], number)
	c1, s1, err1 := decodeCopy(slot[1], number)
	switch {
	case err0 != nil && err1 != nil:
		return 0, nil, errDamaged
	case err0 != nil || err1 == nil && c1 == c0+2:
		return c1, s1, nil
	case err1 != nil || c0 == c1 || c0 == c1+2:
		return c0, s0, nil
	}
	return 0, nil, errDamaged
}

// create makes a file that holds a first state.
func (f *stateFile) create(state mirror.HardState) {
	f.counter = 1
	for slot := range uint64(2) {
		b := encodeCopy(slot, state.Append(nil))
		f.disk[slot] = [2][]byte{b, b}
	}
	f.pending, f.failed, f.state = nil, false, state
}

// load reads the newest state and writes it to both slots again. The slots are always one write apart; anything else
// means that one of them was put back or lost.
func (f *stateFile) load() (mirror.HardState, error) {
	if f.pending != nil { // left by a program that died before its sync
		f.put(f.pending, 2)
	}
	even, s0, err0 := decodeSlot(f.disk[0], 0)
	odd, s1, err1 := decodeSlot(f.disk[1], 1)
	if err0 != nil || err1 != nil {
		return mirror.HardState{}, errDamaged
	}
	newest := s0
	switch {
	case odd == even+1:
		f.counter, newest = odd, s1
	case even == odd+1:
		f.counter = even
	default:
		return mirror.HardState{}, errDamaged
	}
	state, err := mirror.DecodeHardState(newest)
	if err != nil {
		return mirror.HardState{}, err
	}
	for range 2 {
		f.counter++
		f.put(encodeCopy(f.counter, newest), 2)
	}
	f.state, f.failed, f.flipped = state, false, false
	return state, nil
}

// put writes the first copies of a slot.
func (f *stateFile) put(b []byte, copies int) {
	slot := &f.disk[binary.LittleEndian.Uint64(b)%2]
	for i := range copies {
		slot[i] = b
	}
	f.pending = nil
}

// save replaces the state and calls done when it is on disk, or when the disk has failed: then it may be there or not.
func (f *stateFile) save(state mirror.HardState, takes time.Duration, done func(error)) {
	f.writing++
	number := f.writing
	if f.failed {
		f.e.after(0, func() { done(errDisk) })
		return
	}
	b := encodeCopy(f.counter+1, state.Append(nil))
	f.e.after(takes/2, func() {
		if f.writing == number {
			f.pending = b
		}
	})
	f.e.after(takes, func() {
		if f.writing != number {
			return // the program or the machine died meanwhile
		}
		if f.e.chance(f.failing) {
			f.failed = true
			f.put(b, f.copies())
			done(errDisk)
			return
		}
		f.put(b, 2)
		f.counter++
		f.state = state
		done(nil)
	})
}

// cut ends a save that is under way: of a crashed machine some of what was not synced may be on disk, and torn.
func (f *stateFile) cut(machine bool) (torn bool) {
	f.writing++
	if !machine || f.pending == nil {
		return false
	}
	b, copies := f.pending, f.copies()
	f.put(b, copies)
	if copies < 2 && !f.flipped && f.e.chance(0.5) {
		f.disk[binary.LittleEndian.Uint64(b)%2][copies] = b[:f.e.rng.IntN(len(b))] // the write stopped within this copy
		torn = true
	}
	return torn
}

// copies is how many of a slot's copies reach the disk when a sync was not seen to succeed.
func (f *stateFile) copies() int {
	if f.flipped {
		return 2 * f.e.rng.IntN(2)
	}
	return f.e.rng.IntN(3)
}

// flip changes one bit of one copy.
func (f *stateFile) flip() {
	if f.flipped {
		return
	}
	f.flipped = true
	c := &f.disk[f.e.rng.IntN(2)][f.e.rng.IntN(2)]
	b := append([]byte(nil), *c...)
	if len(b) > 0 {
		b[f.e.rng.IntN(len(b))] ^= 1 << f.e.rng.IntN(8)
	}
	*c = b
}

// stale puts the newest slot back to what it held two writes before: the file does not tell the newest record any more.
func (f *stateFile) stale() {
	slot := f.counter % 2
	if f.counter < 4 {
		f.disk[slot] = [2][]byte{}
		return
	}
	b := encodeCopy(f.counter-4, f.state.Append(nil))
	f.disk[slot] = [2][]byte{b, b}
}
