package pglog

import (
	"encoding/binary"
	"strconv"

	"github.com/jackc/pgx/v5/pgtype"
)

// A set statement takes one array for each column. How the array is written decides what it costs and how exact it is:
// the server must come to the same value as if it had read the column's text with the type's own input function.
type arrayForm uint8

const (
	// arrayQuoted is the text form of an array of the column's type, each element quoted: the type's input function
	// reads it, and no cast is involved.
	arrayQuoted arrayForm = iota + 1
	// arrayInt2 to arrayText are the binary forms of types whose values are surely the same in both.
	arrayInt2
	arrayInt4
	arrayInt8
	arrayText
	// arrayCast is a binary array of text with a cast in the statement: for columns that are arrays themselves, since
	// PostgreSQL has no arrays of arrays; for composite types, which unnest would take apart; and for the rare type
	// whose arrays are not delimited by commas. Such types have no cast from text but by their input function.
	arrayCast
)

// arrayFormOf chooses the form for a base type with the OID of its array type (0 if it has none). cast says that the type
// is one of those of arrayCast.
func arrayFormOf(typeOID, arrayOID uint32, cast bool) arrayForm {
	switch typeOID {
	case pgtype.Int2OID:
		return arrayInt2
	case pgtype.Int4OID:
		return arrayInt4
	case pgtype.Int8OID:
		return arrayInt8
	case pgtype.TextOID, pgtype.VarcharOID, pgtype.BPCharOID:
		return arrayText
	}
	if cast || arrayOID == 0 {
		return arrayCast
	}
	return arrayQuoted
}

// format is the code of the parameter's format in the extended protocol.
func (f arrayForm) format() int16 {
	if f == arrayQuoted {
		return 0
	}
	return 1
}

// appendArray writes column c of the rows as an array parameter. It fails when a value is no number where the column's
// type wants one, which the caller leaves to the server to explain.
func appendArray(b []byte, column *redoColumn, rows []Tuple, c int) ([]byte, bool) {
	if column.form == arrayQuoted {
		return appendQuotedArray(b, rows, c), true
	}
	hasNull := uint32(0)
	for _, row := range rows {
		if row[c].Kind == 'n' {
			hasNull = 1
			break
		}
	}
	elemOID := column.typeOID
	if column.form == arrayCast {
		elemOID = pgtype.TextOID
	}
	be := binary.BigEndian
	for _, word := range [...]uint32{1, hasNull, elemOID, uint32(len(rows)), 1} {
		b = be.AppendUint32(b, word)
	}
	for _, row := range rows {
		if row[c].Kind == 'n' {
			b = be.AppendUint32(b, 0xFFFFFFFF)
			continue
		}
		var ok bool
		if b, ok = appendElement(b, column.form, row[c].Data); !ok {
			return b, false
		}
	}
	return b, true
}

func appendElement(b []byte, form arrayForm, text []byte) ([]byte, bool) {
	be := binary.BigEndian
	switch form {
	case arrayInt2:
		v, err := strconv.ParseInt(string(text), 10, 16)
		return be.AppendUint16(be.AppendUint32(b, 2), uint16(v)), err == nil
	case arrayInt4:
		v, err := strconv.ParseInt(string(text), 10, 32)
		return be.AppendUint32(be.AppendUint32(b, 4), uint32(v)), err == nil
	case arrayInt8:
		v, err := strconv.ParseInt(string(text), 10, 64)
		return be.AppendUint64(be.AppendUint32(b, 8), uint64(v)), err == nil
	default:
		return append(be.AppendUint32(b, uint32(len(text))), text...), true
	}
}

func appendQuotedArray(b []byte, rows []Tuple, column int) []byte {
	b = append(b, '{')
	for i, row := range rows {
		if i > 0 {
			b = append(b, ',')
		}
		if row[column].Kind == 'n' {
			b = append(b, "NULL"...)
			continue
		}
		b = append(b, '"')
		for _, c := range row[column].Data {
			if c == '"' || c == '\\' {
				b = append(b, '\\')
			}
			b = append(b, c)
		}
		b = append(b, '"')
	}
	return append(b, '}')
}

// appendCopyRow writes one row in the text format of COPY.
func appendCopyRow(b []byte, columns []int, row Tuple) []byte {
	for i, c := range columns {
		if i > 0 {
			b = append(b, '\t')
		}
		if row[c].Kind == 'n' {
			b = append(b, '\\', 'N')
			continue
		}
		for _, c := range row[c].Data {
			switch c {
			case '\\':
				b = append(b, '\\', '\\')
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, c)
			}
		}
	}
	return append(b, '\n')
}
