package partner

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
	"github.com/f19126b3/dbmirror/partner/internal/testflag"
)

// crashTally counts over all sessions of the test.
type crashTally struct {
	sync.Mutex
	points      map[crashpoint.Point]bool
	roles       map[crash]bool
	runs, acked int
}

func (c *crashTally) add(at crash, acked int) {
	c.Lock()
	defer c.Unlock()
	c.points[at.Point], c.roles[at] = true, true
	c.runs++
	c.acked += acked
}

// TestCrash ends a program at each point at which something becomes durable or is told, under load, starts it again, and
// looks: nothing acknowledged is lost, nothing is there twice, both databases are equal, and the session is SYNCHRONIZED
// again, or asks the operator for what the scene has ordered.
func TestCrash(t *testing.T) {
	tally := &crashTally{points: map[crashpoint.Point]bool{}, roles: map[crash]bool{}}
	t.Run("session", func(t *testing.T) {
		for i, cases := range chosen(crashCases()) {
			t.Run(fmt.Sprint(i+1), func(t *testing.T) {
				t.Parallel()
				runCrashes(t, cases, tally)
			})
		}
	})
	if t.Failed() {
		return
	}
	if *testflag.CrashOnly == "" {
		for _, p := range crashpoint.Points() {
			require.True(t, tally.points[p], "no program was ended at %q", p)
		}
	}
	t.Logf("acknowledged=%d", tally.acked)
	fmt.Printf("crash points=%d hit=%d roles=%d runs=%d lost=0 duplicated=0 different=0\n",
		len(crashpoint.Points()), len(tally.points), len(tally.roles), tally.runs)
}

func runCrashes(t *testing.T, cases []crashCase, tally *crashTally) {
	if len(cases) == 0 {
		return
	}
	s := newSite(t)
	for _, c := range cases {
		started := time.Now()
		acked := s.meet(c)
		tally.add(c.at, acked)
		t.Logf("%s: %s ended, acknowledged=%d principal=%s %.1f s", c, s.hit, acked, s.principal, time.Since(started).Seconds())
	}
}

// newSite makes two servers for a session. alone and bulk are written by scenes, beside the ledger of the clients. What a
// server need not put on its disk it keeps in memory for long, so that it is lost with the server.
func newSite(t *testing.T) *site {
	s := &site{pair: newPair(t)}
	s.order = s.limit
	s.exec(mirror.PartnerA, ledgerTable)
	s.exec(mirror.PartnerA, "CREATE TABLE alone(id int PRIMARY KEY)")
	s.exec(mirror.PartnerA, "CREATE TABLE bulk(id int PRIMARY KEY, pad text)")
	for side := mirror.PartnerA; side <= mirror.PartnerB; side++ {
		s.exec(side, "ALTER SYSTEM SET wal_writer_delay = '10s'")
		s.exec(side, "SELECT pg_reload_conf()")
	}
	return s
}

// meet plays a scene until a program has ended at the point, starts it again, and looks. It returns how many commits were
// acknowledged meanwhile. While the session is being made there is nothing to look at: that it can be made is seen in the
// end.
func (s *site) meet(c crashCase) int {
	s.t.Helper()
	s.at, s.hit = c.at, mirror.Nobody
	if c.scene.makes {
		c.scene.play(s)
		s.until("met in scene "+c.scene.name, func() bool { return false })
		return 0
	}
	if !s.made {
		s.heal()
		s.made = true
	}
	l := s.loadAt(2, 200)
	l.awaitAck()
	if !c.scene.opens {
		s.arm()
	}
	c.scene.play(s)
	s.until("met in scene "+c.scene.name, func() bool { return false })
	if c.scene.server {
		require.NoError(s.t, s.pg[s.hit].Kill())
	}
	s.disarm()
	s.heal()
	l.awaitAck()
	l.end()
	s.awaitEqual()
	l.check(s.pg[mirror.PartnerA])
	l.check(s.pg[mirror.PartnerB])
	if c.scene.look != nil {
		c.scene.look(s)
	}
	s.exec(s.principal, "TRUNCATE ledger, alone, bulk")
	return len(l.acked)
}

// lostFiles are those that a partner has written of transactions that the other one never had.
func (s *site) lostFiles(server mirror.Server) []string {
	all, err := filepath.Glob(filepath.Join(s.dir, server.String(), "lost-transactions-*.jsonl"))
	require.NoError(s.t, err)
	return all
}
