package pglog

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// BenchmarkServerCommit is what a commit of one row costs its client: alone, and when it waits for the stream to harden
// it here, over loopback on the same disk.
func BenchmarkServerCommit(b *testing.B) {
	s := newSource(b, nil)
	r := s.run(s.config())
	s.waitForMirror()
	for _, level := range []string{"local", "on"} {
		b.Run(level, func(b *testing.B) {
			client := s.connect("app", level)
			id := 0
			prefix := time.Now().UnixNano()
			b.ReportAllocs()
			for b.Loop() {
				id++
				if _, err := client.Exec(b.Context(), "INSERT INTO t VALUES ($1)", prefix+int64(id)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	r.end(b)
}

// BenchmarkServerBacklog is how fast small transactions that wait at the server are decoded there, received and hardened.
func BenchmarkServerBacklog(b *testing.B) {
	s := newSource(b, nil)
	const transactions = 50000
	s.exec("CREATE PROCEDURE many(n int) LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..n LOOP INSERT INTO t VALUES (i, 'value'); COMMIT; END LOOP; END $$")
	s.exec("SET synchronous_commit = off")
	s.exec(fmt.Sprintf("CALL many(%d)", transactions))
	s.exec("SET synchronous_commit = local")
	s.exec("INSERT INTO t VALUES (0)")
	s.exec("SELECT pg_copy_logical_replication_slot('s', 'kept')")
	start, err := mirror.ParseLSN(s.text("SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'kept'"))
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		s.until("SELECT active_pid IS NULL FROM pg_replication_slots WHERE slot_name = 's'")
		s.exec("SELECT pg_drop_replication_slot('s')")
		s.exec("SELECT pg_copy_logical_replication_slot('kept', 's')")
		s.log = newLog(b, start, redo.Config{})
		b.StartTimer()
		r := s.run(s.config())
		s.reach(r)
		b.ReportMetric(float64(s.log.count()), "syncs")
		r.end(b)
	}
	b.ReportMetric(transactions*float64(b.N)/b.Elapsed().Seconds(), "tx/s")
}
