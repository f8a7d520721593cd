package pglog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/partner/pgtest"
)

func TestAbuseS13SecretIsNeverPrinted(t *testing.T) {
	const text = "postgres://user:hunter2@host/db"
	s := Secret(text)
	var out bytes.Buffer
	for _, verb := range []string{"%s", "%v", "%+v", "%#v", "%q", "%x", "%X", "% x", "%d", "%10s"} {
		fmt.Fprintf(&out, verb+"\n", s)
		fmt.Fprintf(&out, verb+"\n", struct{ DSN Secret }{s})
		fmt.Fprintf(&out, verb+"\n", []Secret{s})
		fmt.Fprintf(&out, verb+"\n", &s)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "dsn", s, "in", struct{ DSN Secret }{s})
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "dsn", s, "in", struct{ DSN Secret }{s})
	require.NoError(t, json.NewEncoder(&out).Encode(map[string]any{"dsn": s, "list": []*Secret{&s}}))
	for _, leak := range []string{"hunter2", fmt.Sprintf("%x", "hunter2"), fmt.Sprintf("%X", "hunter2"), fmt.Sprintf("% x", "hunter2")} {
		require.NotContains(t, out.String(), leak)
	}
	require.Equal(t, text, string(s))
	require.Contains(t, out.String(), secretMask)
}

func TestAbuseS13DialHidesTheDSN(t *testing.T) {
	for dsn, want := range map[string]string{
		"postgres://u:hunter2@h:not-a-port/db": "not valid",
		"postgres://u:hunter2@one,two/db":      "several servers",
		"postgres://u:hunter2@127.0.0.1:1/db":  "ping server",
		"host=h password='hunter2":             "not valid",
	} {
		_, err := Dial(adminContext(t), Secret(dsn), testSession)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "hunter2")
	}
	_, err := Dial(adminContext(t), "postgres://h/db", "Not8")
	require.ErrorContains(t, err, "session")
}

func TestPingTellsCrashFromRestart(t *testing.T) {
	t.Parallel()
	srv, s := adminServer(t, nil)
	ctx := adminContext(t)
	require.NoError(t, s.EnsureSchema(ctx), "twice")
	before, err := s.Ping(ctx)
	require.NoError(t, err)
	require.Equal(t, "app", before.Database)
	require.False(t, before.InRecovery)
	require.NotZero(t, before.Flushed)
	again, err := s.Ping(ctx)
	require.NoError(t, err)
	require.Equal(t, before.CheckpointerStart, again.CheckpointerStart)

	victim := adminClient(t, srv.DSN("app"))
	conn := adminClient(t, srv.DSN("app"))
	_, err = conn.Exec(ctx, fmt.Sprintf("COPY (SELECT 1) TO PROGRAM 'kill -9 %d'", victim.PgConn().PID()))
	_ = err // the server throws this session out as well, before or after it has answered
	var crashed Health
	adminEventually(t, "the server is back", func() bool {
		crashed, err = s.Ping(ctx)
		return err == nil && !crashed.CheckpointerStart.Equal(before.CheckpointerStart)
	})
	require.Equal(t, before.PostmasterStart, crashed.PostmasterStart, "the postmaster lives on")

	require.NoError(t, srv.Kill())
	_, err = s.Ping(ctx)
	require.Error(t, err)
	require.NoError(t, srv.Restart(ctx))
	after, err := s.Ping(ctx)
	require.NoError(t, err)
	require.NotEqual(t, before.PostmasterStart, after.PostmasterStart)
}

func TestEnsureSchemaRefusesForeignPublication(t *testing.T) {
	t.Parallel()
	srv := pgtest.New(t, nil)
	s := dialServer(t, srv.DSN("app"))
	adminExec(t, srv.DSN("app"), "CREATE PUBLICATION dbmirror")
	require.ErrorContains(t, s.EnsureSchema(adminContext(t)), "FOR ALL TABLES")
	adminExec(t, srv.DSN("app"), "DROP PUBLICATION dbmirror")
	require.NoError(t, s.EnsureSchema(adminContext(t)))
	require.True(t, adminValue[bool](t, s, "SELECT puballtables FROM pg_publication WHERE pubname = 'dbmirror'"))
	require.Zero(t, adminValue[int](t, s, `SELECT count(*) FROM pg_class c WHERE c.relnamespace = 'dbmirror'::regnamespace
		AND relkind = 'r' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)`),
		"tables without a key cannot be updated under FOR ALL TABLES")
	require.True(t, strings.HasPrefix(adminValue[string](t, s, "SELECT current_setting('application_name')"), namePrefix))
	require.Equal(t, "local", adminValue[string](t, s, "SELECT current_setting('synchronous_commit')"))
}

// TestEnsureAtOnce makes the schema and the tables of redo from many sessions at the same time.
func TestEnsureAtOnce(t *testing.T) {
	t.Parallel()
	srv := pgtest.New(t, nil)
	s := dialServer(t, srv.DSN("app"))
	ctx := adminContext(t)
	for range 5 {
		adminExec(t, srv.DSN("app"), "DROP SCHEMA IF EXISTS dbmirror CASCADE", "DROP PUBLICATION IF EXISTS dbmirror")
		done := make(chan error)
		for i := range 8 {
			conn := adminClient(t, srv.DSN("app"))
			go func() {
				if i%2 == 0 {
					done <- EnsureProgress(ctx, conn)
					return
				}
				done <- s.EnsureSchema(ctx)
			}()
		}
		for range 8 {
			require.NoError(t, <-done)
		}
	}
}
