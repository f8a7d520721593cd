package pglog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// baselineTable is a table with rows of its own: an ordinary one or a partition.
type baselineTable struct {
	name        string   // quoted
	bytes       int64    // with out-of-line values, without indexes
	blocks      int64    // of the table proper; 0 when it is not a heap, whose parts cannot be addressed
	columns     []string // quoted, without the generated ones
	ofExtension bool     // CREATE EXTENSION makes it, perhaps with rows in it
	binary      bool     // its rows mean the same on both servers in the binary format
}

// tablesQuery lists the tables whose rows are logged, as the snapshot has them.
const tablesQuery = `SELECT name, pg_table_size(c.oid),
		CASE WHEN am.amname = 'heap' THEN pg_relation_size(c.oid) / current_setting('block_size')::bigint ELSE 0 END,
		a.names, a.types,
		EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')` +
	userRelations + `JOIN pg_am am ON am.oid = c.relam CROSS JOIN LATERAL (
		SELECT coalesce(array_agg(quote_ident(attname) ORDER BY attnum), '{}') AS names,
			coalesce(array_agg(atttypid ORDER BY attnum), '{}') AS types
		FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '') a
	WHERE c.relkind = 'r' AND c.relpersistence = 'p' ORDER BY name`

func readTables(ctx context.Context, conn *pgx.Conn) ([]baselineTable, error) {
	formats, err := readTypeFormats(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("list types: %w", err)
	}
	rows, err := conn.Query(ctx, tablesQuery)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	tables, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (baselineTable, error) {
		t, types := baselineTable{}, []uint32(nil)
		err := row.Scan(&t.name, &t.bytes, &t.blocks, &t.columns, &types, &t.ofExtension)
		t.binary = !slices.ContainsFunc(types, func(oid uint32) bool { return !formats.binary(oid) })
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	return tables, nil
}

// typeFormat is what decides whether values of a type may be copied in binary.
type typeFormat struct {
	OID      uint32
	Name     string
	Kind     string // pg_type.typtype
	IsArray  bool
	Inner    uint32 // of an array, domain or range
	HasIO    bool   // it can be sent and received in binary
	IsOurOwn bool   // PostgreSQL's own, with an OID that is the same on all servers
}

type typeFormats map[uint32]typeFormat

func readTypeFormats(ctx context.Context, conn *pgx.Conn) (typeFormats, error) {
	rows, err := conn.Query(ctx, `SELECT t.oid, t.typname, t.typtype::text, t.typcategory = 'A' AND t.typelem <> 0,
			coalesce(r.rngsubtype, nullif(t.typbasetype, 0), t.typelem), t.typsend::oid <> 0 AND t.typreceive::oid <> 0,
			t.oid < 10000
		FROM pg_type t LEFT JOIN pg_range r ON r.rngtypid = t.oid OR r.rngmultitypid = t.oid`)
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[typeFormat])
	formats := make(typeFormats, len(all))
	for _, t := range all {
		formats[t.OID] = t
	}
	return formats, err
}

// binary tells whether the binary format of a type means the same on every server. Composites hold the OIDs of their
// columns' types, arrays that of their elements, and the reg types are OIDs. Of types that PostgreSQL does not come with
// nothing is known, and text is what every type promises to read back.
func (f typeFormats) binary(oid uint32) bool {
	t := f[oid]
	switch {
	case !t.HasIO:
		return false
	case t.IsArray:
		return f[t.Inner].IsOurOwn && f.binary(t.Inner)
	case t.Kind == "e":
		return true
	case t.Kind == "d", t.Kind == "r", t.Kind == "m":
		return f.binary(t.Inner)
	}
	return t.Kind == "b" && t.IsOurOwn && !strings.HasPrefix(t.Name, "reg")
}

// lockTables keeps the tables from being changed or dropped while the copy runs, and refuses those that already were:
// the rows of a table that was rewritten since the snapshot look new to it, so it would be copied empty.
func lockTables(ctx context.Context, conn *pgx.Conn, tables []baselineTable) error {
	for chunk := range slices.Chunk(tables, 500) {
		names := make([]string, len(chunk))
		for i, t := range chunk {
			names[i] = "ONLY " + t.name
		}
		if _, err := conn.Exec(ctx, "LOCK TABLE "+strings.Join(names, ", ")+" IN ACCESS SHARE MODE"); err != nil {
			var refused *pgconn.PgError
			if errors.As(err, &refused) && refused.Code == "53200" {
				return fmt.Errorf("lock %d tables at once (raise the principal's max_locks_per_transaction): %w", len(tables), err)
			}
			return fmt.Errorf("lock tables: %w", err)
		}
	}
	// pg_class shows the file of the snapshot, pg_relation_filenode the file of now.
	var rewritten string
	err := conn.QueryRow(ctx, `SELECT name`+userRelations+`WHERE c.relkind = 'r' AND c.relpersistence = 'p'
			AND c.relfilenode <> pg_relation_filenode(c.oid) ORDER BY 1 LIMIT 1`).Scan(&rewritten)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for rewritten tables: %w", err)
	}
	return fmt.Errorf("table %s was truncated or rewritten after the snapshot was taken; make a new slot and start again", rewritten)
}

// copyPart is the piece of work of one worker: a table, or a range of its blocks.
type copyPart struct {
	table baselineTable
	bytes int64
	// Blocks from first up to but not including last; last is 0 when there is no upper bound. whole is a table in one
	// part.
	first, last int64
	whole       bool
}

// planParts divides big tables and puts the largest parts first, so that no worker is left with a big one at the end.
// The last part of a table has no upper bound.
func planParts(tables []baselineTable, splitBytes int64) []copyPart {
	var parts []copyPart
	for _, t := range tables {
		count := min((t.bytes+splitBytes-1)/splitBytes, t.blocks)
		if count < 2 || t.ofExtension {
			parts = append(parts, copyPart{table: t, bytes: t.bytes, whole: true})
			continue
		}
		for i := range count {
			part := copyPart{table: t, bytes: t.bytes / count, first: t.blocks * i / count, last: t.blocks * (i + 1) / count}
			if i == count-1 {
				part.last = 0
			}
			parts = append(parts, part)
		}
	}
	slices.SortStableFunc(parts, func(a, b copyPart) int { return cmp.Compare(b.bytes, a.bytes) })
	return parts
}

// source is the statement that reads the part at the principal.
func (p copyPart) source() string {
	if p.whole {
		return "COPY " + p.table.name + p.columnList() + " TO STDOUT" + p.format()
	}
	sql := fmt.Sprintf("COPY (SELECT %s FROM ONLY %s WHERE ctid >= '(%d,0)'", strings.Join(p.table.columns, ", "), p.table.name, p.first)
	if p.last > 0 {
		sql += fmt.Sprintf(" AND ctid < '(%d,0)'", p.last)
	}
	return sql + ") TO STDOUT" + p.format()
}

// target is the statement that writes the part at the mirror.
func (p copyPart) target() string {
	return "COPY " + p.table.name + p.columnList() + " FROM STDIN" + p.format()
}

// columnList is empty for a table without columns: SQL has no empty list.
func (p copyPart) columnList() string {
	if len(p.table.columns) == 0 {
		return ""
	}
	return " (" + strings.Join(p.table.columns, ", ") + ")"
}

func (p copyPart) format() string {
	if p.table.binary {
		return " (FORMAT binary)"
	}
	return ""
}
