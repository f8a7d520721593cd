package sqlitelog

import (
	"errors"
	"fmt"
	"strings"

	"zombiezen.com/go/sqlite"
)

// redoer changes a database as a transaction says. Every row must be as the transaction found it: what is not is
// divergence, and nothing is resolved.
type redoer struct {
	conn    *sqlite.Conn
	tables  map[string]*table // as they are here, until the schema changes
	checked map[*table]bool
}

func newRedoer(conn *sqlite.Conn) *redoer {
	return &redoer{conn: conn, tables: map[string]*table{}}
}

// failure says which change could not be made.
type failure struct {
	change *change
	err    error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// redo makes the changes of one transaction.
func (r *redoer) redo(changes []change) error {
	r.checked = map[*table]bool{}
	for len(changes) > 0 {
		n := 0
		for n < len(changes) && changes[n].table != nil {
			n++
		}
		if err := r.keepSequences(changes[:n]); err != nil {
			return err
		}
		if n < len(changes) {
			if err := r.other(&changes[n]); err != nil {
				return &failure{&changes[n], err}
			}
			n++
		}
		changes = changes[n:]
	}
	return nil
}

// keepSequences makes the changes of one part, and leaves what AUTOINCREMENT counts on from as it was: rows that are put
// in here move it, and what the principal did to it is a change of its own.
func (r *redoer) keepSequences(changes []change) error {
	if len(changes) == 0 {
		return nil
	}
	before, err := sampleSequences(r.conn, true)
	if err != nil {
		return err
	}
	if err := r.rows(changes); err != nil || before == nil {
		return err
	}
	after, err := sampleSequences(r.conn, false)
	if err != nil {
		return err
	}
	for name, now := range after {
		was, known := before[name]
		if !known {
			was = Value{Kind: Null}
		}
		if was.equal(now) {
			continue
		}
		if err := r.sequence(name, was); err != nil {
			return err
		}
	}
	return nil
}

// rows makes the changes of one part. What disappears goes first and what is new comes last, so that no row is in the
// way of another in a unique index. A row whose new values are still taken, as when two rows exchange them, is taken out
// and put back at the end.
func (r *redoer) rows(changes []change) error {
	var last []change
	for _, o := range [...]op{opDelete, opUpdate, opInsert} {
		for i := range changes {
			c := &changes[i]
			if c.op != o {
				continue
			}
			out, err := r.row(c)
			if err != nil {
				return &failure{c, err}
			}
			if out != nil {
				last = append(last, *out)
			}
		}
	}
	for i := range last {
		if err := r.insert(&last[i]); err != nil {
			return &failure{&last[i], err}
		}
	}
	return nil
}

// row makes a change, or takes the row out and returns how to put it back.
func (r *redoer) row(c *change) (*change, error) {
	if err := r.check(c.table); err != nil {
		return nil, err
	}
	switch c.op {
	case opDelete:
		return nil, r.remove(c)
	case opInsert:
		return nil, r.insert(c)
	}
	err := r.update(c)
	if sqlite.ErrCode(err).ToPrimary() != sqlite.ResultConstraint {
		return nil, err
	}
	return r.takeOut(c)
}

// check makes sure that the table has the columns here that it had where the log was written.
func (r *redoer) check(t *table) error {
	if r.checked[t] {
		return nil
	}
	here := r.tables[t.name]
	if here == nil {
		var err error
		if here, err = readTable(r.conn, t.name); errors.Is(err, errNoTable) {
			return fmt.Errorf("the table is not here: %w", ErrDiverged)
		} else if err != nil {
			return err
		}
		r.tables[t.name] = here
	}
	if !here.same(t) {
		return fmt.Errorf("the table has other columns here: %w", ErrDiverged)
	}
	r.checked[t] = true
	return nil
}

// exactly returns nil if the statement has changed one row.
func (r *redoer) exactly(stmt *sqlite.Stmt) error {
	_, err := stmt.Step()
	changed := r.conn.Changes()
	if err = errors.Join(err, finish(stmt)); err != nil {
		return err
	}
	if changed != 1 {
		return fmt.Errorf("the row is not here as it was: %w", ErrDiverged)
	}
	return nil
}

// is is the condition that a column holds a value, whatever the column's collation.
func is(column string) string { return quote(column) + " COLLATE BINARY IS ?" }

func (r *redoer) remove(c *change) error {
	t := c.table
	var b strings.Builder
	b.WriteString("DELETE FROM main." + quote(t.name) + " WHERE " + t.find())
	for _, column := range t.columns {
		b.WriteString(" AND " + is(column))
	}
	stmt, err := r.conn.Prepare(b.String())
	if err != nil {
		return err
	}
	n := t.bindKey(stmt, 1, c.rowid, c.old)
	for i, v := range c.old {
		v.bind(stmt, n+i)
	}
	return r.exactly(stmt)
}

func (r *redoer) insert(c *change) error {
	t := c.table
	var b strings.Builder
	b.WriteString("INSERT OR ABORT INTO main." + quote(t.name) + " (")
	marks := "?" + strings.Repeat(", ?", len(t.columns)-1)
	hidden := t.rowid != "" && t.alias < 0
	if hidden {
		b.WriteString(quote(t.rowid) + ", ")
		marks += ", ?"
	}
	b.WriteString(t.list() + ") VALUES (" + marks + ")")
	stmt, err := r.conn.Prepare(b.String())
	if err != nil {
		return err
	}
	n := 1
	if hidden {
		stmt.BindInt64(1, c.rowid)
		n++
	}
	for i, v := range c.new {
		v.bind(stmt, n+i)
	}
	err = r.exactly(stmt)
	if sqlite.ErrCode(err).ToPrimary() == sqlite.ResultConstraint {
		err = fmt.Errorf("another row is in its place: %w", ErrDiverged)
	}
	return err
}

func (r *redoer) update(c *change) error {
	t := c.table
	var set, where []string
	for i, v := range c.new {
		if v.Kind != Unchanged {
			set = append(set, quote(t.columns[i])+" = ?")
			where = append(where, is(t.columns[i]))
		}
	}
	if len(set) == 0 {
		return nil
	}
	stmt, err := r.conn.Prepare("UPDATE OR ABORT main." + quote(t.name) + " SET " + strings.Join(set, ", ") + " WHERE " + t.find() +
		" AND " + strings.Join(where, " AND "))
	if err != nil {
		return err
	}
	n := 1
	for _, v := range c.new {
		if v.Kind != Unchanged {
			v.bind(stmt, n)
			n++
		}
	}
	n = t.bindKey(stmt, n, c.rowid, c.key)
	for i, v := range c.old {
		if c.new[i].Kind != Unchanged {
			v.bind(stmt, n)
			n++
		}
	}
	return r.exactly(stmt)
}

// takeOut deletes a row that an update finds no place for, and returns it as it will be.
func (r *redoer) takeOut(c *change) (*change, error) {
	t := c.table
	row := make([]Value, len(t.columns))
	found := false
	stmt, err := r.conn.Prepare("SELECT " + t.list() + " FROM main." + quote(t.name) + " WHERE " + t.find())
	if err != nil {
		return nil, err
	}
	t.bindKey(stmt, 1, c.rowid, c.key)
	if found, err = stmt.Step(); found {
		for i := range row {
			row[i] = columnValue(stmt, i)
		}
	}
	if err := errors.Join(err, finish(stmt)); err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("the row is not here: %w", ErrDiverged)
	}
	out := change{op: opInsert, table: t, rowid: c.rowid, old: row, new: append([]Value(nil), row...)}
	for i, v := range c.new {
		if v.Kind == Unchanged {
			continue
		}
		if !row[i].equal(c.old[i]) {
			return nil, fmt.Errorf("the row is not here as it was: %w", ErrDiverged)
		}
		out.new[i] = v
	}
	return &out, r.remove(&out)
}

// other makes a change that is not one of a row.
func (r *redoer) other(c *change) error {
	switch c.op {
	case opStatement:
		r.tables, r.checked = map[string]*table{}, map[*table]bool{}
		return runOnce(r.conn, c.text)
	case opSchema:
		hash, err := schemaHash(r.conn)
		if err == nil && hash != c.text {
			err = fmt.Errorf("the schema is another one here: %w", ErrDiverged)
		}
		return err
	case opPragma:
		return r.pragma(c)
	case opSequence:
		return r.sequence(c.text, c.new[0])
	}
	return errEncoding
}

func (r *redoer) pragma(c *change) error {
	for _, name := range mirroredPragmas() {
		if name != c.text || c.old[0].Kind != Integer || c.new[0].Kind != Integer {
			continue
		}
		here, err := number(r.conn, "PRAGMA "+name)
		if err == nil && here != c.old[0].Int {
			err = fmt.Errorf("PRAGMA %s is another one here: %w", name, ErrDiverged)
		}
		if err != nil {
			return err
		}
		return runOnce(r.conn, fmt.Sprintf("PRAGMA %s = %d", name, c.new[0].Int))
	}
	return errEncoding
}

// sequence sets what AUTOINCREMENT counts on from in a table; Null is nothing.
func (r *redoer) sequence(name string, to Value) error {
	if any, err := number(r.conn, "SELECT count(*) FROM main.sqlite_schema WHERE name = 'sqlite_sequence'"); err != nil || any == 0 {
		if err == nil && to.Kind != Null {
			err = fmt.Errorf("no table has AUTOINCREMENT here: %w", ErrDiverged)
		}
		return err
	}
	err := run(r.conn, "DELETE FROM main.sqlite_sequence WHERE name = ?", textValue(name))
	if err == nil && to.Kind != Null {
		err = run(r.conn, "INSERT INTO main.sqlite_sequence (name, seq) VALUES (?, ?)", textValue(name), to)
	}
	return err
}
