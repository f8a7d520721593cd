package pglog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

func readTail(t *testing.T, text []byte) (lines []TailLine) {
	for d := json.NewDecoder(bytes.NewReader(text)); d.More(); {
		var line TailLine
		d.DisallowUnknownFields()
		require.NoError(t, d.Decode(&line))
		lines = append(lines, line)
	}
	return lines
}

func text(s string) *string { return &s }

// The mirror has confirmed fifty transactions when the server crashes with five more. The slot has forgotten what was
// confirmed; the tail must be the five.
func TestTailAfterCrash(t *testing.T) {
	t.Parallel()
	srv, s := adminServer(t, nil)
	dsn := srv.DSN("app")
	ctx := adminContext(t)
	adminExec(t, dsn, "CREATE TABLE t (id int PRIMARY KEY, v text)")
	_, err := s.CreateSlot(ctx, slotA)
	require.NoError(t, err)
	m := startMirror(t, s, dsn, slotA, mirrorA, false)
	_, err = s.WaitMirror(ctx, mirrorA)
	require.NoError(t, err)
	conn := adminClient(t, dsn)
	for id := range 50 {
		_, err := conn.Exec(ctx, "INSERT INTO t VALUES ($1, 'confirmed')", id)
		require.NoError(t, err)
	}
	m.end()
	fork := m.reported()
	for id := 50; id < 55; id++ {
		adminExec(t, dsn, fmt.Sprintf("INSERT INTO t VALUES (%d, 'tail')", id))
	}
	before := slotConfirmed(t, s)
	require.NoError(t, srv.Kill())
	require.NoError(t, srv.Restart(ctx))
	require.Less(t, slotConfirmed(t, s), before, "the slot stepped back: it would decode confirmed transactions again")

	for range 2 { // reading does not move the slot
		var out bytes.Buffer
		sum, err := s.Tail(ctx, slotA, fork, &out)
		require.NoError(t, err)
		require.EqualValues(t, 5, sum.Transactions)
		require.EqualValues(t, 5, sum.Changes)
		require.Equal(t, []string{"public.t"}, sum.Tables)
		require.False(t, sum.Truncates)
		require.Greater(t, sum.First, fork)
		require.Greater(t, sum.Last, sum.First)
		lines := readTail(t, out.Bytes())
		require.Len(t, lines, 15)
		for i := range 5 {
			require.Equal(t, "begin", lines[3*i].Kind)
			require.Equal(t, map[string]*string{"id": text(fmt.Sprint(50 + i)), "v": text("tail")}, lines[3*i+1].New)
			require.Equal(t, "commit", lines[3*i+2].Kind)
			require.Equal(t, lines[3*i].Xid, lines[3*i+2].Xid)
		}
		require.Equal(t, sum.Last.String(), lines[14].End)
		rest, err := s.Tail(ctx, slotA, sum.First, &out)
		require.NoError(t, err)
		require.EqualValues(t, 4, rest.Transactions, "a position is the end of the last transaction that is not in the tail")
		none, err := s.Tail(ctx, slotA, sum.Last, &out)
		require.NoError(t, err)
		require.Equal(t, TailSummary{Tables: none.Tables}, none)
		require.Empty(t, none.Tables)
	}
}

func slotConfirmed(t *testing.T, s *Server) mirror.LSN {
	st, err := s.Slot(adminContext(t), slotA)
	require.NoError(t, err)
	return st.Confirmed
}

func TestTailSaysWhatChanged(t *testing.T) {
	t.Parallel()
	srv, s := adminServer(t, nil)
	dsn := srv.DSN("app")
	ctx := adminContext(t)
	adminExec(t, dsn, `CREATE SCHEMA "Odd ""one"`, `CREATE TABLE "Odd ""one".k (a int, b text, "C c" text, PRIMARY KEY (a, b))`,
		"CREATE TABLE whole (a int, b text)", "ALTER TABLE whole REPLICA IDENTITY FULL",
		"ALTER TABLE \"Odd \"\"one\".k ALTER b SET STORAGE EXTERNAL, ALTER \"C c\" SET STORAGE EXTERNAL")
	start, err := s.CreateSlot(ctx, slotA)
	require.NoError(t, err)
	tail := func() (TailSummary, []TailLine) {
		var out bytes.Buffer
		sum, err := s.Tail(ctx, slotA, start, &out)
		require.NoError(t, err)
		return sum, readTail(t, out.Bytes())
	}
	sum, lines := tail()
	require.Empty(t, lines)
	require.Zero(t, sum.Transactions)

	adminExec(t, dsn, "UPDATE dbmirror.settings SET value = value", "INSERT INTO dbmirror.settings VALUES ('x', 'y')",
		"SELECT pg_logical_emit_message(true, 'x', 'y')", "BEGIN; INSERT INTO whole VALUES (1, 'rolled back'); ROLLBACK")
	sum, lines = tail()
	require.Empty(t, lines, "the library's own rows do not count")
	require.Zero(t, sum.Transactions)

	adminExec(t, dsn, `BEGIN; INSERT INTO dbmirror.settings VALUES ('z', 'y');
		INSERT INTO "Odd ""one".k VALUES (1, 'k', repeat('long', 5000)); UPDATE "Odd ""one".k SET a = 2;
		INSERT INTO whole VALUES (7, NULL); UPDATE whole SET b = 'x'; DELETE FROM whole; DELETE FROM "Odd ""one".k; COMMIT`,
		`TRUNCATE whole, "Odd ""one".k`)
	sum, lines = tail()
	require.EqualValues(t, 2, sum.Transactions)
	require.EqualValues(t, 8, sum.Changes)
	require.True(t, sum.Truncates)
	require.Equal(t, []string{`Odd "one.k`, "public.whole"}, sum.Tables)
	kinds := ""
	for _, line := range lines {
		kinds += line.Kind + " "
	}
	require.Equal(t, "begin insert update insert update delete delete commit begin truncate truncate commit ", kinds)
	require.Equal(t, map[string]*string{"a": text("1"), "b": text("k")}, lines[2].Key, "the old key of a row whose key changed")
	require.Equal(t, map[string]*string{"a": text("2"), "b": text("k")}, lines[2].New)
	require.Equal(t, []string{"C c"}, lines[2].Unchanged)
	require.Equal(t, map[string]*string{"a": text("7"), "b": nil}, lines[3].New)
	require.Equal(t, map[string]*string{"a": text("7"), "b": nil}, lines[4].Old)
	require.Equal(t, map[string]*string{"a": text("7"), "b": text("x")}, lines[5].Old)
	require.Equal(t, map[string]*string{"a": text("2"), "b": text("k")}, lines[6].Key)
	require.Nil(t, lines[6].New)

	t.Run("a slot that is read, is gone, or has been confirmed beyond", func(t *testing.T) {
		m := startMirror(t, s, dsn, slotA, mirrorA, true)
		_, err := s.Tail(ctx, slotA, start, &bytes.Buffer{})
		require.ErrorContains(t, err, "FreeSlot")
		m.hold.Store(false)
		adminEventually(t, "it has confirmed", func() bool { return slotConfirmed(t, s) > start })
		require.NoError(t, s.FreeSlot(ctx, slotA))
		m.end()
		_, err = s.Tail(ctx, slotA, start, &bytes.Buffer{})
		require.ErrorIs(t, err, ErrTailGone)
		_, err = s.Tail(ctx, "nowhere", start, &bytes.Buffer{})
		require.ErrorIs(t, err, ErrNoSlot)
	})
}

// The file is JSON, which is UTF-8, whatever the database's encoding is.
func TestTailOfAnyEncoding(t *testing.T) {
	t.Parallel()
	srv := pgtest.New(t, nil)
	ctx := adminContext(t)
	for encoding, row := range map[string]struct{ value, want string }{
		"LATIN1":    {`convert_from('\xe9', 'LATIN1')`, "é"},
		"UTF8":      {`convert_from('\xe9', 'LATIN1')`, "é"},
		"SQL_ASCII": {`E'a\xe9z'`, `\x61e97a`},
	} {
		name := strings.ToLower(encoding)
		adminExec(t, srv.DSN("app"), "CREATE DATABASE "+name+" TEMPLATE template0 LOCALE 'C' ENCODING '"+encoding+"'")
		dsn := srv.DSN(name)
		s := dialServer(t, dsn)
		require.NoError(t, s.EnsureSchema(ctx))
		adminExec(t, dsn, "CREATE TABLE t (id int PRIMARY KEY, v text)")
		start, err := s.CreateSlot(ctx, "tail_"+name)
		require.NoError(t, err)
		adminExec(t, dsn, "INSERT INTO t VALUES (1, "+row.value+")")
		var out bytes.Buffer
		_, err = s.Tail(ctx, "tail_"+name, start, &out)
		require.NoError(t, err)
		require.Equal(t, row.want, *readTail(t, out.Bytes())[1].New["v"], encoding)
	}
}

// What a role has set for its own eyes does not round or rearrange what is saved.
func TestTailLosesNothingInTheText(t *testing.T) {
	t.Parallel()
	srv, s := adminServer(t, nil)
	dsn := srv.DSN("app")
	ctx := adminContext(t)
	adminExec(t, dsn, "CREATE TABLE t (id int PRIMARY KEY, f float8, d date, b bytea)")
	start, err := s.CreateSlot(ctx, slotA)
	require.NoError(t, err)
	adminExec(t, dsn, `INSERT INTO t VALUES (1, 0.1::float8 + 0.2::float8, '2026-03-04', '\xff')`,
		"ALTER ROLE postgres SET extra_float_digits = -15", "ALTER ROLE postgres SET datestyle = 'SQL, DMY'",
		"ALTER ROLE postgres SET bytea_output = escape")
	var out bytes.Buffer
	_, err = s.Tail(ctx, slotA, start, &out)
	require.NoError(t, err)
	require.Equal(t, map[string]*string{"id": text("1"), "f": text("0.30000000000000004"), "d": text("2026-03-04"), "b": text(`\xff`)},
		readTail(t, out.Bytes())[1].New)
}
