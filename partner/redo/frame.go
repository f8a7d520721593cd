package redo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/f19126b3/dbmirror/mirror"
)

// Kind says what a Record means. Zero is none.
type Kind uint8

const (
	// KindAttach begins a new stream at LSN. What was streamed but not committed before it is void.
	KindAttach Kind = iota + 1
	// KindData is one message of the principal's stream.
	KindData
	// KindCommit is a message that ends a transaction; LSN is the end of the transaction.
	KindCommit
	// KindMark says that the stream is known to hold nothing more up to LSN. One with a new role sequence says that the
	// history goes on there, with nothing lost.
	KindMark

	// kindSeal ends a log that was closed in order. No reader sees it: Open takes it off.
	kindSeal
)

// String returns the kind's word.
func (k Kind) String() string {
	switch k {
	case KindAttach:
		return "attach"
	case KindData:
		return "data"
	case KindCommit:
		return "commit"
	case KindMark:
		return "mark"
	case kindSeal:
		return "seal"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Record is one entry of the log. LSN is a position of the server that is principal in the role sequence Seq.
type Record struct {
	Kind Kind
	Seq  mirror.RoleSeq
	LSN  mirror.LSN
	Data []byte // at most MaxData bytes
}

func (r Record) position() mirror.Position {
	return mirror.Position{Seq: r.Seq, LSN: r.LSN}
}

// Offset is a place in the log, in bytes since its first beginning. It only rises, also over Trim and Reset, survives
// restarts, and can be compared with the usual operators. Zero means the oldest record kept.
type Offset uint64

// MaxData is the largest Data of a Record, in bytes: PostgreSQL's own limit of a message.
const MaxData = 1 << 30

const (
	frameHeaderSize = 29
	chainSize       = 32
	firstOfHarden   = 0x80
)

// frame is the header of a record on disk.
type frame struct {
	kind       Kind
	first      bool // first of its harden: all before it was on disk when it was written
	seq        mirror.RoleSeq
	lsn        mirror.LSN
	length     uint32 // of the payload
	payloadCRC uint32
}

var (
	errHeaderSum  = errors.New("frame header does not match its checksum")
	errHeader     = errors.New("frame header has an impossible kind or length")
	errPayloadSum = errors.New("frame payload does not match its checksum")
	errShort      = errors.New("frame is longer than the file")
	errBehind     = errors.New("something stands behind the last frame")
)

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// size is what the frame takes in the file.
func (f frame) size() int64 { return frameHeaderSize + int64(f.length) }

// seedOf binds a header to its place, so that a whole frame in a wrong place does not pass.
func seedOf(at Offset) uint32 { return uint32(at) ^ uint32(at>>32) }

// appendFrame writes the header of a frame that will stand at the offset. It does not allocate if b has room.
func appendFrame(b []byte, at Offset, f frame) []byte {
	kind := byte(f.kind)
	if f.first {
		kind |= firstOfHarden
	}
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, f.length)
	b = append(b, kind)
	b = binary.LittleEndian.AppendUint64(b, uint64(f.seq))
	b = binary.LittleEndian.AppendUint64(b, uint64(f.lsn))
	b = binary.LittleEndian.AppendUint32(b, f.payloadCRC)
	sum := crc32.Update(seedOf(at), castagnoli(), b[start+4:])
	binary.LittleEndian.PutUint32(b[start:], sum)
	return b
}

// decodeFrame reads the header that stands at the offset. It checks everything that can be known without the payload,
// so that the length may be trusted for an allocation.
func decodeFrame(b []byte, at Offset) (frame, error) {
	if len(b) < frameHeaderSize {
		return frame{}, errShort
	}
	b = b[:frameHeaderSize]
	if binary.LittleEndian.Uint32(b) != crc32.Update(seedOf(at), castagnoli(), b[4:]) {
		return frame{}, errHeaderSum
	}
	f := frame{
		kind:       Kind(b[8] &^ firstOfHarden),
		first:      b[8]&firstOfHarden != 0,
		seq:        mirror.RoleSeq(binary.LittleEndian.Uint64(b[9:])),
		lsn:        mirror.LSN(binary.LittleEndian.Uint64(b[17:])),
		length:     binary.LittleEndian.Uint32(b[4:]),
		payloadCRC: binary.LittleEndian.Uint32(b[25:]),
	}
	if !f.possible() {
		return frame{}, errHeader
	}
	return f, nil
}

func (f frame) possible() bool {
	switch f.kind {
	case KindAttach, KindData, KindMark:
		return f.length <= MaxData
	case KindCommit:
		return f.length >= chainSize && f.length <= MaxData+chainSize
	case kindSeal:
		return f.length == 0
	}
	return false
}

// record takes a frame and its payload apart. The chain is nil for all but commits.
func (f frame) record(payload []byte) (r Record, chain []byte, err error) {
	if crc32.Checksum(payload, castagnoli()) != f.payloadCRC {
		return Record{}, nil, errPayloadSum
	}
	if f.kind == KindCommit {
		chain, payload = payload[:chainSize], payload[chainSize:]
	}
	return Record{Kind: f.kind, Seq: f.seq, LSN: f.lsn, Data: payload}, chain, nil
}

// frameOf describes a record that is to be written with the given chain (nil for all but commits).
func frameOf(r Record, chain []byte, first bool) frame {
	sum := crc32.Update(0, castagnoli(), chain)
	return frame{
		kind: r.Kind, first: first, seq: r.Seq, lsn: r.LSN,
		length:     uint32(len(chain) + len(r.Data)),
		payloadCRC: crc32.Update(sum, castagnoli(), r.Data),
	}
}
