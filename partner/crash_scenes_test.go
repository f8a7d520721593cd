package partner

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
)

// scene is what happens in a session, under load, when a program comes to a point. It may return before that has been
// seen.
type scene struct {
	name string
	play func(*site)
	look func(*site) // afterwards; optional
	// opens says that play itself arms a program, because it starts it.
	opens bool
	// makes says that there is no session yet, and no load.
	makes bool
	// server says that the PostgreSQL server beside the program ends with it.
	server bool
}

// again plays it until a program has come to the point, which play answers with false, for a minute at most: what happens
// once, in whatever order, need not come to each point.
func again(play func(*site) bool) func(*site) {
	return func(s *site) {
		for begun := time.Now(); play(s) && time.Since(begun) < time.Minute; {
		}
	}
}

// withServer is the scene when the server ends too: what it had not on its disk is gone.
func withServer(of scene) scene {
	of.name, of.server = of.name+", server lost", true
	return of
}

// commits is what goes on all the time: clients commit, the mirror hardens and redoes.
var commits = scene{name: "commit", play: func(*site) {}}

// bulk is a transaction that is too large to be redone at once and fills more than a segment of the log.
var bulk = scene{name: "bulk", play: again(func(s *site) bool {
	s.write("INSERT INTO bulk SELECT g, repeat('x', 80) FROM generate_series(1, 25000) g")
	s.write("TRUNCATE bulk")
	return !s.crashed()
})}

// write runs SQL at the principal if that is there. On a machine with other work it may not be done in time.
func (s *site) write(sql string) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.pg[s.principal].DSN("app"))
	if err != nil {
		return
	}
	defer conn.Close(ctx)
	_, _ = conn.Exec(ctx, sql)
}

// suspend is a change of the record that lets commits go on alone, and one that makes them wait again.
var suspend = scene{name: "suspend, resume", play: again(func(s *site) bool {
	suspended := func(st Status) bool { return st.Record.Suspended && st.Waiting == "" && st.Exposed }
	return s.ordered(s.principal, "/suspend") && s.shows(s.principal, "suspended and exposed", suspended) &&
		s.ordered(s.principal, "/resume") && s.shows(s.principal, "SYNCHRONIZED", synchronized)
})}

func synchronized(st Status) bool {
	return st.Role == mirror.RolePrincipal && st.State == mirror.StateSynchronized && st.Serving && st.Gate == mirror.GateOpen
}

// safety lets commits go on without the mirror for good, and then makes them wait again.
var safety = scene{name: "safety OFF, FULL", play: again(func(s *site) bool {
	return s.ordered(s.principal, "/safety/off") && s.shows(s.principal, "in high performance mode", func(st Status) bool {
		return st.Mode == mirror.ModeHighPerformance && st.Waiting == "" && st.State == mirror.StateSynchronized
	}) && s.ordered(s.principal, "/safety/full") && s.shows(s.principal, "SYNCHRONIZED, FULL", func(st Status) bool {
		return synchronized(st) && st.Record.InSync && st.Waiting != ""
	})
})}

// otherWitness takes the witness out of the session and in again.
var otherWitness = scene{name: "witness removed and set", play: again(func(s *site) bool {
	return s.ordered(s.principal, "/witness/remove") && s.shows(s.principal, "without a witness", withoutWitness) &&
		s.ordered(s.principal, "/witness/set") && s.shows(s.principal, "with a witness", func(st Status) bool {
		return st.Record.HasWitness() && synchronized(st)
	})
})}

func withoutWitness(st Status) bool { return !st.Record.HasWitness() && st.Record.OldWitness == 0 }

// handover exchanges the roles by command, to and fro: one that was given up is ordered again, and what a hand-over does
// need not come to each point. A sequence that was moved by a promotion which then broke off is not moved once more.
var handover = scene{name: "manual failover", play: func(s *site) {
	s.until("met", func() bool {
		for side := mirror.PartnerA; side <= mirror.PartnerB; side++ {
			if st, err := s.ask(side); err == nil && synchronized(st) {
				_ = s.give(side, "/failover")
			}
		}
		return false
	})
}}

// backlog exchanges the roles while the mirror has log that is not redone: a session holds a lock that redo needs, until
// the new principal closes its database.
var backlog = scene{name: "manual failover with a redo queue", play: func(s *site) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.pg[s.mirrorSide()].DSN("app"))
	require.NoError(s.t, err)
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, "BEGIN; LOCK TABLE ledger IN ACCESS EXCLUSIVE MODE")
	require.NoError(s.t, err)
	handover.play(s)
}}

// loss is an automatic failover: the principal's program and server are gone at once.
var loss = scene{name: "automatic failover", play: func(s *site) {
	require.NoError(s.t, s.pg[s.principal].Kill())
	s.kill(s.principal)
	s.shows(s.mirrorSide(), "principal", func(st Status) bool {
		return st.Role == mirror.RolePrincipal && st.Serving && st.Gate == mirror.GateOpen
	})
}}

// reseed copies the principal's database anew.
var reseed = scene{name: "reseed", play: again(func(s *site) bool {
	return s.ordered(s.mirrorSide(), "/reseed") && s.shows(s.principal, "SYNCHRONIZED", synchronized)
})}

// tail leaves the old principal with a transaction that nobody was told of: its mirror is gone when it is written, and
// takes over without it. The principal's program stands still meanwhile, or it would record that the mirror is lost.
var tail = scene{name: "a tail after the fork", opens: true, play: func(s *site) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.pg[s.principal].DSN("app"))
	require.NoError(s.t, err)
	require.NoError(s.t, s.signal(s.principal, syscall.SIGSTOP))
	s.kill(s.mirrorSide())
	answered := make(chan error, 1)
	go func() {
		_, err := conn.Exec(ctx, "INSERT INTO alone SELECT g FROM generate_series(1, 10) g")
		answered <- err
	}()
	require.NoError(s.t, s.awaitHanging(ctx), "the commit waits for the mirror")
	require.NoError(s.t, s.pg[s.principal].Kill())
	s.kill(s.principal)
	require.Error(s.t, <-answered, "nobody was told that it is committed")
	s.launch(s.mirrorSide())
	s.shows(s.mirrorSide(), "principal", func(st Status) bool { return st.Role == mirror.RolePrincipal && st.Serving })
	require.NoError(s.t, s.pg[s.principal].Restart(s.t.Context()))
	s.launchToEnd(s.principal)
}, look: func(s *site) {
	// What nobody was told of is not at the new principal, and not lost either.
	for _, path := range append(s.lostFiles(mirror.PartnerA), s.lostFiles(mirror.PartnerB)...) {
		text, err := os.ReadFile(path)
		require.NoError(s.t, err)
		require.NoError(s.t, os.Remove(path))
		if strings.Count(string(text), `"kind":"insert","schema":"public","table":"alone"`) == 10 {
			return
		}
	}
	s.t.Fatalf("%s: no file holds the lost transaction", s.at)
}}

// awaitHanging waits until the transaction of tail is written and waits for the mirror.
func (s *site) awaitHanging(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.pg[s.principal].DSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		var hangs bool
		err := conn.QueryRow(ctx, "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE 'INSERT INTO alone%'").Scan(&hangs)
		if err != nil || hangs {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// opening starts a program of a side again.
func opening(name string, side func(*site) mirror.Server, before func(*site, mirror.Server)) scene {
	return scene{name: name, opens: true, play: func(s *site) {
		server := side(s)
		s.kill(server)
		before(s, server)
		s.launchToEnd(server)
	}}
}

func principalSide(s *site) mirror.Server { return s.principal }
func mirrorSide(s *site) mirror.Server    { return s.mirrorSide() }
func asItWas(*site, mirror.Server)        {}

// withoutPlace: the file that says which database is the partner's was removed.
func withoutPlace(s *site, server mirror.Server) {
	require.NoError(s.t, os.Remove(filepath.Join(s.dir, server.String(), placeFile)))
}

// lastSegment is the file that the hardened log ends in.
func (s *site) lastSegment(server mirror.Server) string {
	all, err := filepath.Glob(filepath.Join(s.dir, server.String(), "log", "*.log"))
	require.NoError(s.t, err)
	require.NotEmpty(s.t, all)
	return all[len(all)-1]
}

// tornTail: the machine lost its power while log was written, and something else is at its end.
func tornTail(s *site, server mirror.Server) {
	f, err := os.OpenFile(s.lastSegment(server), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(s.t, err)
	_, err = f.Write(make([]byte, 4096))
	require.NoError(s.t, err)
	require.NoError(s.t, f.Close())
}

// spoiltLog: a segment is not what was written.
func spoiltLog(s *site, server mirror.Server) {
	f, err := os.OpenFile(s.lastSegment(server), os.O_WRONLY, 0)
	require.NoError(s.t, err)
	_, err = f.WriteAt([]byte("damaged"), 100)
	require.NoError(s.t, err)
	require.NoError(s.t, f.Close())
}

// newWitnessDisk: the witness is taken out of the session, and starts anew with nothing on its disk.
var newWitnessDisk = scene{name: "a new witness", opens: true, play: func(s *site) {
	if !s.ordered(s.principal, "/witness/remove") || !s.shows(s.principal, "without a witness", withoutWitness) {
		return
	}
	s.kill(mirror.Witness)
	require.NoError(s.t, os.RemoveAll(filepath.Join(s.dir, mirror.Witness.String())))
	s.launchToEnd(mirror.Witness)
}}

// firstStart: a program starts on an empty disk.
func firstStart(server mirror.Server) scene {
	return scene{name: "first start of " + server.String(), makes: true, opens: true, play: func(s *site) { s.launchToEnd(server) }}
}

// making: the session is made, or a program is told that it was, by others that start later.
func making(server mirror.Server, later ...mirror.Server) scene {
	return scene{name: "the session is made", makes: true, opens: true, play: func(s *site) {
		for _, other := range everyServer {
			s.kill(other)
		}
		s.launch(server)
		s.armOne(server)
		for _, other := range later {
			s.launch(other)
		}
	}}
}
