package partner

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
)

// TestChaosStories are faults whose course is known, one story after the other, under the load of TestChaos.
func TestChaosStories(t *testing.T) {
	t.Parallel()
	c := newChaos(t)
	for _, story := range []func(*chaos, *work){frozenMirrorProgram, frozenMirrorServer, frozenOthers, frozenPrincipal, exposedPrincipal, endedWaits, poisonedWait} {
		begun, w := time.Now(), c.startWork()
		stop := c.supervise()
		require.NoError(t, w.awaitAll(20*time.Second))
		story(c, w)
		require.NoError(t, c.heal())
		require.NoError(t, w.awaitAll(20*time.Second))
		w.readRegisters()
		w.finish()
		require.NoError(t, c.reckon(w))
		stop()
		t.Logf("told in %s", time.Since(begun).Round(100*time.Millisecond))
	}
}

// released is how long commits may hang when the mirror is lost: until it is taken for lost, and what it takes to record
// that and to let them go.
var released = host.Fast().Timeout + 2*time.Second

// onItsWay is how long what was under way when something froze may take to arrive.
const onItsWay = 500 * time.Millisecond

// frozenMirrorProgram: commits go on when the principal has recorded, at itself and at the witness, that the mirror lacks
// them, and not before.
func frozenMirrorProgram(c *chaos, w *work) {
	require.NoError(c.t, c.signal(c.principal.Other(), syscall.SIGSTOP))
	frozen := time.Now()
	for w.ledger.latest().Before(frozen.Add(time.Second)) { // what was on its way has arrived long before
		w.ledger.awaitAckWithin(2 * released)
	}
	// Whatever is acknowledged now was recorded before: it cannot be seen too late.
	for _, s := range []mirror.Server{c.principal, mirror.Witness} {
		st, err := c.ask(s)
		require.NoError(c.t, err)
		require.False(c.t, st.Record.InSync, "%s knows that the mirror lacks what was acknowledged", s)
		require.Equal(c.t, c.principal, st.Record.Principal)
	}
	took := w.ledger.latest().Sub(frozen)
	c.t.Logf("commits went on %s after the mirror's program froze", took.Round(time.Millisecond))
	require.Less(c.t, took, 2*released)
	require.NoError(c.t, c.signal(c.principal.Other(), syscall.SIGCONT))
}

// frozenMirrorServer: commits go on. The mirror's program hardens them without its server; if they are let go without
// the mirror, that is on record.
func frozenMirrorServer(c *chaos, w *work) {
	require.NoError(c.t, c.pg[c.principal.Other()].Pause())
	w.ledger.gap()
	for frozen := time.Now(); time.Since(frozen) < 2*host.Fast().Timeout; {
		w.ledger.awaitAckWithin(2 * released)
		st, err := c.ask(c.principal)
		require.NoError(c.t, err)
		if !st.Exposed {
			continue
		}
		witness, err := c.ask(mirror.Witness)
		require.NoError(c.t, err)
		require.False(c.t, witness.Record.InSync)
	}
	c.t.Logf("with the mirror's server frozen, commits paused for at most %s", w.ledger.gap().Round(time.Millisecond))
	require.NoError(c.t, c.pg[c.principal.Other()].Continue())
}

// frozenOthers: mirror and witness freeze together. The principal can record nowhere that the mirror lacks something, so
// it acknowledges nothing until one of them goes on.
func frozenOthers(c *chaos, w *work) {
	for _, s := range []mirror.Server{c.principal.Other(), mirror.Witness} {
		require.NoError(c.t, c.signal(s, syscall.SIGSTOP))
	}
	w.ledger.run(onItsWay)
	mark := w.ledger.mark()
	w.ledger.run(2 * host.Fast().Timeout)
	require.Empty(c.t, w.ledger.ackedBy(c.principal, mark), "acknowledged by a principal that is alone")
	for _, s := range []mirror.Server{c.principal.Other(), mirror.Witness} {
		require.NoError(c.t, c.signal(s, syscall.SIGCONT))
	}
}

// frozenPrincipal: the mirror takes over. When the former principal goes on it acknowledges nothing new, neither to
// clients who waited all the time nor to those who reach it first. What the mirror had hardened before the freeze may be
// answered late; it is not lost.
func frozenPrincipal(c *chaos, w *work) {
	former := c.principal
	c.away(former)
	require.NoError(c.t, c.signal(former, syscall.SIGSTOP))
	require.NoError(c.t, c.pg[former].Pause())
	frozen := time.Now()
	w.ledger.run(onItsWay)
	mark := w.ledger.mark()
	for w.ledger.server() == former {
		w.ledger.awaitAckWithin(4 * released)
	}
	c.t.Logf("the other server acknowledged %s after the principal froze", w.ledger.latest().Sub(frozen).Round(time.Millisecond))
	late := c.begin(load{dsns: []string{asClientURL(c.pg[former].DSN("app"))}, clients: 4, first: 1 << 40})
	woken := time.Now()
	require.NoError(c.t, c.pg[former].Continue())
	require.NoError(c.t, c.signal(former, syscall.SIGCONT))
	c.back(former)
	require.NoError(c.t, c.heal())
	require.Equal(c.t, former.Other(), c.principal)
	c.t.Logf("the former principal was the mirror %s after it woke", time.Since(woken).Round(time.Millisecond))
	late.end()
	require.Zero(c.t, late.count(), "acknowledged to who came when it woke")
	require.Empty(c.t, w.ledger.ackedBy(former, mark), "acknowledged though it was tried after the freeze")
}

// exposedPrincipal: the principal goes on alone and is lost then. The mirror comes back meanwhile, and the witness is
// there; but it lacks what was acknowledged, so nobody serves until the principal is back.
func exposedPrincipal(c *chaos, w *work) {
	lost := c.principal
	c.withhold(lost.Other())
	c.kill(lost.Other())
	killed := time.Now()
	for w.ledger.latest().Before(killed.Add(time.Second)) {
		w.ledger.awaitAckWithin(2 * released)
	}
	c.withhold(lost)
	c.kill(lost)
	c.away(lost)
	require.NoError(c.t, c.pg[lost].Kill())
	mark := w.ledger.mark()
	c.release(lost.Other())
	w.ledger.run(3 * host.Fast().Timeout)
	require.Empty(c.t, w.ledger.ackedBy(lost.Other(), 0), "acknowledged by a server that lacks what was acknowledged before")
	st, err := c.ask(lost.Other())
	require.NoError(c.t, err)
	require.Equal(c.t, mirror.RoleMirror, st.Role)
	require.NoError(c.t, c.restart(lost))
	c.release(lost)
	require.NoError(c.t, c.heal())
	require.Equal(c.t, lost, c.principal)
	w.ledger.awaitAckWithin(released)
	require.NotEmpty(c.t, w.ledger.ackedBy(lost, mark))
}

// endedWaits: nothing reaches the mirror, and somebody cancels the commits that wait. They are answered with a warning,
// and the principal is lost. What it had committed that way is not at the other server, was not acknowledged, and is in
// a file when the former principal is back.
func endedWaits(c *chaos, w *work) {
	lost := c.principal
	c.withhold(lost)
	require.NoError(c.t, c.signal(lost, syscall.SIGSTOP)) // or it records that the mirror is lost, if this takes long
	walsender := &fault{hold: time.Second}
	_, err := freezeWalsender(c, walsender)
	require.NoError(c.t, err)
	w.ledger.run(onItsWay)
	mark := w.ledger.mark()
	storm := &fault{hold: time.Second, dice: rand.New(rand.NewPCG(1, 1))}
	end, err := storming("pg_cancel_backend")(c, storm)
	require.NoError(c.t, err)
	w.ledger.run(storm.hold)
	require.NoError(c.t, end())
	warned := int(w.ledger.unsure.Load())
	require.Positive(c.t, warned)
	c.kill(lost)
	c.away(lost)
	require.NoError(c.t, c.pg[lost].Kill())
	require.Empty(c.t, w.ledger.ackedBy(lost, mark), "acknowledged without the mirror")
	for w.ledger.server() == lost {
		w.ledger.awaitAckWithin(4 * released)
	}
	require.NoError(c.t, c.restart(lost))
	c.release(lost)
	require.NoError(c.t, c.heal())
	require.Equal(c.t, lost.Other(), c.principal)
	files, err := filepath.Glob(filepath.Join(c.dir, lost.String(), "lost-transactions-*.jsonl"))
	require.NoError(c.t, err)
	require.NotEmpty(c.t, files)
	text, err := os.ReadFile(files[len(files)-1])
	require.NoError(c.t, err)
	require.GreaterOrEqual(c.t, bytes.Count(text, []byte(`"kind":"commit"`)), warned)
}

// poisonedWait: a stranger under the mirror's name reports more than there is. From then on the server lets every commit
// return, until it is restarted. The session notices the stranger, does not say SYNCHRONIZED any more, and says why.
func poisonedWait(c *chaos, _ *work) {
	stranger := c.poison(4 * released)
	require.Eventually(c.t, func() bool {
		st, err := c.ask(c.principal)
		return err == nil && !st.Record.InSync
	}, 2*released, 20*time.Millisecond, "the stranger is noticed")
	require.NoError(c.t, stranger.Close(c.t.Context()))
	claimed := false
	require.Eventually(c.t, func() bool {
		st, err := c.ask(c.principal)
		claimed = claimed || err == nil && st.Record.InSync
		return claimed || err == nil && strings.Contains(st.Trouble, "commits do not wait for a mirror") && strings.Contains(st.Trouble, "restart the server")
	}, 4*released, 20*time.Millisecond, "the cause and the mend are shown")
	require.False(c.t, claimed, "in sync at a server that lets every commit return")
	c.away(c.principal)
	require.NoError(c.t, c.pg[c.principal].Stop("fast"))
	require.NoError(c.t, c.restart(c.principal))
}

// poison reports, under the name that commits wait for, more than there is, and returns when the server believed it. It
// believes the one of that name who connected first, so the mirror's walsender is ended, and ended again when it was
// quicker.
func (c *chaos) poison(limit time.Duration) (stranger *pgconn.PgConn) {
	require.NoError(c.t, c.insist(c.principal, limit, func(ctx context.Context, conn *pgx.Conn) error {
		name, err := c.waitedFor(limit)
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_replication WHERE application_name = $1", name)
		if err != nil {
			return err
		}
		var end pglogrepl.LSN
		if stranger, end, err = c.attach(ctx, c.principal, "postgres", name); err != nil {
			return err
		}
		if err = c.believed(ctx, conn, stranger, end+1<<40); err != nil {
			_ = stranger.Close(ctx)
		}
		return err
	}))
	return stranger
}
