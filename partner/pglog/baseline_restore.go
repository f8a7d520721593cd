package pglog

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// restorePreData creates what has to exist before rows can be copied.
func (b *baseline) restorePreData(ctx context.Context, statements []string) error {
	conn, err := b.openTarget(ctx)
	if err != nil {
		return err
	}
	defer hangUp(conn)
	versions, err := b.extensionVersions(ctx)
	if err != nil {
		return err
	}
	for _, statement := range statements {
		if err := b.restore(ctx, conn, withExtensionVersion(statement, versions)); err != nil {
			return err
		}
	}
	return nil
}

// extensionVersions returns, for each extension of the principal whose version the mirror's server has too, the head of
// the statement by which pg_dump creates it, and the version. pg_dump leaves the version to the server.
func (b *baseline) extensionVersions(ctx context.Context) (map[string]string, error) {
	read := func(conn *pgx.Conn, query string) ([]extensionFact, error) {
		rows, err := conn.Query(ctx, query)
		if err != nil {
			return nil, fmt.Errorf("list extensions: %w", err)
		}
		return pgx.CollectRows(rows, pgx.RowToStructByPos[extensionFact])
	}
	used, err := read(b.source, "SELECT quote_ident(extname), extversion FROM pg_extension")
	if err != nil {
		return nil, err
	}
	available, err := read(b.target, "SELECT quote_ident(name), version FROM pg_available_extension_versions")
	if err != nil {
		return nil, err
	}
	versions := map[string]string{}
	for _, x := range used {
		if slices.Contains(available, x) {
			versions["CREATE EXTENSION IF NOT EXISTS "+x.Name+" WITH SCHEMA"] = x.Version
		}
	}
	return versions, nil
}

func withExtensionVersion(statement string, versions map[string]string) string {
	for head, version := range versions {
		if beginsWith(statement, head) {
			return statement + " VERSION " + quoteLiteral(version)
		}
	}
	return statement
}

// restorePostData creates keys, indexes, constraints, triggers and the like, in pg_dump's order. Neighbours that only
// build an index each are run by several workers: in a large database they take the longest.
func (b *baseline) restorePostData(ctx context.Context, statements []string) error {
	conn, err := b.openTarget(ctx)
	if err != nil {
		return err
	}
	defer hangUp(conn)
	statements = withoutOwnEventTriggers(statements)
	settings := leadingSettings(statements)
	for len(statements) > 0 {
		if run := leadingIndexes(statements); run > 1 {
			if err := b.buildIndexes(ctx, settings, statements[:run]); err != nil {
				return err
			}
			statements = statements[run:]
			continue
		}
		if err := b.restore(ctx, conn, statements[0]); err != nil {
			return err
		}
		statements = statements[1:]
	}
	return nil
}

// leadingSettings are the statements at the head of the script that hold for all that follows.
func leadingSettings(statements []string) []string {
	count := 0
	for count < len(statements) && beginsWith(statements[count], "SET", "SELECT") {
		count++
	}
	return statements[:count]
}

// leadingIndexes counts the statements at the head that build one index each and depend on none before them.
func leadingIndexes(statements []string) int {
	count := 0
	for count < len(statements) && buildsIndex(statements[count]) {
		count++
	}
	return count
}

// buildsIndex: pg_dump puts the words of a constraint at the beginning of a line of its own.
func buildsIndex(statement string) bool {
	if beginsWith(statement, "CREATE INDEX", "CREATE UNIQUE INDEX") {
		return true
	}
	key := regexp.MustCompile(`^\s+ADD CONSTRAINT .* (PRIMARY KEY|UNIQUE|UNIQUE NULLS NOT DISTINCT) \([^)]*\)$`)
	head, last, two := strings.Cut(statement, "\n")
	return two && beginsWith(head, "ALTER TABLE ONLY") && key.MatchString(last)
}

// buildIndexes runs statements that build indexes, several at a time. Two on one table wait for each other at most.
func (b *baseline) buildIndexes(ctx context.Context, settings, statements []string) error {
	return b.work(ctx, len(statements), func(ctx context.Context, next <-chan int) error {
		conn, err := b.openTarget(ctx)
		if err != nil {
			return err
		}
		defer hangUp(conn)
		for _, set := range settings {
			if err := b.restore(ctx, conn, set); err != nil {
				return err
			}
		}
		for i := range next {
			if err := b.restore(ctx, conn, statements[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// restore runs one statement of the script by the simple protocol, in which it was written to be run. A materialized
// view that cannot be filled is a finding: its rows are no part of the log, and whoever serves can refresh it.
func (b *baseline) restore(ctx context.Context, conn *pgx.Conn, statement string) error {
	err := conn.PgConn().Exec(ctx, statement).Close()
	var refused *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused) && refused.Code == "42704" && beginsWith(statement, "SET"):
		return nil // a newer pg_dump sets what this version does not have
	case errors.As(err, &refused) && refused.Code == "42P06" && beginsWith(statement, "CREATE SCHEMA"):
		return nil // of all that was there, only schemas that extensions live in have stayed
	case errors.As(err, &refused) && beginsWith(statement, "REFRESH MATERIALIZED VIEW"):
		name := strings.TrimPrefix(statement, "REFRESH MATERIALIZED VIEW ")
		b.result.Findings = append(b.result.Findings, Finding{Severity: Warning, Code: CodeMatviewNotRefreshed, Server: serverMirror,
			Object: name, Text: "it could not be filled: " + refused.Message, SQL: statement})
		return nil
	}
	return fmt.Errorf("create schema, at %q: %w", headline(statement), err)
}

// withoutOwnEventTriggers leaves out those that call functions of schema dbmirror, which is not copied, with what is said
// about them.
func withoutOwnEventTriggers(statements []string) []string {
	ours := regexp.MustCompile(`(?s)^CREATE EVENT TRIGGER ("(?:[^"]|"")+"|\S+) .*\s+EXECUTE FUNCTION dbmirror\.[a-z_0-9]+\(\)$`)
	var kept, dropped []string
	for _, statement := range statements {
		if match := ours.FindStringSubmatch(statement); match != nil {
			dropped = append(dropped, "ALTER EVENT TRIGGER "+match[1], "COMMENT ON EVENT TRIGGER "+match[1])
		} else if !beginsWith(statement, dropped...) {
			kept = append(kept, statement)
		}
	}
	return kept
}

// copySequences sets every sequence to where the principal's is now. That may be later than the snapshot, never earlier.
func (b *baseline) copySequences(ctx context.Context) error {
	rows, err := b.source.Query(ctx, `SELECT name`+userRelations+`WHERE c.relkind = 'S' ORDER BY 1`)
	if err != nil {
		return fmt.Errorf("list sequences: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("list sequences: %w", err)
	}
	for _, name := range names {
		var last int64
		var called bool
		if err := b.source.QueryRow(ctx, "SELECT last_value, is_called FROM "+name).Scan(&last, &called); err != nil {
			return fmt.Errorf("read sequence %s: %w", name, err)
		}
		if _, err := b.target.Exec(ctx, "SELECT setval($1::text::regclass, $2, $3)", name, last, called); err != nil {
			return fmt.Errorf("set sequence %s: %w", name, err)
		}
	}
	b.result.Sequences = len(names)
	return nil
}

// finish gathers statistics, without which the first queries after a failover would be planned blindly, and makes
// everything durable: the log is flushed in order, so the last commit takes all before it to disk.
func (b *baseline) finish(ctx context.Context) error {
	if _, err := b.target.Exec(ctx, "ANALYZE"); err != nil {
		return fmt.Errorf("analyze: %w", err)
	}
	if _, err := b.target.Exec(ctx, "SET synchronous_commit = local"); err != nil {
		return fmt.Errorf("make the copy durable: %w", err)
	}
	if _, err := b.target.Exec(ctx, "DROP TABLE dbmirror.incomplete_baseline"); err != nil {
		return fmt.Errorf("make the copy durable: %w", err)
	}
	return nil
}
