package sqlitelog

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"
	"zombiezen.com/go/sqlite"
)

// capture finds out what a transaction of a client changes. SQLite says of each row that it is about to change; the
// first time, what the row was is kept. In the end the rows are read again, and the difference is what is mirrored. So
// it does not matter what was rolled back to a savepoint meanwhile, or by a statement that failed half-way, and what
// triggers, foreign keys and REPLACE did is in it.
//
// Before a statement that changes the schema, what was changed until then is read and written, and then the text of the
// statement, so that the order is right.
type capture struct {
	conn *sqlite.Conn
	h    *handle

	state   captureState
	tables  map[string]*table // by name, until the schema changes
	touched map[*table]*touched
	order   []*touched
	size    int64 // of what is kept, in bytes
	limit   int64
	out     *transaction
	wrote   bool // out holds a change
	err     error

	ddl     *definition // the statement that changes the schema and runs now
	cut     bool        // a part of the transaction has been written: it cannot be rolled back to before that
	altered bool        // the schema was changed

	proof bool // the log row was seen: the hook is in force
}

type captureState uint8

const (
	captureOff  captureState = iota // nothing may change
	captureOn                       // a client's transaction
	capturing                       // rows are read: nothing of a client runs
	defining                        // a statement that changes the schema runs: what it does is not for the log, but for its side effects
	captureOwn                      // this package changes what is its own
	captureRedo                     // redo or undo: everything may change
)

// touched are the rows of one table that a transaction has touched, in the order in which it did.
type touched struct {
	table *table
	index map[string]int
	rows  []touch
}

// touch is one row. old is nil if it did not exist.
type touch struct {
	rowid int64
	key   []Value // for a table WITHOUT ROWID
	bytes string  // as keyOf writes it
	old   []Value
}

func newCapture(conn *sqlite.Conn, h *handle, limit int64) *capture {
	c := &capture{conn: conn, h: h, limit: limit, tables: map[string]*table{}}
	h.hooks = hooks{change: c.change, trace: c.trace, commit: c.commit, rollback: c.rollback}
	return c
}

// begin makes ready for a client's transaction.
func (c *capture) begin(at time.Time) {
	c.state, c.touched, c.order, c.size, c.out, c.wrote, c.err = captureOn, map[*table]*touched{}, nil, 0, newTransaction(at), false, nil
	c.ddl, c.cut, c.altered, c.proof = nil, false, false, false
}

// during runs f in another state.
func (c *capture) during(s captureState, f func() error) error {
	former := c.state
	c.state = s
	defer func() { c.state = former }()
	return f()
}

// commit has the last word on every commit of the connection.
func (c *capture) commit(*libc.TLS, uintptr) int32 {
	if (c.state == captureOwn || c.state == captureRedo) && c.err == nil {
		return 0
	}
	return 1 // nothing else commits: the statement fails and is rolled back
}

// rollback is told when SQLite ends a transaction without a commit. What a client does after that is not in it.
func (c *capture) rollback(*libc.TLS, uintptr) {
	if c.state == captureOn || c.state == defining {
		c.fail(errEnded)
	}
}

func (c *capture) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// change is told of a row before it changes.
func (c *capture) change(tls *libc.TLS, _, _ uintptr, what int32, schema, name uintptr, oldKey, newKey int64) {
	if libc.GoString(schema) != "main" {
		return
	}
	n := libc.GoString(name)
	switch c.state {
	case captureOwn:
		c.proof = c.proof || n == logTable
		if !ours(n) && !internal(n) {
			c.fail(&RefusedError{"table " + n + " was changed while the transaction was being committed", "this kind of virtual table cannot be mirrored: drop it"})
		}
		return
	case captureOn:
		if internal(n) && !strings.EqualFold(n, "sqlite_sequence") {
			c.fail(&RefusedError{"table " + n + " is not for clients", "leave it to ANALYZE"})
		}
	case defining:
		if !c.ddl.tables[n] {
			return
		}
	default:
		return
	}
	if c.err != nil {
		return
	}
	t, err := c.table(n)
	if err != nil || t == nil {
		c.fail(err)
		return
	}
	if what != lib.SQLITE_INSERT {
		err = c.touch(tls, t, oldKey, c.h.oldValue, true)
	}
	if err == nil && what != lib.SQLITE_DELETE && (what == lib.SQLITE_INSERT || t.rowid == "" || newKey != oldKey) {
		err = c.touch(tls, t, newKey, c.h.newValue, false)
	}
	if err != nil {
		c.fail(fmt.Errorf("record a change of table %s: %w", t.name, err))
	}
}

// table is nil for one that is not mirrored by its rows.
func (c *capture) table(name string) (*table, error) {
	if t, known := c.tables[name]; known {
		return t, nil
	}
	if ours(name) || internal(name) {
		return nil, nil
	}
	var t *table
	err := c.during(capturing, func() (err error) {
		t, err = readTable(c.conn, name)
		return err
	})
	if err != nil {
		return nil, err
	}
	c.tables[name] = t
	return t, nil
}

// touch keeps what a row was, unless it is known already.
func (c *capture) touch(tls *libc.TLS, t *table, rowid int64, value func(*libc.TLS, int) (Value, error), exists bool) error {
	of := c.touched[t]
	if of == nil {
		of = &touched{table: t, index: map[string]int{}}
		c.touched[t] = of
		c.order = append(c.order, of)
	}
	var key []Value
	if t.rowid == "" {
		key = make([]Value, len(t.columns))
		for _, k := range t.key {
			var err error
			if key[k], err = value(tls, t.place[k]); err != nil {
				return err
			}
		}
	}
	bytes := t.keyOf(rowid, key)
	if _, known := of.index[bytes]; known {
		return nil
	}
	row := touch{rowid: rowid, key: key, bytes: bytes}
	c.size += int64(2*len(bytes)) + 64
	if exists {
		row.old = make([]Value, len(t.columns))
		for i := range row.old {
			var err error
			if row.old[i], err = value(tls, t.place[i]); err != nil {
				return err
			}
			c.size += int64(len(row.old[i].Bytes)) + 48
		}
	}
	if c.size > c.limit {
		return c.tooLarge()
	}
	of.index[bytes] = len(of.rows)
	of.rows = append(of.rows, row)
	return nil
}

func (c *capture) tooLarge() error {
	return &RefusedError{fmt.Sprintf("the transaction changes more than %d bytes", c.limit), "split it, or raise Config.MaxTransaction"}
}

// trace is told of each statement before it begins and after its end.
func (c *capture) trace(tls *libc.TLS, event uint32, _, stmt, x uintptr) int32 {
	if event == lib.SQLITE_TRACE_PROFILE {
		if c.ddl != nil && c.ddl.stmt == stmt {
			c.schemaChanged()
		}
		return 0
	}
	if c.state != captureOn {
		return 0
	}
	text, outer := statement(tls, stmt, x)
	if !outer {
		return 0
	}
	switch firstWord(text) {
	case "CREATE", "ALTER", "DROP", "ANALYZE":
		c.schemaChanges(stmt, text)
	case "ROLLBACK":
		if c.cut {
			c.fail(&RefusedError{"a transaction that has changed the schema was rolled back to a savepoint", "change the schema in a Write of its own"})
		}
	}
	return 0
}

// collect reads the touched rows and writes what has become of them.
func (c *capture) collect() error {
	for _, of := range c.order {
		if err := c.collectTable(of); err != nil {
			return fmt.Errorf("read the changed rows of table %s: %w", of.table.name, err)
		}
		c.cut = c.cut || len(of.rows) > 0
	}
	c.touched, c.order, c.size = map[*table]*touched{}, nil, 0
	return nil
}

func (c *capture) collectTable(of *touched) error {
	t := of.table
	stmt, err := c.conn.Prepare("SELECT " + t.list() + " FROM main." + quote(t.name) + " WHERE " + t.find())
	if err != nil {
		return err
	}
	for _, row := range of.rows {
		now, err := c.readRow(stmt, t, row)
		if err != nil {
			return errors.Join(err, finish(stmt))
		}
		c.write(t, row, now)
		if int64(len(c.out.body)) > c.limit {
			return errors.Join(c.tooLarge(), finish(stmt))
		}
	}
	return finish(stmt)
}

// readRow returns nil for a row that is not there, or is one whose key is only equal and not the same.
func (c *capture) readRow(stmt *sqlite.Stmt, t *table, row touch) ([]Value, error) {
	_ = stmt.Reset()
	t.bindKey(stmt, 1, row.rowid, row.key)
	found, err := stmt.Step()
	if err != nil || !found {
		return nil, err
	}
	now := make([]Value, len(t.columns))
	for i := range now {
		now[i] = columnValue(stmt, i)
	}
	if t.keyOf(row.rowid, now) != row.bytes {
		return nil, nil
	}
	return now, nil
}

func (c *capture) write(t *table, row touch, now []Value) {
	switch {
	case row.old == nil && now == nil:
		return
	case row.old == nil:
		c.out.row(opInsert, t, row.rowid, now)
	case now == nil:
		c.out.row(opDelete, t, row.rowid, row.old)
	default:
		same := true
		for i := range now {
			same = same && now[i].equal(row.old[i])
		}
		if same {
			return
		}
		c.out.update(t, row.rowid, row.old, now)
	}
	c.wrote = true
}
