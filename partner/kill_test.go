package partner

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/internal/testflag"
)

// victim is what is killed in one run, by its role at that moment.
type victim struct {
	name               string
	program, server    mirror.Role // RoleNone: not killed
	witness, failsOver bool
}

var victims = []victim{
	{name: "principal's program", program: mirror.RolePrincipal},
	{name: "mirror's program", program: mirror.RoleMirror},
	{name: "witness", witness: true},
	{name: "principal's server", server: mirror.RolePrincipal},
	{name: "mirror's server", server: mirror.RoleMirror},
	{name: "principal's program and server", program: mirror.RolePrincipal, server: mirror.RolePrincipal, failsOver: true},
}

// TestKill kills each process and each server, alone, at a random moment under load. Nothing acknowledged may be lost,
// nothing redone twice, and both databases must be equal after the session has healed.
func TestKill(t *testing.T) {
	newPair(t).killEach(*testflag.KillRuns)
}

// killings are what comes of killing, one after the other.
type killings struct {
	*pair
	principal                  mirror.Server
	runs, committed, failovers int
	slowest                    time.Duration
}

// killEach kills each of the victims, that many times.
func (p *pair) killEach(runs int) {
	p.exec(mirror.PartnerA, ledgerTable)
	for s := mirror.PartnerA; s <= mirror.Witness; s++ {
		p.launch(s)
	}
	k := &killings{pair: p, principal: p.settle()}
	for run := range runs {
		for _, v := range victims {
			name := fmt.Sprintf("%s/%d", v.name, run+1)
			if v.failsOver {
				p.promptly(name+": automatic failover with the fast profile", 5*time.Second, func() time.Duration { return k.killOne(name, v) })
			} else {
				k.killOne(name, v)
			}
		}
	}
	fmt.Printf("kill runs=%d acknowledged=%d lost=0 duplicated=0 different=0 failovers=%d slowest_failover=%.1f s\n",
		k.runs, k.committed, k.failovers, k.slowest.Seconds())
}

// killOne kills a victim, and looks when the session has healed. It returns how long nobody served, if that is to be
// another one then.
func (k *killings) killOne(name string, v victim) (failover time.Duration) {
	before := k.principal
	l := k.load(4)
	l.awaitAck()
	moment := time.Duration(rand.IntN(1000)) * time.Millisecond
	l.run(moment)
	k.strike(v, before)
	if v.failsOver {
		started := time.Now()
		l.awaitServer(before.Other())
		failover = time.Since(started)
		k.slowest = max(k.slowest, failover)
	}
	l.run(time.Second)
	k.revive(v, before)
	k.principal = k.settle()
	l.awaitAck()
	l.end()
	k.awaitEqual()
	l.check(k.pg[mirror.PartnerA])
	l.check(k.pg[mirror.PartnerB])
	k.exec(k.principal, "TRUNCATE ledger")
	if k.principal != before {
		k.failovers++
	}
	k.runs++
	k.committed += len(l.acked)
	k.t.Logf("%s: killed after %s, acknowledged=%d tried=%d longest_pause=%s principal=%s", name, moment, len(l.acked), len(l.tried),
		l.gap().Round(time.Millisecond), k.principal)
	return failover
}

// run lets the load go on for a while.
func (l *ledger) run(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	<-t.C
}

func (p *pair) strike(v victim, principal mirror.Server) {
	p.t.Helper()
	byRole := map[mirror.Role]mirror.Server{mirror.RolePrincipal: principal, mirror.RoleMirror: principal.Other()}
	if s := byRole[v.server]; s != mirror.Nobody {
		require.NoError(p.t, p.pg[s].Kill())
	}
	if s := byRole[v.program]; s != mirror.Nobody {
		p.kill(s)
	}
	if v.witness {
		p.kill(mirror.Witness)
	}
}

func (p *pair) revive(v victim, principal mirror.Server) {
	p.t.Helper()
	byRole := map[mirror.Role]mirror.Server{mirror.RolePrincipal: principal, mirror.RoleMirror: principal.Other()}
	if s := byRole[v.server]; s != mirror.Nobody {
		require.NoError(p.t, p.pg[s].Restart(p.t.Context()))
	}
	if s := byRole[v.program]; s != mirror.Nobody {
		p.launch(s)
	}
	if v.witness {
		p.launch(mirror.Witness)
	}
}

// settle waits until the session is healed, and returns the principal.
func (p *pair) settle() mirror.Server {
	p.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var a, b Status
	for {
		a, _ = p.ask(mirror.PartnerA)
		b, _ = p.ask(mirror.PartnerB)
		w, err := p.ask(mirror.Witness)
		witness := err == nil && w.Quorum == mirror.QuorumFull
		if witness && settled(a, b) {
			return mirror.PartnerA
		}
		if witness && settled(b, a) {
			return mirror.PartnerB
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			p.t.Fatalf("not healed:\n%s\n%s", brief(a), brief(b))
		}
	}
}

func settled(principal, m Status) bool {
	return principal.Role == mirror.RolePrincipal && principal.State == mirror.StateSynchronized && principal.Serving && principal.Gate == mirror.GateOpen &&
		m.Role == mirror.RoleMirror && m.State == mirror.StateSynchronized && m.Gate == mirror.GateReadOnly && principal.Quorum == mirror.QuorumFull
}

func brief(st Status) string {
	return fmt.Sprintf("%s %s %s (%s) record=%s in_sync=%t confirmed=%t whole=%t aligned=%t dirty=%t failed=%s trouble=%q duty={%s} gate=%s",
		st.Self, st.Role, st.State, st.Reason, st.Record.Version(), st.Record.InSync, st.Confirmed, st.Whole, st.Aligned, st.Dirty, st.Failed, st.Trouble, st.Duty, st.Gate)
}
