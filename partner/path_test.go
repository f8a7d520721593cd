package partner

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
	"github.com/f19126b3/dbmirror/mirror/host/statefile"
	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// told is a data path whose session is as it is on disk and does not run: what it is told is kept, or refused.
type told struct {
	*dataPath
	events []mirror.EventKind
	deaf   bool
}

// pathIn is the data path of partner-a in a session, beside a server's database.
func pathIn(t *testing.T, pg *pgtest.Server, record mirror.Record) *told {
	dir := t.TempDir()
	cfg := Config{
		Session: "0123456789abcdef0123456789abcdef", Self: mirror.PartnerA, Dir: dir, Backend: between(t, pg.DSN("app"), pg.DSN("postgres")),
		Listen: "127.0.0.1:1", Peer: "127.0.0.1:2", Credentials: endpoint.Credentials{Plaintext: true},
	}
	id, err := host.ParseSessionID(cfg.Session)
	require.NoError(t, err)
	state, err := statefile.Open(filepath.Join(dir, "state"), id)
	require.NoError(t, err)
	_, _, err = state.Load()
	require.NoError(t, err)
	record.Members = [4]mirror.Incarnation{mirror.PartnerA: 11, mirror.PartnerB: 21}
	hard := mirror.HardState{Self: mirror.PartnerA, Incarnation: 11, Promised: record.Seq, Record: record, Aligned: record.Seq}
	require.NoError(t, state.Save(hard.Append(nil)))
	require.NoError(t, state.Close())
	p, err := New(cfg)
	require.NoError(t, err)
	t.Cleanup(p.close)
	d := &told{dataPath: p.data}
	d.database, err = cfg.Backend.Open(t.Context(), p.env())
	require.NoError(t, err)
	t.Cleanup(d.database.Close)
	require.NoError(t, d.database.Prepare(t.Context()))
	d.report = func(ev mirror.Event) bool {
		if !d.deaf {
			d.events = append(d.events, ev.Kind)
		}
		return !d.deaf
	}
	return d
}

// reigns writes down that the database was opened in a role sequence.
func (d *told) reigns(t *testing.T, seq mirror.RoleSeq) {
	row, err := d.database.BeginLog(t.Context(), seq)
	require.NoError(t, err)
	require.NoError(t, d.database.WriteReign(t.Context(), row))
	d.have.reign = row
}

// reset takes out of the setting whatever is in it, as somebody else would.
func reset(t *testing.T, pg *pgtest.Server) {
	conn, err := pgx.Connect(t.Context(), pg.DSN("postgres"))
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	for _, sql := range [...]string{"SET synchronous_commit = local", "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()"} {
		_, err = conn.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
}

var inSync = mirror.Record{Seq: 1, Principal: mirror.PartnerA, InSync: true, Safety: mirror.SafetyFull}

// wishOf is what a serving principal in sync has to do.
func wishOf(r mirror.Record) mirror.Duty {
	return mirror.Duty{Role: mirror.RolePrincipal, Seq: r.Seq, Gate: mirror.GateOpen, Wait: mirror.WaitMirror, Ship: true, Principal: mirror.PartnerA}
}

// TestUnwaitedIsToldAgain: that commits did not wait is told until the session takes it, also when the setting has long been
// put right, and told once.
func TestUnwaitedIsToldAgain(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, map[string]string{"wal_level": "logical"})
	d := pathIn(t, pg, inSync)
	d.reigns(t, 1)
	require.NoError(t, d.wait(t.Context(), wishOf(inSync)))
	reset(t, pg)
	d.deaf = true
	require.Eventually(t, func() bool {
		require.NoError(t, d.guard(t.Context(), wishOf(inSync)))
		return d.have.wait == 0
	}, patience, 10*time.Millisecond)
	require.NoError(t, d.wait(t.Context(), wishOf(inSync)), "it is put right")
	require.NoError(t, d.reconcile(t.Context(), mirror.Duty{}))
	d.deaf = false
	d.events = nil
	require.NoError(t, d.reconcile(t.Context(), mirror.Duty{}))
	require.Equal(t, []mirror.EventKind{mirror.EventWaitLost, mirror.EventDatabaseUp, mirror.EventEnded}, d.events)
	d.events = nil
	require.NoError(t, d.reconcile(t.Context(), mirror.Duty{}))
	require.NotContains(t, d.events, mirror.EventWaitLost)
}

// TestWaitOfOneElectedAgain: a principal that was elected again gives the mirror another name. Where nobody was waited for
// under the former one it says so, in the same life and after a restart of its program.
func TestWaitOfOneElectedAgain(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, map[string]string{"wal_level": "logical"})
	again := inSync
	again.Seq = 3
	d := pathIn(t, pg, again)
	d.reigns(t, 1)
	former := mirrorName(d.p.short(), mirror.Record{Seq: 1, Members: d.p.host.Status().Record.Members}, mirror.PartnerB)
	for name, lost := range map[string]bool{"as before": false, "somebody changed it": true} {
		for _, have := range []mirror.Wait{mirror.WaitMirror, 0} {
			_, err := d.database.WaitMirror(t.Context(), former)
			require.NoError(t, err)
			d.have.wait, d.have.waitFor = have, former
			if lost {
				reset(t, pg)
				require.Eventually(t, func() bool {
					found, err := d.database.Waiting(t.Context())
					require.NoError(t, err)
					return found.Name == ""
				}, patience, 10*time.Millisecond)
			}
			d.events = nil
			require.NoError(t, d.wait(t.Context(), wishOf(again)))
			if lost {
				require.Equal(t, []mirror.EventKind{mirror.EventWaitLost}, d.events, "%s, %s", name, have)
			} else {
				require.Empty(t, d.events, "%s, %s", name, have)
			}
			found, err := d.database.Waiting(t.Context())
			require.NoError(t, err)
			require.Equal(t, mirrorName(d.p.short(), d.p.host.Status().Record, mirror.PartnerB), found.Name)
		}
	}
}

// TestWishOfAFormerRecord: what was wished for before the session moved on is not carried out any more.
func TestWishOfAFormerRecord(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, map[string]string{"wal_level": "logical"})
	moved := inSync
	moved.Seq, moved.Principal = 2, mirror.PartnerB
	d := pathIn(t, pg, moved)
	require.NoError(t, d.database.SetGate(t.Context(), mirror.GateClosed, 0))
	d.trouble(tryDuty, d.reconcile(t.Context(), wishOf(inSync)))
	require.Empty(t, d.troubles(true), "it is as if the next wish had broken it off")
	gate, err := d.database.Gate(t.Context())
	require.NoError(t, err)
	require.Equal(t, mirror.GateClosed, gate)
}

// TestRetainedOfAFormerPrincipal: log that is not kept any more is not shown.
func TestRetainedOfAFormerPrincipal(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, map[string]string{"wal_level": "logical"})
	d := pathIn(t, pg, inSync)
	duty := wishOf(inSync)
	duty.Wait = mirror.WaitNone
	require.NoError(t, d.database.WaitNone(t.Context()))
	retained := func() int64 {
		st := Status{}
		d.show(&st)
		return st.Retained
	}
	look := func() {
		d.have.looked = d.have.looked.Add(-watchEvery)
		require.NoError(t, d.watch(t.Context(), duty))
	}
	d.reigns(t, 1)
	look()
	require.Positive(t, retained())
	require.NoError(t, d.database.DropLog(t.Context(), d.have.reign)) // somebody else did
	look()
	require.Zero(t, retained())

	d.reigns(t, 1)
	look()
	require.Positive(t, retained())
	require.NoError(t, d.gate(t.Context(), mirror.GateClosed, 0))
	require.NoError(t, d.leavePrincipal(t.Context()))
	require.Zero(t, retained())
}

// TestBarrierThatCannotBeRead: an elected principal that cannot find out whether its database was put back to an older
// state is not whole, and forgets nothing.
func TestBarrierThatCannotBeRead(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, map[string]string{"wal_level": "logical"})
	elected := inSync
	elected.Seq, elected.Fork = 3, mirror.Position{Seq: 2}
	d := pathIn(t, pg, elected)
	require.NoError(t, d.p.keepHandover(barrier{Seq: 1, At: 1}))
	_, err := pg.Psql(t.Context(), "app", "ALTER TABLE dbmirror.settings RENAME value TO other")
	require.NoError(t, err)
	wish := wishOf(elected)
	wish.Gate, wish.Work, wish.Fork = mirror.GateClosed, mirror.WorkPromote, elected.Fork
	require.ErrorIs(t, d.reconcile(t.Context(), wish), errUnsure)
	require.NotContains(t, d.events, mirror.EventDatabaseUp)
	_, err = os.Stat(filepath.Join(d.p.cfg.Dir, handoverFile))
	require.NoError(t, err)

	_, err = pg.Psql(t.Context(), "app", "ALTER TABLE dbmirror.settings RENAME other TO value")
	require.NoError(t, err)
	_, err = d.database.WriteBarrier(t.Context())
	require.NoError(t, err)
	require.NoError(t, d.reconcile(t.Context(), wish))
	_, err = d.database.Reign(t.Context(), elected.Seq)
	require.NotErrorIs(t, err, backend.ErrNoReign, "it is whole")
}
