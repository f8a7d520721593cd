package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// sql runs statements as the operator: they wait for no mirror.
func sql(t *testing.T, pg *pgtest.Server, database string, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pg.DSN(database))
	require.NoError(t, err)
	defer conn.Close(context.Background())
	for _, s := range append([]string{"SET synchronous_commit = local"}, statements...) {
		_, err := conn.Exec(t.Context(), s)
		require.NoError(t, err, s)
	}
}

func openNotes(t *testing.T, a, b *pgtest.Server) (*notes, http.Handler) {
	t.Helper()
	registry := prometheus.NewRegistry()
	n, err := open(t.Context(), fmt.Sprintf(
		"postgres://postgres@127.0.0.1:%d,127.0.0.1:%d/app?target_session_attrs=read-write&sslmode=disable", a.Port(), b.Port()), registry)
	require.NoError(t, err)
	t.Cleanup(n.close)
	return n, pages(n, 20*time.Second, registry)
}

func ask(handler http.Handler, method, path, body string) (int, string) {
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	return w.Code, w.Body.String()
}

const table = "CREATE TABLE note (id text PRIMARY KEY, body text NOT NULL CHECK (body <> 'bad'))"

func TestAnswersThroughAFailover(t *testing.T) {
	a, b := pgtest.New(t, nil), pgtest.New(t, nil)
	sql(t, a, "app", table)
	sql(t, b, "app", table, "ALTER DATABASE app SET default_transaction_read_only = on")
	_, service := openNotes(t, a, b)
	code, body := ask(service, http.MethodPut, "/notes/1", "before")
	require.Equal(t, http.StatusOK, code, body)
	code, body = ask(service, http.MethodGet, "/notes/1", "")
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "before", body)
	code, _ = ask(service, http.MethodGet, "/notes/2", "")
	require.Equal(t, http.StatusNotFound, code)
	code, body = ask(service, http.MethodPut, "/notes/1", "bad")
	require.Equal(t, http.StatusUnprocessableEntity, code, body)

	require.NoError(t, a.Kill())
	written := make(chan string, 1)
	go func() {
		_, body := ask(service, http.MethodPut, "/notes/1", "after")
		written <- body
	}()
	eventually(t, "a write that is repeated", func() bool {
		_, metrics := ask(service, http.MethodGet, "/metrics", "")
		return strings.Contains(metrics, `service_retries_total{what="write"}`)
	})
	sql(t, b, "postgres", "ALTER DATABASE app RESET default_transaction_read_only")
	require.Equal(t, "committed\n", <-written)
	code, body = ask(service, http.MethodGet, "/notes/1", "")
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "after", body)
	_, metrics := ask(service, http.MethodGet, "/metrics", "")
	require.Contains(t, metrics, `service_writes_total{outcome="committed"} 2`)
	require.Contains(t, metrics, `service_writes_total{outcome="refused"} 1`)
	require.Contains(t, metrics, `service_pool_connections{kind="max"}`)
}

func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-deadline.C:
			require.Fail(t, "not "+what)
		}
	}
}

type result struct {
	outcome
	err error
}

// waiting counts the commits that wait for a mirror.
func waiting(t *testing.T, pg *pgtest.Server) string {
	t.Helper()
	count, err := pg.Psql(t.Context(), "postgres", "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
	require.NoError(t, err)
	return count
}

// hang starts a write and returns when its commit waits for a mirror. Writes before the setting is in force go through; one
// that ran out of patience before it was seen is ended, as it would be in the way of the next.
func hang(t *testing.T, n *notes, pg *pgtest.Server) <-chan result {
	t.Helper()
	var done chan result
	start := func() {
		sql(t, pg, "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
		eventually(t, "rid of commits that wait", func() bool { return waiting(t, pg) == "0" })
		done = make(chan result, 1)
		go func(done chan result) {
			outcome, err := n.tryWrite(context.WithoutCancel(t.Context()), "1", "hanging")
			done <- result{outcome, err}
		}(done)
	}
	start()
	eventually(t, "a commit that waits", func() bool {
		select {
		case <-done:
			start()
		default:
		}
		return waiting(t, pg) == "1"
	})
	return done
}

func TestOutcomeOfACommitThatStopsWaiting(t *testing.T) {
	pg := pgtest.New(t, nil)
	sql(t, pg, "app", table)
	n, service := openNotes(t, pg, pg2(t))
	sql(t, pg, "postgres", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
	for _, end := range []string{"pg_cancel_backend", "pg_terminate_backend"} {
		done := hang(t, n, pg)
		sql(t, pg, "postgres", "SELECT "+end+"(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
		got := <-done
		require.Equal(t, unknown, got.outcome, "%s: %v", end, got.err)
	}
	got := <-hang(t, n, pg)
	require.Equal(t, unknown, got.outcome, "our patience ends: the commit is not canceled")
	require.ErrorIs(t, got.err, context.DeadlineExceeded)
	require.Equal(t, "1", waiting(t, pg), "it waits on")

	written := make(chan string, 1)
	go func() {
		_, body := ask(service, http.MethodPut, "/notes/1", "repeated")
		written <- body
	}()
	sql(t, pg, "postgres", "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
	require.Equal(t, "committed\n", <-written)
}

// pg2 is a second server that is no principal.
func pg2(t *testing.T) *pgtest.Server {
	pg := pgtest.New(t, nil)
	sql(t, pg, "postgres", "ALTER DATABASE app SET default_transaction_read_only = on")
	return pg
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		err     error
		noticed bool
		want    outcome
	}{
		{nil, false, committed},
		{nil, true, unknown},
		{pgx.ErrTxCommitRollback, false, refused},
		{&pgconn.PgError{Severity: "ERROR", Code: "23505"}, false, refused},
		{&pgconn.PgError{Severity: "FATAL", Code: "57P01"}, false, unknown},
		{&pgconn.PgError{Severity: "ERROR", Code: "57P01"}, false, unknown},
		{io.ErrUnexpectedEOF, false, unknown},
		{errors.New("conn closed"), true, unknown},
	} {
		require.Equal(t, c.want, judge(c.err, c.noticed), "%v %t", c.err, c.noticed)
	}
}

func TestTransient(t *testing.T) {
	for code, want := range map[string]bool{
		"25006": true, "53300": true, "57P01": true, "57P03": true, "40001": true, "08006": true, "57014": true,
		"23505": false, "42P01": false, "22021": false,
	} {
		require.Equal(t, want, transient(fmt.Errorf("write: %w", &pgconn.PgError{Code: code})), code)
	}
	require.True(t, transient(io.EOF))
}

func TestConfigurationErrorsNameCauseAndMend(t *testing.T) {
	none := func(string) string { return "" }
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "set DBMIRROR_DSN or -dsn"},
		{[]string{"-dsn", "postgres://app@db-a/app?target_session_attrs=read-write"}, "name both partners"},
		{[]string{"-dsn", "postgres://app@db-a,db-b/app"}, "add target_session_attrs=read-write"},
		{[]string{"-dsn", "postgres://app@db-a,db-b:x/app"}, "can not be read"},
		{[]string{"-patience", "0s"}, "more than a failover takes"},
		{[]string{"start"}, `"start" is not a flag`},
	} {
		require.ErrorContains(t, run(t.Context(), c.args, none, io.Discard), c.want)
	}
}

func TestStopsInOrder(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	getenv := func(string) string {
		return "postgres://app@127.0.0.1:1,127.0.0.1:2/app?target_session_attrs=read-write"
	}
	require.NoError(t, run(ctx, []string{"-listen", "127.0.0.1:0"}, getenv, io.Discard))
}
