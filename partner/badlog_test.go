package partner

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/mirror/host/loopback"
	"github.com/f19126b3/dbmirror/mirror/host/statefile"
	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// TestTroubleOfASession: what goes wrong in a session that exists suspends it or heals by itself, shows at both
// partners, lets the principal's clients go on, and loses nothing.
func TestTroubleOfASession(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.edit = func(c *Config) { c.Limits.RedoQueue = 4 << 20 }
	p.exec(mirror.PartnerA, "CREATE TABLE item(id bigserial PRIMARY KEY, filling text)")
	var fill func(*testing.T) (release func())
	if mayMount() {
		fill = limitSpace(t, filepath.Join(p.dir, mirror.PartnerB.String()))
	} else {
		t.Log("a full disk is not tried: only root on Linux can give the mirror's directory a file system of its own")
	}
	p.startWitness()
	p.start(mirror.PartnerB)
	p.start(mirror.PartnerA)
	p.awaitSynchronized(mirror.PartnerA)
	for _, c := range []struct {
		name string
		try  func(*testing.T, *pair)
	}{
		{"disk full", func(t *testing.T, p *pair) { diskFull(t, p, fill) }},
		{"log damaged", damagedLog},
		{"log gone", logGone},
		{"log older than the database", olderLog},
		{"slot dropped", slotDropped},
		{"progress lost", progressLost},
		{"table without identity", looseTable},
		{"state lost", stateLost},
		{"mirror's PeerDSN mistaken", func(t *testing.T, p *pair) { mistakenPeer(t, p, mirror.PartnerB) }},
		{"principal's PeerDSN mistaken", func(t *testing.T, p *pair) { mistakenPeer(t, p, mirror.PartnerA) }},
		{"another timing", anotherTiming},
		{"mirror's server full", serverFull},
		{"mirror's DSN mistaken", func(t *testing.T, p *pair) { mistakenDSN(t, p, mirror.PartnerB) }},
		{"elected without its log", electedWithoutLog},
		{"principal's DSN mistaken", func(t *testing.T, p *pair) { mistakenDSN(t, p, mirror.PartnerA) }},
	} {
		ok := t.Run(c.name, func(t *testing.T) {
			outer := p.t
			p.t = t
			defer func() { p.t = outer }()
			c.try(t, p)
			p.awaitSynchronized(mirror.PartnerA)
			p.exec(mirror.PartnerA, "INSERT INTO item(filling) VALUES ($1)", "after "+c.name)
			p.awaitEqual()
			for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
				p.await(s, "out of trouble", func(st Status) bool { return st.Trouble == "" })
			}
		})
		if !ok {
			return
		}
	}
}

// suspended waits until both partners show a suspension with its reason, and say why in their own words.
func (p *pair) suspended(reason mirror.Reason, cause, mend string) {
	p.t.Helper()
	for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
		p.await(s, "SUSPENDED ("+reason.String()+") with its cause", func(st Status) bool {
			return st.State == mirror.StateSuspended && st.Reason == reason &&
				strings.Contains(st.Trouble, cause) && strings.Contains(st.Trouble, mend)
		})
	}
}

func (p *pair) resume() {
	p.t.Helper()
	require.Eventually(p.t, func() bool { return p.partner[mirror.PartnerA].Resume(p.t.Context()) == nil }, patience, 50*time.Millisecond)
}

// restart ends the mirror's program in order, does something while it is away, and starts it again.
func (p *pair) restart(while func(dir string)) {
	p.halt(mirror.PartnerB)
	while(filepath.Join(p.dir, mirror.PartnerB.String()))
	p.start(mirror.PartnerB)
}

// diskFull: the mirror's directory has no more room. Commits go on at the principal, exposed; when there is room again
// and the session is resumed, the mirror has them too.
func diskFull(t *testing.T, p *pair, fill func(*testing.T) (release func())) {
	if fill == nil {
		return // said above
	}
	release := fill(t)
	p.exec(mirror.PartnerA, "INSERT INTO item(filling) SELECT repeat(md5(i::text), 30) FROM generate_series(1, 600) i")
	p.suspended(mirror.ReasonDiskFull, "no space left for the redo queue", "make room on its disk")
	p.await(mirror.PartnerA, "serving alone", func(st Status) bool { return st.Serving && st.Exposed })
	p.exec(mirror.PartnerA, "INSERT INTO item(filling) VALUES ('alone')")
	release()
	p.resume()
}

// damagedLog: a log that cannot be read is set aside and the database copied anew, without being asked. Until that is
// done the mirror is not promotable, which it says before anything else.
func damagedLog(t *testing.T, p *pair) {
	var kept string
	former := p.reigned()
	p.restart(func(dir string) {
		damage(t, filepath.Join(dir, "log"))
		require.True(t, hardState(t, p, mirror.PartnerB).Record.InSync)
		made, err := New(p.config(mirror.PartnerB))
		require.NoError(t, err, "a damaged log is no reason not to start")
		made.close()
		hard := hardState(t, p, mirror.PartnerB)
		require.True(t, hard.Dirty, "the loss is on disk before anything is said")
		require.Zero(t, hard.Aligned)
		found, err := filepath.Glob(filepath.Join(dir, "log-damaged-*"))
		require.NoError(t, err)
		require.Len(t, found, 1)
		kept = found[0]
	})
	p.copiedAnew(former, "is damaged at byte")
	p.copiedAnew(former, filepath.Base(kept)+" can be deleted")
	require.DirExists(t, kept)
	require.NoError(t, os.RemoveAll(kept))
}

// reigned is where the log begins that the mirror's copy continues: each copy begins elsewhere.
func (p *pair) reigned() string {
	return rows(p.t, p.pg[mirror.PartnerA], "app", "SELECT start_lsn::text FROM dbmirror.reign ORDER BY role_seq DESC LIMIT 1")[0]
}

// copiedAnew waits until the mirror has a copy that began elsewhere, and has written down why.
func (p *pair) copiedAnew(former, why string) {
	p.t.Helper()
	p.await(mirror.PartnerB, "a mirror with a new copy", func(st Status) bool {
		return st.Role == mirror.RoleMirror && st.Aligned && !st.Dirty && p.reigned() != former
	})
	journal, err := os.ReadFile(filepath.Join(p.dir, mirror.PartnerB.String(), "journal.jsonl"))
	require.NoError(p.t, err)
	require.Contains(p.t, string(journal), why)
}

// damage flips bits in the middle of the log: after it there is more that was hardened.
func damage(t *testing.T, dir string) {
	files, err := filepath.Glob(filepath.Join(dir, "*.log"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	f, err := os.OpenFile(files[0], os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	b := make([]byte, 64)
	const at = 600 // in the first frames, after the header of the file
	_, err = f.ReadAt(b, at)
	require.NoError(t, err)
	for i := range b {
		b[i] ^= 0xff
	}
	_, err = f.WriteAt(b, at)
	require.NoError(t, err)
}

// hardState is what the mirror, which does not run, has on disk.
func hardState(t *testing.T, p *pair, s mirror.Server) mirror.HardState {
	id, err := host.ParseSessionID(p.session)
	require.NoError(t, err)
	f, err := statefile.Open(filepath.Join(p.dir, s.String(), "state"), id)
	require.NoError(t, err)
	defer f.Close()
	raw, ok, err := f.Load()
	require.NoError(t, err)
	require.True(t, ok)
	hard, err := mirror.DecodeHardState(raw)
	require.NoError(t, err)
	return hard
}

// logGone: somebody has deleted the log.
func logGone(t *testing.T, p *pair) {
	former := p.reigned()
	p.restart(func(dir string) { require.NoError(t, redo.Discard(filepath.Join(dir, "log"))) })
	p.copiedAnew(former, "the hardened log is gone")
}

// olderLog: somebody has put back a copy of the log that was made earlier.
func olderLog(t *testing.T, p *pair) {
	old := filepath.Join(t.TempDir(), "log")
	p.restart(func(dir string) { require.NoError(t, os.CopyFS(old, os.DirFS(filepath.Join(dir, "log")))) })
	p.awaitSynchronized(mirror.PartnerA)
	p.exec(mirror.PartnerA, "INSERT INTO item(filling) VALUES ('not in the older log')")
	p.awaitEqual()
	former := p.reigned()
	p.restart(func(dir string) {
		log := filepath.Join(dir, "log")
		require.NoError(t, os.RemoveAll(log))
		require.NoError(t, os.CopyFS(log, os.DirFS(old)))
		require.NoError(t, os.Chmod(log, 0o700))
	})
	p.copiedAnew(former, "the log is an older copy")
}

// slotDropped: an operator has dropped the slot while the mirror was away. Only a new copy helps, and that is asked for.
func slotDropped(t *testing.T, p *pair) {
	p.restart(func(string) {
		p.exec(mirror.PartnerA, "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE active_pid IS NOT NULL")
		p.exec(mirror.PartnerA, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
		p.exec(mirror.PartnerA, "SET synchronous_commit = local; INSERT INTO item(filling) VALUES ('in the gap')")
	})
	p.suspended(mirror.ReasonLogGap, "does not exist", "copy the database to the mirror anew")
	require.NoError(t, p.partner[mirror.PartnerB].Reseed(t.Context()))
	p.resume()
}

// progressLost: the mirror's database is not the one that it was: it does not know how far it is.
func progressLost(t *testing.T, p *pair) {
	p.restart(func(string) { p.exec(mirror.PartnerB, "BEGIN READ WRITE; TRUNCATE dbmirror.progress; COMMIT") })
	p.suspended(mirror.ReasonIdentity, "no redone position for this session", "reseed")
	require.NoError(t, p.partner[mirror.PartnerB].Reseed(t.Context()))
	p.resume()
}

// looseTable: a copy is asked for, and a table that was made since would be harmed by being mirrored.
func looseTable(t *testing.T, p *pair) {
	p.exec(mirror.PartnerA, "CREATE TABLE loose(x int)")
	require.NoError(t, p.partner[mirror.PartnerB].Reseed(t.Context()))
	p.suspended(mirror.ReasonPreflight, "replica_identity (public.loose)", "ALTER TABLE public.loose REPLICA IDENTITY FULL")
	for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
		require.ErrorContains(t, backend.Refuse(p.partner[s].Status().Findings), "public.loose")
	}
	p.exec(mirror.PartnerA, "ALTER TABLE public.loose REPLICA IDENTITY FULL")
	for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
		p.await(s, "without findings", func(st Status) bool { return backend.Refuse(st.Findings) == nil })
	}
	p.resume()
}

// stateLost: the mirror has forgotten who it is. It says nothing that counts until it is admitted.
func stateLost(t *testing.T, p *pair) {
	p.restart(func(dir string) { require.NoError(t, os.Remove(filepath.Join(dir, "state"))) })
	for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
		p.await(s, "aware that the mirror is another", func(st Status) bool {
			return strings.Contains(st.Trouble, "partner-b has lost its state") && strings.Contains(st.Trouble, "Admit, asked of partner-a")
		})
	}
	require.NoError(t, p.partner[mirror.PartnerA].Admit(t.Context()))
}

// started starts a partner with another setting than it had, waits until both say what is wrong, and puts it back.
func (p *pair) started(s mirror.Server, edit func(*Config), cause, mend string) {
	p.t.Helper()
	p.halt(s)
	before := p.edit
	p.edit = func(c *Config) {
		before(c)
		edit(c)
	}
	p.start(s)
	for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
		p.await(s, "aware of the setting", func(st Status) bool {
			return strings.Contains(st.Trouble, cause) && strings.Contains(st.Trouble, mend)
		})
	}
	p.halt(s)
	p.edit = before
	p.start(s)
}

// mistakenPeer: a partner is started again with a PeerDSN that leads to another database.
func mistakenPeer(t *testing.T, p *pair, s mirror.Server) {
	p.started(s, func(c *Config) { c.redirect(t, "", p.pg[s.Other()].DSN("postgres")) },
		"PeerDSN leads to database postgres", "correct PeerDSN")
}

// anotherTiming: a partner is started again with timeouts that are not the other one's.
func anotherTiming(_ *testing.T, p *pair) {
	p.started(mirror.PartnerB, func(c *Config) { c.Timing.Fence = 900 * time.Millisecond },
		"has other timeouts", "set the same Timing on all three servers")
}

// serverFull: there is no room for the copy at the mirror's server. When there is and the session is resumed, it is made.
func serverFull(t *testing.T, p *pair) {
	if !mayMount() {
		t.Log("a full server is not tried: only root on Linux can give a tablespace a file system of its own")
		return
	}
	q := &pair{t: t, session: strings.Repeat("f1", 16), dir: t.TempDir(), pg: p.pg, timing: p.timing}
	for s := mirror.PartnerA; s <= mirror.Witness; s++ {
		q.addr[s] = loopback.Addr(t)
	}
	q.edit = func(c *Config) {
		c.redirect(t, p.pg[c.Self].DSN("large"), p.pg[c.Self.Other()].DSN("large"))
		c.Witness = ""
	}
	space, resize := serverTmpfs(t, p.pg[mirror.PartnerB], "8m")
	run(t, p.pg[mirror.PartnerB], "postgres", "CREATE TABLESPACE small LOCATION '"+space+"'")
	run(t, p.pg[mirror.PartnerB], "postgres", "CREATE DATABASE large TABLESPACE small")
	run(t, p.pg[mirror.PartnerA], "postgres", "CREATE DATABASE large")
	run(t, p.pg[mirror.PartnerA], "large", "CREATE TABLE item(id int PRIMARY KEY, filling text)")
	run(t, p.pg[mirror.PartnerA], "large", "INSERT INTO item SELECT i, repeat('x', 900) FROM generate_series(1, 12000) i")
	defer func() {
		q.close()
		run(t, p.pg[mirror.PartnerB], "postgres", "DROP DATABASE large WITH (FORCE)")
		run(t, p.pg[mirror.PartnerB], "postgres", "DROP TABLESPACE small")
	}()
	q.start(mirror.PartnerB)
	q.start(mirror.PartnerA)
	q.suspended(mirror.ReasonDiskFull, "No space left on device", "")
	resize("60m")
	q.resume()
	q.awaitSynchronized(mirror.PartnerA)
	require.Equal(t, rows(t, p.pg[mirror.PartnerA], "large", "SELECT count(*)::text FROM item"),
		rows(t, p.pg[mirror.PartnerB], "large", "SELECT count(*)::text FROM item"))
	// The first session shares the servers, whose commits must not wait for a mirror that goes away.
	require.NoError(t, q.partner[mirror.PartnerA].Suspend(t.Context()))
	q.await(mirror.PartnerA, "alone", func(st Status) bool { return st.Exposed && st.Waiting == "" })
}

// electedWithoutLog: a mirror was elected for what it had hardened, and lost that before it was redone. It does not
// serve what it has.
func electedWithoutLog(t *testing.T, p *pair) {
	require.NoError(t, p.partner[mirror.PartnerA].Failover(t.Context()))
	p.awaitSynchronized(mirror.PartnerB)
	redone := rows(t, p.pg[mirror.PartnerB], "app", "SELECT lsn::text FROM dbmirror.progress")[0]
	p.restart(func(dir string) {
		require.NoError(t, redo.Discard(filepath.Join(dir, "log")))
		p.exec(mirror.PartnerB, "SET synchronous_commit = local; UPDATE dbmirror.progress SET lsn = '0/1'")
	})
	for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
		p.await(s, "aware that the principal is not whole", func(st Status) bool {
			return strings.Contains(st.Trouble, "become principal: the database ends at") && strings.Contains(st.Trouble, "force service on the other one")
		})
	}
	require.False(t, p.partner[mirror.PartnerB].Status().Whole)
	p.exec(mirror.PartnerB, "SET synchronous_commit = local; UPDATE dbmirror.progress SET lsn = '"+redone+"'")
	p.awaitSynchronized(mirror.PartnerB)
	p.awaitEqual()
	require.NoError(t, p.partner[mirror.PartnerB].Failover(t.Context()))
}

// mistakenDSN: a partner is started again with the connection string of another database. It ends with an error, the
// other partner knows it, and that database has not been touched.
func mistakenDSN(t *testing.T, p *pair, s mirror.Server) {
	p.halt(s)
	cfg := p.config(s)
	cfg.redirect(t, p.pg[s].DSN("postgres"), "")
	err := begin(t, cfg).failure()
	require.ErrorContains(t, err, "DSN leads to database postgres")
	require.ErrorContains(t, err, "correct DSN")
	p.await(s.Other(), "aware of the mistake", func(st Status) bool {
		return strings.Contains(st.Trouble, s.String()+" has stopped: "+err.Error())
	})
	require.Empty(t, rows(t, p.pg[s], "postgres", `SELECT nspname::text FROM pg_namespace WHERE nspname = 'dbmirror'
		UNION ALL SELECT datname FROM pg_database WHERE datname = 'postgres' AND datconnlimit <> -1`))
	p.start(s)
}

// TestLostLogIsNotPromoted: a mirror whose log is gone is not promoted when the principal is lost, although the record
// says that it holds every acknowledged commit: it does not any more (I8).
func TestLostLogIsNotPromoted(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.exec(mirror.PartnerA, "CREATE TABLE item(id bigserial PRIMARY KEY, filling text)")
	for s := mirror.PartnerA; s <= mirror.Witness; s++ {
		p.launch(s)
	}
	p.settle()
	p.exec(mirror.PartnerA, "INSERT INTO item(filling) VALUES ('acknowledged')")
	p.kill(mirror.PartnerA)
	require.NoError(t, p.pg[mirror.PartnerA].Kill())
	p.kill(mirror.PartnerB)
	require.True(t, hardState(t, p, mirror.PartnerB).Record.InSync)
	require.NoError(t, redo.Discard(filepath.Join(p.dir, mirror.PartnerB.String(), "log")))
	b := p.start(mirror.PartnerB)
	p.awaitUnfit(b)
	require.Equal(t, mirror.RoleMirror, b.Status().Role)
	require.NoError(t, p.pg[mirror.PartnerA].Restart(t.Context()))
	p.start(mirror.PartnerA)
	p.awaitSynchronized(mirror.PartnerA)
	p.awaitEqual()
}

// awaitUnfit waits until everything but the copy of a mirror speaks for a failover.
func (p *pair) awaitUnfit(b *Partner) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		conditions, err := b.Explain(p.t.Context())
		require.NoError(p.t, err)
		unmet := map[string]string{}
		for _, c := range conditions {
			if !c.Met {
				unmet[c.Name] = c.Value
			}
		}
		text, err := json.Marshal(unmet)
		require.NoError(p.t, err)
		p.t.Logf("%s", text)
		return len(unmet) == 1 && unmet["this mirror is fit to serve"] == mirror.ReasonSeeding.String()
	}, patience, 300*time.Millisecond, "everything but the lost log speaks for a failover")
}
