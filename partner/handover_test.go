package partner

import (
	"encoding/json"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
)

// A former principal has handed over, and may be elected again, for the record says that it has everything. These are
// the cases in which its server was put back to an older state meanwhile: it must not serve then.

// handOver has partner-a hand over to partner-b, which is lost as soon as it has asked for the role. A backup of
// the server of partner-a was made before the last commit that it acknowledged. Its program, if it is elected again, ends
// before it has looked at its database. The witness stands still until thaw: nobody is elected before.
func handOver(t *testing.T) *pair {
	p := newPair(t)
	p.order = func(o *orders) {
		if o.Self == mirror.PartnerB {
			o.Crash = crash{crashpoint.VoteSent, mirror.RoleMirror}
		}
	}
	p.exec(mirror.PartnerA, ledgerTable)
	for s := mirror.PartnerA; s <= mirror.Witness; s++ {
		p.launch(s)
	}
	p.settle()
	p.exec(mirror.PartnerA, "INSERT INTO ledger(id) VALUES (1)")
	p.kill(mirror.PartnerB)
	p.kill(mirror.PartnerA)
	require.NoError(t, p.pg[mirror.PartnerA].Stop("fast"))
	copyDir(t, p.data(), p.data()+".backup")
	require.NoError(t, p.pg[mirror.PartnerA].Restart(t.Context()))
	p.launch(mirror.PartnerA)
	p.awaitOf(mirror.PartnerA, "there", func(st Status) bool { return st.Role == mirror.RolePrincipal }) // or partner-b takes it for lost
	p.launch(mirror.PartnerB)
	require.Equal(t, mirror.PartnerA, p.settle())
	p.exec(mirror.PartnerA, "INSERT INTO ledger(id) VALUES (2)")
	at, err := json.Marshal(crash{crashpoint.RedoUndrained, mirror.RolePrincipal})
	require.NoError(t, err)
	p.post(mirror.PartnerA, "/crash?at="+url.QueryEscape(string(at)))
	require.NoError(t, p.signal(mirror.Witness, syscall.SIGSTOP))
	p.command("hand over", func() error { return p.give(mirror.PartnerA, "/failover") })
	p.awaitCrash(mirror.PartnerB)
	p.awaitOf(mirror.PartnerA, "one that has handed over", func(st Status) bool { return st.Record.Principal == mirror.PartnerB })
	return p
}

// thaw lets the witness go on.
func (p *pair) thaw() {
	p.t.Helper()
	require.NoError(p.t, p.signal(mirror.Witness, syscall.SIGCONT))
}

// data is the data directory of the server of partner-a.
func (p *pair) data() string {
	return filepath.Join(filepath.Dir(p.pg[mirror.PartnerA].LogFile()), "data")
}

// putBack restores the backup of partner-a's server. The end of its log is soon where it was before.
func (p *pair) putBack() {
	p.t.Helper()
	server := p.pg[mirror.PartnerA]
	before, err := server.Psql(p.t.Context(), "postgres", "SELECT pg_current_wal_lsn()")
	require.NoError(p.t, err)
	require.NoError(p.t, server.Stop("immediate"))
	require.NoError(p.t, os.RemoveAll(p.data()))
	copyDir(p.t, p.data()+".backup", p.data())
	require.NoError(p.t, server.Restart(p.t.Context()))
	further := "f"
	for further != "t" {
		further, err = server.Psql(p.t.Context(), "postgres", `SELECT pg_logical_emit_message(false, 'test', 'more') IS NOT NULL
			AND pg_switch_wal() IS NOT NULL AND pg_current_wal_lsn() > '`+strings.TrimSpace(before)+`'`)
		require.NoError(p.t, err)
		further = strings.TrimSpace(further)
	}
	require.Equal(p.t, "1", p.ids(mirror.PartnerA), "the backup is older than a commit that was acknowledged")
}

// ids are those in the ledger of a server.
func (p *pair) ids(s mirror.Server) string {
	p.t.Helper()
	found, err := p.pg[s].Psql(p.t.Context(), "app", "SELECT string_agg(id::text, ' ' ORDER BY id) FROM ledger")
	require.NoError(p.t, err)
	return strings.TrimSpace(found)
}

func copyDir(t *testing.T, from, to string) {
	out, err := exec.Command("cp", "-Rp", from, to).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// awaitCrash waits until a program has ended itself.
func (p *pair) awaitCrash(s mirror.Server) {
	p.t.Helper()
	require.Eventually(p.t, func() bool { return p.ended(s) }, patience, 10*time.Millisecond, "%s does not end", s)
	require.FileExists(p.t, filepath.Join(p.dir, s.String(), crashFile))
	p.kill(s)
}

// comeBack has partner-b and its server come back.
func (p *pair) comeBack() *Partner {
	p.t.Helper()
	require.NoError(p.t, p.pg[mirror.PartnerB].Restart(p.t.Context()))
	return p.start(mirror.PartnerB)
}

// TestPutBackBeforeElection: it is no candidate any more, and is copied anew when the new principal is back.
func TestPutBackBeforeElection(t *testing.T) {
	t.Parallel()
	p := handOver(t)
	p.kill(mirror.PartnerA)
	p.thaw()
	require.NoError(t, p.pg[mirror.PartnerB].Kill())
	hard := hardState(t, p, mirror.PartnerA)
	require.True(t, hard.Record.Principal == mirror.PartnerB && hard.Record.InSync, "handed over: %+v", hard.Record)
	p.putBack()
	a := p.start(mirror.PartnerA)
	p.awaitUnfit(a)
	require.Equal(t, mirror.RoleMirror, a.Status().Role)
	p.journalled(mirror.PartnerA, errPutBack.Error())
	p.comeBack()
	p.awaitSynchronized(mirror.PartnerB)
	p.awaitEqual()
	require.Equal(t, "1 2", p.ids(mirror.PartnerB))
}

// TestPutBackAfterElection: elected, it does not serve, and says what to do.
func TestPutBackAfterElection(t *testing.T) {
	t.Parallel()
	p := handOver(t)
	require.NoError(t, p.pg[mirror.PartnerB].Kill())
	p.thaw()
	p.awaitCrash(mirror.PartnerA)
	require.Equal(t, mirror.PartnerA, hardState(t, p, mirror.PartnerA).Record.Principal)
	p.putBack()
	p.start(mirror.PartnerA)
	p.await(mirror.PartnerA, "refusing to serve", func(st Status) bool {
		require.False(t, st.Serving, "it serves")
		return st.Role == mirror.RolePrincipal && st.Gate == mirror.GateClosed &&
			strings.Contains(st.Trouble, errPutBack.Error()) && strings.Contains(st.Trouble, "force service on the other one")
	})
	p.halt(mirror.PartnerA)
	b := p.comeBack()
	p.command("force service", func() error { return b.ForceService(t.Context(), b.PlanForce().Token) })
	p.await(mirror.PartnerB, "serving", func(st Status) bool { return st.Serving && st.Gate == mirror.GateOpen })
	require.Equal(t, "1 2", p.ids(mirror.PartnerB))
	p.start(mirror.PartnerA)
	p.command("resume", func() error { return b.Resume(t.Context()) })
	p.awaitSynchronized(mirror.PartnerB)
	p.awaitEqual()
}

// TestElectedAgainAfterHandover: a server that was not put back serves as soon as it is elected.
func TestElectedAgainAfterHandover(t *testing.T) {
	t.Parallel()
	p := handOver(t)
	require.NoError(t, p.pg[mirror.PartnerB].Kill())
	p.thaw()
	p.awaitCrash(mirror.PartnerA)
	p.start(mirror.PartnerA)
	p.await(mirror.PartnerA, "serving", func(st Status) bool { return st.Serving && st.Gate == mirror.GateOpen })
	p.exec(mirror.PartnerA, "INSERT INTO ledger(id) VALUES (3)")
	require.NoFileExists(t, filepath.Join(p.dir, mirror.PartnerA.String(), handoverFile), "a new reign has begun")
	require.Equal(t, "1 2 3", p.ids(mirror.PartnerA))
}
