package sqlitelog

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"
)

// A transaction in the log is its time and a row of changes. Rows are net: what a row was at the beginning of its part of
// the transaction, and what it was at the end. A part ends where the schema changes. Within a part the changes
// of rows have no order: together they lead from one state of the tables to another.

// op says what a change is.
type op byte

const (
	opTable     op = 'T' // names a table, by which later changes refer to it
	opInsert    op = 'I'
	opUpdate    op = 'U'
	opDelete    op = 'D'
	opStatement op = 'S' // changes the schema
	opSequence  op = 'Q' // of AUTOINCREMENT
	opPragma    op = 'P'
	opSchema    op = 'H' // what the schema is in the end
)

func (o op) String() string {
	switch o {
	case opInsert:
		return "insert"
	case opUpdate:
		return "update"
	case opDelete:
		return "delete"
	case opStatement:
		return "statement"
	case opSequence:
		return "sequence"
	case opPragma:
		return "pragma"
	case opSchema:
		return "schema"
	}
	return "read"
}

// recordVersion begins every transaction. One with another version was written by a newer program.
const recordVersion = 1

// change is one step of a transaction.
type change struct {
	op    op
	table *table
	rowid int64   // of a table that has one
	old   []Value // of delete and update: the row, or with Unchanged where an update left a column alone
	new   []Value // of insert and update
	key   []Value // of update in a table WITHOUT ROWID: the key columns, the others are empty
	// text is a statement, the name of a sequence or a pragma, or the hash of the schema.
	text string
}

// identify returns what finds the row: the values in which the key columns can be read.
func (c *change) identify() []Value {
	switch c.op {
	case opInsert:
		return c.new
	case opDelete:
		return c.old
	}
	return c.key
}

// inverse is the change that takes this one back.
func (c change) inverse() change {
	c.old, c.new = c.new, c.old
	switch c.op {
	case opInsert:
		c.op = opDelete
	case opDelete:
		c.op = opInsert
	}
	return c
}

// describeKey writes the key of the row, which is row data.
func (c *change) describeKey() string {
	if c.table == nil {
		return ""
	}
	if c.table.rowid != "" {
		return fmt.Sprintf("%s=%d", c.table.rowid, c.rowid)
	}
	var parts []string
	for _, k := range c.table.key {
		text, _ := c.identify()[k].MarshalJSON()
		parts = append(parts, c.table.columns[k]+"="+string(text))
	}
	return strings.Join(parts, ", ")
}

// transaction writes one.
type transaction struct {
	body   []byte
	tables map[*table]int
}

func newTransaction(at time.Time) *transaction {
	return &transaction{body: binary.AppendVarint([]byte{recordVersion}, at.UnixMicro()), tables: map[*table]int{}}
}

func (t *transaction) begin(o op, of *table) {
	number, known := t.tables[of]
	if !known {
		number = len(t.tables)
		t.tables[of] = number
		t.body = of.append(append(t.body, byte(opTable)))
	}
	t.body = binary.AppendUvarint(append(t.body, byte(o)), uint64(number))
}

func (t *transaction) row(o op, of *table, rowid int64, row []Value) {
	t.begin(o, of)
	t.body = binary.AppendVarint(t.body, rowid)
	for _, v := range row {
		t.body = v.append(t.body)
	}
}

// update writes the columns that differ. The key is the same in both.
func (t *transaction) update(of *table, rowid int64, before, after []Value) {
	t.begin(opUpdate, of)
	t.body = binary.AppendVarint(t.body, rowid)
	for _, k := range of.key {
		t.body = before[k].append(t.body)
	}
	for i := range before {
		if before[i].equal(after[i]) {
			t.body = append(t.body, byte(Unchanged))
			continue
		}
		t.body = after[i].append(before[i].append(t.body))
	}
}

func (t *transaction) note(o op, text string, before, after Value) {
	t.body = appendBytes(append(t.body, byte(o)), text)
	if o == opSequence || o == opPragma {
		t.body = after.append(before.append(t.body))
	}
}

// parse reads a transaction; the values alias body. It returns errEncoding for anything that is not one.
func parse(body []byte) (at time.Time, changes []change, err error) {
	c := &cursor{rest: body}
	if version := c.byte(); c.err == nil && version != recordVersion {
		return at, nil, fmt.Errorf("log record of version %d, this program knows %d: use the version of the library that wrote it", version, recordVersion)
	}
	at = time.UnixMicro(c.varint()).UTC()
	var tables []*table
	for len(c.rest) > 0 && c.err == nil {
		o := op(c.byte())
		if o == opTable {
			tables = append(tables, c.table())
			continue
		}
		changes = append(changes, c.change(o, tables))
	}
	if c.err != nil {
		return at, nil, c.err
	}
	return at, changes, nil
}

func (c *cursor) change(o op, tables []*table) change {
	ch := change{op: o}
	switch o {
	case opStatement, opSchema:
		ch.text = string(c.bytes())
		return ch
	case opSequence, opPragma:
		ch.text = string(c.bytes())
		ch.old, ch.new = []Value{c.value()}, []Value{c.value()}
		return ch
	case opInsert, opDelete, opUpdate:
	default:
		c.fail()
		return ch
	}
	number := c.uvarint()
	if number >= uint64(len(tables)) || tables[number] == nil {
		c.fail()
		return ch
	}
	ch.table = tables[number]
	ch.rowid = c.varint()
	switch o {
	case opInsert:
		ch.new = c.row(ch.table)
	case opDelete:
		ch.old = c.row(ch.table)
	default:
		c.update(&ch)
	}
	return ch
}

func (c *cursor) row(t *table) []Value {
	row := make([]Value, len(t.columns))
	for i := range row {
		if row[i] = c.value(); row[i].Kind == Unchanged {
			c.fail()
		}
	}
	return row
}

func (c *cursor) update(ch *change) {
	n := len(ch.table.columns)
	ch.old, ch.new = make([]Value, n), make([]Value, n)
	if len(ch.table.key) > 0 {
		ch.key = make([]Value, n)
		for _, k := range ch.table.key {
			ch.key[k] = c.value()
		}
	}
	for i := range n {
		ch.old[i] = c.value()
		if ch.old[i].Kind == Unchanged {
			ch.new[i] = ch.old[i]
			continue
		}
		if ch.new[i] = c.value(); ch.new[i].Kind == Unchanged {
			c.fail()
		}
	}
}
