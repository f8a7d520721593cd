package pglog

import (
	"context"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/partner/backend"
)

// Compare counts and sums the rows of every mirrored table on both servers: ordinary tables and partitions whose rows are
// logged, outside schema dbmirror. Each server is read in a snapshot of its own: the result means something only while
// neither changes, or after the mirror has redone all there is. Every row is read, so it takes as long as that takes.
func Compare(ctx context.Context, a, b *pgx.Conn) (backend.Comparison, error) {
	var sums [2]map[string]backend.TableSum
	var errs [2]error
	var readers sync.WaitGroup
	for i, conn := range []*pgx.Conn{a, b} {
		readers.Go(func() { sums[i], errs[i] = SumTables(ctx, conn) })
	}
	readers.Wait()
	for i, err := range errs {
		if err != nil {
			return backend.Comparison{}, fmt.Errorf("compare, server %d of 2: %w", i+1, err)
		}
	}
	return backend.Compare(sums[0], sums[1]), nil
}

// SumTables counts and sums the rows of every mirrored table of one database, in one snapshot. Keys are table names
// quoted as SQL. It is the half of Compare that needs one server only.
func SumTables(ctx context.Context, conn *pgx.Conn) (map[string]backend.TableSum, error) {
	sums := map[string]backend.TableSum{}
	err := readOnly(ctx, conn, func(tx pgx.Tx) error { return sumTables(ctx, tx, sums) })
	return sums, err
}

// exactTypes are those whose hash is that of their bytes: values that differ in any way have, but for chance, different
// ones, and it is the same on every server. The rest is hashed as text: numeric, say, where 1.0 and 1.00 have one hash, or
// an enum, which is hashed by a number of that server. Text is compared byte by byte, whatever its collation.
var exactTypes = []string{"boolean", "smallint", "integer", "bigint", "uuid", "bytea", "date", "timestamp", "timestamptz"}

// sumTables sums within a transaction. The settings are those that decide how values are written; rows are written in
// the order of the columns' names, which two servers may store in different orders.
func sumTables(ctx context.Context, tx pgx.Tx, sums map[string]backend.TableSum) error {
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
		var sum backend.TableSum
		err := tx.QueryRow(ctx, "SELECT count(*), coalesce(sum(hashint8extended(hash_record_extended(ROW("+t.Columns+"), 0), 0)), 0)::text FROM ONLY "+
			t.Name+" x").Scan(&sum.Rows, &sum.Sum)
		if err != nil {
			return fmt.Errorf("sum table %s: %w", t.Name, err)
		}
		sums[t.Name] = sum
	}
	return nil
}
