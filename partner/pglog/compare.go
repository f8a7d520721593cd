package pglog

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
)

// TableSum is what Compare knows of one table at one server.
type TableSum struct {
	Rows int64
	// Sum does not depend on the order of rows; equal rows in one table do not cancel each other out.
	Sum string
}

// TableDifference is a table that is not the same on both servers. A nil sum means that the table is missing there.
type TableDifference struct {
	Table string // quoted as SQL
	A, B  *TableSum
}

// Comparison is the result of Compare.
type Comparison struct {
	Tables  int   // on either server
	Rows    int64 // on the first server
	Differs []TableDifference
}

// Equal tells whether both databases hold the same rows.
func (c Comparison) Equal() bool { return len(c.Differs) == 0 }

// String names the tables that differ, with their counts of rows.
func (c Comparison) String() string {
	if c.Equal() {
		return fmt.Sprintf("%d tables with %d rows are equal", c.Tables, c.Rows)
	}
	lines := make([]string, len(c.Differs))
	for i, d := range c.Differs {
		lines[i] = fmt.Sprintf("%s: %s and %s", d.Table, d.A, d.B)
	}
	return fmt.Sprintf("%d of %d tables differ: %s", len(c.Differs), c.Tables, strings.Join(lines, "; "))
}

// String writes the count of rows and the beginning of the sum.
func (s *TableSum) String() string {
	if s == nil {
		return "missing"
	}
	return fmt.Sprintf("%d rows (%.8s)", s.Rows, s.Sum)
}

// Compare counts and sums the rows of every mirrored table on both servers: ordinary tables and partitions whose rows are
// logged, outside schema dbmirror. Each server is read in a snapshot of its own: the result means something only while
// neither changes, or after the mirror has redone all there is. Every row is read, so it takes as long as that takes.
func Compare(ctx context.Context, a, b *pgx.Conn) (Comparison, error) {
	var sums [2]map[string]TableSum
	var errs [2]error
	var readers sync.WaitGroup
	for i, conn := range []*pgx.Conn{a, b} {
		readers.Go(func() { sums[i], errs[i] = SumTables(ctx, conn) })
	}
	readers.Wait()
	for i, err := range errs {
		if err != nil {
			return Comparison{}, fmt.Errorf("compare, server %d of 2: %w", i+1, err)
		}
	}
	return CompareSums(sums[0], sums[1]), nil
}

// CompareSums is Compare for sums that were made already.
func CompareSums(a, b map[string]TableSum) Comparison {
	all := maps.Clone(a)
	maps.Copy(all, b)
	c := Comparison{Tables: len(all)}
	for _, table := range slices.Sorted(maps.Keys(all)) {
		left, atA := a[table]
		right, atB := b[table]
		c.Rows += left.Rows
		if left == right && atA == atB {
			continue
		}
		d := TableDifference{Table: table}
		if atA {
			d.A = &left
		}
		if atB {
			d.B = &right
		}
		c.Differs = append(c.Differs, d)
	}
	return c
}

// SumTables counts and sums the rows of every mirrored table of one database, in one snapshot. Keys are table names
// quoted as SQL. It is the half of Compare that needs one server only.
func SumTables(ctx context.Context, conn *pgx.Conn) (map[string]TableSum, error) {
	sums := map[string]TableSum{}
	err := readOnly(ctx, conn, func(tx pgx.Tx) error { return sumTables(ctx, tx, sums) })
	return sums, err
}

// exactTypes are those whose hash is that of their bytes: values that differ in any way have, but for chance, different
// ones, and it is the same on every server. The rest is hashed as text: numeric, say, where 1.0 and 1.00 have one hash, or
// an enum, which is hashed by a number of that server. Text is compared byte by byte, whatever its collation.
var exactTypes = []string{"boolean", "smallint", "integer", "bigint", "uuid", "bytea", "date", "timestamp", "timestamptz"}

// sumTables sums within a transaction. The settings are those that decide how values are written; rows are written in
// the order of the columns' names, which two servers may store in different orders.
func sumTables(ctx context.Context, tx pgx.Tx, sums map[string]TableSum) error {
	_, err := tx.Exec(ctx, `SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'postgres'; SET LOCAL timezone = 'UTC'; SET LOCAL lc_monetary = 'C';
		SET LOCAL extra_float_digits = 3; SET LOCAL bytea_output = 'hex'; SET LOCAL row_security = off;
		SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0`, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return fmt.Errorf("sum tables: %w", err)
	}
	rows, err := tx.Query(ctx, `SELECT name, (SELECT coalesce(string_agg(CASE WHEN atttypid = ANY ($1::regtype[]) THEN format('x.%I', attname)
				ELSE format('x.%I::text COLLATE "C"', attname) END, ', ' ORDER BY attname COLLATE "C"), '')
			FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)`+userRelations+`
		WHERE c.relkind = 'r' AND c.relpersistence = 'p' ORDER BY 1`, exactTypes)
	if err != nil {
		return fmt.Errorf("sum tables: %w", err)
	}
	type table struct{ Name, Columns string }
	tables, err := pgx.CollectRows(rows, pgx.RowToStructByPos[table])
	if err != nil {
		return fmt.Errorf("sum tables: %w", err)
	}
	for _, t := range tables {
		// A sum of numbers of 64 bits each does not depend on order and, unlike XOR, counts equal rows. A record's hash is
		// linear in those of its columns, so it is hashed once more: else values that changed places would cancel out.
		var sum TableSum
		err := tx.QueryRow(ctx, "SELECT count(*), coalesce(sum(hashint8extended(hash_record_extended(ROW("+t.Columns+"), 0), 0)), 0)::text FROM ONLY "+
			t.Name+" x").Scan(&sum.Rows, &sum.Sum)
		if err != nil {
			return fmt.Errorf("sum table %s: %w", t.Name, err)
		}
		sums[t.Name] = sum
	}
	return nil
}
