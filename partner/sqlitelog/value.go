package sqlitelog

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"unicode/utf8"

	"zombiezen.com/go/sqlite"
)

// Kind is the storage class of a Value.
type Kind byte

// The storage classes of SQLite. Unchanged stands for a column that an update left as it was.
const (
	Null      Kind = 'n'
	Integer   Kind = 'i'
	Real      Kind = 'f'
	Text      Kind = 't'
	Blob      Kind = 'b'
	Unchanged Kind = 'u'
)

// Value is one column of a row, exactly as it is stored.
type Value struct {
	Kind  Kind
	Int   int64
	Float float64
	Bytes []byte // of Text, in UTF-8 as far as the database has it so, and of Blob
}

// equal says whether two values are the same to the bit.
func (v Value) equal(w Value) bool {
	return v.Kind == w.Kind && v.Int == w.Int && math.Float64bits(v.Float) == math.Float64bits(w.Float) && bytes.Equal(v.Bytes, w.Bytes)
}

func (v Value) append(b []byte) []byte {
	b = append(b, byte(v.Kind))
	switch v.Kind {
	case Integer:
		b = binary.AppendVarint(b, v.Int)
	case Real:
		b = binary.BigEndian.AppendUint64(b, math.Float64bits(v.Float))
	case Text, Blob:
		b = appendBytes(b, v.Bytes)
	}
	return b
}

// bind gives the value to a parameter, counted from one.
func (v Value) bind(stmt *sqlite.Stmt, param int) {
	switch v.Kind {
	case Integer:
		stmt.BindInt64(param, v.Int)
	case Real:
		stmt.BindFloat(param, v.Float)
	case Text:
		stmt.BindText(param, string(v.Bytes))
	case Blob:
		stmt.BindBytes(param, v.Bytes)
	default:
		stmt.BindNull(param)
	}
}

// columnValue reads a column of a result row.
func columnValue(stmt *sqlite.Stmt, column int) Value {
	switch stmt.ColumnType(column) {
	case sqlite.TypeInteger:
		return Value{Kind: Integer, Int: stmt.ColumnInt64(column)}
	case sqlite.TypeFloat:
		return Value{Kind: Real, Float: stmt.ColumnFloat(column)}
	case sqlite.TypeText:
		return Value{Kind: Text, Bytes: columnBytes(stmt, column)}
	case sqlite.TypeBlob:
		return Value{Kind: Blob, Bytes: columnBytes(stmt, column)}
	}
	return Value{Kind: Null}
}

func columnBytes(stmt *sqlite.Stmt, column int) []byte {
	b := make([]byte, stmt.ColumnLen(column))
	return b[:stmt.ColumnBytes(column, b)]
}

// MarshalJSON writes null, a number, a string, or an object that says what JSON has no word for: {"blob": hex},
// {"real": "Inf"}, {"text": hex} where a text is no UTF-8.
func (v Value) MarshalJSON() ([]byte, error) {
	switch v.Kind {
	case Integer:
		return strconv.AppendInt(nil, v.Int, 10), nil
	case Real:
		if math.IsInf(v.Float, 0) || math.IsNaN(v.Float) {
			return []byte(`{"real":"` + strconv.FormatFloat(v.Float, 'g', -1, 64) + `"}`), nil
		}
		b := strconv.AppendFloat(nil, v.Float, 'g', -1, 64)
		if !bytes.ContainsAny(b, ".e") {
			b = append(b, ".0"...)
		}
		return b, nil
	case Text:
		if utf8.Valid(v.Bytes) {
			return appendJSONString(nil, string(v.Bytes)), nil
		}
		return []byte(`{"text":"` + hex.EncodeToString(v.Bytes) + `"}`), nil
	case Blob:
		return []byte(`{"blob":"` + hex.EncodeToString(v.Bytes) + `"}`), nil
	}
	return []byte("null"), nil
}

// errEncoding is returned for bytes that no part of this package has written.
var errEncoding = errors.New("damaged log record")

// cursor reads what the append functions have written. After the first error everything reads as zero.
type cursor struct {
	rest []byte
	err  error
}

func (c *cursor) fail() {
	c.err, c.rest = errEncoding, nil
}

func (c *cursor) byte() byte {
	if len(c.rest) == 0 {
		c.fail()
		return 0
	}
	b := c.rest[0]
	c.rest = c.rest[1:]
	return b
}

func (c *cursor) uvarint() uint64 {
	n, size := binary.Uvarint(c.rest)
	if size <= 0 {
		c.fail()
		return 0
	}
	c.rest = c.rest[size:]
	return n
}

func (c *cursor) varint() int64 {
	n, size := binary.Varint(c.rest)
	if size <= 0 {
		c.fail()
		return 0
	}
	c.rest = c.rest[size:]
	return n
}

// bytes aliases what is read.
func (c *cursor) bytes() []byte {
	n := c.uvarint()
	if n > uint64(len(c.rest)) {
		c.fail()
		return nil
	}
	b := c.rest[:n:n]
	c.rest = c.rest[n:]
	return b
}

func (c *cursor) value() Value {
	v := Value{Kind: Kind(c.byte())}
	switch v.Kind {
	case Null, Unchanged:
	case Integer:
		v.Int = c.varint()
	case Real:
		if len(c.rest) < 8 {
			c.fail()
			return v
		}
		v.Float = math.Float64frombits(binary.BigEndian.Uint64(c.rest))
		c.rest = c.rest[8:]
	case Text, Blob:
		v.Bytes = c.bytes()
	default:
		c.fail()
	}
	return v
}

func appendBytes[B []byte | string](b []byte, data B) []byte {
	b = binary.AppendUvarint(b, uint64(len(data)))
	return append(b, data...)
}

func appendJSONString(b []byte, s string) []byte {
	quoted, _ := json.Marshal(s) // a string always has a JSON form
	return append(b, quoted...)
}
