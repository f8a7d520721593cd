package pglog

import (
	"encoding/binary"
	"fmt"
	"net"
)

const (
	// frameBufferSize is how much is taken from the network at once, and so how much is hardened by one sync at most.
	frameBufferSize = 1 << 20
	// maxFrame is the largest message that the server can send: 1 GiB, its largest allocation, and a little around it.
	maxFrame = 1<<30 + 1024
)

// frames cuts what comes from the server into messages, which are views into its buffer. It knows which messages are
// already here, so that its user can do first what need not wait for the network.
type frames struct {
	conn net.Conn
	buf  []byte
	r, w int // the unread bytes are buf[r:w]
}

// next returns the next message if the whole of it has been read. The body is valid until the next call of fill.
func (f *frames) next() (kind byte, body []byte, ok bool, err error) {
	size, err := f.size()
	if err != nil || size == 0 || f.w-f.r < size {
		return 0, nil, false, err
	}
	frame := f.buf[f.r : f.r+size]
	f.r += size
	return frame[0], frame[5:], true, nil
}

// size returns the length of the first unread message with its header, or 0 when that is not known yet.
func (f *frames) size() (int, error) {
	if f.w-f.r < 5 {
		return 0, nil
	}
	n := binary.BigEndian.Uint32(f.buf[f.r+1:])
	if n < 4 || n > maxFrame {
		return 0, &ProtocolError{What: fmt.Sprintf("message %q of %d bytes", f.buf[f.r], n)}
	}
	return 1 + int(n), nil
}

// fill reads once from the network and returns the number of bytes read. It is called when next has nothing.
func (f *frames) fill() (int, error) {
	f.makeRoom()
	n, err := f.conn.Read(f.buf[f.w:])
	f.w += n
	return n, err
}

// makeRoom leaves free space behind the unread bytes. The buffer grows only as bytes really come, not by what a length
// claims, and it shrinks again after a large message.
func (f *frames) makeRoom() {
	switch {
	case f.r == f.w && len(f.buf) != frameBufferSize:
		f.buf = make([]byte, frameBufferSize)
		f.r, f.w = 0, 0
	case f.r > 0:
		f.w = copy(f.buf, f.buf[f.r:f.w])
		f.r = 0
	case f.w == len(f.buf):
		size, _ := f.size() // next has refused an impossible one
		grow := min(len(f.buf), size+frameBufferSize-len(f.buf))
		f.buf = append(f.buf, make([]byte, grow)...)
	}
}
