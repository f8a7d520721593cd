package pglog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// hardenBytes bounds how much log of open transactions waits in memory, so that little is left to harden when a large
// one commits.
const hardenBytes = 4 << 20

// readLoop is the data path's one goroutine: read, append, harden, report. It is its own group commit: whatever has
// arrived while the last harden ran is appended and hardened together, without timers.
//
// Its positions, in rising order: reported = hardened <= ended <= received.
type readLoop struct {
	cfg    StreamConfig
	log    Log
	conn   net.Conn
	frames frames
	gauges *streamGauges

	open  byte       // TypeBegin or TypeStreamStart between it and its end, else 0
	final mirror.LSN // where the commit record of the open transaction starts

	received mirror.LSN
	ended    mirror.LSN // the last transaction or mark appended
	hardened mirror.LSN
	idle     mirror.LSN // up to here a keepalive said that everything has been sent; above ended only while open is 0

	unhardened int  // bytes appended since the last harden
	owed       bool // a keepalive has not been answered
	status     []byte
	reported   time.Time
	heard      time.Time
	gathering  gathering
	filled     int       // bytes that the last read brought
	asked      time.Time // when the server was asked for a sign of life; zero if it was heard since

	readBy, writeBy time.Time // deadlines of the connection, as last set
}

func newReadLoop(s *Stream, log Log, conn net.Conn, start mirror.LSN) *readLoop {
	now := time.Now()
	return &readLoop{
		cfg: s.cfg, log: log, conn: conn, gauges: &s.gauges,
		frames:   frames{conn: conn},
		received: start, ended: start, hardened: start,
		owed:   true, // the first report makes the server count this mirror
		status: make([]byte, 0, statusLen),
		heard:  now, gathering: newGathering(conn),
	}
}

func (l *readLoop) run(ctx context.Context) error {
	if err := l.start(ctx); err != nil {
		return l.end(ctx, err)
	}
	l.gauges.received.Store(uint64(l.received))
	l.gauges.hardened.Store(uint64(l.hardened))
	l.gauges.streaming.Store(true)
	if err := l.append(ctx, redo.KindAttach, l.hardened, nil); err != nil {
		return l.end(ctx, err)
	}
	for {
		if err := l.turn(ctx); err != nil {
			return l.end(ctx, err)
		}
	}
}

// turn takes the next message if it is here. If not, everything that arrived is appended, and the time until more comes
// is used to harden and report: after every message, of whatever type, because the one before it may be a commit.
func (l *readLoop) turn(ctx context.Context) error {
	kind, body, ok, err := l.frames.next()
	switch {
	case err != nil:
		return err
	case ok:
		return l.message(ctx, kind, body)
	}
	if err := l.drained(ctx); err != nil {
		return err
	}
	return l.wait(ctx)
}

// end says good-bye to a server that may still listen, and tells an end that was asked for from a failure.
func (l *readLoop) end(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	// The server may be gone: the reason to end is worth more than whether it heard of it.
	_ = l.conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = l.conn.Write([]byte{'c', 0, 0, 0, 4, 'X', 0, 0, 0, 4})
	return err
}

func (l *readLoop) message(ctx context.Context, kind byte, body []byte) error {
	switch kind {
	case 'd':
		return l.copyData(ctx, body)
	case 'N', 'S': // notices and changed settings
		return nil
	case 'E':
		return serverError(body)
	case 'c', 'C', 'Z':
		return ErrStreamEnded
	}
	return &ProtocolError{What: fmt.Sprintf("unexpected message %q", kind)}
}

// serverError is what the server says when it ends the stream itself.
func serverError(body []byte) error {
	var response pgproto3.ErrorResponse
	if err := response.Decode(body); err != nil {
		return &ProtocolError{What: "an error that cannot be read"}
	}
	return fmt.Errorf("read the principal's log: %w", pgconn.ErrorResponseToPgError(&response))
}

const (
	logHeaderLen = 1 + 8 + 8 + 8 // 'w', start, server's end, time
	keepaliveLen = 1 + 8 + 8 + 1 // 'k', server's end, time, answer at once
)

func (l *readLoop) copyData(ctx context.Context, body []byte) error {
	switch {
	case len(body) > logHeaderLen && body[0] == 'w':
		return l.logMessage(ctx, mirror.LSN(binary.BigEndian.Uint64(body[1:])), body[logHeaderLen:])
	case len(body) == keepaliveLen && body[0] == 'k':
		l.keepalive(mirror.LSN(binary.BigEndian.Uint64(body[1:])))
		return nil
	}
	return &ProtocolError{What: fmt.Sprintf("replication message of %d bytes", len(body))}
}

// keepalive notes that the server has sent everything up to end. Such a position is what releases commits without
// published rows and those of other databases, so it is answered whether or not the server asks. Inside a transaction
// the position may be that of its rows and proves nothing.
func (l *readLoop) keepalive(end mirror.LSN) {
	l.gauges.serverEnd.Store(uint64(end))
	l.owed = true
	if l.open == 0 && end > l.ended {
		l.idle = max(l.idle, end)
		l.received = max(l.received, end)
	}
}

// logMessage appends one pgoutput message as it came. It looks only at where transactions begin and end, and refuses
// what would make the log ambiguous or redo stop for ever.
func (l *readLoop) logMessage(ctx context.Context, at mirror.LSN, data []byte) error {
	l.received = max(l.received, at)
	switch data[0] {
	case TypeBegin:
		return l.begin(ctx, at, data)
	case TypeStreamStart:
		if err := l.enter(ctx, TypeStreamStart); err != nil {
			return err
		}
		return l.append(ctx, redo.KindData, at, data)
	case TypeStreamStop:
		if l.open != TypeStreamStart {
			return l.misplaced(data)
		}
		l.open = 0
		return l.append(ctx, redo.KindData, at, data)
	case TypeStreamAbort:
		if l.open != 0 {
			return l.misplaced(data)
		}
		return l.append(ctx, redo.KindData, at, data)
	case TypeCommit, TypeStreamCommit:
		return l.commit(ctx, data)
	case TypeMessage:
		// One that belongs to no transaction is not part of the data, and may come twice. It never comes in a chunk, where
		// a transaction's number stands in the place of the flags.
		if l.open != TypeStreamStart && len(data) > 1 && data[1] == 0 {
			return nil
		}
		fallthrough
	case TypeInsert, TypeUpdate, TypeDelete, TypeTruncate, TypeRelation, TypeType, TypeOrigin:
		if l.open == 0 {
			return l.misplaced(data)
		}
		return l.append(ctx, redo.KindData, at, data)
	}
	return &DecodeError{Type: data[0], Offset: 1, What: "want known message type"}
}

func (l *readLoop) misplaced(data []byte) error {
	return &ProtocolError{What: fmt.Sprintf("message %q in a transaction opened by %q", data[0], l.open)}
}

func (l *readLoop) begin(ctx context.Context, at mirror.LSN, data []byte) error {
	if len(data) != 1+8+8+4 {
		return &ProtocolError{What: fmt.Sprintf("begin of %d bytes", len(data))}
	}
	final := mirror.LSN(binary.BigEndian.Uint64(data[1:]))
	if err := l.after(final); err != nil {
		return err
	}
	if err := l.enter(ctx, TypeBegin); err != nil {
		return err
	}
	l.final = final
	return l.append(ctx, redo.KindData, at, data)
}

// enter opens a transaction or a part of one. What a keepalive said before it is appended before it, because a mark
// cannot stand inside.
func (l *readLoop) enter(ctx context.Context, kind byte) error {
	if l.open != 0 {
		return &ProtocolError{What: fmt.Sprintf("message %q in a transaction opened by %q", kind, l.open)}
	}
	if err := l.mark(ctx); err != nil {
		return err
	}
	l.open = kind
	return nil
}

// after refuses a transaction whose commit record does not lie after everything that was said to be complete. A server
// that is asked to begin at the end of our log never sends one; if it did, the log would hold it twice or too late.
func (l *readLoop) after(commit mirror.LSN) error {
	if end := max(l.ended, l.idle); commit < end {
		return &ProtocolError{What: fmt.Sprintf("transaction committed at %s is sent after %s was complete", commit, end)}
	}
	return nil
}

func (l *readLoop) commit(ctx context.Context, data []byte) error {
	end, ok := EndsTransaction(data)
	if !ok {
		return &ProtocolError{What: fmt.Sprintf("commit of %d bytes", len(data))}
	}
	start := mirror.LSN(binary.BigEndian.Uint64(data[len(data)-24:]))
	switch {
	case data[0] == TypeCommit && l.open != TypeBegin, data[0] == TypeStreamCommit && l.open != 0:
		return l.misplaced(data)
	case data[0] == TypeCommit && start != l.final:
		return &ProtocolError{What: fmt.Sprintf("transaction to be committed at %s is committed at %s", l.final, start)}
	case end <= start:
		return &ProtocolError{What: fmt.Sprintf("commit at %s ends at %s", start, end)}
	}
	if err := l.after(start); err != nil {
		return err
	}
	if err := l.append(ctx, redo.KindCommit, end, data); err != nil {
		return err
	}
	l.open = 0
	l.ended = end
	l.received = max(l.received, end)
	return nil
}

// mark appends what the last keepalives said, if it goes beyond the last transaction. It has to be in the log before it
// may be reported: the server forgets what was reported, and the stream begins again at the end of the log.
func (l *readLoop) mark(ctx context.Context) error {
	if l.idle <= l.ended {
		return nil
	}
	if err := l.append(ctx, redo.KindMark, l.idle, nil); err != nil {
		return err
	}
	l.ended = l.idle
	return nil
}

// append adds to the log. A full log is waited for: what is in it is hardened and reported on, nothing more is read, and
// so the principal waits until redo has made room.
func (l *readLoop) append(ctx context.Context, kind redo.Kind, at mirror.LSN, data []byte) error {
	l.unhardened += len(data)
	record := redo.Record{Kind: kind, Seq: l.cfg.Seq, LSN: at, Data: data}
	err := l.log.Append(record)
	if err == nil {
		return nil
	}
	if errors.Is(err, redo.ErrFull) {
		err = l.stall(ctx, record)
	}
	if err != nil {
		return fmt.Errorf("append to log: %w", err)
	}
	return nil
}

func (l *readLoop) stall(ctx context.Context, record redo.Record) error {
	l.gauges.stalled.Store(true)
	defer l.gauges.stalled.Store(false)
	retry := time.NewTicker(l.cfg.StatusEvery)
	defer retry.Stop()
	if err := l.harden(); err != nil {
		return err
	}
	for {
		if err := l.report(time.Now(), false); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-retry.C:
		}
		if err := l.log.Append(record); !errors.Is(err, redo.ErrFull) {
			l.heard = time.Now() // the server was not listened to
			return err
		}
	}
}

// drained is called when everything that arrived has been appended.
func (l *readLoop) drained(ctx context.Context) error {
	if err := l.mark(ctx); err != nil {
		return err
	}
	if l.ended > l.hardened || l.unhardened >= hardenBytes {
		if err := l.harden(); err != nil {
			return err
		}
	}
	l.gauges.received.Store(uint64(l.received))
	now := time.Now()
	if l.owed || now.Sub(l.reported) >= l.cfg.StatusEvery {
		return l.report(now, false)
	}
	return nil
}

func (l *readLoop) harden() error {
	end, err := l.log.Harden()
	if err != nil {
		return fmt.Errorf("harden log: %w", err)
	}
	if end != (mirror.Position{Seq: l.cfg.Seq, LSN: l.ended}) {
		return fmt.Errorf("harden log: it ends at %s, appended was up to %s: it has another writer", end, l.ended)
	}
	l.owed = l.owed || l.ended > l.hardened
	l.hardened = l.ended
	l.unhardened = 0
	l.gauges.received.Store(uint64(l.received))
	l.gauges.hardened.Store(uint64(l.hardened))
	return nil
}

// report sends what is hardened. It is the only writer of the connection.
func (l *readLoop) report(now time.Time, ask bool) error {
	status, err := appendStatus(l.status[:0], report{received: l.received, hardened: l.hardened, flush: l.hardened}, now, ask)
	if err != nil {
		return err
	}
	if err := l.limitWrite(now); err != nil {
		return fmt.Errorf("report position: %w", err)
	}
	crashpoint.Hit(crashpoint.StatusUnsent)
	if _, err := l.conn.Write(status); err != nil {
		return fmt.Errorf("report position: %w", err)
	}
	crashpoint.Hit(crashpoint.StatusSent)
	l.owed = false
	l.reported = now
	return nil
}

// wait blocks until the server sends something or the next report is due. The end of ctx moves the deadline into the
// past, so ctx is looked at after the deadline was set: either the one or the other is seen.
func (l *readLoop) wait(ctx context.Context) error {
	if err := l.limitRead(); err != nil {
		return fmt.Errorf("read the principal's log: %w", err)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if l.mayGather() {
		l.gathering.pause(ctx)
	}
	n, err := l.frames.fill()
	l.filled = n
	now := time.Now()
	if n > 0 {
		l.heard, l.asked = now, time.Time{}
		l.gauges.bytes.Add(uint64(n))
		l.gauges.heard.Store(int64(now.Sub(l.gauges.began)) + 1)
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("read the principal's log: %w", err)
	}
	return l.listen(now)
}

// mayGather: the rows of a transaction that is not committed yet, and whatever comes in small pieces while no commit waits
// for it.
func (l *readLoop) mayGather() bool {
	return l.open == TypeStreamStart || l.filled < gatherBytes/4 && !l.cfg.Waited()
}

// limitRead lets a read end when the next report is due, or before: a deadline that stands is moved when it has passed,
// because moving it costs as much as the read.
func (l *readLoop) limitRead() error {
	if l.readBy.After(time.Now()) {
		return nil
	}
	l.readBy = l.reported.Add(l.cfg.StatusEvery)
	return l.conn.SetReadDeadline(l.readBy)
}

// limitWrite gives a write between half of StreamConfig.Silence and the whole.
func (l *readLoop) limitWrite(now time.Time) error {
	if l.writeBy.Sub(now) >= l.cfg.Silence/2 {
		return nil
	}
	l.writeBy = now.Add(l.cfg.Silence)
	return l.conn.SetWriteDeadline(l.writeBy)
}

// listen asks a server that has been silent for a sign of life, and gives it up when none comes. Both take half of
// StreamConfig.Silence, and the second half counts from the question: a long harden of ours is not the server's silence.
func (l *readLoop) listen(now time.Time) error {
	switch half := l.cfg.Silence / 2; {
	case l.asked.IsZero() && now.Sub(l.heard) >= half:
		l.asked = now
		return l.report(now, true)
	case !l.asked.IsZero() && now.Sub(l.asked) >= half:
		return ErrSilent
	}
	return nil
}
