package sqlitelog

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"zombiezen.com/go/sqlite"

	"github.com/f19126b3/dbmirror/partner/backend"
)

// Sums counts and sums the rows of every table, in one state of the database. What is not in rows, the schema and the
// numbers that AUTOINCREMENT and clients count on from, is summed under names in brackets.
func (db *DB) Sums(ctx context.Context) (map[string]backend.TableSum, error) {
	sums := map[string]backend.TableSum{}
	err := db.inspect(ctx, func(conn *sqlite.Conn) error {
		var names []string
		err := query(conn, "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name", func(stmt *sqlite.Stmt) error {
			names = append(names, stmt.ColumnText(0))
			return nil
		})
		if err != nil {
			return err
		}
		for _, name := range names {
			if ours(name) || internal(name) {
				continue
			}
			if sums[quote(name)], err = sumTable(ctx, conn, name); err != nil {
				return fmt.Errorf("sum table %s: %w", name, err)
			}
		}
		return sumRest(conn, sums)
	})
	if err != nil {
		return nil, fmt.Errorf("sum the tables: %w", err)
	}
	return sums, nil
}

// sum adds rows up, whatever their order: the hashes are numbers of 256 bits.
type sum struct {
	rows  int64
	total [4]uint64
}

func (s *sum) add(row []byte) {
	h := sha256.Sum256(row)
	carry := uint64(0)
	for i := range s.total {
		v := binary.LittleEndian.Uint64(h[8*i:])
		before := s.total[i]
		s.total[i] += v
		over := s.total[i] < before
		s.total[i] += carry
		if over || s.total[i] < carry {
			carry = 1
		} else {
			carry = 0
		}
	}
	s.rows++
}

func (s *sum) sum() backend.TableSum {
	return backend.TableSum{Rows: s.rows, Sum: fmt.Sprintf("%016x%016x%016x%016x", s.total[3], s.total[2], s.total[1], s.total[0])}
}

func sumTable(ctx context.Context, conn *sqlite.Conn, name string) (backend.TableSum, error) {
	t, err := readTable(conn, name)
	if err != nil {
		return backend.TableSum{}, err
	}
	list := t.list()
	if t.rowid != "" {
		list = quote(t.rowid) + ", " + list
	}
	var s sum
	var row []byte
	err = query(conn, "SELECT "+list+" FROM main."+quote(name), func(stmt *sqlite.Stmt) error {
		row = row[:0]
		for i := range stmt.ColumnCount() {
			row = columnValue(stmt, i).append(row)
		}
		s.add(row)
		return ctx.Err()
	})
	return s.sum(), err
}

func sumRest(conn *sqlite.Conn, sums map[string]backend.TableSum) error {
	hash, err := schemaHash(conn)
	if err != nil {
		return err
	}
	var schema, numbers sum
	schema.add([]byte(hash))
	sums["(schema)"] = schema.sum()
	for _, name := range mirroredPragmas() {
		n, err := number(conn, "PRAGMA "+name)
		if err != nil {
			return err
		}
		numbers.add(intValue(n).append([]byte(name)))
	}
	sequences, err := sampleSequences(conn, true)
	if err != nil {
		return err
	}
	for name, v := range sequences {
		numbers.add(v.append(appendBytes([]byte("sequence "), name)))
	}
	sums["(numbers)"] = numbers.sum()
	return nil
}
