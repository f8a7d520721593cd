package sqlitelog

import (
	"errors"
	"maps"
	"strings"

	"zombiezen.com/go/sqlite"
)

// definition is a statement that changes the schema, while it runs. Its text goes into the log, and the mirror runs it. What it
// does to rows besides, which it does not do on the mirror, is recorded as rows: DROP TABLE deletes rows of others by
// their foreign keys, and a full text index writes down what it has kept in memory.
type definition struct {
	stmt   uintptr
	text   string
	schema int64           // the schema's version before it
	tables map[string]bool // that were there before it
	before stretch
}

// stretch is what a transaction has done since the schema last changed.
type stretch struct {
	touched map[*table]*touched
	order   []*touched
	size    int64
	mark    mark // where it is written from
	wrote   bool
	cut     bool
}

// schemaChanges ends a part of the transaction before a statement that may change the schema.
func (c *capture) schemaChanges(stmt uintptr, text string) {
	c.state = capturing
	d := &definition{stmt: stmt, text: text, tables: map[string]bool{},
		before: stretch{c.touched, c.order, c.size, c.out.mark(), c.wrote, c.cut}}
	var err error
	if d.schema, err = number(c.conn, "PRAGMA schema_version"); err == nil {
		err = query(c.conn, "SELECT name FROM main.sqlite_schema WHERE type = 'table'", func(stmt *sqlite.Stmt) error {
			name := stmt.ColumnText(0)
			d.tables[name] = !ours(name) && !internal(name)
			return nil
		})
	}
	if err == nil {
		err = c.collect()
	}
	if err != nil {
		c.fail(err)
	}
	c.ddl, c.state = d, defining
}

// schemaChanged takes the statement into the log if it has changed the schema. One that failed, or found nothing to do,
// has not; nor has one that is about temporary things.
func (c *capture) schemaChanged() {
	d := c.ddl
	c.ddl = nil
	err := c.during(capturing, func() error {
		version, err := number(c.conn, "PRAGMA schema_version")
		if err != nil {
			return err
		}
		if version == d.schema && firstWord(d.text) != "ANALYZE" {
			c.resume(d.before)
			return nil
		}
		c.tables = map[string]*table{}
		c.cut, c.altered, c.wrote = true, true, true
		if err := c.sideEffects(firstWord(d.text) == "DROP"); err != nil {
			return err
		}
		if firstWords(d.text, 2) == "CREATE TABLE" {
			return c.tableMade()
		}
		c.out.note(opStatement, strings.TrimSpace(d.text), Value{}, Value{})
		return nil
	})
	c.state = captureOn
	if err != nil {
		c.fail(err)
	}
}

// resume goes on with a part as if it had not been ended. Two parts with nothing between them would be taken for one.
func (c *capture) resume(p stretch) {
	since, size := c.order, c.size
	c.out.cutTo(p.mark)
	c.touched, c.order, c.size, c.wrote, c.cut = p.touched, p.order, p.size+size, p.wrote, p.cut
	for _, of := range since {
		known := c.touched[of.table]
		if known == nil {
			c.touched[of.table] = of
			c.order = append(c.order, of)
			continue
		}
		for _, row := range of.rows {
			if _, before := known.index[row.bytes]; !before {
				known.index[row.bytes] = len(known.rows)
				known.rows = append(known.rows, row)
			}
		}
	}
}

// sideEffects keeps what the statement did to rows of tables that are still there, for the part that follows it.
func (c *capture) sideEffects(drops bool) error {
	since := c.order
	c.touched, c.order = map[*table]*touched{}, nil
	for _, of := range since {
		t, err := c.table(of.table.name)
		switch {
		case drops && errors.Is(err, errNoTable):
			continue
		case errors.Is(err, errNoTable), err == nil && !t.same(of.table):
			return &RefusedError{"rows of table " + of.table.name + " were changed by a statement that changes its schema", "change the schema in a Write of its own"}
		case err != nil:
			return err
		}
		of.table = t
		c.touched[t] = of
		c.order = append(c.order, of)
	}
	return nil
}

// tableMade takes a new table into the log as SQLite wrote it down. CREATE TABLE AS SELECT has filled it unseen.
func (c *capture) tableMade() error {
	name, sql := "", ""
	err := query(c.conn, "SELECT name, sql FROM main.sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid DESC LIMIT 1", func(stmt *sqlite.Stmt) error {
		name, sql = stmt.ColumnText(0), stmt.ColumnText(1)
		return nil
	})
	if err != nil {
		return err
	}
	c.out.note(opStatement, sql, Value{}, Value{})
	t, err := c.table(name)
	if err != nil || t == nil || t.rowid == "" {
		return err
	}
	of := &touched{table: t, index: map[string]int{}}
	err = query(c.conn, "SELECT "+quote(t.rowid)+" FROM main."+quote(name), func(stmt *sqlite.Stmt) error {
		rowid := stmt.ColumnInt64(0)
		bytes := t.keyOf(rowid, nil)
		of.index[bytes] = len(of.rows)
		of.rows = append(of.rows, touch{rowid: rowid, bytes: bytes})
		if c.size += int64(2*len(bytes)) + 64; c.size > c.limit {
			return c.tooLarge()
		}
		return nil
	})
	if len(of.rows) > 0 {
		c.touched[t] = of
		c.order = append(c.order, of)
	}
	return err
}

// mark is a place in a transaction that is being written.
type mark struct{ bytes, tables int }

func (t *transaction) mark() mark { return mark{len(t.body), len(t.tables)} }

// cutTo takes back what was written after a mark.
func (t *transaction) cutTo(m mark) {
	t.body = t.body[:m.bytes]
	maps.DeleteFunc(t.tables, func(_ *table, number int) bool { return number >= m.tables })
}
