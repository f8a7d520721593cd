package pglog

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
)

// Every statement of redo is made here. Names come from the other server and are quoted; values are parameters.

// redoStatement is a statement whose parameters are typed by the table it is for.
type redoStatement struct {
	sql  string
	oids []uint32
}

// unnestOf gives the FROM item that turns one array for each column into rows s(c0, c1, ...), and its parameter types. The
// arrays stand in a select list, where the server takes them apart row by row; in FROM it would first write all rows down.
func (t *redoTable) unnestOf(columns []int) (string, []uint32) {
	var args strings.Builder
	oids := make([]uint32, len(columns))
	for n, c := range columns {
		if n > 0 {
			args.WriteString(", ")
		}
		fmt.Fprintf(&args, "unnest($%d) AS c%d", n+1, c)
		oids[n] = t.columns[c].arrayOID
		if t.columns[c].form == arrayCast {
			oids[n] = pgtype.TextArrayOID
		}
	}
	return fmt.Sprintf("(SELECT %s) AS s", args.String()), oids
}

// field is a column of the unnested rows as a value of the table's type.
func (t *redoTable) field(c int) string {
	if t.columns[c].form == arrayCast {
		return fmt.Sprintf("s.c%d::%s", c, t.columns[c].typeName)
	}
	return fmt.Sprintf("s.c%d", c)
}

func (t *redoTable) insertSet() redoStatement {
	from, oids := t.unnestOf(t.written)
	var fields []string
	for _, c := range t.written {
		fields = append(fields, t.field(c))
	}
	return redoStatement{fmt.Sprintf("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s",
		t.ident, t.list(t.written), strings.Join(fields, ", "), from), oids}
}

// updateSet sets the given columns of the rows found by key. The parameters are the key's arrays, then the columns'. A
// column that may not be set must have the value already: an identity that changed is for updateOne.
func (t *redoTable) updateSet(columns []int) redoStatement {
	from, oids := t.unnestOf(append(append([]int(nil), t.key...), columns...))
	var sets []string
	where := t.joined()
	for _, c := range columns {
		if t.columns[c].always {
			where += fmt.Sprintf(" AND t.%s OPERATOR(pg_catalog.=) %s", t.columns[c].ident, t.field(c))
			continue
		}
		sets = append(sets, fmt.Sprintf("%s = %s", t.columns[c].ident, t.field(c)))
	}
	if len(sets) == 0 { // that the rows are there counts all the same
		return redoStatement{fmt.Sprintf("SELECT FROM %s%s AS t, %s WHERE %s", t.only, t.ident, from, where), oids}
	}
	return redoStatement{fmt.Sprintf("UPDATE %s%s AS t SET %s FROM %s WHERE %s",
		t.only, t.ident, strings.Join(sets, ", "), from, where), oids}
}

func (t *redoTable) deleteSet() redoStatement {
	from, oids := t.unnestOf(t.key)
	return redoStatement{fmt.Sprintf("DELETE FROM %s%s AS t USING %s WHERE %s", t.only, t.ident, from, t.joined()), oids}
}

// joined is the condition that a row of the table is the one that an unnested row means.
func (t *redoTable) joined() string {
	var conds []string
	for _, c := range t.key {
		conds = append(conds, fmt.Sprintf("t.%s %s %s", t.columns[c].ident, t.columns[c].equal, t.field(c)))
	}
	return strings.Join(conds, " AND ")
}

func (t *redoTable) copyIn() string {
	return fmt.Sprintf("COPY %s (%s) FROM STDIN", t.ident, t.list(t.written))
}

func (t *redoTable) list(columns []int) string {
	var names []string
	for _, c := range columns {
		names = append(names, t.columns[c].ident)
	}
	return strings.Join(names, ", ")
}

func (t *redoTable) insertOne() redoStatement {
	if len(t.written) == 0 {
		return redoStatement{sql: fmt.Sprintf("INSERT INTO %s DEFAULT VALUES", t.ident)}
	}
	var marks []string
	for n := range t.written {
		marks = append(marks, fmt.Sprintf("$%d", n+1))
	}
	return redoStatement{fmt.Sprintf("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE VALUES (%s)",
		t.ident, t.list(t.written), strings.Join(marks, ", ")), t.types(t.written)}
}

// updateOne sets columns of the one row that the parameters after them find.
func (t *redoTable) updateOne(set []int) redoStatement {
	oids := append(t.types(set), t.types(t.finder())...)
	var sets []string
	for n, c := range set {
		if t.columns[c].always {
			return redoStatement{t.replaceOne(set), oids}
		}
		sets = append(sets, fmt.Sprintf("%s = $%d", t.columns[c].ident, n+1))
	}
	if len(set) == 0 { // that the row is there counts all the same
		return redoStatement{fmt.Sprintf("SELECT FROM %s%s AS t WHERE %s", t.only, t.ident, t.found(0)), oids}
	}
	return redoStatement{fmt.Sprintf("UPDATE %s%s AS t SET %s WHERE %s",
		t.only, t.ident, strings.Join(sets, ", "), t.found(len(set))), oids}
}

// replaceOne does what updateOne does where an UPDATE may not set one of the columns: it takes the row away and puts it
// back with all that is not set as it was.
func (t *redoTable) replaceOne(set []int) string {
	var values []string
	for _, c := range t.written {
		value := "old." + t.columns[c].ident
		if n := slices.Index(set, c); n >= 0 {
			value = fmt.Sprintf("$%d", n+1)
		}
		values = append(values, value)
	}
	columns := t.list(t.written)
	for _, ident := range t.local {
		columns += ", " + ident
		values = append(values, "old."+ident)
	}
	return fmt.Sprintf("WITH old AS (DELETE FROM %s%s AS t WHERE %s RETURNING t.*) INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM old",
		t.only, t.ident, t.found(len(set)), t.ident, columns, strings.Join(values, ", "))
}

func (t *redoTable) deleteOne() redoStatement {
	return redoStatement{fmt.Sprintf("DELETE FROM %s%s AS t WHERE %s", t.only, t.ident, t.found(0)), t.types(t.finder())}
}

// finder gives the columns whose old values find a row.
func (t *redoTable) finder() []int {
	if t.key != nil {
		return t.key
	}
	return t.compared
}

// found is the condition that finds one row by parameters that follow the first n. Without a key the row is any one of
// those whose columns read the same: values are compared as text, since some types have no equality (json, xml, point)
// and others call values equal that read differently (1.0 and 1.00). A column that leads an index is compared by its
// operator as well, so that the index can serve.
func (t *redoTable) found(n int) string {
	var conds []string
	for _, c := range t.finder() {
		n++
		column := &t.columns[c]
		if t.key != nil {
			conds = append(conds, fmt.Sprintf("t.%s %s $%d", column.ident, column.equal, n))
			continue
		}
		conds = append(conds, fmt.Sprintf("num_nulls(x.%s) = num_nulls($%d) AND format('%%s', x.%s) = format('%%s', $%d)",
			column.ident, n, column.ident, n))
		if column.equal != "" && column.notNull {
			conds = append(conds, fmt.Sprintf("x.%s %s $%d", column.ident, column.equal, n))
		}
	}
	if t.key != nil {
		return strings.Join(conds, " AND ")
	}
	if len(conds) == 0 {
		conds = []string{"true"} // a table without columns: its rows are all alike
	}
	return fmt.Sprintf("(t.tableoid, t.ctid) = (SELECT x.tableoid, x.ctid FROM %s%s AS x WHERE %s LIMIT 1)",
		t.only, t.ident, strings.Join(conds, " AND "))
}

func (t *redoTable) types(columns []int) []uint32 {
	oids := make([]uint32, len(columns))
	for n, c := range columns {
		oids[n] = t.columns[c].typeOID
	}
	return oids
}

// truncateAll empties the tables in one statement. CASCADE is never sent: it would reach tables that the principal's
// statement did not.
func truncateAll(tables []*redoTable, restartIdentity bool) string {
	var names []string
	for _, t := range tables {
		names = append(names, t.only+t.ident)
	}
	sql := "TRUNCATE " + strings.Join(names, ", ")
	if restartIdentity {
		sql += " RESTART IDENTITY"
	}
	return sql
}
