package pglog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
)

// Sequence is one sequence as a server has it. PostgreSQL does not decode sequences: no log tells the mirror what has
// been handed out, so it is sampled.
type Sequence struct {
	Schema, Name string
	Last         int64 // the last value handed out; the one to come when Called is false
	Called       bool
	LogCount     int64 // values that may be handed out before the server logs again
	Increment    int64 // negative for a descending sequence, never zero
	Min, Max     int64
	Cycle        bool
	Cache        int64 // values that a session takes at a time
	// Rate is how many values a second this server, as a mirror before, saw the former principal hand out at most.
	Rate float64
}

// SequenceSample is all sequences of a database at one time.
type SequenceSample struct {
	// At is when the sample was begun, by this program's clock, with its monotonic reading.
	At time.Time
	// Reign is the role sequence in which it was taken. Between two of them a sequence may have been moved by the library.
	Reign     mirror.RoleSeq
	Sequences []Sequence
}

const (
	sequencesPerQuery = 200
	// sampleTries is how often a sample is begun anew because a sequence was dropped meanwhile.
	sampleTries        = 3
	codeUndefinedTable = "42P01"
	settingSampledAt   = "sequences_sampled_at"
	settingSampledIn   = "sequences_sampled_in" // the reign
)

// SampleSequences reads the permanent sequences of the database at the other end of conn: the principal's. Values that
// are handed out while it runs may be missing from it.
func SampleSequences(ctx context.Context, conn *pgx.Conn) (SequenceSample, error) {
	var err error
	for range sampleTries {
		sample := SequenceSample{At: time.Now()}
		sample.Sequences, err = readSequences(ctx, conn)
		if err == nil {
			err = sample.addReign(ctx, conn)
		}
		refused, ok := errors.AsType[*pgconn.PgError](err)
		if err == nil {
			return sample, nil
		}
		if !ok || refused.Code != codeUndefinedTable {
			break
		}
	}
	return SequenceSample{}, fmt.Errorf("sample sequences: %w", err)
}

func readSequences(ctx context.Context, conn *pgx.Conn) ([]Sequence, error) {
	rows, err := conn.Query(ctx, `
		SELECT n.nspname::text, c.relname::text, s.seqincrement, s.seqmin, s.seqmax, s.seqcycle, s.seqcache
		FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
		JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'dbmirror')
		ORDER BY 1, 2`)
	if err != nil {
		return nil, err
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (q Sequence, err error) {
		err = row.Scan(&q.Schema, &q.Name, &q.Increment, &q.Min, &q.Max, &q.Cycle, &q.Cache)
		return q, err
	})
	if err != nil {
		return nil, err
	}
	for begin := 0; begin < len(list); begin += sequencesPerQuery {
		if err := readSequenceValues(ctx, conn, list[begin:min(begin+sequencesPerQuery, len(list))]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// readSequenceValues fills in the values, which stand in the sequences themselves.
func readSequenceValues(ctx context.Context, conn *pgx.Conn, list []Sequence) error {
	parts := make([]string, len(list))
	for i, q := range list {
		parts[i] = fmt.Sprintf("SELECT %d, last_value, is_called, log_cnt FROM %s", i, quoteIdent(q.Schema, q.Name))
	}
	rows, err := conn.Query(ctx, strings.Join(parts, " UNION ALL "))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var i int
		var q Sequence
		if err := rows.Scan(&i, &q.Last, &q.Called, &q.LogCount); err != nil {
			return err
		}
		list[i].Last, list[i].Called, list[i].LogCount = q.Last, q.Called, q.LogCount
	}
	return rows.Err()
}

// addReign adds what the principal keeps in schema dbmirror: its reign, and what it saw of the principal before it. A
// server without the schema has neither.
func (s *SequenceSample) addReign(ctx context.Context, conn *pgx.Conn) error {
	var kept bool
	err := conn.QueryRow(ctx, "SELECT to_regclass('dbmirror.reign') IS NOT NULL AND to_regclass('dbmirror.sequence') IS NOT NULL").Scan(&kept)
	if err != nil || !kept {
		return err
	}
	var reign int64
	if err := conn.QueryRow(ctx, "SELECT coalesce(max(role_seq), 0) FROM dbmirror.reign").Scan(&reign); err != nil {
		return err
	}
	s.Reign = mirror.RoleSeq(reign)
	rows, err := conn.Query(ctx, "SELECT schema, name, "+rateNow+" FROM dbmirror.sequence q WHERE rate > 0")
	if err != nil {
		return err
	}
	rates := map[[2]string]float64{}
	var name [2]string
	var rate float64
	_, err = pgx.ForEachRow(rows, []any{&name[0], &name[1], &rate}, func() error { rates[name] = rate; return nil })
	for i, q := range s.Sequences {
		s.Sequences[i].Rate = rates[[2]string{q.Schema, q.Name}]
	}
	return err
}

// rateNow is the rate of row q of dbmirror.sequence, of which half is forgotten every five minutes.
const rateNow = "q.rate * power(0.5, greatest(extract(epoch FROM clock_timestamp() - q.rated_at)::float8, 0) / 300)"

// StoreSequences keeps a sample of the principal's sequences in this server, the mirror's, with its age and with the
// rate at which each sequence moves: the highest seen, by this server or the principal, forgotten by half every five
// minutes. What a sequence moved from one reign to the next is not counted: the new principal left out a reserve, and a
// reserve that is taken for a rate makes the next one many times as large, until the sequence is exhausted.
func (s *Server) StoreSequences(ctx context.Context, sample SequenceSample) error {
	reign := strconv.FormatUint(uint64(sample.Reign), 10)
	var c sequenceColumns
	for _, q := range sample.Sequences {
		c.add(q)
	}
	crashpoint.Hit(crashpoint.SampleUnstored)
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		var seconds *float64 // since the sample before, if that was of the same reign
		var at time.Time     // of this sample, by the clock of this server
		err := tx.QueryRow(ctx, `
			WITH x AS (SELECT clock_timestamp() - $2::int8 * interval '1 microsecond' AS at)
			SELECT x.at, extract(epoch FROM x.at - (SELECT value::timestamptz FROM dbmirror.settings WHERE name = $1
				AND EXISTS (SELECT FROM dbmirror.settings WHERE name = $3 AND value = $4::text)))::float8 FROM x`,
			settingSampledAt, time.Since(sample.At).Microseconds(), settingSampledIn, reign).Scan(&at, &seconds)
		if err != nil {
			return err
		}
		if err := c.store(ctx, tx, at, seconds); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO dbmirror.settings (name, value) VALUES ($1, $2::timestamptz::text), ($3, $4::text)
			ON CONFLICT (name) DO UPDATE SET value = excluded.value`, settingSampledAt, at, settingSampledIn, reign)
		return err
	})
	if err != nil {
		return fmt.Errorf("store sequences: %w", err)
	}
	crashpoint.Hit(crashpoint.SampleStored)
	return nil
}

// sequenceColumns is a sample turned on its side, for unnest.
type sequenceColumns struct {
	schema, name           []string
	last, increment, cache []int64
	called, cycle          []bool
	rate                   []float64
}

func (c *sequenceColumns) add(q Sequence) {
	c.schema, c.name = append(c.schema, q.Schema), append(c.name, q.Name)
	c.last, c.increment, c.cache = append(c.last, q.Last), append(c.increment, q.Increment), append(c.cache, q.Cache)
	c.called, c.cycle, c.rate = append(c.called, q.Called), append(c.cycle, q.Cycle), append(c.rate, q.Rate)
}

// store writes the rows that changed: most sequences stand still most of the time. seconds is the time since the sample
// before, nil for the first of a reign.
func (c *sequenceColumns) store(ctx context.Context, tx pgx.Tx, at time.Time, seconds *float64) error {
	_, err := tx.Exec(ctx, `
		DELETE FROM dbmirror.sequence WHERE (schema, name) NOT IN (SELECT * FROM unnest($1::text[], $2::text[]))`, c.schema, c.name)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `
		INSERT INTO dbmirror.sequence AS s (schema, name, last, called, increment, cache, cycle, rate, rated_at)
		SELECT *, $8::timestamptz
		FROM unnest($1::text[], $2::text[], $3::int8[], $4::bool[], $5::int8[], $6::int8[], $7::bool[], $10::float8[])
		ON CONFLICT (schema, name) DO UPDATE SET
			(last, called, increment, cache, cycle) =
				(excluded.last, excluded.called, excluded.increment, excluded.cache, excluded.cycle),
			rate = greatest(excluded.rate,
				s.rate * power(0.5, greatest(extract(epoch FROM excluded.rated_at - s.rated_at)::float8, 0) / 300),
				CASE WHEN $9::float8 IS NULL THEN 0
					ELSE abs(excluded.last::float8 - s.last::float8) / abs(excluded.increment) / greatest($9::float8, 0.05) END),
			rated_at = excluded.rated_at
		WHERE (s.last, s.called, s.increment, s.cache, s.cycle) IS DISTINCT FROM
			(excluded.last, excluded.called, excluded.increment, excluded.cache, excluded.cycle)`,
		c.schema, c.name, c.last, c.called, c.increment, c.cache, c.cycle, at, seconds, c.rate)
	return err
}
