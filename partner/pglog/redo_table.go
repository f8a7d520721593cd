package pglog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// redoTable is a relation of the stream matched by name with the table of the local database that redo writes to.
type redoTable struct {
	name    string // schema.table, as people write it
	ident   string // the same, quoted
	only    string // "ONLY " where the table's children are tables of their own
	columns []redoColumn
	// written are the indexes of the columns that redo writes: all but those that are generated here.
	written []int
	// key are the indexes of the columns that find a row, each with its equality operator. It is nil where no unique
	// index here covers the replica identity.
	key []int
	// compared are the columns that find a row where there is no key: the whole old row, or the replica identity.
	compared []int
	// wholeRow is true when the stream's old row is complete (replica identity FULL).
	wholeRow bool
	// anyOrder is true when rows of different keys cannot be in each other's way, so that a set may be redone in the order
	// of the keys.
	anyOrder bool
	// local are the quoted names of the columns here that the stream does not know and that are not generated. Their values
	// must survive an update, so a key change must not become a delete and an insert that knows nothing of them.
	local []string
	// prepared are the names of the statements that the connection has for this table, if it was in that epoch of the
	// connection's statements.
	prepared   map[string]string
	preparedIn int
}

// redoColumn is a column of the stream as it is here.
type redoColumn struct {
	name, ident string
	typeOID     uint32 // of the value; below a domain its base type
	arrayOID    uint32
	typeName    string // of typeOID, qualified and quoted, for a cast
	form        arrayForm
	equal       string // the operator of the key's index, or of an index that it leads
	notNull     bool
	generated   bool
	always      bool // GENERATED ALWAYS AS IDENTITY: no UPDATE may set it
}

// localColumn is a column of the local table as the catalog has it.
type localColumn struct {
	redoColumn
	filled bool // has a default or is an identity
}

// localIndex is a valid unconditional index over plain columns.
type localIndex struct {
	primary, unique bool // unique means at once, not at the end of the transaction
	columns, equal  []string
}

const localTableSQL = `
SELECT c.oid::int8, c.relkind::text,
       (SELECT count(*) <= 1 FROM pg_index i WHERE i.indrelid = c.oid AND (i.indisunique OR i.indisexclusion))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')`

const localColumnsSQL = `
SELECT a.attname::text, a.attnotnull, a.atthasdef OR a.attidentity <> '', a.attgenerated <> '', a.attidentity = 'a',
       b.oid::int8, b.typarray::int8, b.typcategory = 'A' OR b.typtype = 'c' OR b.typdelim <> ',', format_type(b.oid, -1)
FROM pg_attribute a
CROSS JOIN LATERAL (
    WITH RECURSIVE d(oid, typtype, typbasetype) AS (
        SELECT t.oid, t.typtype, t.typbasetype FROM pg_type t WHERE t.oid = a.atttypid
        UNION ALL
        SELECT t.oid, t.typtype, t.typbasetype FROM d JOIN pg_type t ON t.oid = d.typbasetype WHERE d.typtype = 'd')
    SELECT t.* FROM d JOIN pg_type t USING (oid) WHERE d.typtype <> 'd') b
WHERE a.attrelid = $1::int8::oid AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum`

const localIndexesSQL = `
SELECT i.indisprimary, i.indisunique AND i.indimmediate, array_agg(a.attname::text ORDER BY k.n),
       array_agg(format('OPERATOR(%I.%s)', s.nspname, o.oprname) ORDER BY k.n)
FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[]) WITH ORDINALITY k(attnum, opclass, n)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
JOIN pg_opclass c ON c.oid = k.opclass
JOIN pg_am m ON m.oid = c.opcmethod AND m.amname = 'btree'
JOIN pg_amop p ON p.amopfamily = c.opcfamily AND p.amoplefttype = c.opcintype AND p.amoprighttype = c.opcintype
    AND p.amopstrategy = 3
JOIN pg_operator o ON o.oid = p.amopopr
JOIN pg_namespace s ON s.oid = o.oprnamespace
WHERE i.indrelid = $1::int8::oid AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND k.n <= i.indnkeyatts
GROUP BY i.indexrelid, i.indisprimary, i.indisunique, i.indimmediate
ORDER BY i.indisprimary DESC, i.indexrelid`

// errNoTable and errNoColumn are the reasons of a RedoError whose mend is to create what is missing.
var (
	errNoTable  = errors.New("the table does not exist in this database: create it as it is at the principal (after SET default_transaction_read_only = off), then resume")
	errNotHere  = errors.New("the table differs from the principal's: make them equal, then resume")
	errNoFinder = errors.New("the table has no replica identity to find a row by: give it a primary key or REPLICA IDENTITY FULL")
)

// lookUpTable matches a relation of the stream with the local table of the same name.
func lookUpTable(ctx context.Context, conn *pgx.Conn, rel *Relation) (*redoTable, error) {
	schema := rel.Namespace
	if schema == "" {
		schema = "pg_catalog"
	}
	t := &redoTable{
		name:     schema + "." + rel.Name,
		ident:    pgx.Identifier{schema, rel.Name}.Sanitize(),
		wholeRow: rel.Identity == 'f',
	}
	var oid int64
	var kind string
	err := conn.QueryRow(ctx, localTableSQL, schema, rel.Name).Scan(&oid, &kind, &t.anyOrder)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, &RedoError{Relation: t.name, Action: "look up table", Err: errNoTable}
	}
	if err != nil {
		return nil, err
	}
	if kind == "r" {
		t.only = "ONLY "
	}
	columns, err := localColumns(ctx, conn, oid)
	if err != nil {
		return nil, err
	}
	indexes, err := localIndexes(ctx, conn, oid)
	if err != nil {
		return nil, err
	}
	if err := t.match(rel, columns, indexes); err != nil {
		return nil, &RedoError{Relation: t.name, Action: "look up table", Err: err}
	}
	return t, nil
}

func localColumns(ctx context.Context, conn *pgx.Conn, oid int64) ([]localColumn, error) {
	rows, err := conn.Query(ctx, localColumnsSQL, oid)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (localColumn, error) {
		var c localColumn
		var typeOID, arrayOID int64
		var cast bool
		err := row.Scan(&c.name, &c.notNull, &c.filled, &c.generated, &c.always, &typeOID, &arrayOID, &cast, &c.typeName)
		c.ident = pgx.Identifier{c.name}.Sanitize()
		c.typeOID, c.arrayOID = uint32(typeOID), uint32(arrayOID)
		c.form = arrayFormOf(c.typeOID, c.arrayOID, cast)
		return c, err
	})
}

func localIndexes(ctx context.Context, conn *pgx.Conn, oid int64) ([]localIndex, error) {
	rows, err := conn.Query(ctx, localIndexesSQL, oid)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (localIndex, error) {
		var i localIndex
		err := row.Scan(&i.primary, &i.unique, &i.columns, &i.equal)
		return i, err
	})
}

// match fills in the columns, in the stream's order, and the way to find a row.
func (t *redoTable) match(rel *Relation, local []localColumn, indexes []localIndex) error {
	var missing []string
	for i, c := range rel.Columns {
		at := slices.IndexFunc(local, func(l localColumn) bool { return l.name == c.Name })
		if at < 0 {
			missing = append(missing, c.Name)
			continue
		}
		t.columns = append(t.columns, local[at].redoColumn)
		if !local[at].generated {
			t.written = append(t.written, i)
		}
	}
	if missing != nil {
		return fmt.Errorf("column %s is missing here: %w", strings.Join(missing, ", "), errNotHere)
	}
	for _, l := range local {
		if l.generated || slices.ContainsFunc(rel.Columns, func(c RelColumn) bool { return c.Name == l.name }) {
			continue
		}
		t.local = append(t.local, l.ident)
		if l.notNull && !l.filled {
			return fmt.Errorf("column %s exists only here and can be neither null nor filled by a default: %w", l.name, errNotHere)
		}
	}
	t.findKey(rel, indexes)
	return nil
}

// findKey chooses the unique index that finds rows: the one over exactly the replica identity, or with replica identity
// FULL the primary key or else any whose columns cannot be null. Only an index that is checked at once will do: with any
// other, two rows of one key may exist while a transaction runs, and the net change of a key would mean nothing.
func (t *redoTable) findKey(rel *Relation, indexes []localIndex) {
	var identity []int
	for i, c := range rel.Columns {
		if c.Key {
			identity = append(identity, i)
		}
	}
	for _, index := range indexes {
		if !t.wholeRow && len(index.columns) != len(identity) {
			continue
		}
		if key, ok := t.keyOf(index, rel); ok && index.unique && t.key == nil {
			t.key = key
			for n, i := range key {
				t.columns[i].equal = index.equal[n]
			}
		}
	}
	if t.key != nil {
		return
	}
	t.compared = identity
	for _, index := range indexes {
		if lead := slices.IndexFunc(t.columns, func(c redoColumn) bool { return c.name == index.columns[0] }); lead >= 0 {
			t.columns[lead].equal = index.equal[0]
		}
	}
}

// keyOf gives the stream's columns of an index, if every one is part of the replica identity and never null.
func (t *redoTable) keyOf(index localIndex, rel *Relation) ([]int, bool) {
	key := make([]int, 0, len(index.columns))
	for _, name := range index.columns {
		i := slices.IndexFunc(t.columns, func(c redoColumn) bool { return c.name == name })
		if i < 0 || !rel.Columns[i].Key || !t.columns[i].notNull || t.columns[i].generated {
			return nil, false
		}
		key = append(key, i)
	}
	return key, true
}
