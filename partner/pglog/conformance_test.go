package pglog

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/backend/conformance"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// TestConformance: PostgreSQL is a backend as any other.
func TestConformance(t *testing.T) { testConformance(t, false) }

// TestConformanceThroughPartner: so it is where log, queries and copies go by the partners' own connection.
func TestConformanceThroughPartner(t *testing.T) { testConformance(t, true) }

func testConformance(t *testing.T, through bool) {
	t.Parallel()
	var servers [2]*pgtest.Server
	var starting sync.WaitGroup
	for i := range servers {
		starting.Go(func() { servers[i] = pgtest.New(t, nil) })
	}
	starting.Wait()
	for _, server := range servers {
		adminExec(t, server.DSN("postgres"), "CREATE ROLE clerk LOGIN")
	}
	pairs := 0
	conformance.Run(t, func(t *testing.T) conformance.Pair {
		pairs++
		database := fmt.Sprintf("pair%d", pairs)
		for _, server := range servers {
			adminExec(t, server.DSN("postgres"), "CREATE DATABASE "+database)
		}
		adminExec(t, servers[0].DSN(database), "CREATE TABLE entry (id integer PRIMARY KEY, body text NOT NULL)",
			"GRANT ALL ON entry TO clerk", "INSERT INTO entry VALUES (1, 'from before')")
		return conformance.Pair{
			A: conformingSide(t, servers[0], servers[1], database, through),
			B: conformingSide(t, servers[1], servers[0], database, through),
		}
	})
}

func conformingSide(t *testing.T, own, other *pgtest.Server, database string, through bool) conformance.Side {
	cfg := Config{DSN: Secret(own.DSN(database)), PeerDSN: Secret(other.DSN(database)), ThroughPartner: through}
	if through { // the address is one that nobody has
		cfg.PeerDSN = Secret("postgres://postgres@192.0.2.1/" + database)
	}
	return conformance.Side{
		Backend: func() backend.Backend {
			b, err := New(cfg)
			require.NoError(t, err)
			return b
		},
		Client: clerk(strings.Replace(own.DSN(database), "postgres@", "clerk@", 1)),
		Tamper: func(ctx context.Context, changes ...conformance.Change) error {
			return clerk(own.DSN(database)+"&default_transaction_read_only=off&synchronous_commit=local").Do(ctx, changes...)
		},
		Restart: func() {
			require.NoError(t, own.Kill())
			require.NoError(t, own.Restart(t.Context()))
		},
	}
}

// clerk is an ordinary user: a connection string.
type clerk string

func (c clerk) Do(ctx context.Context, changes ...conformance.Change) error {
	conn, err := pgx.Connect(ctx, string(c))
	if err != nil {
		return err
	}
	defer hangUp(conn)
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for _, change := range changes {
			tag, err := tx.Exec(ctx, change.SQL())
			if err == nil && tag.RowsAffected() != 1 {
				err = fmt.Errorf("%s: changed %d rows", change.SQL(), tag.RowsAffected())
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (c clerk) Rows(ctx context.Context) (map[int]string, error) {
	conn, err := pgx.Connect(ctx, string(c))
	if err != nil {
		return nil, err
	}
	defer hangUp(conn)
	rows, err := conn.Query(ctx, "SELECT id, body FROM entry")
	if err != nil {
		return nil, err
	}
	found := map[int]string{}
	var id int
	var body string
	_, err = pgx.ForEachRow(rows, []any{&id, &body}, func() error {
		found[id] = body
		return nil
	})
	return found, err
}
