package sqlitelog

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/f19126b3/dbmirror/mirror"
)

// Two partners speak in frames: a kind, the length of the payload, a checksum over both and the payload. A connection
// begins with one request of the mirror's side; what follows depends on what it asks for.
const (
	frameRequest  byte = 'Q' // JSON; the first frame, and the only one of its kind
	frameAnswer   byte = 'R' // JSON; the answer
	framePart     byte = 'D' // end of a part of the log, and its bytes; more of the transaction follows
	frameCommit   byte = 'C' // the last part of a transaction
	frameEnd      byte = 'K' // where the log ends; sent when there is nothing else
	frameHardened byte = 'A' // where the mirror's hardened log ends
	framePages    byte = 'P' // bytes of a copied database
	frameWhole    byte = 'W' // the copy has ended; its checksum
)

const (
	frameHeader = 9
	// maxPayload bounds what is allocated for what the other side announces.
	maxPayload = partBytes + 8
	// maxRequest bounds JSON.
	maxRequest = 16 << 10
)

// errFrame is returned for bytes that the other side cannot have meant. The connection is of no more use.
var errFrame = errors.New("damaged frame from the other partner")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendFrame appends a frame; the payload is what the parts are together.
func appendFrame(b []byte, kind byte, payload ...[]byte) []byte {
	n := 0
	for _, p := range payload {
		n += len(p)
	}
	start := len(b)
	b = append(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	crc := crc32.Update(0, castagnoli, b[start:])
	for _, p := range payload {
		crc = crc32.Update(crc, castagnoli, p)
	}
	b = binary.BigEndian.AppendUint32(b, crc)
	for _, p := range payload {
		b = append(b, p...)
	}
	return b
}

// frames reads them. The payload is valid until the next.
type frames struct {
	r       *bufio.Reader
	payload []byte
}

func newFrames(r io.Reader) *frames { return &frames{r: bufio.NewReaderSize(r, 1<<20)} }

func (f *frames) next() (kind byte, payload []byte, err error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(f.r, header[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(header[1:])
	if n > maxPayload {
		return 0, nil, fmt.Errorf("%w: %d bytes announced", errFrame, n)
	}
	if cap(f.payload) < int(n) {
		f.payload = make([]byte, n, max(int(n), 4<<10))
	}
	payload = f.payload[:n]
	if _, err := io.ReadFull(f.r, payload); err != nil {
		return 0, nil, err
	}
	crc := crc32.Update(crc32.Update(0, castagnoli, header[:5]), castagnoli, payload)
	if crc != binary.BigEndian.Uint32(header[5:]) {
		return 0, nil, fmt.Errorf("%w: its checksum is wrong", errFrame)
	}
	return header[0], payload, nil
}

// waiting says whether a whole frame has arrived that was not read yet.
func (f *frames) waiting() bool {
	header, err := f.r.Peek(min(frameHeader, f.r.Buffered()))
	if err != nil || len(header) < frameHeader {
		return false
	}
	return f.r.Buffered() >= frameHeader+int(binary.BigEndian.Uint32(header[1:]))
}

// json reads a frame of one kind into v.
func (f *frames) json(kind byte, v any) error {
	got, payload, err := f.next()
	if err != nil {
		return err
	}
	if got != kind || len(payload) > maxRequest {
		return fmt.Errorf("%w: kind %q, want %q", errFrame, got, kind)
	}
	if err := json.Unmarshal(payload, v); err != nil {
		return fmt.Errorf("%w: %w", errFrame, err)
	}
	return nil
}

func appendJSON(b []byte, kind byte, v any) ([]byte, error) {
	payload, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return appendFrame(b, kind, payload), nil
}

// position reads the payload of a frame that is a position.
func position(payload []byte) (mirror.LSN, error) {
	if len(payload) != 8 {
		return 0, fmt.Errorf("%w: a position of %d bytes", errFrame, len(payload))
	}
	return mirror.LSN(binary.BigEndian.Uint64(payload)), nil
}

func positionBytes(at mirror.LSN) []byte { return binary.BigEndian.AppendUint64(nil, uint64(at)) }

// partOf reads the payload of a part of the log; the data aliases it.
func partOf(kind byte, payload []byte) (part, error) {
	if len(payload) < 8 {
		return part{}, fmt.Errorf("%w: a part of the log without a position", errFrame)
	}
	return part{end: mirror.LSN(binary.BigEndian.Uint64(payload)), last: kind == frameCommit, data: payload[8:]}, nil
}

// request is what the mirror's side wants.
type request struct {
	Version int    `json:"version"`
	Session string `json:"session"`
	Ask     string `json:"ask"` // identity, reign, gate, content, log, copy

	Seq     mirror.RoleSeq `json:"seq,omitempty"`
	Log     string         `json:"log,omitempty"`
	Origin  uint64         `json:"origin,omitempty"`
	Name    string         `json:"name,omitempty"`
	After   mirror.LSN     `json:"after,omitempty"`
	Silence int64          `json:"silence_ms,omitempty"`
}

// protocol is the version of the frames.
const protocol = 1

// answer is what the other side says to it.
type answer struct {
	Error   string `json:"error,omitempty"`
	Reason  uint8  `json:"reason,omitempty"`   // a mirror.Reason
	NoReign bool   `json:"no_reign,omitempty"` // the error is backend.ErrNoReign

	ID     uint64     `json:"id,omitempty"`
	Path   string     `json:"path,omitempty"`
	Gate   uint8      `json:"gate,omitempty"`
	Reign  *reignJSON `json:"reign,omitempty"`
	Tables int64      `json:"tables,omitempty"`
	Free   *int64     `json:"free,omitempty"` // bytes where the file lies, if that is known
	At     mirror.LSN `json:"at,omitempty"`
	Bytes  int64      `json:"bytes,omitempty"`
	Rows   int64      `json:"rows,omitempty"`
}
