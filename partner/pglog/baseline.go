package pglog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// BaselineConfig says what to copy, from where and to where.
type BaselineConfig struct {
	// Principal and Mirror are the connection strings of the two databases. The role at the principal must be able to
	// read every table whole, the one at the mirror to create everything.
	Principal, Mirror Secret
	// Snapshot is the name of the snapshot that was exported when the slot was made. The connection that exported it
	// must stay open and idle until Baseline returns. Required.
	Snapshot string
	// Replace drops what users have in the mirror's database before the copy; without it a database that is not empty is
	// refused. Schema dbmirror, extensions, publications and subscriptions stay.
	Replace bool
	// Workers is how many tables, or parts of tables, are copied and how many indexes are built at a time, each with one
	// connection to either server. Default 2, range 1 to 64.
	Workers int
	// SplitBytes is the size from which a table is copied in parts of about that size. Default 256 MiB.
	SplitBytes int64
	// PgDump is the path of pg_dump, of the principal's major version or a newer one. Default: it is looked for.
	PgDump string
	// Progress is told when a table, or a part of one, has been copied. Calls do not overlap. Default: nobody.
	Progress func(BaselineProgress)
}

// BaselineProgress tells what of a table has been copied.
type BaselineProgress struct {
	Table       string // quoted as SQL
	Rows, Bytes int64  // of this part
	Parts       int    // copied so far, of all tables
	PartsTotal  int
}

// BaselineResult says what a successful baseline copied. The copy is of the moment at which the slot's log starts.
type BaselineResult struct {
	Tables, Sequences int
	Rows, Bytes       int64 // bytes as they came over the wire
	Duration          time.Duration
	Findings          []Finding // what could not be made the same, such as a materialized view that failed to fill
}

// IncompleteBaselineError is returned when a baseline failed after it had begun to change the mirror's database. What is
// there is no copy; only another baseline, with Replace, can mend it. Unwrap gives the cause.
type IncompleteBaselineError struct{ Cause error }

func (e *IncompleteBaselineError) Error() string {
	return "the mirror's database is incomplete after a baseline that failed; run the baseline again, replacing what is there: " +
		e.Cause.Error()
}

func (e *IncompleteBaselineError) Unwrap() error { return e.Cause }

// ErrMirrorNotEmpty is returned, wrapped with the name of an object, when the mirror's database holds something and the
// baseline was not told to replace it. Nothing has been changed.
var ErrMirrorNotEmpty = backend.Because(mirror.ReasonPreflight,
	errors.New("the mirror's database is not empty: use an empty one, or order that its content be replaced"))

func (c BaselineConfig) withDefaults() BaselineConfig {
	c.Workers = cmp.Or(c.Workers, 2)
	c.SplitBytes = cmp.Or(c.SplitBytes, 256<<20)
	if c.Progress == nil {
		c.Progress = func(BaselineProgress) {}
	}
	return c
}

func (c BaselineConfig) validate() error {
	switch {
	case c.Principal == "":
		return errors.New("baseline config: Principal is empty, want a connection string")
	case c.Mirror == "":
		return errors.New("baseline config: Mirror is empty, want a connection string")
	case !regexp.MustCompile(`^[0-9A-Fa-f-]{1,64}$`).MatchString(c.Snapshot):
		return fmt.Errorf("baseline config: Snapshot %q is not the name of an exported snapshot", c.Snapshot)
	case c.Workers < 1 || c.Workers > 64:
		return fmt.Errorf("baseline config: Workers is %d, want 1 to 64", c.Workers)
	case c.SplitBytes < 1<<13:
		return fmt.Errorf("baseline config: SplitBytes is %d, want 8192 or more", c.SplitBytes)
	}
	return nil
}

// Baseline makes the mirror's database an exact copy of the principal's, as of an exported snapshot: definitions by
// pg_dump, rows by binary COPY in parallel, then keys, indexes, constraints, triggers and statistics. Rows of unlogged
// tables are not copied: no log follows that could keep them.
//
// Order matters: triggers and foreign keys exist only after the rows, so no row fires or breaks one. From the first
// change on until the end, the table dbmirror.incomplete_baseline exists at the mirror: see BaselineIncomplete.
//
// The error is an *IncompleteBaselineError when the mirror's database was changed, and otherwise says why nothing was.
// It never holds a password.
func Baseline(ctx context.Context, cfg BaselineConfig) (BaselineResult, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return BaselineResult{}, err
	}
	start := time.Now()
	b := &baseline{cfg: cfg}
	err := b.run(ctx)
	if err != nil {
		err = fmt.Errorf("baseline: %w", err)
		if b.changed {
			err = &IncompleteBaselineError{Cause: err}
		}
		return BaselineResult{}, err
	}
	b.result.Duration = time.Since(start)
	return b.result, nil
}

// baseline is one run of Baseline.
type baseline struct {
	cfg     BaselineConfig
	source  *pgx.Conn // holds the snapshot and a lock on every table until the end
	target  *pgx.Conn
	tables  []baselineTable
	changed bool // the mirror's database is no longer what it was

	mu struct {
		sync.Mutex
		partsDone int
	}
	result BaselineResult // mu guards Rows, Bytes and Findings while workers run
}

func (b *baseline) run(ctx context.Context) (err error) {
	if b.source, err = b.openSource(ctx); err != nil {
		return err
	}
	defer hangUp(b.source)
	if b.target, err = b.openTarget(ctx); err != nil {
		return err
	}
	defer hangUp(b.target)
	if b.tables, err = readTables(ctx, b.source); err != nil {
		return err
	}
	if err := lockTables(ctx, b.source, b.tables); err != nil {
		return err
	}
	before, after, err := b.dumpSchema(ctx)
	if err != nil {
		return err
	}
	if err := b.clearTarget(ctx); err != nil {
		return err
	}
	crashpoint.Hit(crashpoint.CopyCleared)
	if err := b.restorePreData(ctx, before); err != nil {
		return err
	}
	crashpoint.Hit(crashpoint.CopyDefined)
	if err := b.copyTables(ctx); err != nil {
		return err
	}
	crashpoint.Hit(crashpoint.RowsCopied)
	if err := b.copySequences(ctx); err != nil {
		return err
	}
	if err := b.restorePostData(ctx, after); err != nil {
		return err
	}
	crashpoint.Hit(crashpoint.CopyIndexed)
	return crashpoint.After(crashpoint.CopyFinished, b.finish(ctx))
}

// openSource opens a connection to the principal that sees the exported snapshot.
func (b *baseline) openSource(ctx context.Context) (*pgx.Conn, error) {
	conn, err := openBaseline(ctx, b.cfg.Principal, map[string]string{"row_security": "off"})
	if err != nil {
		return nil, fmt.Errorf("connect to the principal: %w", err)
	}
	// SET TRANSACTION SNAPSHOT takes no parameter; validate has bounded the name.
	_, err = conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT "+
		quoteLiteral(b.cfg.Snapshot), pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		hangUp(conn)
		return nil, fmt.Errorf("use snapshot %s (it lives only as long as the connection that exported it stays idle): %w",
			b.cfg.Snapshot, err)
	}
	return conn, nil
}

// openTarget opens a connection to the mirror on which no trigger or rule fires. Commits need not reach the disk one by
// one: finish makes the last one durable, and with it all before it.
func (b *baseline) openTarget(ctx context.Context) (*pgx.Conn, error) {
	conn, err := openBaseline(ctx, b.cfg.Mirror, map[string]string{
		"default_transaction_read_only": "off",
		"session_replication_role":      "replica",
		"synchronous_commit":            "off",
		"xmloption":                     "content",
	})
	if err != nil {
		return nil, fmt.Errorf("connect to the mirror: %w", err)
	}
	return conn, nil
}

// openBaseline connects with the settings under which values are written and read back the same, and without limits on
// time, which a long copy would break. Bytes pass unconverted: both databases have one encoding.
func openBaseline(ctx context.Context, dsn Secret, settings map[string]string) (*pgx.Conn, error) {
	cfg, err := parseDSN(dsn)
	if err != nil {
		return nil, err
	}
	cfg.RuntimeParams["application_name"] = namePrefix + "baseline"
	cfg.DefaultQueryExecMode = pgx.QueryExecModeDescribeExec
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	all := map[string]string{
		"search_path": "pg_catalog, pg_temp", "datestyle": "ISO, YMD", "intervalstyle": "postgres",
		"extra_float_digits": "3", "bytea_output": "hex", "timezone": "UTC", "standard_conforming_strings": "on", "lc_monetary": "C",
		"statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0",
		"idle_session_timeout": "0", "transaction_timeout": "0",
	}
	for name, value := range settings {
		all[name] = value
	}
	// Only settings that this version has: transaction_timeout came with 17.
	names, values := make([]string, 0, len(all)), make([]string, 0, len(all))
	for name, value := range all {
		names, values = append(names, name), append(values, value)
	}
	_, err = conn.Exec(ctx, `SELECT set_config(n, v, false) FROM unnest($1::text[], $2::text[]) s(n, v)
		WHERE EXISTS (SELECT FROM pg_catalog.pg_settings p WHERE p.name OPERATOR(pg_catalog.=) lower(n))`, names, values)
	if err == nil {
		_, err = conn.Exec(ctx, "SELECT set_config('client_encoding', current_setting('server_encoding'), false)")
	}
	if err != nil {
		hangUp(conn)
		return nil, fmt.Errorf("prepare session: %w", err)
	}
	return conn, nil
}
