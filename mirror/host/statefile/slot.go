package statefile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Layout of a copy, little-endian. The CRC covers the whole copy but itself, padding included; magic, version and CRC
// keep their places in every later version, so that an older program can say "newer" instead of "damaged".
const (
	copySize = 4096
	slotSize = 2 * copySize
	fileSize = 2 * slotSize

	offVersion  = 8
	offFlags    = 12
	offLength   = 16
	offCRC      = 20
	offCounter  = 24
	offIdentity = 32
	headerSize  = 48

	magic      = "DBMSTATE"
	version    = 1
	flagStored = 1
)

// MaxRecord is the greatest length of a record in bytes.
const MaxRecord = copySize - headerSize

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// content is what one slot says. An unsaved content (stored false) is written when the file is made.
type content struct {
	counter  uint64
	identity [16]byte
	stored   bool
	record   []byte
}

func (c content) equal(d content) bool {
	return c.counter == d.counter && c.identity == d.identity && c.stored == d.stored && bytes.Equal(c.record, d.record)
}

// slot is where this content belongs.
func (c content) slot() int { return int(c.counter % 2) }

// encodeSlot returns the bytes of a slot: the copy, twice.
func encodeSlot(c content) []byte {
	b := make([]byte, copySize, slotSize)
	copy(b, magic)
	binary.LittleEndian.PutUint32(b[offVersion:], version)
	if c.stored {
		binary.LittleEndian.PutUint32(b[offFlags:], flagStored)
	}
	binary.LittleEndian.PutUint32(b[offLength:], uint32(len(c.record)))
	binary.LittleEndian.PutUint64(b[offCounter:], c.counter)
	copy(b[offIdentity:], c.identity[:])
	copy(b[headerSize:], c.record)
	binary.LittleEndian.PutUint32(b[offCRC:], checksum(b))
	return append(b, b...)
}

func checksum(b []byte) uint32 {
	crc := crc32.Update(0, castagnoli, b[:offCRC])
	return crc32.Update(crc, castagnoli, b[offCRC+4:copySize])
}

// errDamaged is returned for a copy that this package did not write, or not whole.
var errDamaged = errors.New("damaged")

// decodeCopy reads one copy of slot number slot. It returns errDamaged, or an error that wraps [ErrNewer].
func decodeCopy(b []byte, slot int) (content, error) {
	if len(b) != copySize || string(b[:len(magic)]) != magic ||
		binary.LittleEndian.Uint32(b[offCRC:]) != checksum(b) {
		return content{}, errDamaged
	}
	if v := binary.LittleEndian.Uint32(b[offVersion:]); v != version {
		return content{}, fmt.Errorf("%w: its format is %d, this program reads %d", ErrNewer, v, version)
	}
	length := binary.LittleEndian.Uint32(b[offLength:])
	flags := binary.LittleEndian.Uint32(b[offFlags:])
	if length > MaxRecord || flags > flagStored {
		return content{}, errDamaged
	}
	c := content{
		counter:  binary.LittleEndian.Uint64(b[offCounter:]),
		identity: [16]byte(b[offIdentity:headerSize]),
		stored:   flags == flagStored,
		record:   bytes.Clone(b[headerSize : headerSize+length]),
	}
	// Nothing else may stand in it either: what this package did not write is damage, whatever its checksum says.
	if c.slot() != slot || !bytes.Equal(b, encodeSlot(c)[:copySize]) {
		return content{}, errDamaged
	}
	return c, nil
}

// decodeSlot returns the newest whole copy in a slot. Two whole copies are equal, or a crash fell exactly between them
// and one is two writes older.
func decodeSlot(b []byte, slot int) (content, error) {
	first, err1 := decodeCopy(b[:copySize], slot)
	second, err2 := decodeCopy(b[copySize:slotSize], slot)
	switch {
	case errors.Is(err1, ErrNewer):
		return content{}, err1
	case errors.Is(err2, ErrNewer):
		return content{}, err2
	case err1 != nil && err2 != nil:
		return content{}, fmt.Errorf("slot %d has no whole copy", slot)
	case err1 != nil:
		return second, nil
	case err2 != nil || first.equal(second) || first.counter == second.counter+2:
		return first, nil
	case second.counter == first.counter+2:
		return second, nil
	default:
		return content{}, fmt.Errorf("the copies in slot %d contradict each other", slot)
	}
}

// decodeFile returns the newest content of a file. The two slots are always one write apart; anything else means that
// one of them was put back or lost.
func decodeFile(b []byte) (content, error) {
	if len(b) != fileSize {
		return content{}, fmt.Errorf("it has %d bytes, not %d", len(b), fileSize)
	}
	even, err0 := decodeSlot(b[:slotSize], 0)
	odd, err1 := decodeSlot(b[slotSize:], 1)
	if err := errors.Join(err0, err1); err != nil {
		return content{}, err
	}
	if even.identity != odd.identity {
		return content{}, errors.New("its slots belong to two sessions")
	}
	switch {
	case odd.counter == even.counter+1:
		return odd, nil
	case even.counter == odd.counter+1:
		return even, nil
	default:
		return content{}, fmt.Errorf("its slots are not one write apart (%d and %d): one is stale", even.counter, odd.counter)
	}
}
