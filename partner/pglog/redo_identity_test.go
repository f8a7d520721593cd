package pglog

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRedoGeneratedIdentity redoes updates of tables with a column GENERATED ALWAYS AS IDENTITY, which the server lets
// nobody set in an UPDATE: in a set, one by one, and where the principal has given the column its next value.
func TestRedoGeneratedIdentity(t *testing.T) {
	p := newRedoPair(t, 0)
	const long = "(SELECT string_agg(md5((g * n)::text), '') FROM generate_series(1, 200) g)"
	tables := []string{"beside_key", "is_key", "whole"}
	p.both("CREATE TABLE beside_key (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, v text, long text)",
		"CREATE TABLE is_key (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int, v text, long text)",
		"CREATE TABLE bare (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, long text)",
		"CREATE TABLE whole (id int, n int GENERATED ALWAYS AS IDENTITY, v text, long text); ALTER TABLE whole REPLICA IDENTITY FULL")
	for _, table := range tables {
		p.run(p.source, fmt.Sprintf("INSERT INTO %s (id, n, v, long) OVERRIDING SYSTEM VALUE SELECT n, n, 'v', %s FROM generate_series(1, 20) n", table, long))
	}
	p.run(p.source, "INSERT INTO bare (long) SELECT "+long+" FROM generate_series(1, 5) n",
		"SELECT setval('beside_key_n_seq', 100), setval('is_key_id_seq', 100), setval('whole_n_seq', 100)")
	p.redo(p.config())
	singly := p.config()
	singly.BatchTransactions = 1
	for _, cfg := range []RedoConfig{p.config(), singly} {
		for _, table := range tables {
			p.run(p.source, fmt.Sprintf("UPDATE %s SET v = v || '!' WHERE id < 10", table))
		}
		p.run(p.source, "UPDATE bare SET long = long") // nothing is sent but the key
		require.NotZero(t, p.redo(cfg).Batches, "an update that leaves the identity alone goes with others")
		for table, column := range map[string]string{"beside_key": "n", "is_key": "id", "whole": "n"} {
			p.run(p.source, fmt.Sprintf("UPDATE %s SET %s = DEFAULT WHERE n IN (3, 4)", table, column), // long values unchanged
				fmt.Sprintf("UPDATE %s SET %s = DEFAULT, long = 'short' WHERE n IN (5, 6)", table, column))
		}
		p.redo(cfg)
	}
	p.run(p.target, "ALTER TABLE is_key ADD own text DEFAULT 'own'", "UPDATE is_key SET own = 'kept' WHERE n = 10")
	p.run(p.source, "UPDATE is_key SET id = DEFAULT WHERE n IN (10, 11)", "UPDATE is_key SET v = 'unkept', long = long WHERE n = 12",
		"ALTER TABLE is_key ADD own text DEFAULT 'own'", "UPDATE is_key SET own = 'kept' WHERE n = 10")
	p.redo(p.config())
}
