package partner

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// isolate puts a cable on every link of partner A: its endpoint, its way to the others, and its server as B reaches it.
func (p *pair) isolate() (sever, mend func()) { return p.cables(true) }

// isolateEndpoint does the same and leaves the servers reachable: only the program is cut off.
func (p *pair) isolateEndpoint() (sever, mend func()) { return p.cables(false) }

func (p *pair) cables(servers bool) (sever, mend func()) {
	in := newCable(p.t, p.addr[mirror.PartnerA])                                              // B and the witness to A's endpoint
	server := newCable(p.t, fmt.Sprintf("127.0.0.1:%d", p.pg[mirror.PartnerA].Port()))        // B to A's database server
	back := newCable(p.t, fmt.Sprintf("127.0.0.1:%d", p.pg[mirror.PartnerB].Port()))          // A to B's database server
	toB, toW := newCable(p.t, p.addr[mirror.PartnerB]), newCable(p.t, p.addr[mirror.Witness]) // A's messages
	p.edit = func(c *Config) {
		switch c.Self {
		case mirror.PartnerA:
			c.Peer, c.Witness = toB.addr(), toW.addr()
			c.redirect(p.t, "", through(back))
		case mirror.PartnerB:
			c.Peer = in.addr()
			c.redirect(p.t, "", through(server))
		}
	}
	p.witnessSees[mirror.PartnerA] = in.addr()
	all := []*cable{in, toB, toW}
	if servers {
		all = append(all, server, back)
	}
	var mends []func()
	return func() {
			for _, c := range all {
				mends = append(mends, c.sever())
			}
		}, func() {
			for _, mend := range mends {
				mend()
			}
		}
}

func through(c *cable) string {
	return fmt.Sprintf("postgres://postgres@%s/app?sslmode=disable", c.addr())
}

// TestPrincipalCutOff cuts a principal off from both others while clients still reach it. It stops acknowledging at
// once and serving within lease plus fence; nothing it acknowledged is missing later, and what it committed without
// acknowledgement is put aside.
func TestPrincipalCutOff(t *testing.T) {
	p := newPair(t)
	sever, mend := p.isolate()
	p.exec(mirror.PartnerA, ledgerTable)
	p.startWitness()
	p.start(mirror.PartnerB)
	p.start(mirror.PartnerA)
	p.awaitSynchronized(mirror.PartnerA)
	p.promptly("closed after the cut", host.Fast().Lease+host.Fast().Fence, func() time.Duration {
		if p.serving() == mirror.PartnerB {
			require.NoError(t, p.partner[mirror.PartnerB].Failover(t.Context()))
			p.awaitSynchronized(mirror.PartnerA)
		}
		p.exec(mirror.PartnerA, "TRUNCATE ledger")
		return p.cutOff(sever, mend)
	})
}

// cutOff cuts partner-a off, and returns how long it served. Partner-b is principal in the end.
func (p *pair) cutOff(sever, mend func()) time.Duration {
	clients := p.loadOnly(4, mirror.PartnerA)
	clients.awaitAck()
	clients.run(300 * time.Millisecond)
	sever()
	cut, mark := time.Now(), clients.mark()
	closed := p.await(mirror.PartnerA, "closed", func(st Status) bool { return st.Gate == mirror.GateClosed })
	took := time.Since(cut)
	require.False(p.t, closed.Serving)
	require.Empty(p.t, clients.ackedBy(mirror.PartnerA, mark), "what was tried after the cut is acknowledged")

	p.await(mirror.PartnerB, "serving", func(st Status) bool { return st.Serving && st.Gate == mirror.GateOpen })
	p.t.Logf("the other serves %s after the cut", time.Since(cut).Round(time.Millisecond))
	p.exec(mirror.PartnerB, "INSERT INTO ledger(id) VALUES (-1)")
	clients.end()
	clients.tried[-1] = true

	mend()
	p.awaitSynchronized(mirror.PartnerB)
	p.awaitEqual()
	clients.check(p.pg[mirror.PartnerA])
	clients.check(p.pg[mirror.PartnerB])
	p.exec(mirror.PartnerB, "INSERT INTO ledger(id) VALUES (-2)")
	p.awaitEqual()
	return took
}

// TestEndpointCutOff cuts off only the principal's program. Its server streams on, which is no sign of life once the
// principal has closed it: the mirror takes over, and nothing is lost.
func TestEndpointCutOff(t *testing.T) {
	p := newPair(t)
	sever, mend := p.isolateEndpoint()
	p.exec(mirror.PartnerA, ledgerTable)
	p.startWitness()
	p.start(mirror.PartnerB)
	p.start(mirror.PartnerA)
	p.awaitSynchronized(mirror.PartnerA)
	clients := p.load(2)
	clients.awaitAck()
	sever()
	p.await(mirror.PartnerA, "closed", func(st Status) bool { return st.Gate == mirror.GateClosed })
	p.await(mirror.PartnerB, "serving", func(st Status) bool { return st.Serving && st.Gate == mirror.GateOpen })
	clients.awaitAck()
	mend()
	p.awaitSynchronized(mirror.PartnerB)
	clients.end()
	p.awaitEqual()
	clients.check(p.pg[mirror.PartnerA])
	clients.check(p.pg[mirror.PartnerB])
}

// TestStrangerChangesTheWait: somebody takes the mirror out of synchronous_standby_names. The session notices, records
// that the mirror may lack commits, and proves SYNCHRONIZED anew.
func TestStrangerChangesTheWait(t *testing.T) {
	p := newPair(t)
	p.exec(mirror.PartnerA, ledgerTable)
	p.startWitness()
	p.start(mirror.PartnerB)
	p.start(mirror.PartnerA)
	p.awaitSynchronized(mirror.PartnerA)
	for _, reload := range []string{"SELECT pg_reload_conf()", "SELECT 'whoever did it forgot that, or is about to'"} {
		before := p.partner[mirror.PartnerA].Status().Record
		p.exec(mirror.PartnerA, "ALTER SYSTEM RESET synchronous_standby_names")
		p.exec(mirror.PartnerA, reload)
		p.await(mirror.PartnerA, "proven anew", func(st Status) bool {
			return st.Record.Change >= before.Change+2 && st.Record.InSync && st.State == mirror.StateSynchronized
		})
		names, err := p.pg[mirror.PartnerA].Psql(t.Context(), "app", "SHOW synchronous_standby_names")
		require.NoError(t, err)
		require.Contains(t, names, mirrorName(p.session[:8], before, mirror.PartnerB))
	}
}

// TestStrangerChangesWhatARestartWaitsFor: a principal that is alone must not acknowledge alone by itself after a restart
// of its server. Somebody takes the name out of the file that sees to it; it is put there again.
func TestStrangerChangesWhatARestartWaitsFor(t *testing.T) {
	p := newPair(t)
	p.exec(mirror.PartnerA, ledgerTable)
	p.startWitness()
	p.start(mirror.PartnerB)
	p.start(mirror.PartnerA)
	p.awaitSynchronized(mirror.PartnerA)
	p.halt(mirror.PartnerB)
	kept := func(Status) bool {
		names, err := p.pg[mirror.PartnerA].Psql(t.Context(), "app", `SELECT count(*) FROM pg_file_settings
			WHERE name = 'synchronous_standby_names' AND setting LIKE '%dbmirror%restart%'`)
		require.NoError(t, err)
		return strings.Contains(names, "1")
	}
	p.await(mirror.PartnerA, "alone", func(st Status) bool { return st.Exposed && st.Serving && kept(st) })
	p.exec(mirror.PartnerA, "ALTER SYSTEM RESET synchronous_standby_names")
	p.await(mirror.PartnerA, "as before", kept)
}

// TestFailoverAtDefaults: with the default timing an automatic failover takes at most 13 seconds from the kill.
func TestFailoverAtDefaults(t *testing.T) {
	p := newPair(t)
	p.timing = host.Timing{}
	p.exec(mirror.PartnerA, ledgerTable)
	for s := mirror.PartnerA; s <= mirror.Witness; s++ {
		p.launch(s)
	}
	lost := mirror.Nobody
	p.promptly("an automatic failover", 13*time.Second, func() time.Duration {
		if lost != mirror.Nobody {
			require.NoError(t, p.pg[lost].Restart(t.Context()))
			p.launch(lost)
		}
		lost = p.settle()
		p.exec(lost, "TRUNCATE ledger")
		l := p.load(2)
		l.awaitAck()
		require.NoError(t, p.pg[lost].Kill())
		p.kill(lost)
		killed := time.Now()
		l.awaitServer(lost.Other())
		took := time.Since(killed)
		l.end()
		l.check(p.pg[lost.Other()])
		return took
	})
}

// TestManualFailoverPause: at 500 commits a second a manual failover stops writes for less than two seconds.
func TestManualFailoverPause(t *testing.T) {
	p := newPair(t)
	p.exec(mirror.PartnerA, ledgerTable)
	for s := mirror.PartnerA; s <= mirror.Witness; s++ {
		p.launch(s)
	}
	principal := p.settle()
	l := p.loadAt(4, 500)
	for range 3 {
		p.promptly("writes paused for", 2*time.Second, func() time.Duration {
			l.awaitAck()
			l.run(500 * time.Millisecond)
			l.gap()
			p.command("failover", func() error { return p.give(principal, "/failover") })
			principal = principal.Other()
			p.awaitSettledAt(principal)
			l.awaitServer(principal)
			return l.gap()
		})
	}
	l.end()
	p.awaitEqual()
	l.check(p.pg[mirror.PartnerA])
	l.check(p.pg[mirror.PartnerB])
}

// TestClientsFindThePrincipal: a connection string with both servers and target_session_attrs=read-write leads to the
// principal, with pgx and with libpq, before and after a change of roles.
func TestClientsFindThePrincipal(t *testing.T) {
	p := newPair(t)
	p.exec(mirror.PartnerA, "CREATE TABLE t(id int PRIMARY KEY)")
	p.startWitness()
	p.start(mirror.PartnerB)
	p.start(mirror.PartnerA)
	for _, principal := range []mirror.Server{mirror.PartnerA, mirror.PartnerB} {
		p.awaitSynchronized(principal)
		dsn := multiHost(p.pg[mirror.PartnerA], p.pg[mirror.PartnerB])
		want := fmt.Sprint(p.pg[principal].Port())
		conn, err := pgx.Connect(t.Context(), dsn)
		require.NoError(t, err)
		var port string
		require.NoError(t, conn.QueryRow(t.Context(), "SHOW port").Scan(&port))
		require.NoError(t, conn.Close(t.Context()))
		require.Equal(t, want, port, "pgx")
		install, err := pgtest.Find(t.Context(), nil)
		require.NoError(t, err)
		got, err := install.Psql(t.Context(), dsn, "SHOW port")
		require.NoError(t, err)
		require.Contains(t, got, want, "psql")
		if principal == mirror.PartnerA {
			require.NoError(t, p.partner[mirror.PartnerA].Failover(t.Context()))
		}
	}
}
