package pglog

import (
	"encoding/binary"
	"fmt"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// openTxn is a transaction of the principal as the log gives it: open until its commit has been read.
type openTxn struct {
	xid      uint32
	streamed bool
	first    redo.Offset // of its first record, 0 being the oldest kept
	after    redo.Offset // of the record after its commit
	end      mirror.Position
	messages []byte // each with its length before it; nil when spilled
	spilled  bool   // too large for memory: to be read from the log again
	partial  bool   // its beginning is no longer in the log
	size     int64  // of the messages, in bytes
	count    int    // of the messages
	aborted  map[uint32]struct{}
}

// spool assembles transactions from the records of the log. Streamed transactions come in chunks, mixed with others and
// some of them for nothing. What is open is held in memory up to a bound over all; beyond it the largest is forgotten
// but for its place in the log.
type spool struct {
	limit   int64 // bytes
	held    int64
	streams map[uint32]*openTxn
	plain   *openTxn // between Begin and Commit
	chunk   *openTxn // between StreamStart and StreamStop
	// cut is true until the first beginning was read. The log is trimmed without regard to what a transaction is, so the
	// oldest record may be in the middle of one that was redone.
	cut     bool
	decoder Decoder
	free    [][]byte
}

func newSpool(limit int64) *spool {
	return &spool{limit: limit, streams: make(map[uint32]*openTxn), cut: true}
}

// take adds the record that stands between two offsets. It returns the transaction that the record commits, or nil.
func (s *spool) take(r redo.Record, at, after redo.Offset) (*openTxn, error) {
	switch r.Kind {
	case redo.KindAttach:
		s.cut = false
		s.void()
		return nil, nil
	case redo.KindMark:
		return nil, nil
	}
	if len(r.Data) == 0 {
		return nil, fmt.Errorf("assemble transaction: %w", &DecodeError{What: "want a message"})
	}
	txn, err := s.message(r.Data, at)
	if err != nil {
		return nil, fmt.Errorf("assemble transaction: %w", err)
	}
	if txn != nil {
		txn.end, txn.after = mirror.Position{Seq: r.Seq, LSN: r.LSN}, after
	}
	return txn, nil
}

// void forgets all that is open: a new stream sends it again from the start.
func (s *spool) void() {
	clear(s.streams)
	s.plain, s.chunk, s.held = nil, nil, 0
}

func (s *spool) message(data []byte, at redo.Offset) (*openTxn, error) {
	switch data[0] {
	case TypeInsert, TypeUpdate, TypeDelete, TypeTruncate, TypeRelation:
		return nil, s.change(data)
	case TypeOrigin, TypeType, TypeMessage:
		return nil, nil
	}
	m, err := s.decoder.Decode(data, s.chunk != nil)
	if err != nil {
		return nil, err
	}
	if s.chunk != nil && m.Type != TypeStreamStop || s.plain != nil && m.Type != TypeCommit {
		return nil, &DecodeError{Type: m.Type, What: "want the end of what was begun before"}
	}
	switch m.Type {
	case TypeBegin:
		s.cut = false
		s.plain = &openTxn{xid: m.Xid, first: at, messages: s.buffer()}
	case TypeCommit:
		return s.commit(m)
	case TypeStreamStart:
		s.cut = false
		s.startChunk(m, at)
	case TypeStreamStop:
		s.chunk = nil
	case TypeStreamAbort:
		s.abort(m)
	case TypeStreamCommit:
		return s.commitStream(m)
	}
	return nil, nil
}

func (s *spool) startChunk(m Msg, at redo.Offset) {
	t := s.streams[m.Xid]
	if t == nil {
		t = &openTxn{xid: m.Xid, streamed: true, first: at, messages: s.buffer(), partial: !m.FirstSegment}
		s.streams[m.Xid] = t
	}
	s.chunk = t
}

// abort takes back a whole streamed transaction or one subtransaction of it.
func (s *spool) abort(m Msg) {
	t := s.streams[m.Xid]
	if t == nil {
		return // nothing of it was streamed
	}
	if m.SubXid == m.Xid {
		delete(s.streams, m.Xid)
		s.held -= int64(len(t.messages))
		s.recycle(t)
		return
	}
	if t.aborted == nil {
		t.aborted = make(map[uint32]struct{})
	}
	t.aborted[m.SubXid] = struct{}{}
}

func (s *spool) commit(m Msg) (*openTxn, error) {
	t := s.plain
	if t == nil && s.cut {
		return &openTxn{partial: true}, nil
	}
	if t == nil {
		return nil, &DecodeError{Type: m.Type, What: "want a transaction to commit"}
	}
	s.plain = nil
	s.held -= int64(len(t.messages))
	return t, nil
}

func (s *spool) commitStream(m Msg) (*openTxn, error) {
	t := s.streams[m.Xid]
	if t == nil {
		return &openTxn{partial: true}, nil // all its chunks were before the oldest record
	}
	delete(s.streams, m.Xid)
	s.held -= int64(len(t.messages))
	return t, nil
}

// change adds one message to the transaction that is being read.
func (s *spool) change(data []byte) error {
	t := s.chunk
	if t == nil {
		t = s.plain
	}
	if t == nil && s.cut {
		return nil
	}
	if t == nil {
		return &DecodeError{Type: data[0], What: "want a transaction around the change"}
	}
	t.count++
	t.size += int64(len(data))
	if t.spilled {
		return nil
	}
	t.messages = binary.BigEndian.AppendUint32(t.messages, uint32(len(data)))
	t.messages = append(t.messages, data...)
	if s.held += int64(4 + len(data)); s.held > s.limit {
		s.spill()
	}
	return nil
}

// spill frees the memory of the largest open transaction.
func (s *spool) spill() {
	largest := s.plain
	for _, t := range s.streams {
		if largest == nil || len(t.messages) > len(largest.messages) {
			largest = t
		}
	}
	s.held -= int64(len(largest.messages))
	largest.messages, largest.spilled = nil, true
}

// oldest gives the offset before which no open transaction has anything, or otherwise if nothing is open.
func (s *spool) oldest(otherwise redo.Offset) redo.Offset {
	first := otherwise
	if s.plain != nil {
		first = min(first, s.plain.first)
	}
	for _, t := range s.streams {
		first = min(first, t.first)
	}
	return first
}

const (
	freeBuffers    = 1024
	freeBufferSize = 64 << 10
)

func (s *spool) buffer() []byte {
	if len(s.free) == 0 {
		return nil
	}
	b := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	return b
}

// recycle takes back the memory of a transaction that is done with.
func (s *spool) recycle(t *openTxn) {
	if c := cap(t.messages); c > 0 && c <= freeBufferSize && len(s.free) < freeBuffers {
		s.free = append(s.free, t.messages[:0])
	}
	t.messages = nil
}

// eachHeld calls for each message that is in memory. What it gives stays valid until the transaction is recycled.
func (t *openTxn) eachHeld(call func(message []byte) error) error {
	for at := 0; at < len(t.messages); {
		n := int(binary.BigEndian.Uint32(t.messages[at:]))
		if err := call(t.messages[at+4 : at+4+n : at+4+n]); err != nil {
			return err
		}
		at += 4 + n
	}
	return nil
}
