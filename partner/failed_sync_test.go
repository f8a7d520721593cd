package partner

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

// TestFailedSync: the kernel says, once and for good, that a sync has failed, to the real program that asked. It may
// never act as if what it wrote were on disk, nor try again. Nothing acknowledged is lost by it.
func TestFailedSync(t *testing.T) {
	if !mayFailSystemCalls {
		t.Skip("only on Linux can a test let a system call of a program fail")
	}
	t.Parallel()
	p := newPair(t)
	p.exec(mirror.PartnerA, ledgerTable)
	for s := mirror.PartnerA; s <= mirror.Witness; s++ {
		p.launch(s)
	}
	require.Equal(t, mirror.PartnerA, p.settle())
	for _, c := range []struct {
		name string
		try  func(*pair)
	}{
		{"log of the mirror", failedLog}, {"state of the witness", failedWitness}, {"state of the principal", failedPrincipal},
	} {
		l := p.load(2)
		l.awaitAck()
		t.Log(c.name)
		c.try(p)
		l.awaitAck()
		l.end()
		p.awaitEqual()
		l.check(p.pg[mirror.PartnerA])
		l.check(p.pg[mirror.PartnerB])
		p.exec(p.settle(), "TRUNCATE ledger")
	}
}

// awaitOf waits until a process shows a status.
func (p *pair) awaitOf(s mirror.Server, what string, ok func(Status) bool) {
	p.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		st, err := p.ask(s)
		if err == nil && ok(st) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			p.t.Fatalf("%s is not %s: %v %s", s, what, err, brief(st))
		}
	}
}

// failedLog: the mirror's log cannot be synced. The session is suspended, also when it is resumed with that log, and the
// principal goes on alone, until the mirror's program was started again.
func failedLog(p *pair) {
	p.post(mirror.PartnerB, "/failing?call=fdatasync")
	suspended := func(st Status) bool {
		return st.State == mirror.StateSuspended && st.Reason == mirror.ReasonLogDamaged && !st.Record.InSync
	}
	p.awaitOf(mirror.PartnerA, "SUSPENDED, serving alone", func(st Status) bool { return suspended(st) && st.Serving && st.Exposed })
	st, err := p.ask(mirror.PartnerB)
	require.NoError(p.t, err)
	require.Contains(p.t, st.Trouble, "the log's disk is in doubt; check it, then restart the partner")
	end := st.Hardened
	st, err = p.ask(mirror.PartnerA)
	require.NoError(p.t, err)
	before := st.Record
	p.command("resume", func() error { return p.give(mirror.PartnerA, "/resume") })
	// One change takes the suspension back, which may last for a moment only, and another makes it anew.
	p.awaitOf(mirror.PartnerA, "SUSPENDED again", func(st Status) bool {
		return suspended(st) && st.Record.Seq == before.Seq && st.Record.Change >= before.Change+2
	})
	st, err = p.ask(mirror.PartnerB)
	require.NoError(p.t, err)
	require.Equal(p.t, end, st.Hardened, "nothing was hardened after the failure")
	p.kill(mirror.PartnerB)
	p.launch(mirror.PartnerB)
	p.awaitOf(mirror.PartnerB, "back", func(st Status) bool { return st.Role == mirror.RoleMirror })
	require.Eventually(p.t, func() bool { return p.give(mirror.PartnerA, "/resume") == nil }, patience, 100*time.Millisecond)
	p.awaitSettledAt(mirror.PartnerA)
}

// failedWitness: the witness cannot write down what it is asked to. Its program ends without an answer; the partners
// agree without it.
func failedWitness(p *pair) {
	p.post(mirror.Witness, "/failing?call=fsync")
	p.post(mirror.PartnerA, "/suspend")
	p.awaitEnd(mirror.Witness)
	p.awaitOf(mirror.PartnerB, "SUSPENDED", func(st Status) bool { return st.State == mirror.StateSuspended })
	p.kill(mirror.Witness)
	p.launch(mirror.Witness)
	p.command("resume", func() error { return p.give(mirror.PartnerA, "/resume") })
	p.awaitSettledAt(mirror.PartnerA)
}

// failedPrincipal: the principal cannot write down its own record. It closes its database before its program ends, and is
// replaced.
func failedPrincipal(p *pair) {
	p.post(mirror.PartnerA, "/failing?call=fsync")
	_ = p.give(mirror.PartnerA, "/suspend") // it may end before it answers
	p.awaitEnd(mirror.PartnerA)
	require.Equal(p.t, []string{"0"}, rows(p.t, p.pg[mirror.PartnerA], "postgres", "SELECT datconnlimit::text FROM pg_database WHERE datname = 'app'"))
	p.awaitOf(mirror.PartnerB, "the principal", func(st Status) bool { return st.Role == mirror.RolePrincipal && st.Serving })
	p.kill(mirror.PartnerA)
	p.launch(mirror.PartnerA)
	p.awaitSettledAt(mirror.PartnerB)
}

// awaitEnd waits until a process has ended because its state could not be written.
func (p *pair) awaitEnd(s mirror.Server) {
	p.t.Helper()
	require.Eventually(p.t, func() bool { return p.ended(s) }, patience, 20*time.Millisecond, "%s goes on", s)
	log, err := os.ReadFile(p.logFile(s))
	require.NoError(p.t, err)
	require.Contains(p.t, string(log), "input/output error; mend the disk and start this program again")
}
