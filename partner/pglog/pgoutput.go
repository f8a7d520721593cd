package pglog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/f19126b3/dbmirror/mirror"
)

// The message types of pgoutput, protocol versions 1 and 2. Two-phase messages and those of later versions are never
// asked for and are refused as unknown.
const (
	TypeBegin        = 'B'
	TypeCommit       = 'C'
	TypeOrigin       = 'O'
	TypeRelation     = 'R'
	TypeType         = 'Y'
	TypeInsert       = 'I'
	TypeUpdate       = 'U'
	TypeDelete       = 'D'
	TypeTruncate     = 'T'
	TypeMessage      = 'M'
	TypeStreamStart  = 'S'
	TypeStreamStop   = 'E'
	TypeStreamCommit = 'c'
	TypeStreamAbort  = 'A'
)

// Bits of Msg.TruncateOptions.
const (
	TruncateCascade         = 1 << 0
	TruncateRestartIdentity = 1 << 1
)

// Msg is one decoded pgoutput message. Type says which fields are set; the others are zero. Tuples, TruncateRelations
// and Content belong to the decoder or to the bytes it was given: they are valid until the next call of Decode or the
// next change of those bytes, whichever is first.
type Msg struct {
	Type byte

	// Xid is the transaction: of Begin and of the stream messages, and inside a stream of every change, where it is the
	// subtransaction that made the change. SubXid is what a StreamAbort takes back; it equals Xid when that is the
	// whole transaction.
	Xid, SubXid uint32
	// FirstSegment is true for the StreamStart that opens a transaction's first chunk.
	FirstSegment bool

	// LSN is where the commit record starts (Begin, Commit, StreamCommit), the position at the origin (Origin), or the
	// message's own (Message). EndLSN is the end of the commit record (Commit, StreamCommit): the number that a waiting
	// commit compares with the reported position.
	LSN, EndLSN mirror.LSN
	// CommitTime is in microseconds since 2000-01-01 00:00 UTC.
	CommitTime int64

	// RelationID is the table of a row change and the OID of a Relation or Type message.
	RelationID uint32
	Relation   Relation

	// OldKind is 'K' when Old holds the replica identity key, 'O' when it holds the whole old row, and 0 when there is
	// no old row.
	OldKind  byte
	Old, New Tuple

	TruncateOptions   byte
	TruncateRelations []uint32

	// Prefix and Content are those of pg_logical_emit_message. Anyone may emit one, so a prefix proves nothing. Prefix
	// also carries the name of an Origin.
	Prefix        string
	Content       []byte
	Transactional bool
}

// Tuple is a row: one value for each column of its relation.
type Tuple []Value

// Value is one column of a row. Kind is 'n' for NULL, 'u' for an out-of-line value that did not change and was not
// sent, 't' for text and 'b' for binary. Data aliases the decoded bytes.
type Value struct {
	Kind byte
	Data []byte
}

// DecodeError is returned when bytes are not a pgoutput message of the versions asked for: log that was damaged, or a
// server that speaks another protocol. It never holds row data.
type DecodeError struct {
	Type   byte   // of the message; 0 when it was empty
	Offset int    // where decoding stopped, in bytes
	What   string // what was expected there
}

func (e *DecodeError) Error() string {
	return fmt.Sprintf("decode pgoutput message %q at byte %d: %s", e.Type, e.Offset, e.What)
}

// Decoder decodes pgoutput messages. It keeps the memory of the last message for the next, so that row changes cost no
// allocation. The zero value is ready; one goroutine may use it at a time.
type Decoder struct {
	oldTuple, newTuple Tuple
	relations          []uint32
	prefix             string
}

// Decode reads one whole message. inStream is true between StreamStart and StreamStop, where changes carry the
// transaction they belong to. It returns a *DecodeError when data is anything but exactly one message.
func (d *Decoder) Decode(data []byte, inStream bool) (Msg, error) {
	r := reader{data: data}
	m := Msg{Type: r.byte("message type")}
	if inStream && carriesXid(m.Type) {
		m.Xid = r.uint32("transaction")
	}
	d.body(&r, &m)
	if r.what == "" && r.at != len(data) {
		r.fail("end of message")
	}
	if r.what != "" {
		return Msg{}, &DecodeError{Type: m.Type, Offset: r.at, What: r.what}
	}
	return m, nil
}

func (d *Decoder) body(r *reader, m *Msg) {
	switch m.Type {
	case TypeInsert, TypeUpdate, TypeDelete:
		d.row(r, m)
	case TypeBegin:
		m.LSN, m.CommitTime, m.Xid = r.lsn("final LSN"), int64(r.uint64("commit time")), r.uint32("transaction")
	case TypeCommit:
		commit(r, m)
	case TypeRelation:
		m.Relation = relation(r)
		m.RelationID = m.Relation.OID
	case TypeType:
		m.RelationID = r.uint32("type OID")
		m.Relation.OID, m.Relation.Namespace, m.Relation.Name = m.RelationID, r.string("namespace"), r.string("type name")
	case TypeOrigin:
		m.LSN, m.Prefix = r.lsn("origin LSN"), r.string("origin name")
	case TypeTruncate:
		d.truncate(r, m)
	case TypeMessage:
		d.message(r, m)
	case TypeStreamStart:
		m.Xid, m.FirstSegment = r.uint32("transaction"), r.flag("first segment")
	case TypeStreamStop:
	case TypeStreamCommit:
		m.Xid = r.uint32("transaction")
		commit(r, m)
	case TypeStreamAbort:
		m.Xid, m.SubXid = r.uint32("transaction"), r.uint32("subtransaction")
	default:
		r.fail("known message type")
	}
}

func carriesXid(kind byte) bool {
	switch kind {
	case TypeInsert, TypeUpdate, TypeDelete, TypeRelation, TypeType, TypeTruncate, TypeMessage:
		return true
	}
	return false
}

func commit(r *reader, m *Msg) {
	if r.byte("flags") != 0 {
		r.fail("no commit flags")
	}
	m.LSN, m.EndLSN, m.CommitTime = r.lsn("commit LSN"), r.lsn("end LSN"), int64(r.uint64("commit time"))
}

func (d *Decoder) row(r *reader, m *Msg) {
	m.RelationID = r.uint32("relation")
	part := r.byte("tuple kind")
	if m.Type != TypeInsert && (part == 'K' || part == 'O') {
		m.OldKind = part
		d.oldTuple = tuple(r, d.oldTuple[:0])
		m.Old = d.oldTuple
		if m.Type == TypeDelete {
			return
		}
		part = r.byte("tuple kind")
	}
	if m.Type == TypeDelete || part != 'N' {
		r.fail("tuple of a kind that fits")
		return
	}
	d.newTuple = tuple(r, d.newTuple[:0])
	m.New = d.newTuple
}

// maxColumns is how many columns PostgreSQL gives a table at most.
const maxColumns = 1600

func tuple(r *reader, t Tuple) Tuple {
	count := int(r.uint16("column count"))
	if count > maxColumns {
		r.fail("column count of a table")
		return t
	}
	t = slices.Grow(t, min(count, len(r.data)-r.at)) // each column takes a byte or more
	for range count {
		kind := r.byte("column kind")
		switch kind {
		case 'n', 'u':
			t = append(t, Value{Kind: kind})
		case 't', 'b':
			t = append(t, Value{Kind: kind, Data: r.bytes("column value")})
		default:
			r.fail("known column kind")
		}
		if r.what != "" {
			return t
		}
	}
	return t
}

func (d *Decoder) truncate(r *reader, m *Msg) {
	count := r.uint32("relation count")
	m.TruncateOptions = r.byte("options")
	d.relations = d.relations[:0]
	for range count {
		relation := r.uint32("relation")
		if r.what != "" {
			return
		}
		d.relations = append(d.relations, relation)
	}
	m.TruncateRelations = d.relations
}

func (d *Decoder) message(r *reader, m *Msg) {
	m.Transactional = r.flag("flags")
	m.LSN = r.lsn("message LSN")
	if prefix := r.cstring("prefix"); string(prefix) != d.prefix {
		d.prefix = string(prefix)
	}
	m.Prefix = d.prefix
	m.Content = r.bytes("content")
}

const (
	commitLen       = 1 + 1 + 8 + 8 + 8
	streamCommitLen = commitLen + 4
)

// EndsTransaction tells whether a message commits a transaction, and the end of the commit record if so. It is for the
// read loop, which needs no more than this and decodes nothing: a message that is no valid commit gives false.
func EndsTransaction(data []byte) (end mirror.LSN, ok bool) {
	switch {
	case len(data) == commitLen && data[0] == TypeCommit:
		return mirror.LSN(binary.BigEndian.Uint64(data[10:])), true
	case len(data) == streamCommitLen && data[0] == TypeStreamCommit:
		return mirror.LSN(binary.BigEndian.Uint64(data[14:])), true
	}
	return 0, false
}

// reader takes fields from the front of a message. After the first field that does not fit it yields zeros and keeps
// what was expected there.
type reader struct {
	data []byte
	at   int
	what string
}

func (r *reader) fail(what string) {
	if r.what == "" {
		r.what = "want " + what
	}
}

// take yields the next n bytes, or nil if there are fewer.
func (r *reader) take(n int, what string) []byte {
	if r.what != "" || n > len(r.data)-r.at {
		r.fail(what)
		return nil
	}
	b := r.data[r.at : r.at+n : r.at+n]
	r.at += n
	return b
}

func (r *reader) byte(what string) byte {
	if b := r.take(1, what); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) flag(what string) bool {
	b := r.byte(what)
	if b > 1 {
		r.fail(what + " of 0 or 1")
	}
	return b == 1
}

func (r *reader) uint16(what string) uint16 {
	if b := r.take(2, what); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32(what string) uint32 {
	if b := r.take(4, what); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64(what string) uint64 {
	if b := r.take(8, what); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) lsn(what string) mirror.LSN { return mirror.LSN(r.uint64(what)) }

// bytes yields a value that is led by its length. It is not nil when its length is zero.
func (r *reader) bytes(what string) []byte {
	n := r.uint32(what)
	if n > math.MaxInt32 {
		r.fail(what + " of a length that can be")
		return nil
	}
	return r.take(int(n), what)
}

// cstring yields the bytes before the next zero byte.
func (r *reader) cstring(what string) []byte {
	if r.what != "" {
		return nil
	}
	n := bytes.IndexByte(r.data[r.at:], 0)
	if n < 0 {
		r.fail(what + " that ends with a zero byte")
		return nil
	}
	return r.take(n+1, what)[:n]
}

func (r *reader) string(what string) string { return string(r.cstring(what)) }
