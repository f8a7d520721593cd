package pglog

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// sequencePair makes two databases with the same schema: what the second knows of the first is what is sampled.
func sequencePair(t *testing.T, ddl ...string) (principal string, m *Server) {
	srv := pgtest.New(t, nil)
	adminExec(t, srv.DSN("postgres"), "CREATE DATABASE mirrored")
	for _, db := range []string{"app", "mirrored"} {
		adminExec(t, srv.DSN(db), ddl...)
	}
	m = dialServer(t, srv.DSN("mirrored"))
	require.NoError(t, m.EnsureSchema(adminContext(t)))
	return srv.DSN("app"), m
}

func sampleAndStore(t *testing.T, principal string, m *Server) {
	conn := adminClient(t, principal)
	defer hangUp(conn)
	sample, err := SampleSequences(adminContext(t), conn)
	require.NoError(t, err)
	require.NoError(t, m.StoreSequences(adminContext(t), sample))
}

// Clients take values as fast as they can from a sequence with a cache, one without, and one that descends. The last
// sample is old when the principal is lost: no value that they got may come again.
func TestSequencesNeverHandOutAValueTwice(t *testing.T) {
	t.Parallel()
	principal, m := sequencePair(t, "CREATE SEQUENCE plain", "CREATE SEQUENCE cached CACHE 20 INCREMENT 3",
		"CREATE SEQUENCE down INCREMENT -2 MINVALUE -9000000000 MAXVALUE 100 START 100")
	ctx := adminContext(t)
	furthest := make([][3]int64, 3)
	running, stop := context.WithCancel(ctx)
	var clients sync.WaitGroup
	for i := range furthest {
		conn := adminClient(t, principal)
		furthest[i] = [3]int64{math.MinInt64, math.MinInt64, math.MaxInt64}
		clients.Go(func() {
			for running.Err() == nil {
				var v [3]int64
				if err := conn.QueryRow(ctx, "SELECT nextval('plain'), nextval('cached'), nextval('down')").Scan(&v[0], &v[1], &v[2]); err != nil {
					t.Errorf("take values: %v", err)
					return
				}
				f := &furthest[i]
				f[0], f[1], f[2] = max(f[0], v[0]), max(f[1], v[1]), min(f[2], v[2])
			}
		})
	}
	var last int64
	for range 5 { // samples, each when the sequence has moved by a good deal
		adminEventually(t, "the sequences move", func() bool {
			conn := adminClient(t, principal)
			defer hangUp(conn)
			var now int64
			require.NoError(t, conn.QueryRow(ctx, "SELECT last_value FROM plain").Scan(&now))
			return now > last+200
		})
		sampleAndStore(t, principal, m)
		last = adminValue[int64](t, m, "SELECT last FROM dbmirror.sequence WHERE name = 'plain'")
	}
	at := last
	adminEventually(t, "they move on without being sampled", func() bool {
		conn := adminClient(t, principal)
		defer hangUp(conn)
		require.NoError(t, conn.QueryRow(ctx, "SELECT last_value FROM plain").Scan(&at))
		return at > last+2000
	})
	stop()
	clients.Wait()
	report, err := m.AdvanceSequences(ctx, false)
	require.NoError(t, err)
	require.Equal(t, 3, report.Advanced)
	require.Empty(t, report.Findings)
	require.Positive(t, report.Age)
	require.True(t, report.Sampled)
	var next [3]int64
	require.NoError(t, m.pool.QueryRow(ctx, "SELECT nextval('public.plain'), nextval('public.cached'), nextval('public.down')").
		Scan(&next[0], &next[1], &next[2]))
	for _, f := range furthest {
		require.Greater(t, next[0], f[0])
		require.Greater(t, next[1], f[1])
		require.Less(t, next[2], f[2])
	}
	t.Logf("sampled %d, handed out %d, goes on at %d; rate %.0f/s, age %v", last, at, next[0],
		adminValue[float64](t, m, "SELECT rate FROM dbmirror.sequence WHERE name = 'plain'"), report.Age)
}

// The role goes back and forth between two servers, each time with the reserve of a principal that was lost. What is left
// out each time rests on how fast clients were, and not on what was left out before.
func TestSequencesOverManyRoleChanges(t *testing.T) {
	t.Parallel()
	srv := pgtest.New(t, nil)
	adminExec(t, srv.DSN("postgres"), "CREATE DATABASE other")
	var servers [2]*Server
	for i, db := range []string{"app", "other"} {
		adminExec(t, srv.DSN(db), "CREATE SEQUENCE orders AS integer")
		servers[i] = dialServer(t, srv.DSN(db))
		require.NoError(t, servers[i].EnsureSchema(adminContext(t)))
	}
	ctx := adminContext(t)
	for change := range 12 {
		from, to := servers[change%2], servers[(change+1)%2]
		for range 3 { // samples
			adminValue[int64](t, from, "SELECT max(nextval('public.orders')) FROM generate_series(1, 10)")
			sampleAndStore(t, srv.DSN(from.database), to)
		}
		before := adminValue[int64](t, from, "SELECT last_value FROM public.orders")
		report, err := to.AdvanceSequences(ctx, false)
		require.NoError(t, err)
		require.Empty(t, report.Findings, "change %d", change+1)
		after := adminValue[int64](t, to, "SELECT last_value FROM public.orders")
		// 10 values within 50 ms are 200 a second.
		require.InDelta(t, before, after, 32+100+reserveFactor*200*(report.Age+reserveMargin).Seconds()+1000, "change %d", change+1)
		require.NoError(t, to.WriteReign(ctx, Reign{Session: "s", Seq: mirror.RoleSeq(change + 2), Slot: "slot"}))
	}
}

// A mirror that has only begun to look at the new principal knows from it how fast clients are.
func TestSequenceRatesAreHandedOn(t *testing.T) {
	t.Parallel()
	principal, m := sequencePair(t, "CREATE SEQUENCE orders")
	former := dialServer(t, principal)
	require.NoError(t, former.EnsureSchema(adminContext(t)))
	adminExec(t, principal, `INSERT INTO dbmirror.sequence VALUES ('public', 'orders', 1, true, 1, 1, false, 5000, clock_timestamp())`)
	sampleAndStore(t, principal, m)
	require.InDelta(t, 5000, adminValue[float64](t, m, "SELECT rate FROM dbmirror.sequence"), 500)
	_, err := m.AdvanceSequences(adminContext(t), false)
	require.NoError(t, err)
	require.Greater(t, adminValue[int64](t, m, "SELECT last_value FROM public.orders"), int64(5000*reserveFactor))
}

func TestSequencesExactly(t *testing.T) {
	t.Parallel()
	principal, m := sequencePair(t, "CREATE SEQUENCE a", "CREATE SEQUENCE untouched START 7", "CREATE SEQUENCE set_back",
		"CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, x int)", `CREATE SEQUENCE "Odd ""one"`)
	adminExec(t, principal, "SELECT nextval('a') FROM generate_series(1, 10)", "SELECT setval('set_back', 99, false)",
		"INSERT INTO t (x) SELECT 1 FROM generate_series(1, 5)", `SELECT nextval('"Odd ""one"')`)
	sampleAndStore(t, principal, m)
	ctx := adminContext(t)
	report, err := m.AdvanceSequences(ctx, true)
	require.NoError(t, err)
	require.Empty(t, report.Findings)
	require.Equal(t, 4, report.Advanced)
	again, err := m.AdvanceSequences(ctx, true)
	require.NoError(t, err)
	require.Zero(t, again.Advanced, "twice is once")
	for name, want := range map[string]int64{"a": 11, "untouched": 7, "set_back": 99, "t_id_seq": 6, `"Odd ""one"`: 2} {
		require.Equal(t, want, adminValue[int64](t, m, "SELECT nextval(('public.' || $1)::text::regclass)", name), name)
	}
	t.Run("never back", func(t *testing.T) {
		_, err := m.pool.Exec(ctx, "SELECT setval('public.a', 5000)")
		require.NoError(t, err)
		_, err = m.AdvanceSequences(ctx, true)
		require.NoError(t, err)
		require.Equal(t, int64(5001), adminValue[int64](t, m, "SELECT nextval('public.a')"))
	})
}

func TestSequencesWithBoundsCyclesAndOwners(t *testing.T) {
	t.Parallel()
	principal, m := sequencePair(t,
		"CREATE SEQUENCE small AS smallint", "CREATE SEQUENCE cycles MAXVALUE 100 CYCLE", "CREATE SEQUENCE wide CYCLE",
		"CREATE SEQUENCE edge START 9223372036854775000", "CREATE SEQUENCE low INCREMENT -1 MINVALUE -50",
		"CREATE TABLE keyed (id bigserial PRIMARY KEY)", "CREATE TABLE heap (id bigserial)", "CREATE TEMP SEQUENCE temporary")
	adminExec(t, principal, "SELECT setval('small', 32000), setval('cycles', 90), nextval('edge'), nextval('low'), nextval('wide')",
		"CREATE SEQUENCE only_there")
	sampleAndStore(t, principal, m)
	ctx := adminContext(t)
	_, err := m.pool.Exec(ctx, "INSERT INTO public.keyed VALUES (1000000)")
	require.NoError(t, err)
	_, err = m.pool.Exec(ctx, "CREATE SEQUENCE public.only_here")
	require.NoError(t, err)
	report, err := m.AdvanceSequences(ctx, false)
	require.NoError(t, err)
	found := make(map[string]string)
	for _, f := range report.Findings {
		found[f.Name] += f.What
	}
	for name, what := range map[string]string{"small": "exhausted", "cycles": "begins anew", "wide": "come again", "edge": "exhausted",
		"low": "exhausted", "heap_id_seq": "no index", "only_there": "create it", "only_here": "never sampled"} {
		require.Contains(t, found[name], what, name)
		delete(found, name)
	}
	require.Empty(t, found)
	last := func(name string) int64 { return adminValue[int64](t, m, "SELECT last_value FROM public."+name) }
	require.EqualValues(t, 32767, last("small"))
	require.EqualValues(t, 100, last("cycles"))
	require.EqualValues(t, math.MaxInt64, last("edge"))
	require.EqualValues(t, -50, last("low"))
	require.EqualValues(t, 1000000, last("keyed_id_seq"), "never below the owned column")
	require.EqualValues(t, 1132, last("heap_id_seq"), "32 + 100 x 1 + 1000 beyond nothing handed out")
	require.EqualValues(t, 1132, last("only_here"))

	t.Run("a sequence that is gone is forgotten", func(t *testing.T) {
		adminExec(t, principal, "DROP SEQUENCE only_there")
		sampleAndStore(t, principal, m)
		require.Zero(t, adminValue[int](t, m, "SELECT count(*) FROM dbmirror.sequence WHERE name = 'only_there'"))
	})
	t.Run("an empty sample", func(t *testing.T) {
		require.NoError(t, m.StoreSequences(ctx, SequenceSample{At: time.Now()}))
		require.Zero(t, adminValue[int](t, m, "SELECT count(*) FROM dbmirror.sequence"))
	})
}

func TestSequenceReserveOverflows(t *testing.T) {
	for _, q := range []storedSequence{
		{Sequence: Sequence{Last: math.MaxInt64 - 5, Called: true, Increment: math.MaxInt64, Cache: math.MaxInt64, Min: 1, Max: math.MaxInt64}},
		{Sequence: Sequence{Last: 1, Called: true, Increment: 1, Cache: 1, Min: 1, Max: math.MaxInt64}, rate: math.MaxFloat64},
	} {
		got := q.target(false, time.Hour, nil)
		require.EqualValues(t, math.MaxInt64, got.last)
		require.NotEmpty(t, got.finding)
	}
	down := storedSequence{Sequence: Sequence{Last: math.MinInt64 + 5, Called: true, Increment: math.MinInt64, Cache: 9, Min: math.MinInt64, Max: -1}}
	require.EqualValues(t, math.MinInt64, down.target(false, 0, nil).last)
}

func TestSampleManySequences(t *testing.T) {
	t.Parallel()
	principal, m := sequencePair(t, "SELECT 1")
	adminExec(t, principal, `DO $$ BEGIN FOR i IN 1..450 LOOP EXECUTE format('CREATE SEQUENCE s%s START %s', i, i); END LOOP; END $$`)
	conn := adminClient(t, principal)
	began := time.Now()
	sample, err := SampleSequences(adminContext(t), conn)
	require.NoError(t, err)
	took := time.Since(began)
	require.Len(t, sample.Sequences, 450)
	for _, q := range sample.Sequences {
		require.Equal(t, q.Name, fmt.Sprintf("s%d", q.Last))
	}
	began = time.Now()
	require.NoError(t, m.StoreSequences(adminContext(t), sample))
	first := time.Since(began)
	began = time.Now()
	require.NoError(t, m.StoreSequences(adminContext(t), sample))
	t.Logf("450 sequences: sampled in %v, stored in %v, unchanged in %v", took, first, time.Since(began))
}
