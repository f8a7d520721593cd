package pglog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/partner/backend"
)

// The codes of findings. The list is closed.
const (
	CodeConnect                  = backend.CodeConnect // the DSN does not lead to a session
	CodeVersion             Code = "version"
	CodeRecovery            Code = "in_recovery"
	CodeWALLevel            Code = "wal_level"
	CodeSlots               Code = "slots"
	CodeSenders             Code = "senders"
	CodeRights              Code = "rights"
	CodeSyncNames           Code = "sync_names"
	CodeSyncCommit          Code = "sync_commit_override"
	CodeDurability          Code = "durability"
	CodeMaxSlotWALKeepSize  Code = "max_slot_wal_keep_size"
	CodeIdleSlotTimeout     Code = "idle_replication_slot_timeout"
	CodeOutputPlugin        Code = "output_plugin"
	CodePrepared            Code = "prepared_transactions"
	CodeLongTransaction     Code = "long_transaction"
	CodeSpace                    = backend.CodeSpace
	CodeReplicaIdentity     Code = "replica_identity"
	CodeUnloggedTable       Code = "unlogged_table"
	CodeLargeObjects        Code = "large_objects"
	CodeForeignTable        Code = "foreign_table"
	CodeMaterializedView    Code = "matview"
	CodeGeneratedColumn     Code = "generated_column"
	CodePartitioned         Code = "partitioned"
	CodeSequenceCycle       Code = "sequence_cycle"
	CodeAlwaysTrigger       Code = "always_trigger"
	CodeSameServer          Code = "same_server"
	CodeEncoding            Code = "encoding"
	CodeCollation           Code = "collation"
	CodeExtension           Code = "extension"
	CodeExtensionVersion    Code = "extension_version"
	CodeMissingRole         Code = "missing_role"
	CodeTablespace          Code = "tablespace"
	CodeDatabaseSetting     Code = "database_setting"
	CodeDatabaseGrants      Code = "database_grants"
	CodeMirrorNotEmpty      Code = "mirror_not_empty"
	CodeIncompleteBaseline  Code = "incomplete_baseline"
	CodeSchemaDrift         Code = "schema_drift"
	CodeMatviewNotRefreshed Code = "matview_not_refreshed"
)

// Names of the two servers in Finding.Server.
const (
	serverPrincipal = "principal"
	serverMirror    = "mirror"
)

// PreflightConfig says what a session will ask of a server. The zero value asks for what one session with safety FULL
// needs.
type PreflightConfig struct {
	// Slots is how many replication slots and WAL senders must be free. Default 1, range 1 to 1000.
	Slots int
	// LogBudget is how much WAL, in bytes, the session may pin on the principal before it is suspended. Zero: unknown,
	// nothing is compared with it.
	LogBudget int64
	// SafetyOff lowers to warnings what only commits with safety FULL need.
	SafetyOff bool
	// LongTransaction is the age from which a running transaction is reported: a slot cannot be made before it ends.
	// Default 1 minute.
	LongTransaction time.Duration
}

func (c PreflightConfig) withDefaults() PreflightConfig {
	c.Slots = cmp.Or(c.Slots, 1)
	c.LongTransaction = cmp.Or(c.LongTransaction, time.Minute)
	return c
}

func (c PreflightConfig) validate() error {
	switch {
	case c.Slots < 1 || c.Slots > 1000:
		return fmt.Errorf("preflight config: Slots is %d, want 1 to 1000", c.Slots)
	case c.LogBudget < 0:
		return fmt.Errorf("preflight config: LogBudget is %d, want 0 or more bytes", c.LogBudget)
	case c.LongTransaction < 0:
		return fmt.Errorf("preflight config: LongTransaction is %v, want 0 or more", c.LongTransaction)
	}
	return nil
}

// PreflightPrincipal examines the server and the database that conn is connected to as a principal to be: settings,
// rights of the connected role, and every table, so that a table that logical decoding cannot carry is found before it
// is published (publishing a table without replica identity makes the application's own updates fail). It only reads.
// The error is about the examination itself, not about what was found.
func PreflightPrincipal(ctx context.Context, conn *pgx.Conn, cfg PreflightConfig) ([]Finding, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return examine(ctx, conn, serverPrincipal, func(e *examination) {
		e.server(cfg)
		e.rights()
		e.tables()
		e.sendingSpace(cfg)
	})
}

// PreflightMirror examines the server and the database that conn is connected to as a mirror to be. After a role switch
// it is the principal, so its settings and rights must be those of one. It only reads.
func PreflightMirror(ctx context.Context, conn *pgx.Conn, cfg PreflightConfig) ([]Finding, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return examine(ctx, conn, serverMirror, func(e *examination) {
		e.server(cfg)
		e.rights()
	})
}

// examination runs read-only queries against one server in one transaction and gathers findings. The first error
// stops it: the queries that follow do nothing.
type examination struct {
	ctx      context.Context
	tx       pgx.Tx
	name     string
	findings []Finding
	err      error
}

func examine(ctx context.Context, conn *pgx.Conn, server string, body func(*examination)) ([]Finding, error) {
	e := &examination{ctx: ctx, name: server}
	err := readOnly(ctx, conn, func(tx pgx.Tx) error {
		e.tx = tx
		body(e)
		return e.err
	})
	if err != nil {
		return nil, fmt.Errorf("preflight of the %s: %w", server, err)
	}
	return e.findings, nil
}

// readOnly runs body in a read-only snapshot of the database in which no object of a user can take the place of
// PostgreSQL's own, and expressions are written in one form on every server.
func readOnly(ctx context.Context, conn *pgx.Conn, body func(pgx.Tx) error) error {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "SET LOCAL search_path = pg_catalog, pg_temp")
	if err == nil {
		err = body(tx)
	}
	// A read-only transaction has nothing to keep, and a rollback also ends one that failed.
	return errors.Join(err, tx.Rollback(context.WithoutCancel(ctx)))
}

// add appends a finding at this server.
func (e *examination) add(severity Severity, code Code, object, text, sql string) {
	e.findings = append(e.findings, Finding{Severity: severity, Code: code, Server: e.name, Object: object, Text: text, SQL: sql})
}

// each appends one finding per row of query. A row is object, text and sql.
func (e *examination) each(severity Severity, code Code, query string, args ...any) {
	for _, row := range queryRows[findingRow](e, query, args...) {
		e.add(severity, code, row.Object, row.Text, row.SQL)
	}
}

type findingRow struct{ Object, Text, SQL string }

// queryRows reads all rows of query into structs by position.
func queryRows[T any](e *examination, query string, args ...any) []T {
	if e.err != nil {
		return nil
	}
	rows, err := e.tx.Query(e.ctx, query, args...)
	if err == nil {
		var all []T
		if all, err = pgx.CollectRows(rows, pgx.RowToStructByPos[T]); err == nil {
			return all
		}
	}
	e.err = err
	return nil
}

// one reads the first row of query into dest.
func (e *examination) one(dest []any, query string, args ...any) {
	if e.err == nil {
		e.err = e.tx.QueryRow(e.ctx, query, args...).Scan(dest...)
	}
}
