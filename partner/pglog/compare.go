package pglog

import (
	"context"
	"fmt"
	"slices"
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

// exactHashes are the types whose hash is that of their bytes: values that differ in any way have, but for chance,
// different ones, and it is the same on every server. The rest is hashed as text: numeric, say, where 1.0 and 1.00 have
// one hash, or an enum, which is hashed by a number of that server. Text is compared byte by byte, whatever its collation.
// PostgreSQL folds the halves of a bigint into one, so that 1 and 2^32 have one hash: the upper half is hashed beside it.
var exactHashes = map[string]string{
	"smallint":                    "hashint2extended(%s, 0)",
	"integer":                     "hashint4extended(%s, 0)",
	"bigint":                      "hashint8extended(%[1]s, hashint8extended(%[1]s >> 32, 0))",
	"boolean":                     "hashint4extended(%s::integer, 0)",
	"uuid":                        "uuid_hash_extended(%s, 0)",
	"character":                   `hashbpcharextended(%s COLLATE "C", 0)`,
	"timestamp without time zone": "timestamp_hash_extended(%s, 0)",
	"timestamp with time zone":    "CASE WHEN %[1]s IS NOT NULL THEN hash_record_extended(ROW(%[1]s), 0) END",
	"date":                        "CASE WHEN %[1]s IS NOT NULL THEN hash_record_extended(ROW(%[1]s), 0) END",
	"bytea":                       "CASE WHEN %[1]s IS NOT NULL THEN hash_record_extended(ROW(%[1]s), 0) END",
}

// sumColumn is a column of a table that is summed: its name, quoted as SQL, and its type.
type sumColumn struct{ Name, Type string }

// rowHash is the hash of a row as SQL: that of each column is hashed with that of the columns before it as the seed, so
// that values which change places do not cancel out. It is a hash of hashes instead of one of a record because that is
// built anew for each row, which takes longer than everything else together.
func rowHash(columns []sumColumn) string {
	const (
		absent = 6074000999 // what stands for the hash of NULL
		group  = 32         // columns that nest into each other; tables may have more than the server's stack
	)
	total := "0"
	for part := range slices.Chunk(columns, group) {
		hash := "0"
		for _, c := range part {
			exact, ok := exactHashes[c.Type]
			if !ok {
				exact = `hashtextextended(%s::text COLLATE "C", 0)`
			}
			hash = fmt.Sprintf("hashint8extended(coalesce(%s, %d), %s)", fmt.Sprintf(exact, "x."+c.Name), absent, hash)
		}
		total = fmt.Sprintf("hashint8extended(%s, %s)", hash, total)
	}
	return total
}

// sumTables sums within a transaction. The settings are those that decide how values are written; rows are written in
// the order of the columns' names, which two servers may store in different orders.
func sumTables(ctx context.Context, tx pgx.Tx, sums map[string]backend.TableSum) error {
	_, err := tx.Exec(ctx, `SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'postgres'; SET LOCAL timezone = 'UTC'; SET LOCAL lc_monetary = 'C';
		SET LOCAL extra_float_digits = 3; SET LOCAL bytea_output = 'hex'; SET LOCAL row_security = off;
		SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0`, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return fmt.Errorf("sum tables: %w", err)
	}
	rows, err := tx.Query(ctx, `SELECT name, ARRAY(SELECT quote_ident(attname) FROM pg_attribute
				WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped ORDER BY attname COLLATE "C"),
			ARRAY(SELECT format_type(atttypid, NULL) FROM pg_attribute
				WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped ORDER BY attname COLLATE "C")`+userRelations+`
		WHERE c.relkind = 'r' AND c.relpersistence = 'p' ORDER BY 1`)
	if err != nil {
		return fmt.Errorf("sum tables: %w", err)
	}
	type table struct {
		Name         string
		Names, Types []string
	}
	tables, err := pgx.CollectRows(rows, pgx.RowToStructByPos[table])
	if err != nil {
		return fmt.Errorf("sum tables: %w", err)
	}
	for _, t := range tables {
		columns := make([]sumColumn, len(t.Names))
		for i := range columns {
			columns[i] = sumColumn{t.Names[i], t.Types[i]}
		}
		// A sum of numbers of 64 bits each does not depend on order and, unlike XOR, counts equal rows.
		var sum backend.TableSum
		err := tx.QueryRow(ctx, "SELECT count(*), coalesce(sum("+rowHash(columns)+"), 0)::text FROM ONLY "+
			t.Name+" x").Scan(&sum.Rows, &sum.Sum)
		if err != nil {
			return fmt.Errorf("sum table %s: %w", t.Name, err)
		}
		sums[t.Name] = sum
	}
	return nil
}
