package partner

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// command asks until the session is ready for it: a change that is under way is finished first.
func (p *pair) command(what string, ask func() error) {
	p.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			p.t.Fatalf("%s: %v", what, err)
		}
	}
}

// TestCommands takes a session through what operators do to it day by day.
func TestCommands(t *testing.T) {
	p := newPair(t)
	p.exec(mirror.PartnerA, ledgerTable)
	p.startWitness()
	b := p.start(mirror.PartnerB)
	a := p.start(mirror.PartnerA)
	p.awaitSynchronized(mirror.PartnerA)
	require.Empty(t, a.env().Principal(), "it is here")
	require.Equal(t, p.addr[mirror.PartnerA], b.env().Principal())

	p.exec(mirror.PartnerA, "INSERT INTO ledger(id) SELECT generate_series(1001, 4000)")
	p.awaitEqual()
	before := b.Metrics()[0].Extra

	p.command("suspend at the mirror", func() error { return b.Suspend(t.Context()) })
	p.await(mirror.PartnerA, "suspended and exposed", func(st Status) bool {
		return st.State == mirror.StateSuspended && st.Exposed && st.Reason == mirror.ReasonCommand && st.Waiting == ""
	})
	p.exec(mirror.PartnerA, "INSERT INTO ledger(id) SELECT generate_series(1, 100)")
	p.command("resume at the principal", func() error { return a.Resume(t.Context()) })
	p.awaitSynchronized(mirror.PartnerA)
	p.awaitEqual()

	p.command("safety OFF", func() error { return a.SetSafety(t.Context(), mirror.SafetyOff) })
	p.await(mirror.PartnerA, "in high performance mode", func(st Status) bool {
		return st.Mode == mirror.ModeHighPerformance && st.Waiting == "" && st.State == mirror.StateSynchronized
	})
	require.ErrorIs(t, a.Failover(t.Context()), mirror.ErrRefused, "no manual failover with safety OFF")
	p.exec(mirror.PartnerA, "INSERT INTO ledger(id) SELECT generate_series(101, 200)")
	p.awaitEqual()
	p.command("safety FULL", func() error { return a.SetSafety(t.Context(), mirror.SafetyFull) })
	p.await(mirror.PartnerA, "SYNCHRONIZED with FULL", func(st Status) bool {
		return st.State == mirror.StateSynchronized && st.Record.InSync && st.Waiting != ""
	})

	p.command("remove the witness", func() error { return a.SetWitness(t.Context(), false) })
	p.await(mirror.PartnerA, "without a witness", func(st Status) bool {
		return !st.Record.HasWitness() && st.Record.OldWitness == 0 && st.Serving
	})
	p.command("set the witness again", func() error { return a.SetWitness(t.Context(), true) })
	p.await(mirror.PartnerB, "with a witness", func(st Status) bool { return st.Record.HasWitness() && st.Record.InSync })
	p.exec(mirror.PartnerA, "INSERT INTO ledger(id) SELECT generate_series(201, 300)")

	p.command("seed anew", func() error { return b.Reseed(t.Context()) })
	p.await(mirror.PartnerB, "seeding", func(st Status) bool { return st.Dirty || st.State == mirror.StateSynchronizing })
	p.awaitSynchronized(mirror.PartnerA)
	p.awaitEqual()
	after := b.Metrics()[0].Extra
	require.Greater(t, after.ReceivedLogBytesTotal, before.ReceivedLogBytesTotal, "a total never falls, though the stream is another")
	require.GreaterOrEqual(t, after.RedoneBytesTotal, before.RedoneBytesTotal, "nor does that of redo")
	require.ErrorContains(t, a.Reseed(t.Context()), "not the mirror")
}

// TestForcedService: the principal is lost while the session is suspended, so nobody may take over by himself. Service
// is forced with a token; what the lost principal had alone is put into a file when it comes back, and counted.
func TestForcedService(t *testing.T) {
	p := newPair(t)
	p.exec(mirror.PartnerA, ledgerTable)
	p.startWitness()
	b := p.start(mirror.PartnerB)
	a := p.start(mirror.PartnerA)
	p.awaitSynchronized(mirror.PartnerA)
	p.exec(mirror.PartnerA, "INSERT INTO ledger(id) VALUES (1)")
	p.command("suspend", func() error { return a.Suspend(t.Context()) })
	p.await(mirror.PartnerA, "suspended", func(st Status) bool { return st.State == mirror.StateSuspended && st.Waiting == "" })
	p.exec(mirror.PartnerA, "INSERT INTO ledger(id) VALUES (2), (3)")

	require.ErrorIs(t, b.ForceService(t.Context(), b.PlanForce().Token), mirror.ErrRefused, "the principal is connected")
	p.halt(mirror.PartnerA)
	require.NoError(t, p.pg[mirror.PartnerA].Kill())
	require.ErrorIs(t, b.ForceService(t.Context(), "01234567-9.9"), mirror.ErrRefused, "a token of another record")
	p.command("force service", func() error { return b.ForceService(t.Context(), b.PlanForce().Token) })
	forced := p.await(mirror.PartnerB, "serving by force", func(st Status) bool { return st.Serving && st.Gate == mirror.GateOpen })
	require.True(t, forced.Record.Forced)
	require.True(t, forced.Record.Suspended, "forced service suspends the session")
	p.exec(mirror.PartnerB, "INSERT INTO ledger(id) VALUES (4)")

	require.NoError(t, p.pg[mirror.PartnerA].Restart(t.Context()))
	p.start(mirror.PartnerA)
	p.await(mirror.PartnerA, "a closed, suspended mirror", func(st Status) bool {
		return st.Role == mirror.RoleMirror && st.State == mirror.StateSuspended && st.Gate == mirror.GateClosed
	})
	p.command("resume", func() error { return b.Resume(t.Context()) })
	p.awaitSynchronized(mirror.PartnerB)
	p.awaitEqual()

	lost, err := filepath.Glob(filepath.Join(p.dir, mirror.PartnerA.String(), "lost-transactions-*.jsonl"))
	require.NoError(t, err)
	require.Len(t, lost, 1)
	text, err := os.ReadFile(lost[0])
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(string(text), `"kind":"insert"`), "one transaction with two rows was lost: %s", text)
	journal, err := os.ReadFile(filepath.Join(p.dir, mirror.PartnerA.String(), "journal.jsonl"))
	require.NoError(t, err)
	require.Contains(t, string(journal), "1 transactions with 2 changes")
}

// TestForcedBack: service is forced on the mirror, and then on the former principal, which never followed it and has
// commits that it lacks. When it comes back it is copied, though it has committed nothing itself.
func TestForcedBack(t *testing.T) {
	p := newPair(t)
	p.exec(mirror.PartnerA, ledgerTable)
	p.startWitness()
	b := p.start(mirror.PartnerB)
	a := p.start(mirror.PartnerA)
	p.awaitSynchronized(mirror.PartnerA)
	p.exec(mirror.PartnerA, "INSERT INTO ledger(id) VALUES (1)")
	p.command("suspend", func() error { return a.Suspend(t.Context()) })
	p.await(mirror.PartnerA, "suspended", func(st Status) bool { return st.State == mirror.StateSuspended && st.Waiting == "" })
	p.exec(mirror.PartnerA, "INSERT INTO ledger(id) VALUES (2), (3)")

	serving := func(st Status) bool { return st.Serving && st.Gate == mirror.GateOpen }
	p.halt(mirror.PartnerA)
	require.NoError(t, p.pg[mirror.PartnerA].Kill())
	p.command("force service", func() error { return b.ForceService(t.Context(), b.PlanForce().Token) })
	p.await(mirror.PartnerB, "serving by force", serving)
	p.halt(mirror.PartnerB)
	require.NoError(t, p.pg[mirror.PartnerB].Kill())

	require.NoError(t, p.pg[mirror.PartnerA].Restart(t.Context()))
	a = p.start(mirror.PartnerA)
	p.await(mirror.PartnerA, "deposed", func(st Status) bool { return st.Role == mirror.RoleMirror })
	p.command("force service back", func() error { return a.ForceService(t.Context(), a.PlanForce().Token) })
	forced := p.await(mirror.PartnerA, "serving by force", serving)
	require.Zero(t, forced.Record.Fork.LSN, "it never followed the other one")

	require.NoError(t, p.pg[mirror.PartnerB].Restart(t.Context()))
	p.start(mirror.PartnerB)
	p.await(mirror.PartnerB, "a closed, suspended mirror", func(st Status) bool {
		return st.Role == mirror.RoleMirror && st.State == mirror.StateSuspended && st.Gate == mirror.GateClosed
	})
	p.command("resume", func() error { return a.Resume(t.Context()) })
	p.awaitSynchronized(mirror.PartnerA)
	p.awaitEqual()
}

// TestLogBudget: a mirror that stays away may cost the principal so much log and no more. At the budget the session is
// suspended, the log is given up, commits go on, and the mirror is copied anew.
func TestLogBudget(t *testing.T) {
	p := newPair(t)
	p.edit = func(c *Config) { c.Limits.LogBudget = 4 << 20 }
	p.exec(mirror.PartnerA, ledgerTable)
	p.startWitness()
	p.start(mirror.PartnerB)
	a := p.start(mirror.PartnerA)
	p.awaitSynchronized(mirror.PartnerA)
	p.halt(mirror.PartnerB)
	p.await(mirror.PartnerA, "exposed", func(st Status) bool { return st.Exposed && st.Reason == mirror.ReasonPartnerLeft })
	p.exec(mirror.PartnerA, "INSERT INTO ledger(id) SELECT generate_series(1, 60000)")
	p.await(mirror.PartnerA, "over its budget", func(st Status) bool {
		return st.Record.Suspended && st.Record.Why == mirror.ReasonLogBudget && st.Serving && st.Retained == 0
	})
	slots, err := p.pg[mirror.PartnerA].Psql(t.Context(), "app", "SELECT count(*) FROM pg_replication_slots")
	require.NoError(t, err)
	require.Contains(t, slots, "0", "the slot is dropped")

	b := p.start(mirror.PartnerB)
	p.await(mirror.PartnerB, "back", func(st Status) bool { return st.State == mirror.StateSuspended })
	p.command("seed anew", func() error { return b.Reseed(t.Context()) })
	p.command("resume", func() error { return a.Resume(t.Context()) })
	p.awaitSynchronized(mirror.PartnerA)
	p.awaitEqual()
}

// TestLogBudgetWhileCommitsHang: the operator's own standby is away, and commits that the session lets go wait for that one.
// People are told, and the budget holds all the same.
func TestLogBudgetWhileCommitsHang(t *testing.T) {
	p := newPair(t)
	p.edit = func(c *Config) { c.Limits.LogBudget = 4 << 20 }
	p.exec(mirror.PartnerA, ledgerTable)
	p.startWitness()
	p.start(mirror.PartnerB)
	p.start(mirror.PartnerA)
	p.awaitSynchronized(mirror.PartnerA)
	p.halt(mirror.PartnerB)
	p.await(mirror.PartnerA, "exposed", func(st Status) bool { return st.Exposed && st.Waiting == "" })
	p.exec(mirror.PartnerA, "ALTER SYSTEM SET synchronous_standby_names = 'absent'")
	p.exec(mirror.PartnerA, "SELECT pg_reload_conf()")
	p.await(mirror.PartnerA, "in trouble", func(st Status) bool {
		return strings.Contains(st.Trouble, "let commits go on alone") && strings.Contains(st.Trouble, "another standby")
	})
	p.exec(mirror.PartnerA, "SET synchronous_commit = local; INSERT INTO ledger(id) SELECT generate_series(1, 60000)", pgx.QueryExecModeSimpleProtocol)
	p.await(mirror.PartnerA, "over its budget", func(st Status) bool {
		return st.Record.Suspended && st.Record.Why == mirror.ReasonLogBudget && st.Retained == 0
	})
}

// TestWithoutWitness: high safety without a witness. The principal serves alone when its mirror is lost; nothing is
// automatic; a restarted principal asks its partner before it serves.
func TestWithoutWitness(t *testing.T) {
	p := newPair(t)
	p.edit = func(c *Config) { c.Witness = "" }
	p.exec(mirror.PartnerA, ledgerTable)
	p.start(mirror.PartnerB)
	p.start(mirror.PartnerA)
	p.awaitSynchronized(mirror.PartnerA)
	p.exec(mirror.PartnerA, "INSERT INTO ledger(id) VALUES (1)")

	p.halt(mirror.PartnerB)
	p.await(mirror.PartnerA, "alone", func(st Status) bool { return st.Exposed && st.Serving })
	p.exec(mirror.PartnerA, "INSERT INTO ledger(id) VALUES (2)")
	p.halt(mirror.PartnerA)
	a := p.start(mirror.PartnerA)
	p.await(mirror.PartnerA, "waiting for its partner, closed", func(st Status) bool {
		return st.Role == mirror.RolePrincipal && !st.Confirmed && st.Gate == mirror.GateClosed
	})
	p.command("serve", func() error { return a.Serve(t.Context()) })
	p.await(mirror.PartnerA, "serving", func(st Status) bool { return st.Serving && st.Gate == mirror.GateOpen })
	p.exec(mirror.PartnerA, "INSERT INTO ledger(id) VALUES (3)")
	p.await(mirror.PartnerA, "keeping log", func(st Status) bool { return st.Retained > 0 })
	require.NotZero(t, a.Metrics()[0].Extra.SendQueueBytes, "what nobody has hardened is not nothing")
	p.start(mirror.PartnerB)
	p.awaitSynchronized(mirror.PartnerA)
	p.awaitEqual()
}

// TestSkip: a transaction that the mirror cannot redo is left out by command, and mirroring goes on.
func TestSkip(t *testing.T) {
	p := newPair(t)
	p.exec(mirror.PartnerA, ledgerTable)
	p.startWitness()
	p.start(mirror.PartnerB)
	a := p.start(mirror.PartnerA)
	p.awaitSynchronized(mirror.PartnerA)
	p.exec(mirror.PartnerA, "INSERT INTO ledger(id) VALUES (1), (2)")
	p.awaitEqual()
	p.exec(mirror.PartnerB, "BEGIN READ WRITE; DELETE FROM ledger WHERE id = 2; COMMIT")
	p.exec(mirror.PartnerA, "DELETE FROM ledger WHERE id = 2")
	stopped := func(st Status) bool {
		return st.Record.Suspended && st.Record.Why == mirror.ReasonRedoError && st.Redo.Poison != mirror.Position{}
	}
	p.await(mirror.PartnerB, "stopped", stopped)
	p.halt(mirror.PartnerB)
	b := p.start(mirror.PartnerB)
	poison := p.await(mirror.PartnerB, "stopped again", stopped).Redo.Poison
	p.exec(mirror.PartnerA, "INSERT INTO ledger(id) VALUES (3)")

	require.ErrorIs(t, a.Skip(t.Context(), poison), backend.ErrNotPoison, "it redoes nothing")
	require.ErrorIs(t, b.Skip(t.Context(), mirror.Position{Seq: poison.Seq, LSN: poison.LSN + 1}), backend.ErrNotPoison)
	require.NoError(t, b.Skip(t.Context(), poison))
	p.command("resume", func() error { return b.Resume(t.Context()) })
	p.awaitSynchronized(mirror.PartnerA)
	p.awaitEqual()
	require.EqualValues(t, 1, b.Status().Redo.Skipped)
	journal, err := os.ReadFile(filepath.Join(p.dir, mirror.PartnerB.String(), "journal.jsonl"))
	require.NoError(t, err)
	require.Regexp(t, `"kind":"skip".*"lsn":"`+poison.String()+`"`, string(journal))
}
