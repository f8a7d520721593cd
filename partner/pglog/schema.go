package pglog

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Publication is the name of the publication that a mirror reads: FOR ALL TABLES, which includes those of schema
// dbmirror. The readers of the log leave that schema out.
const Publication = "dbmirror"

// schemaStatements makes the tables. Every one has a primary key: the publication is FOR ALL TABLES, and a table without
// replica identity could not be updated.
const schemaStatements = `
CREATE SCHEMA IF NOT EXISTS dbmirror;
CREATE TABLE IF NOT EXISTS dbmirror.settings (
	name text PRIMARY KEY,
	value text NOT NULL);
CREATE TABLE IF NOT EXISTS dbmirror.reign (
	session text NOT NULL,
	role_seq bigint NOT NULL,
	slot text NOT NULL,
	start_lsn pg_lsn NOT NULL,
	system_id numeric(20) NOT NULL,
	fork_seq bigint NOT NULL,
	fork_lsn pg_lsn NOT NULL,
	opened_at timestamptz NOT NULL,
	PRIMARY KEY (session, role_seq));
CREATE TABLE IF NOT EXISTS dbmirror.sequence (
	schema text NOT NULL,
	name text NOT NULL,
	last bigint NOT NULL,
	called boolean NOT NULL,
	increment bigint NOT NULL,
	cache bigint NOT NULL,
	cycle boolean NOT NULL,
	rate float8 NOT NULL,
	rated_at timestamptz NOT NULL,
	PRIMARY KEY (schema, name));`

// EnsureSchema makes what the library keeps in the database: schema dbmirror with its tables, and the publication. It
// may be called at any time and must have been called before the first slot is made, because a slot cannot decode log
// that is older than the publication. It returns an error when a publication of that name exists that leaves out tables
// or operations.
func (s *Server) EnsureSchema(ctx context.Context) error {
	if err := s.ensureTables(ctx); err != nil {
		return err
	}
	err := onceMade(func() error {
		return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return ensurePublication(ctx, tx) })
	})
	if err != nil {
		return fmt.Errorf("ensure publication: %w", err)
	}
	return nil
}

// ensureTables makes the tables if one is missing. It ends whoever is in its way.
func (s *Server) ensureTables(ctx context.Context) error {
	var have bool
	err := s.pool.QueryRow(ctx, `SELECT to_regclass('dbmirror.settings') IS NOT NULL
		AND to_regclass('dbmirror.reign') IS NOT NULL AND to_regclass('dbmirror.sequence') IS NOT NULL`).Scan(&have)
	if err == nil && !have {
		err = onceMade(func() error {
			return s.push(ctx, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, schemaStatements, pgx.QueryExecModeSimpleProtocol)
				return err
			})
		})
	}
	if err != nil {
		return fmt.Errorf("ensure schema dbmirror: %w", err)
	}
	return nil
}

// onceMade runs a transaction that makes what is missing, and again when somebody else made some of it meanwhile, which
// IF NOT EXISTS does not see. No lock keeps the two apart, because there is none that a client could not hold.
func onceMade(make func() error) error {
	for range attemptsToMake {
		if err := make(); !raced(err) {
			return err
		}
	}
	return make()
}

// attemptsToMake is more than there are objects that others could make one by one.
const attemptsToMake = 10

// raced tells whether a statement failed because another session did the same, or changed the same row of the catalog.
func raced(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	switch pg.Code {
	case "23505", "42710", "42P06", "42P07": // unique key, object, schema, table
		return true
	}
	return pg.Code == "XX000" && pg.Message == "tuple concurrently updated"
}

func ensurePublication(ctx context.Context, tx pgx.Tx) error {
	var exists, whole bool
	err := tx.QueryRow(ctx, `
		SELECT count(*) > 0, coalesce(bool_and(puballtables AND pubinsert AND pubupdate AND pubdelete AND pubtruncate
			AND NOT pubviaroot), false)
		FROM pg_publication WHERE pubname = $1`, Publication).Scan(&exists, &whole)
	if err != nil {
		return err
	}
	if exists && !whole {
		return fmt.Errorf("publication %s exists and is not FOR ALL TABLES with every operation and without "+
			"publish_via_partition_root: drop it, and resynchronize the mirror if it has read through it", Publication)
	}
	if exists {
		return nil
	}
	_, err = tx.Exec(ctx, "CREATE PUBLICATION "+quoteIdent(Publication)+" FOR ALL TABLES")
	return err
}
