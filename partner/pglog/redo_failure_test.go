package pglog

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

// fails ships, redoes, and gives the error that stops it.
func (p *redoPair) fails() (*RedoError, *runningRedo) {
	p.t.Helper()
	end := p.ship()
	r := p.begin(p.config())
	err := r.Drain(p.t.Context(), end)
	var failure *RedoError
	require.ErrorAs(p.t, err, &failure)
	require.ErrorIs(p.t, r.stop(), failure)
	require.NotContains(p.t, failure.Error(), "canary")
	return failure, r
}

// redoneAt is the position in the mirror's database.
func (p *redoPair) redoneAt() mirror.Position {
	p.t.Helper()
	at, err := ReadProgress(p.t.Context(), p.target, redoSessionName)
	require.NoError(p.t, err)
	return at
}

// TestRedoErrorNamesWhatToMend breaks the mirror in each way that stops redo, reads the error, mends, and goes on.
func TestRedoErrorNamesWhatToMend(t *testing.T) {
	p := newRedoPair(t, 0)
	p.both("CREATE TABLE t (id text PRIMARY KEY, v text, w int CONSTRAINT low CHECK (w < 100))")
	p.run(p.source, "INSERT INTO t VALUES ('canary7', 'canary', 1)")
	p.redo(p.config())
	for _, c := range []struct {
		name, breaks, change, mend string
		want                       RedoError
		says                       string
	}{
		{"no table", "ALTER TABLE t RENAME TO gone", "INSERT INTO t VALUES ('canary1')", "ALTER TABLE gone RENAME TO t",
			RedoError{Relation: "public.t", Action: "look up table", Err: errNoTable}, "create it"},
		{"no column", "ALTER TABLE t RENAME v TO gone", "UPDATE t SET v = 'canary2'", "ALTER TABLE t RENAME gone TO v",
			RedoError{Relation: "public.t", Action: "look up table", Err: errNotHere}, "column v is missing here"},
		{"own column", "ALTER TABLE t ADD own int; UPDATE t SET own = 1; ALTER TABLE t ALTER own SET NOT NULL", "UPDATE t SET v = 'canary3'", "ALTER TABLE t DROP own",
			RedoError{Relation: "public.t", Action: "look up table", Err: errNotHere}, "column own exists only here"},
		{"other type", "ALTER TABLE t ALTER v TYPE varchar(9)", "UPDATE t SET v = 'canary of more than nine letters'", "ALTER TABLE t ALTER v TYPE text",
			RedoError{Relation: "public.t", Action: "update", Key: "id=canary7", SQLState: "22001"}, "SQLSTATE 22001"},
		{"no number", "ALTER TABLE t ALTER v TYPE int USING 1", "UPDATE t SET v = 'canary'", "ALTER TABLE t ALTER v TYPE text",
			RedoError{Relation: "public.t", Action: "update", Key: "id=canary7", SQLState: "22P02"}, "SQLSTATE 22P02"},
		{"constraint", "ALTER TABLE t DROP CONSTRAINT low; ALTER TABLE t ADD CONSTRAINT low CHECK (w < 10)", "UPDATE t SET w = 50", "ALTER TABLE t DROP CONSTRAINT low",
			RedoError{Relation: "public.t", Action: "update", Key: "id=canary7", SQLState: "23514"}, "constraint low"},
		{"row in the way", "INSERT INTO t VALUES ('canary8', 'own')", "INSERT INTO t VALUES ('canary8')", "DELETE FROM t WHERE id = 'canary8'",
			RedoError{Relation: "public.t", Action: "insert", Key: "id=canary8", SQLState: "23505"}, "constraint t_pkey"},
		{"row gone before update", "ALTER TABLE t RENAME TO gone; CREATE TABLE t (LIKE gone INCLUDING ALL)", "UPDATE t SET v = 'canary9' WHERE id = 'canary7'", "DROP TABLE t; ALTER TABLE gone RENAME TO t",
			RedoError{Relation: "public.t", Action: "update", Key: "id=canary7", Err: ErrRowMissing}, "diverged"},
		{"row gone before delete", "ALTER TABLE t RENAME TO gone; CREATE TABLE t (LIKE gone INCLUDING ALL)", "DELETE FROM t WHERE id = 'canary7'", "DROP TABLE t; ALTER TABLE gone RENAME TO t",
			RedoError{Relation: "public.t", Action: "delete", Key: "id=canary7", Err: ErrRowMissing}, "diverged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.t = t
			p.run(p.target, c.breaks)
			p.run(p.source, c.change)
			failure, _ := p.fails()
			require.ErrorContains(t, failure, c.says)
			require.ErrorContains(t, failure, "public.t at "+failure.Position.String())
			require.Equal(t, p.queue.Hardened(), failure.Position)
			if c.want.Err != nil {
				require.ErrorIs(t, failure, c.want.Err)
			} else {
				var pg *pgconn.PgError
				require.ErrorAs(t, failure, &pg)
				require.Equal(t, c.want.SQLState, pg.Code)
			}
			got := RedoError{Relation: failure.Relation, Key: failure.Key, Action: failure.Action, SQLState: failure.SQLState}
			c.want.Err = nil
			require.Equal(t, c.want, got)
			p.run(p.target, c.mend)
			again := p.begin(p.config())
			require.NoError(t, again.Drain(t.Context(), p.queue.Hardened()))
			require.NoError(t, again.stop())
			p.equal()
		})
	}
}

// TestRedoStopsAtPoison puts a transaction that cannot be redone between others of one batch: those before it are
// redone, it and those after are not, and skipping it lets the rest go on.
func TestRedoStopsAtPoison(t *testing.T) {
	p := newRedoPair(t, 0)
	p.both("CREATE TABLE t (id int PRIMARY KEY, v int)", "CREATE TABLE first_seen (id int PRIMARY KEY)")
	p.run(p.source, "INSERT INTO t SELECT g, g FROM generate_series(1, 9) g")
	p.redo(p.config())
	p.run(p.target, "DELETE FROM t WHERE id = 5")
	p.run(p.source, "UPDATE t SET v = 10 WHERE id = 1", "BEGIN; INSERT INTO first_seen VALUES (1); UPDATE t SET v = 50 WHERE id = 5; COMMIT",
		"INSERT INTO first_seen VALUES (2)", "UPDATE t SET v = 90 WHERE id = 9")
	before := p.redoneAt()
	failure, r := p.fails()
	require.Equal(t, "id=5", failure.Key)
	require.Positive(t, p.redoneAt().Compare(before))
	require.Negative(t, p.redoneAt().Compare(failure.Position))
	require.Equal(t, "1 10, 9 9", p.rows("t", "id IN (1, 9)"))

	require.ErrorIs(t, r.Skip(t.Context(), before), ErrNotPoison)
	other, err := NewRedo(p.config())
	require.NoError(t, err)
	require.ErrorIs(t, other.Skip(t.Context(), failure.Position), ErrNotPoison)
	require.NoError(t, r.Skip(t.Context(), failure.Position))
	again := p.begin(p.config())
	require.NoError(t, again.Drain(t.Context(), p.queue.Hardened()))
	require.Equal(t, uint64(1), again.Progress().Skipped)
	require.NoError(t, again.stop())
	require.Equal(t, "1 10, 9 90", p.rows("t", "id IN (1, 9)"))
	require.Equal(t, "2", p.rows("first_seen", "true"))
	require.ErrorIs(t, r.Skip(t.Context(), failure.Position), ErrNotPoison)
}

// rows writes rows of the mirror's table.
func (p *redoPair) rows(table, where string) string {
	p.t.Helper()
	var got string
	require.NoError(p.t, p.target.QueryRow(p.t.Context(), fmt.Sprintf(
		"SELECT coalesce(string_agg(replace(translate(x::text, '()', ''), ',', ' '), ', ' ORDER BY x), '') FROM %s x WHERE %s", table, where)).Scan(&got))
	return got
}

// TestRedoneOnce lets two redo one session at the same time: every transaction is redone by one of them, and one is told.
func TestRedoneOnce(t *testing.T) {
	p := newRedoPair(t, 0)
	p.both("CREATE TABLE log (n int)") // no key: what is redone twice is there twice
	for n := range 300 {
		p.run(p.source, fmt.Sprintf("INSERT INTO log VALUES (%d)", n))
	}
	end := p.ship()
	cfg := p.config()
	cfg.BatchTransactions = 3
	one, two := p.begin(cfg), p.begin(cfg)
	ended := make(chan error, 2)
	for _, r := range []*runningRedo{one, two} {
		go func() { ended <- r.Drain(context.Background(), end) }()
	}
	for range 2 {
		if err := <-ended; err != nil {
			require.ErrorIs(t, err, ErrRedoneElsewhere)
		}
	}
	p.equal()
}

// TestRedoRefuses checks what no trying again can mend.
func TestRedoRefuses(t *testing.T) {
	p := newRedoPair(t, 0)
	for name, c := range map[string]struct {
		change func(*RedoConfig)
		says   string
	}{
		"session without baseline": {func(c *RedoConfig) { c.Session = "other" }, ErrNoProgress.Error()},
		"database":                 {func(c *RedoConfig) { c.DSN = Secret(p.server.DSN("nowhere")) }, "3D000"},
		"right":                    {func(c *RedoConfig) { c.DSN = Secret(p.server.DSN("target") + "&user=plain") }, "session_replication_role"},
		"connection string":        {func(c *RedoConfig) { c.DSN = "host=CANARY-9f3c port=x" }, "not shown"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "right" {
				p.run(p.target, "CREATE ROLE plain LOGIN; GRANT CREATE ON DATABASE target TO plain")
			}
			cfg := p.config()
			c.change(&cfg)
			r, err := NewRedo(cfg)
			require.NoError(t, err)
			err = r.Run(t.Context(), p.queue)
			require.ErrorContains(t, err, c.says)
			require.NotContains(t, err.Error(), "CANARY")
		})
	}
	_, err := NewRedo(RedoConfig{DSN: "x"})
	require.ErrorContains(t, err, "Session")
}

// TestRedoLeastPrivilege redoes as a role with no more than the rights it needs.
func TestRedoLeastPrivilege(t *testing.T) {
	p := newRedoPair(t, 0)
	p.both("CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text)")
	p.run(p.target, "CREATE ROLE redoer LOGIN", "GRANT SET ON PARAMETER session_replication_role TO redoer",
		"GRANT USAGE ON SCHEMA dbmirror TO redoer", "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA dbmirror TO redoer",
		"GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON t TO redoer")
	p.run(p.source, "INSERT INTO t (v) SELECT g::text FROM generate_series(1, 500) g", "UPDATE t SET v = 'x' WHERE id < 9", "DELETE FROM t WHERE id = 9")
	cfg := p.config()
	cfg.DSN += "&user=redoer"
	p.redo(cfg)
	p.run(p.source, "TRUNCATE t")
	p.redo(cfg)
}
