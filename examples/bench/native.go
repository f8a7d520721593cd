package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// patience is how long a peer may take to be where it is wanted.
const patience = 5 * time.Minute

// until waits for a condition at a server.
func until(ctx context.Context, s *pgtest.Server, condition string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not so within %s: %s", patience, condition))
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		holds, err := text(ctx, s, "SELECT coalesce(("+condition+"), false)::text")
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil || holds == "true":
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// copyDefinitions makes the tables of one server at another.
func (l *lab) copyDefinitions(ctx context.Context, from, to *pgtest.Server) error {
	ddl, err := l.command(ctx, "pg_dump", "-s", "--no-publications", "--no-subscriptions", "-d", from.DSN("app"))
	if err != nil {
		return err
	}
	var sql strings.Builder
	for line := range strings.Lines(ddl) {
		if !strings.HasPrefix(line, `\`) { // what only psql understands
			sql.WriteString(line)
		}
	}
	return execute(ctx, to, sql.String(), "SET search_path = public")
}

// subscription is one of PostgreSQL's own logical replication.
type subscription struct {
	sync bool   // commits of the subscriber's are on its disk before they are reported
	copy bool   // the rows that are there already are copied first
	slot string // an existing slot to begin at; empty: a new one
}

// subscribe replicates everything from one server to the other, which has the same tables.
func (l *lab) subscribe(ctx context.Context, from, to *pgtest.Server, s subscription) error {
	if err := execute(ctx, from, "DROP PUBLICATION IF EXISTS pub", "CREATE PUBLICATION pub FOR ALL TABLES"); err != nil {
		return err
	}
	if err := s.create(ctx, from, to); err != nil {
		return err
	}
	return until(ctx, to, "SELECT count(*) > 0 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel")
}

func (s subscription) create(ctx context.Context, from, to *pgtest.Server) error {
	level := "off" // as subscriptions have it by default
	if s.sync {
		level = "on"
	}
	slot := ""
	if s.slot != "" {
		slot = ", create_slot = false, slot_name = '" + s.slot + "'"
	}
	return execute(ctx, to, fmt.Sprintf("CREATE SUBSCRIPTION sub CONNECTION '%s' PUBLICATION pub "+
		"WITH (copy_data = %t, binary = true, streaming = on, synchronous_commit = %s%s)", from.DSN("app"), s.copy, level, slot))
}

// unsubscribe ends a subscription and leaves its slot, if it has one still, alone.
func unsubscribe(ctx context.Context, to *pgtest.Server) error {
	return execute(ctx, to, "ALTER SUBSCRIPTION sub DISABLE", "ALTER SUBSCRIPTION sub SET (slot_name = NONE)", "DROP SUBSCRIPTION sub")
}

// waitFor makes the commits of a server wait for whoever has that name.
func waitFor(ctx context.Context, s *pgtest.Server, name string) error {
	if err := execute(ctx, s, "ALTER SYSTEM SET synchronous_standby_names = '"+name+"'", "SELECT pg_reload_conf()"); err != nil {
		return err
	}
	return until(ctx, s, "SELECT bool_or(sync_state = 'sync') FROM pg_stat_replication WHERE application_name = '"+name+"'")
}
