package pglog

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// historyTables are found in every way that redo knows. v is often out of line and then not sent when it does not change.
func historyTables() []string {
	return []string{
		"CREATE TABLE by_key (id int PRIMARY KEY, n int, v text)",
		"CREATE TABLE by_two (n int, id int, v text, PRIMARY KEY (id, n))",
		"CREATE TABLE with_unique (id int PRIMARY KEY, n int UNIQUE, v text)",
		"CREATE TABLE whole (id int, n int, v text); ALTER TABLE whole REPLICA IDENTITY FULL",
		"CREATE TABLE whole_key (id int PRIMARY KEY, n int, v text); ALTER TABLE whole_key REPLICA IDENTITY FULL",
		"CREATE TABLE late_key (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, n int, v text); ALTER TABLE late_key REPLICA IDENTITY FULL",
		"CREATE TABLE inserted (id int, n int, v text)",
	}
}

func historyNames() []string {
	return []string{"by_key", "by_two", "with_unique", "whole", "whole_key", "late_key", "inserted"}
}

// drawStatement draws one statement. It may fail at the principal: then it is rolled back to a savepoint, which is one
// more thing to redo.
func drawStatement(t *rapid.T) string {
	table := rapid.SampledFrom(historyNames()).Draw(t, "table")
	id, n := rapid.IntRange(0, 12).Draw(t, "id"), rapid.IntRange(0, 12).Draw(t, "n")
	value := rapid.SampledFrom([]string{"NULL", "'short'", "''", "repeat('long', 700)", "repeat('other', 600)", "'many'"}).Draw(t, "value")
	kind := rapid.IntRange(0, 11).Draw(t, "kind")
	if table == "inserted" && kind != 9 {
		kind = 0
	}
	switch kind {
	default:
		return fmt.Sprintf("INSERT INTO %s (id, n, v) VALUES (%d, %d, %s)", table, id, n, value)
	case 3:
		return fmt.Sprintf("UPDATE %s SET v = %s WHERE id = %d", table, value, id)
	case 4:
		return fmt.Sprintf("UPDATE %s SET n = %d WHERE id = %d", table, n, id)
	case 5:
		return fmt.Sprintf("UPDATE %s SET id = %d WHERE n = %d", table, id, n)
	case 6:
		return fmt.Sprintf("DELETE FROM %s WHERE id = %d", table, id)
	case 7:
		return fmt.Sprintf("UPDATE %s SET id = id + 1, v = CASE WHEN n %% 2 = 0 THEN v ELSE %s END", table, value)
	case 8:
		return fmt.Sprintf("DELETE FROM %s WHERE n < %d", table, n/4)
	case 9:
		if n > 2 {
			return fmt.Sprintf("INSERT INTO %s (id, n, v) SELECT g, g, %s FROM generate_series(100, 400) g", table, value)
		}
		return fmt.Sprintf("TRUNCATE %s, inserted", table)
	case 10:
		// Values that move between rows: as one set they collide, one after the other they do not.
		return "UPDATE with_unique SET n = -n - 1; UPDATE with_unique SET n = 12 + n"
	case 11:
		return fmt.Sprintf("INSERT INTO %s (id, n, v) SELECT id + %d, n + %d, v FROM %s WHERE id < 50", table, id+13, n+13, table)
	}
}

// TestRedoIsTheHistory redoes random histories under random limits and compares every row with the principal's.
func TestRedoIsTheHistory(t *testing.T) {
	p := newRedoPair(t, 64<<10)
	p.both(historyTables()...)
	var transactions, batches uint64
	rapid.Check(t, func(t *rapid.T) {
		p.run(p.source, "TRUNCATE "+strings.Join(historyNames(), ", "))
		for range rapid.IntRange(1, 4).Draw(t, "transactions") {
			p.run(p.source, "BEGIN")
			for range rapid.IntRange(1, 6).Draw(t, "statements") {
				p.run(p.source, "SAVEPOINT s")
				_, err := p.source.PgConn().Exec(p.t.Context(), drawStatement(t)).ReadAll()
				switch {
				case err != nil || rapid.IntRange(0, 5).Draw(t, "undo") == 0:
					p.run(p.source, "ROLLBACK TO s")
				case rapid.Bool().Draw(t, "release"):
					p.run(p.source, "RELEASE s")
				}
			}
			end := rapid.SampledFrom([]string{"COMMIT", "COMMIT", "COMMIT", "ROLLBACK"}).Draw(t, "end")
			if _, err := p.source.PgConn().Exec(p.t.Context(), end).ReadAll(); err != nil {
				p.run(p.source, "ROLLBACK") // a deferred key that is there twice
			}
		}
		cfg := p.config()
		cfg.BatchTransactions = rapid.SampledFrom([]int{1, 2, 1000}).Draw(t, "batch")
		cfg.BatchRows = rapid.SampledFrom([]int{3, 100, 20000}).Draw(t, "rows")
		cfg.SpoolBytes = rapid.SampledFrom([]int64{100, 20000, 1 << 20}).Draw(t, "spool")
		end := p.ship()
		r := p.begin(cfg)
		require.NoError(t, r.Drain(p.t.Context(), end))
		require.NoError(t, r.stop())
		require.Equal(t, p.content(p.source), p.content(p.target))
		transactions += r.Progress().Transactions
		batches += r.Progress().Batches
	})
	t.Logf("%d transactions, %d batches", transactions, batches)
}
