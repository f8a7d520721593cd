package pglog

import (
	"context"
	"fmt"
	"math"
	"math/big"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
)

const (
	// reserveLogged is how many values a server hands out for one record of its log.
	reserveLogged = 32
	// reserveSessions is for how many sessions a sequence with a cache may have handed out values ahead.
	reserveSessions = 100
	// reserveLeast is the least number of values that are left out, for a sequence that was never seen moving.
	reserveLeast = 1000
	// reserveFactor is how much faster than ever seen a sequence may have moved since it was sampled, and reserveMargin
	// the time that a sample itself takes.
	reserveFactor = 10
	reserveMargin = 2 * time.Second
)

// SequenceFinding is a sequence that AdvanceSequences could not make certain.
type SequenceFinding struct {
	Schema, Name string
	What         string // what was found and done
}

// AdvanceReport is what AdvanceSequences did.
type AdvanceReport struct {
	Advanced int           // sequences that were moved
	Sampled  bool          // whether a sample was ever stored; if not, nothing is known of the principal's sequences
	Age      time.Duration // of the newest sample, by this server's clock
	Findings []SequenceFinding
}

// storedSequence is a row of dbmirror.sequence, with the local sequence and the column that owns it.
type storedSequence struct {
	Sequence        // Last, Called, Increment, Cache and Cycle as sampled at the principal; Min and Max as they are here
	rate            float64
	sampled, local  bool // there is such a row; there is such a sequence here
	here            int64
	hereCalled      bool
	table, column   string // that own it here, table quoted, or empty
	columnIsIndexed bool
}

// AdvanceSequences moves the sequences of this server, the former mirror's, past every value that the principal has
// handed out. exact is for a planned change of roles, with a sample that was stored after the last client had gone: the
// sequences go on as if nothing had happened. Otherwise a reserve is left out, for what was handed out after the sample:
// increment x (32 + 100 x cache + max(1000, 10 x rate x (age + 2 s))), and a sequence never stays below the highest
// value in the column that owns it. No sequence is moved back, except one that cycles.
//
// A sequence that would pass its bound is set to it, which exhausts it, or makes it begin anew if it cycles: that is a
// finding. So is one that was never sampled, and an owning column that has no index to look into.
func (s *Server) AdvanceSequences(ctx context.Context, exact bool) (AdvanceReport, error) {
	conn, err := s.connect(ctx, s.database, "sequences", nil)
	if err != nil {
		return AdvanceReport{}, fmt.Errorf("advance sequences: %w", err)
	}
	defer hangUp(conn)
	a := advance{conn: conn, exact: exact}
	crashpoint.Hit(crashpoint.SequencesUnmoved)
	list, err := a.load(ctx)
	if err != nil {
		return AdvanceReport{}, fmt.Errorf("advance sequences: %w", err)
	}
	for _, q := range list {
		if err := a.one(ctx, q); err != nil {
			return AdvanceReport{}, fmt.Errorf("advance sequence %s.%s: %w", q.Schema, q.Name, err)
		}
	}
	crashpoint.Hit(crashpoint.SequencesMoved)
	return a.report, nil
}

type advance struct {
	conn   *pgx.Conn
	exact  bool
	report AdvanceReport
}

func (a *advance) load(ctx context.Context) ([]storedSequence, error) {
	var age float64
	err := a.conn.QueryRow(ctx, `
		SELECT count(*) > 0, coalesce(greatest(extract(epoch FROM clock_timestamp() - max(value::timestamptz)), 0), 0)::float8
		FROM dbmirror.settings WHERE name = $1`, settingSampledAt).Scan(&a.report.Sampled, &age)
	if err != nil {
		return nil, fmt.Errorf("read age of sample: %w", err)
	}
	a.report.Age = time.Duration(age * float64(time.Second))
	// Only the first column of a whole btree index gives the highest value at once.
	rows, err := a.conn.Query(ctx, `
		WITH here AS (
			SELECT n.nspname::text AS schema, c.relname::text AS name, s.*, d.refobjid, d.refobjsubid
			FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
			LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')
				AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
			WHERE c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'dbmirror'))
		SELECT schema, name, q.last IS NOT NULL, here.seqrelid IS NOT NULL,
			coalesce(q.last, 0), coalesce(q.called, false), coalesce(q.increment, here.seqincrement),
			coalesce(q.cache, here.seqcache), coalesce(q.cycle, here.seqcycle),
			coalesce(`+rateNow+`, 0),
			coalesce(here.seqmin, 0), coalesce(here.seqmax, 0),
			coalesce(here.refobjid::regclass::text, ''),
			coalesce((SELECT attname::text FROM pg_attribute WHERE attrelid = here.refobjid AND attnum = here.refobjsubid), ''),
			EXISTS (SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam
				WHERE i.indrelid = here.refobjid AND i.indkey[0] = here.refobjsubid AND i.indpred IS NULL AND i.indisvalid
				AND m.amname = 'btree')
		FROM dbmirror.sequence q FULL JOIN here USING (schema, name) ORDER BY 1, 2`)
	if err != nil {
		return nil, fmt.Errorf("read stored sequences: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (q storedSequence, err error) {
		err = row.Scan(&q.Schema, &q.Name, &q.sampled, &q.local, &q.Last, &q.Called, &q.Increment, &q.Cache, &q.Cycle, &q.rate,
			&q.Min, &q.Max, &q.table, &q.column, &q.columnIsIndexed)
		return q, err
	})
	if err != nil {
		return nil, fmt.Errorf("read stored sequences: %w", err)
	}
	return list, nil
}

func (a *advance) find(q storedSequence, what string) {
	a.report.Findings = append(a.report.Findings, SequenceFinding{Schema: q.Schema, Name: q.Name, What: what})
}

// one advances one sequence.
func (a *advance) one(ctx context.Context, q storedSequence) error {
	if !q.local {
		a.find(q, "the principal had it, this server does not: create it")
		return nil
	}
	ident := quoteIdent(q.Schema, q.Name)
	err := a.conn.QueryRow(ctx, "SELECT last_value, is_called FROM "+ident).Scan(&q.here, &q.hereCalled)
	if err != nil {
		return fmt.Errorf("read it: %w", err)
	}
	if !q.sampled {
		a.find(q, "it was never sampled at the principal: it is advanced from what is here")
		q.Last, q.Called = q.here, q.hereCalled
	}
	owned, err := a.owned(ctx, q)
	if err != nil {
		return err
	}
	t := q.target(a.exact && q.sampled, a.report.Age, owned)
	if t.finding != "" {
		a.find(q, t.finding)
	}
	if t.last == q.here && t.called == q.hereCalled {
		return nil
	}
	if _, err := a.conn.Exec(ctx, "SELECT setval($1::text::regclass, $2, $3)", ident, t.last, t.called); err != nil {
		return fmt.Errorf("set it: %w", err)
	}
	crashpoint.Hit(crashpoint.SequenceMoved)
	a.report.Advanced++
	return nil
}

// owned reads the furthest value in the column that owns the sequence; nil when there is none to be had.
func (a *advance) owned(ctx context.Context, q storedSequence) (*int64, error) {
	if q.column == "" || q.Cycle || a.exact && q.sampled {
		return nil, nil
	}
	if !q.columnIsIndexed {
		a.find(q, "column "+q.column+" of "+q.table+", which owns it, has no index that begins with it: its values are not looked at")
		return nil, nil
	}
	furthest := "max"
	if q.Increment < 0 {
		furthest = "min"
	}
	var value *int64
	err := a.conn.QueryRow(ctx, fmt.Sprintf("SELECT %s(%s)::int8 FROM %s", furthest, quoteIdent(q.column), q.table)).Scan(&value)
	if err != nil {
		return nil, fmt.Errorf("read the furthest value of column %s of %s: %w", q.column, q.table, err)
	}
	return value, nil
}

type sequenceTarget struct {
	last    int64
	called  bool
	finding string
}

// target computes where a sequence must stand so that no value is handed out twice.
func (q storedSequence) target(exact bool, age time.Duration, owned *int64) sequenceTarget {
	increment := big.NewInt(q.Increment)
	last := big.NewInt(q.Last)
	called := q.Called
	if !exact {
		if !called {
			last.Sub(last, increment) // nothing was handed out yet
		}
		called = true
		last.Add(last, increment.Mul(increment, q.reserve(age)))
	}
	up := q.Increment > 0
	further := func(v int64, vCalled bool) {
		if b := big.NewInt(v); b.Cmp(last) == 0 {
			called = called || vCalled
		} else if (b.Cmp(last) > 0) == up {
			last, called = b, vCalled
		}
	}
	if owned != nil {
		further(*owned, true)
	}
	if !q.Cycle {
		further(q.here, q.hereCalled)
	}
	return q.bounded(last, called)
}

// reserve is how many values may have been handed out since the sample.
func (q storedSequence) reserve(age time.Duration) *big.Int {
	moved := max(reserveLeast, reserveFactor*q.rate*(age+reserveMargin).Seconds())
	count := new(big.Int).Mul(big.NewInt(q.Cache), big.NewInt(reserveSessions))
	count.Add(count, big.NewInt(reserveLogged))
	if moved > math.MaxInt64 { // beyond every sequence
		return count.Add(count, new(big.Int).SetUint64(math.MaxUint64))
	}
	return count.Add(count, big.NewInt(int64(math.Ceil(moved))))
}

func (q storedSequence) bounded(last *big.Int, called bool) sequenceTarget {
	bound := int64(0)
	switch {
	case last.Cmp(big.NewInt(q.Max)) > 0:
		bound = q.Max
	case last.Cmp(big.NewInt(q.Min)) < 0:
		bound = q.Min
	default:
		t := sequenceTarget{last: last.Int64(), called: called}
		if q.Cycle {
			t.finding = "it cycles: values that were handed out come again"
		}
		return t
	}
	if q.Cycle {
		return sequenceTarget{bound, true, fmt.Sprintf("it cycles and may have passed its bound: set to %d, it begins anew", bound)}
	}
	return sequenceTarget{bound, true, fmt.Sprintf("what may have been handed out reaches its bound: set to %d, it is exhausted; "+
		"check how far it was really used and set it back, or widen it", bound)}
}
