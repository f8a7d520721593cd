package pglog

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// ErrTailGone is that of all backends: a slot has been confirmed beyond the position, or its log is gone.
var ErrTailGone = backend.ErrTailGone

// TailSummary is what Tail found. Transactions that touched only schema dbmirror are not in it.
type TailSummary struct {
	Transactions int64
	Changes      int64      // rows inserted, updated and deleted, and tables truncated
	Tables       []string   // touched, as schema.name, sorted
	Truncates    bool       // whether a table was truncated
	First, Last  mirror.LSN // ends of the first and the last transaction, zero when there is none
}

// TailLine is one line that Tail writes: the begin of a transaction, a change in it, or its commit.
type TailLine struct {
	Kind   string     `json:"kind"` // begin, insert, update, delete, truncate, commit
	Xid    uint32     `json:"xid,omitempty"`
	End    string     `json:"end,omitempty"`  // of a commit: the end of its record
	Time   *time.Time `json:"time,omitempty"` // of the commit, in begin
	Schema string     `json:"schema,omitempty"`
	Table  string     `json:"table,omitempty"`
	// Key and Old are the old row: the columns of its replica identity, or the whole of it. New is the new row.
	// Values are PostgreSQL's text, null for NULL; one that is not UTF-8, as a database of encoding SQL_ASCII may have, is
	// the hexadecimal form of its bytes behind \x. A column of New in Unchanged kept its large value, which the log does
	// not hold.
	Key       map[string]*string `json:"key,omitempty"`
	Old       map[string]*string `json:"old,omitempty"`
	New       map[string]*string `json:"new,omitempty"`
	Unchanged []string           `json:"unchanged,omitempty"`
}

// Tail writes to w what this server has committed after a position of its own log, as far as it is published: one
// TailLine in JSON per line. It is for the server that lost its role: what it committed after the fork exists nowhere
// else. The slot is read without being moved, so Tail can be repeated; it must have no reader, see FreeSlot. What was
// written is on disk only when the caller has synced it.
//
// Memory is bounded by one row; the server keeps the decoded tail in a temporary file meanwhile. It returns ErrNoSlot, or
// ErrTailGone when the slot cannot tell; then only a copy of the whole database can be right. Row data never stands in an
// error.
func (s *Server) Tail(ctx context.Context, slot string, after mirror.LSN, w io.Writer) (TailSummary, error) {
	if err := s.checkTail(ctx, slot, after); err != nil {
		return TailSummary{}, err
	}
	conn, err := s.connectForLong(ctx, "tail", map[string]string{ // whatever the role has: nothing may be lost in the text
		"datestyle": "ISO", "intervalstyle": "postgres", "extra_float_digits": "3", "bytea_output": "hex",
		"client_encoding": "UTF8", // JSON is UTF-8
	})
	if err != nil {
		return TailSummary{}, fmt.Errorf("read tail: %w", err)
	}
	defer hangUp(conn)
	if _, err := conn.Exec(ctx, unconvertedSQL); err != nil {
		return TailSummary{}, fmt.Errorf("read tail: %w", err)
	}
	t := newTail(after, w)
	rows, err := conn.Query(ctx, `SELECT data FROM pg_logical_slot_peek_binary_changes($1, NULL, NULL,
		'proto_version', '1', 'publication_names', $2::text)`, slot, quoteIdent(Publication))
	if err == nil {
		err = t.readAll(rows)
	}
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == codeObjectInUse {
		err = fmt.Errorf("somebody else reads from it: end him with FreeSlot: %w", err)
	}
	if err != nil {
		return TailSummary{}, fmt.Errorf("read tail of slot %s: %w", slot, err)
	}
	// Once more, in case somebody read from the slot just before and moved it.
	if err := s.checkTail(ctx, slot, after); err != nil {
		return TailSummary{}, err
	}
	return t.summary(), nil
}

func (s *Server) checkTail(ctx context.Context, slot string, after mirror.LSN) error {
	st, err := s.Slot(ctx, slot)
	if err != nil {
		return fmt.Errorf("read tail: %w", err)
	}
	if st.Confirmed > after || st.WALStatus == "lost" || st.Invalid != "" {
		return fmt.Errorf("read tail of slot %s after %s: %w: confirmed %s, log %s %s", slot, after, ErrTailGone,
			st.Confirmed, st.WALStatus, st.Invalid)
	}
	return nil
}

// tailWriter turns messages into lines. A transaction's begin is held back until a change of it counts.
type tailWriter struct {
	after     mirror.LSN
	out       *json.Encoder
	decoder   Decoder
	relations map[uint32]Relation
	touched   map[string]bool
	sum       TailSummary
	begin     TailLine
	skip      bool // the transaction ended before the position
	counts    bool // a change of the transaction has been written
}

func newTail(after mirror.LSN, w io.Writer) *tailWriter {
	return &tailWriter{after: after, out: json.NewEncoder(w), relations: map[uint32]Relation{}, touched: map[string]bool{}}
}

func (t *tailWriter) readAll(rows pgx.Rows) error {
	defer rows.Close()
	var data pgtype.DriverBytes // of the row, not copied
	for rows.Next() {
		if err := rows.Scan(&data); err != nil {
			return err
		}
		m, err := t.decoder.Decode(data, false)
		if err != nil {
			return err
		}
		if err := t.take(m); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (t *tailWriter) take(m Msg) error {
	switch m.Type {
	case TypeRelation:
		t.relations[m.RelationID] = m.Relation
	case TypeBegin:
		// The slot may start long before the position. A commit record that starts before the position also ends there or
		// before, because the position is the end of a record.
		t.skip, t.counts = m.LSN < t.after, false
		at := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(m.CommitTime) * time.Microsecond)
		t.begin = TailLine{Kind: "begin", Xid: m.Xid, Time: &at}
	case TypeInsert, TypeUpdate, TypeDelete:
		return t.row(m)
	case TypeTruncate:
		for _, oid := range m.TruncateRelations {
			if err := t.change(oid, TailLine{Kind: "truncate"}); err != nil {
				return err
			}
		}
	case TypeCommit:
		return t.commit(m)
	}
	return nil
}

func (t *tailWriter) row(m Msg) error {
	rel := t.relations[m.RelationID]
	line := TailLine{Kind: map[byte]string{TypeInsert: "insert", TypeUpdate: "update", TypeDelete: "delete"}[m.Type]}
	switch m.OldKind {
	case 'K':
		line.Key, _ = tailRow(rel, m.Old, true)
	case 'O':
		line.Old, _ = tailRow(rel, m.Old, false)
	}
	if m.Type != TypeDelete {
		line.New, line.Unchanged = tailRow(rel, m.New, false)
	}
	return t.change(m.RelationID, line)
}

// tailRow names the values of a row; of a key only the columns that belong to it, since the others are sent as NULL.
func tailRow(rel Relation, row Tuple, keyOnly bool) (values map[string]*string, unchanged []string) {
	values = make(map[string]*string, len(row))
	for i, v := range row {
		if i >= len(rel.Columns) || keyOnly && !rel.Columns[i].Key {
			continue
		}
		name := rel.Columns[i].Name
		switch v.Kind {
		case 'u':
			unchanged = append(unchanged, name)
		case 'n':
			values[name] = nil
		default:
			text := tailText(v.Data)
			values[name] = &text
		}
	}
	return values, unchanged
}

func tailText(data []byte) string {
	if utf8.Valid(data) {
		return string(data)
	}
	return `\x` + hex.EncodeToString(data)
}

// change writes one change, unless it is the library's own.
func (t *tailWriter) change(oid uint32, line TailLine) error {
	if t.skip {
		return nil
	}
	rel, ok := t.relations[oid]
	if !ok {
		return fmt.Errorf("a change of relation %d came before its description", oid)
	}
	if rel.Namespace == "dbmirror" {
		return nil
	}
	if !t.counts {
		t.counts = true
		if err := t.write(t.begin); err != nil {
			return err
		}
	}
	t.sum.Changes++
	t.sum.Truncates = t.sum.Truncates || line.Kind == "truncate"
	t.touched[rel.Namespace+"."+rel.Name] = true
	line.Schema, line.Table = rel.Namespace, rel.Name
	return t.write(line)
}

func (t *tailWriter) commit(m Msg) error {
	if !t.counts {
		return nil
	}
	t.sum.Transactions++
	if t.sum.First == 0 {
		t.sum.First = m.EndLSN
	}
	t.sum.Last = m.EndLSN
	return t.write(TailLine{Kind: "commit", Xid: t.begin.Xid, End: m.EndLSN.String()})
}

func (t *tailWriter) write(line TailLine) error {
	if err := t.out.Encode(line); err != nil {
		return fmt.Errorf("write tail: %w", err)
	}
	return nil
}

func (t *tailWriter) summary() TailSummary {
	t.sum.Tables = slices.Sorted(maps.Keys(t.touched))
	return t.sum
}
