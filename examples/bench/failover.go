package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// failover measures how long nobody acknowledges a commit after a server and everything beside it was killed, with the
// fast profile, beside pg_auto_failover at its fastest sane settings, where that is installed.
func failover(ctx context.Context, l *lab) ([]row, error) {
	return l.failover(ctx, "failover, fast profile", "fast", l.rounds, []goal{atMostOf(4, "s"), atMost(0.5)}, fastestSane())
}

// failoverDefaults measures the same once, for it takes pg_auto_failover a minute, at the defaults of both.
func failoverDefaults(ctx context.Context, l *lab) ([]row, error) {
	rows, err := l.failover(ctx, "failover, defaults", "default", 1, []goal{atMostOf(13, "s"), {}}, autoFailoverSettings{name: "defaults"})
	for i := range rows {
		rows[i] = rows[i].within("silence of 10 s before a partner is given up")
	}
	return rows, err
}

// mortal is two servers of which one can be killed.
type mortal interface {
	// kill kills the one that serves, with everything beside it, and returns the seconds without an acknowledged commit.
	kill(context.Context) (float64, error)
	// mend brings back what was killed, and returns when the next may be.
	mend(context.Context) error
}

// failover makes a row of ours alone and one beside the peer; each has its goal.
func (l *lab) failover(ctx context.Context, name, profile string, rounds int, goals []goal, set autoFailoverSettings) ([]row, error) {
	sides, failed, err := l.mortals(ctx, profile, set)
	if err != nil {
		return nil, err
	}
	got, err := kills(ctx, sides, rounds)
	if err != nil {
		return nil, errors.Join(err, failed)
	}
	rows := []row{alone(name, "s", got[0], goals[0])}
	if len(sides) > 1 {
		rows = append(rows, beside(name, "s", got[0], "pg_auto_failover, "+set.name, got[1], goals[1]))
	}
	return rows, failed
}

// mortals makes ours and, at the same time, the peer. That it could not be made is failed: ours is measured all the same.
func (l *lab) mortals(ctx context.Context, profile string, set autoFailoverSettings) (sides []mortal, failed, err error) {
	if err := l.find(ctx); err != nil {
		return nil, nil, err
	}
	making, stop := context.WithCancel(ctx)
	defer stop()
	peer, missing := l.newAutoFailover(set)
	made := make(chan error, 1)
	if missing == nil {
		go func() { made <- peer.begin(making) }()
	}
	p, dsn, err := l.probed(ctx, profile)
	if err != nil {
		stop()
	}
	sides = []mortal{&ours{p, dsn, mirror.PartnerA}}
	if missing != nil {
		fmt.Fprintln(l.progress, "pg_auto_failover is not measured: "+missing.Error())
		return sides, nil, err
	}
	if failed = <-made; failed != nil {
		return sides, fmt.Errorf("pg_auto_failover: %w", failed), err
	}
	return append(sides, peer), nil, err
}

// kills kills each side in every round, beginning with another one each time, and returns the seconds without an
// acknowledged commit. Nothing is mended while that is measured.
func kills(ctx context.Context, sides []mortal, rounds int) ([][]float64, error) {
	got := make([][]float64, len(sides))
	for round := range rounds {
		for k := range sides {
			i := (round + k) % len(sides)
			took, err := sides[i].kill(ctx)
			if err != nil {
				return nil, err
			}
			got[i] = append(got[i], took)
		}
		if round == rounds-1 {
			break
		}
		errs := make([]error, len(sides))
		var mending sync.WaitGroup
		for i, side := range sides {
			mending.Go(func() { errs[i] = side.mend(ctx) })
		}
		mending.Wait()
		if err := errors.Join(errs...); err != nil {
			return nil, err
		}
	}
	return got, nil
}

const probeTable = "CREATE TABLE probe (id bigserial PRIMARY KEY)"

// clientRole is who probes: an ordinary user, whom a closed database keeps out.
const clientRole = "CREATE ROLE client LOGIN; GRANT ALL ON SCHEMA public TO client"

// probed is a pair that somebody can write to, by the connection string that is returned.
func (l *lab) probed(ctx context.Context, profile string) (*pair, string, error) {
	s, err := l.start(ctx, ordinaryDisk, "a-"+profile, "b-"+profile)
	if err != nil {
		return nil, "", err
	}
	for _, server := range s {
		if err := execute(ctx, server, clientRole); err != nil {
			return nil, "", err
		}
	}
	if err := execute(ctx, s[0], "SET ROLE client", probeTable, insTable); err != nil {
		return nil, "", err
	}
	p, err := l.newPair(ctx, ordinaryDisk, profile, s[0], s[1])
	return p, eitherDSN(s[0].Port(), s[1].Port(), "client"), err
}

// ours is a pair whose principal is killed.
type ours struct {
	*pair
	dsn       string
	principal mirror.Server
}

func (o *ours) kill(ctx context.Context) (float64, error) {
	took, err := without(ctx, o.dsn, func() error {
		var both sync.WaitGroup
		var program, server error
		both.Go(func() { program = o.Kill(o.principal) })
		both.Go(func() { server = o.pg[o.principal].Kill() })
		both.Wait()
		return errors.Join(program, server)
	})
	if err != nil {
		return 0, errors.Join(err, errors.New(o.Tails()))
	}
	o.principal = o.principal.Other()
	return took, nil
}

func (o *ours) mend(ctx context.Context) error {
	killed := o.principal.Other()
	if err := o.pg[killed].Restart(ctx); err != nil {
		return err
	}
	if err := o.Start(killed); err != nil {
		return err
	}
	return o.synchronized(ctx, o.principal)
}

// manualTimes is how often the roles are changed by command in each round.
const manualTimes = 5

// manual measures how long writes stop when the roles are changed by command, while clients commit 1,000 times a second.
func manual(ctx context.Context, l *lab) ([]row, error) {
	p, dsn, err := l.probed(ctx, "default")
	if err != nil {
		return nil, err
	}
	var outages []float64
	principal := mirror.PartnerA
	for range l.rounds * manualTimes {
		outage, err := l.changeRoles(ctx, p, principal, dsn)
		if err != nil {
			return nil, errors.Join(err, errors.New(p.Tails()))
		}
		outages = append(outages, outage.Seconds())
		principal = principal.Other()
	}
	r := alone("manual failover, write outage", "s", outages, atMostOf(1, "s"))
	r.Name += " (worst of " + fmt.Sprint(len(outages)) + ")"
	r.Ours = slices.Max(outages)
	return []row{r}, nil
}

func (l *lab) changeRoles(ctx context.Context, p *pair, principal mirror.Server, dsn string) (time.Duration, error) {
	probe := startProber(dsn)
	defer probe.end()
	if err := awaitAck(ctx, probe, time.Now()); err != nil {
		return 0, err
	}
	loading, stop := context.WithCancel(ctx)
	loaded := make(chan struct{})
	go func() {
		defer close(loaded)
		// Its connections end when the database closes, and so does it: what counts is that it works until then.
		_, _ = l.pgbench(loading, p.pg[principal], load{script: insert, clients: 8, lasts: time.Minute, rate: 1000})
	}()
	defer func() { stop(); <-loaded }()
	begun := time.Now()
	for range 200 { // a second of load
		if err := awaitAck(ctx, probe, begun); err != nil {
			return 0, err
		}
		begun = probe.after(begun)
	}
	if err := p.Page(principal).Command(ctx, "/failover"); err != nil {
		return 0, err
	}
	if err := p.synchronized(ctx, principal.Other()); err != nil {
		return 0, err
	}
	if err := awaitAck(ctx, probe, time.Now()); err != nil {
		return 0, err
	}
	return probe.outage(), nil
}
