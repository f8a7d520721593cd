package backend

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Verifier reads every row of the database.
type Verifier interface {
	// Sums counts and sums the rows of every mirrored table, in one snapshot. Equal tables have equal sums on both sides,
	// in whatever order their rows lie. Keys are names as SQL writes them.
	Sums(ctx context.Context) (map[string]TableSum, error)
}

// TableSum is what is compared of one table.
type TableSum struct {
	Rows int64
	// Sum does not depend on the order of rows; equal rows in one table do not cancel each other out.
	Sum string
}

// String writes the count of rows and the beginning of the sum.
func (s *TableSum) String() string {
	if s == nil {
		return "missing"
	}
	return fmt.Sprintf("%d rows (%.8s)", s.Rows, s.Sum)
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

// Compare compares the sums of two databases.
func Compare(a, b map[string]TableSum) Comparison {
	all := map[string]TableSum{}
	maps.Copy(all, a)
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
