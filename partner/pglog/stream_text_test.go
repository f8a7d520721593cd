package pglog

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/pgtest"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// beginRedo makes a database one that holds everything up to a position of the principal's log.
func beginRedo(t *testing.T, target *pgx.Conn, start mirror.LSN) {
	t.Helper()
	require.NoError(t, EnsureProgress(t.Context(), target))
	require.NoError(t, pgx.BeginFunc(t.Context(), target, func(tx pgx.Tx) error {
		return SetProgress(t.Context(), tx, redoSessionName, mirror.Position{Seq: testSeq, LSN: start})
	}))
}

// redo redoes what is hardened in another database of the server.
func (s *source) redo(database string) {
	s.t.Helper()
	r, err := NewRedo(RedoConfig{DSN: Secret(s.server.DSN(database)), Session: redoSessionName})
	require.NoError(s.t, err)
	ctx, stop := context.WithCancel(s.t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, s.log.Queue) }()
	require.NoError(s.t, r.Drain(ctx, s.log.Hardened()))
	stop()
	<-done
}

// TestTextOfNamedObjects: values that are written as the name of something in the database, and are another number at the
// mirror, name the same there, whatever the search path of the principal's database and role.
func TestTextOfNamedObjects(t *testing.T) {
	t.Parallel()
	s := &source{t: t, server: pgtest.New(t, map[string]string{"wal_level": "logical"})}
	s.admin = s.connect("app", "local")
	for _, sql := range []string{"CREATE DATABASE here", "CREATE DATABASE there", "ALTER DATABASE here SET search_path = own, public"} {
		s.exec(sql)
	}
	target := s.connect("there", "local")
	s.admin = s.connect("here", "local")
	_, err := target.Exec(t.Context(), "CREATE SEQUENCE so_that_numbers_differ")
	require.NoError(t, err)
	for _, sql := range []string{"CREATE SCHEMA own", "CREATE TABLE own.t (id int PRIMARY KEY, a regclass, b regtype, c regprocedure, d regconfig, e regclass[])",
		"CREATE TYPE own.mood AS ENUM ('x')", "CREATE FUNCTION own.f(own.mood) RETURNS int LANGUAGE sql AS 'SELECT 1'",
		"CREATE TEXT SEARCH CONFIGURATION public.words (COPY = simple)"} {
		s.exec(sql)
		_, err := target.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	s.exec("CREATE PUBLICATION p FOR ALL TABLES")
	start := s.createSlot()
	s.log = newLog(t, start, redo.Config{})
	beginRedo(t, target, start)

	cfg := s.config()
	cfg.DSN = Secret(s.server.DSN("here"))
	r := s.run(cfg)
	s.exec("INSERT INTO own.t VALUES (1, 'own.t', 'own.mood', 'own.f(own.mood)', 'words', ARRAY['own.t', 'pg_class']::regclass[])")
	s.exec("INSERT INTO own.t VALUES (2, 'pg_class', 'int', 'lower(text)', 'english', '{}')")
	s.exec("UPDATE own.t SET a = 'own.t' WHERE id = 2")
	s.reach(r)
	s.redo("there")
	r.end(t)

	const all = "SELECT string_agg(t::text, ';' ORDER BY id) FROM own.t"
	var got string
	require.NoError(t, target.QueryRow(t.Context(), "SELECT set_config('search_path', 'pg_catalog', false)").Scan(&got))
	require.NoError(t, target.QueryRow(t.Context(), all).Scan(&got))
	s.exec("SET search_path = pg_catalog")
	require.Equal(t, s.text(all), got)
}

// TestStreamAndRedoReadTextAlike: what the principal writes is read at the mirror under the same settings, whatever the two
// servers, databases and roles have.
func TestStreamAndRedoReadTextAlike(t *testing.T) {
	stream, err := StreamConfig{DSN: "host=principal.example dbname=app"}.connConfig()
	require.NoError(t, err)
	redo := redoSettings(redoSessionName)
	for _, name := range []string{"client_encoding", "datestyle", "intervalstyle", "extra_float_digits", "bytea_output", "lc_monetary", "standard_conforming_strings"} {
		require.NotEmpty(t, redo[name], name)
		require.Equal(t, redo[name], stream.RuntimeParams[name], name)
	}
}
