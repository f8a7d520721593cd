package sqlitelog

import (
	"fmt"
	"slices"
	"strings"

	"zombiezen.com/go/sqlite"
)

// table is how the rows of one table are told apart and written. Columns that are computed from others are left out.
type table struct {
	name    string
	columns []string
	place   []int // of each column among all of the table's, as the change hook counts them
	// rowid is the name of a column by which SQL means the key of a table that has one, which may be one of its columns;
	// empty for a table WITHOUT ROWID, whose key is the columns in key.
	rowid string
	alias int   // the column that is the rowid, -1 for none
	key   []int // of a table WITHOUT ROWID: positions in columns
}

// same says whether rows of one table are rows of the other.
func (t *table) same(o *table) bool {
	return t.name == o.name && t.rowid == o.rowid && t.alias == o.alias && slices.Equal(t.columns, o.columns) && slices.Equal(t.key, o.key)
}

func (t *table) append(b []byte) []byte {
	b = appendBytes(b, t.name)
	b = appendBytes(b, t.rowid)
	b = Value{Kind: Integer, Int: int64(t.alias)}.append(b)
	b = append(b, byte(len(t.key)))
	for _, k := range t.key {
		b = Value{Kind: Integer, Int: int64(k)}.append(b)
	}
	b = Value{Kind: Integer, Int: int64(len(t.columns))}.append(b)
	for _, c := range t.columns {
		b = appendBytes(b, c)
	}
	return b
}

func (c *cursor) table() *table {
	t := &table{name: string(c.bytes()), rowid: string(c.bytes()), alias: c.int()}
	for range int(c.byte()) {
		t.key = append(t.key, c.int())
	}
	n := c.int()
	if n < 0 || n > len(c.rest) {
		c.fail()
		return nil
	}
	for range n {
		t.columns = append(t.columns, string(c.bytes()))
	}
	inside := func(k int) bool { return k >= 0 && k < len(t.columns) }
	if t.alias != -1 && !inside(t.alias) || slices.ContainsFunc(t.key, func(k int) bool { return !inside(k) }) ||
		t.name == "" || (t.rowid == "") != (len(t.key) > 0) {
		c.fail()
	}
	return t
}

func (c *cursor) int() int {
	v := c.value()
	if v.Kind != Integer || v.Int < -1 || v.Int > 1<<20 {
		c.fail()
		return 0
	}
	return int(v.Int)
}

// keyOf is what tells the row from the others of its table, in bytes: its rowid, or its key.
func (t *table) keyOf(rowid int64, row []Value) string {
	if t.rowid != "" {
		return string(Value{Kind: Integer, Int: rowid}.append(nil))
	}
	var b []byte
	for _, k := range t.key {
		b = row[k].append(b)
	}
	return string(b)
}

// find is the condition by which SQL finds a row by its key.
func (t *table) find() string {
	if t.rowid != "" {
		return quote(t.rowid) + " = ?"
	}
	parts := make([]string, len(t.key))
	for i, k := range t.key {
		parts[i] = quote(t.columns[k]) + " = ?"
	}
	return strings.Join(parts, " AND ")
}

// bindKey binds the parameters of find and returns the number of the next one.
func (t *table) bindKey(stmt *sqlite.Stmt, param int, rowid int64, row []Value) int {
	if t.rowid != "" {
		stmt.BindInt64(param, rowid)
		return param + 1
	}
	for _, k := range t.key {
		row[k].bind(stmt, param)
		param++
	}
	return param
}

func (t *table) list() string {
	names := make([]string, len(t.columns))
	for i, c := range t.columns {
		names[i] = quote(c)
	}
	return strings.Join(names, ", ")
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// ours says whether a table is kept by this package and belongs to one database, not to what is mirrored.
func ours(name string) bool {
	return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
}

// prefix begins the names of everything that this package keeps in a database.
const prefix = "dbmirror_"

// internal says whether a table is SQLite's own.
func internal(name string) bool { return len(name) >= 7 && strings.EqualFold(name[:7], "sqlite_") }

// readTable reads how the rows of a table are told apart. It returns errNoTable when there is none.
func readTable(conn *sqlite.Conn, name string) (*table, error) {
	t := &table{name: name, alias: -1}
	type keyColumn struct{ at, order int }
	var keys []keyColumn
	declared, at := "", 0
	names := map[string]bool{}
	err := query(conn, "SELECT name, type, pk, hidden FROM pragma_table_xinfo(?, 'main')", func(stmt *sqlite.Stmt) error {
		column, pk, hidden := stmt.ColumnText(0), stmt.ColumnInt(2), stmt.ColumnInt(3)
		names[strings.ToLower(column)] = true
		if hidden == 0 {
			if pk > 0 {
				keys = append(keys, keyColumn{len(t.columns), pk})
				declared = stmt.ColumnText(1)
			}
			t.columns, t.place = append(t.columns, column), append(t.place, at)
		}
		at++
		return nil
	}, textValue(name))
	if err != nil {
		return nil, fmt.Errorf("read the columns of table %s: %w", name, err)
	}
	if at == 0 {
		return nil, fmt.Errorf("read the columns of table %s: %w", name, errNoTable)
	}
	without := false
	err = query(conn, "SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?", func(stmt *sqlite.Stmt) error {
		without = stmt.ColumnBool(0)
		return nil
	}, textValue(name))
	if err != nil {
		return nil, fmt.Errorf("read the kind of table %s: %w", name, err)
	}
	if without {
		slices.SortFunc(keys, func(a, b keyColumn) int { return a.order - b.order })
		for _, k := range keys {
			t.key = append(t.key, k.at)
		}
		return t, nil
	}
	if len(keys) == 1 && strings.EqualFold(declared, "INTEGER") {
		t.alias = keys[0].at
	}
	return t, t.nameRowid(conn, names)
}

// nameRowid finds out by which name SQL means the rowid. A lone key column of type INTEGER is the rowid itself, but for
// the odd "INTEGER PRIMARY KEY DESC", which has an index of its own.
func (t *table) nameRowid(conn *sqlite.Conn, names map[string]bool) error {
	if t.alias >= 0 {
		indexed := false
		err := query(conn, "SELECT 1 FROM pragma_index_list(?, 'main') WHERE origin = 'pk'", func(*sqlite.Stmt) error {
			indexed = true
			return nil
		}, textValue(t.name))
		if err != nil {
			return fmt.Errorf("read the indexes of table %s: %w", t.name, err)
		}
		if !indexed {
			t.rowid = t.columns[t.alias]
			return nil
		}
		t.alias = -1
	}
	for _, name := range [...]string{"rowid", "_rowid_", "oid"} {
		if !names[name] {
			t.rowid = name
			return nil
		}
	}
	return &RefusedError{What: "table " + t.name + " has columns named rowid, _rowid_ and oid, and no INTEGER PRIMARY KEY",
		Mend: "rename one of them, or give the table an INTEGER PRIMARY KEY"}
}
