package facts

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"
)

// missedWakeUp has commits in two databases, of which the receiver reports the ends of those with rows and answers no
// keepalive. From version 16 on the walsender then falls asleep over log that has been flushed, sooner or later; any
// status wakes it, the same one again too.
func missedWakeUp(b *bench) {
	slot, start := b.slot("s")
	b.hold("mir")
	r := b.receive(slot, "mir", start)
	r.reportAll(start)
	r.speak(commitsOnly)
	defer b.busyElsewhere()()
	conn := b.connect(b.name)
	most := 500
	if b.major() >= 16 {
		most = 20000
	}
	for n := range most {
		done := make(chan error, 1)
		go func() { _, err := conn.Exec(context.Background(), insert); done <- err }()
		if !b.asleep(r, done) {
			continue
		}
		require.GreaterOrEqual(b.t, b.major(), 16)
		last := r.seen()[len(r.seen())-1]
		b.eventually("a status wakes it", func() bool {
			r.reportAll(last)
			return len(done) == 1
		})
		require.NoError(b.t, <-done)
		b.t.Logf("the walsender slept over commit %d", n+1)
		return
	}
	require.Less(b.t, b.major(), 16, "a walsender of 16 or later slept over none of %d commits", most)
}

// busyElsewhere commits in another database until it is told to stop.
func (b *bench) busyElsewhere() (stop func()) {
	conn := b.connect("postgres")
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for ctx.Err() == nil {
			if _, err := conn.Exec(ctx, "SELECT pg_logical_emit_message(true, 'elsewhere', '')"); err != nil {
				return
			}
		}
	}()
	return func() { cancel(); <-stopped }
}

// asleep returns when a commit has returned, false, or when it hangs while the walsender sleeps over log that has been
// flushed and not sent, true.
func (b *bench) asleep(r *receiver, done chan error) (slept bool) {
	b.t.Helper()
	looks := 0
	b.eventually("the commit returns or the walsender sleeps", func() bool {
		select {
		case err := <-done:
			require.NoError(b.t, err)
			return true
		case <-time.After(100 * time.Millisecond):
		}
		if value[bool](b, `SELECT EXISTS (SELECT FROM pg_stat_activity JOIN pg_stat_replication r USING (pid) WHERE pid = $1
			AND lower(wait_event) = 'walsenderwaitforwal' AND r.sent_lsn < pg_current_wal_flush_lsn())`, r.pid) {
			looks++
		} else {
			looks = 0
		}
		slept = looks == 5
		return slept
	})
	return slept
}
