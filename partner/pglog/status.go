package pglog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// errReport is returned instead of a status that would claim more than is true. A report beyond what was received
// disables the wait of every commit on the principal's server and spoils the slot, without an error from the server.
var errReport = errors.New("invariant: reported <= hardened <= received")

// report is what a status message rests on: all of the same server, in the same role sequence.
type report struct {
	received mirror.LSN // everything up to here has been received
	hardened mirror.LSN // everything up to here is on disk
	flush    mirror.LSN // what is claimed
}

// statusLen is the length of a standby status with the frame around it: type and length of CopyData, then 34 bytes.
const statusLen = 1 + 4 + 34

var postgresEpoch = time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)

// appendStatus appends a standby status message. Write and apply positions are the flush position: with
// synchronous_commit set to remote_write a commit then waits for the harden as well, and remote_apply does not wait for
// redo. ask requests a keepalive in answer.
func appendStatus(b []byte, r report, now time.Time, ask bool) ([]byte, error) {
	if r.flush == 0 || r.flush > r.hardened || r.hardened > r.received {
		return b, fmt.Errorf("report %s of hardened %s, received %s: %w", r.flush, r.hardened, r.received, errReport)
	}
	be := binary.BigEndian
	b = append(be.AppendUint32(append(b, 'd'), statusLen-1), 'r')
	for range 3 {
		b = be.AppendUint64(b, uint64(r.flush))
	}
	b = be.AppendUint64(b, uint64(now.Sub(postgresEpoch).Microseconds()))
	if ask {
		return append(b, 1), nil
	}
	return append(b, 0), nil
}

// StreamStatus is that of all backends.
type StreamStatus = backend.StreamStatus

// streamGauges is written by the read loop and read by anyone.
type streamGauges struct {
	streaming, stalled            atomic.Bool
	received, hardened, serverEnd atomic.Uint64
	heard                         atomic.Int64 // since began, in nanoseconds and one more; 0 is never
	bytes                         atomic.Uint64
	began                         time.Time
}

func (g *streamGauges) snapshot() StreamStatus {
	status := StreamStatus{
		Streaming: g.streaming.Load(),
		Stalled:   g.stalled.Load(),
		Received:  mirror.LSN(g.received.Load()),
		Hardened:  mirror.LSN(g.hardened.Load()),
		ServerEnd: mirror.LSN(g.serverEnd.Load()),
		Bytes:     g.bytes.Load(),
	}
	if heard := g.heard.Load(); heard > 0 {
		status.LastByte = g.began.Add(time.Duration(heard - 1))
	}
	return status
}
