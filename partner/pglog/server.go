package pglog

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/f19126b3/dbmirror/mirror"
)

// Server is the administrative access to one PostgreSQL server and one database on it: its gate, whom its commits wait
// for, its slots and sequences. The role of the connection string must be a superuser: preflight refuses any other.
//
// The connections are few, are made when needed and again after a loss, and are named 'dbmirror ...' in
// pg_stat_activity. All of them commit locally: with synchronous_commit=on the statement that closes the gate would
// itself wait for a mirror that is gone, and the gate would stay open. They override a read-only default, and resolve
// names in pg_catalog only. The one exception is the probe, a commit whose waiting is the proof that commits wait.
//
// The methods may be called from several goroutines. Those that change the gate run one after the other, and so do
// those that change the wait: end the context of one that hangs before the next. A context that ends leaves what was
// done so far; every method can be called again and then completes the work.
type Server struct {
	session  string
	base     *pgx.ConnConfig
	pool     *pgxpool.Pool
	database string

	gate turn // of the one change of the gate that runs
	wait struct {
		turn           // of the one change of the wait that runs
		pending *probe // the newest probe; it may still be waiting
	}
}

// turn is a lock that can be waited for with a context: fencing must not hang behind a call that hangs.
type turn chan struct{}

func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the call before: %w", context.Cause(ctx))
	}
}

func (t turn) give() { <-t }

const (
	adminConns     = 4
	connectTimeout = 5 * time.Second
	closeTimeout   = 2 * time.Second
	// namePrefix begins the application name of every connection of the library, which sets them apart from clients.
	namePrefix = "dbmirror "
)

// Dial opens the access to the database that dsn names and tries it once. session is eight characters of a-z and 0-9
// that set this mirroring session apart from others on the same server. The connection string must lead to one server.
// Errors never show it. Dial does not look at the rights of its role; without a superuser's, some methods fail.
func Dial(ctx context.Context, dsn Secret, session string) (*Server, error) {
	if !regexp.MustCompile(`^[a-z0-9]{8}$`).MatchString(session) {
		return nil, fmt.Errorf("dial server: session %q is not eight characters of a-z and 0-9", session)
	}
	base, err := parseDSN(dsn)
	if err != nil {
		return nil, fmt.Errorf("dial server: %w", err)
	}
	s := &Server{session: session, base: base, database: base.Database, gate: make(turn, 1)}
	s.wait.turn = make(turn, 1)
	cfg, err := pgxpool.ParseConfig("")
	if err != nil {
		return nil, fmt.Errorf("dial server: prepare pool: %w", err)
	}
	cfg.ConnConfig = s.connConfig(s.database, "admin", nil)
	cfg.MaxConns, cfg.MinConns = adminConns, 0
	// Every connection is tried before it is used, so that the restart of the server costs no call an error.
	cfg.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return true }
	if s.pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return nil, fmt.Errorf("dial server: make pool: %w", err)
	}
	if _, err := s.Ping(ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("dial server: %w", err)
	}
	return s, nil
}

// connConfig is the configuration of an administrative connection for a purpose that is shown in its name. Settings are
// added to the usual ones or replace them.
func (s *Server) connConfig(database, purpose string, settings map[string]string) *pgx.ConnConfig {
	cfg := s.base.Copy()
	cfg.Database = database
	cfg.DefaultQueryExecMode = pgx.QueryExecModeDescribeExec // no plan is kept that a change of schema could spoil
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	params := cfg.RuntimeParams
	delete(params, "replication")
	params["application_name"] = s.applicationName(purpose)
	params["synchronous_commit"] = "local"
	params["default_transaction_read_only"] = "off"
	params["search_path"] = "pg_catalog"
	params["standard_conforming_strings"] = "on"
	params["statement_timeout"] = "60s"
	params["lock_timeout"] = "10s"
	params["idle_in_transaction_session_timeout"] = "60s"
	for name, value := range settings {
		params[name] = value
	}
	return cfg
}

func (s *Server) applicationName(purpose string) string {
	return namePrefix + purpose + " " + s.session
}

// connect opens a connection of its own, outside the pool.
func (s *Server) connect(ctx context.Context, database, purpose string, settings map[string]string) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, s.connConfig(database, purpose, settings))
	if err != nil {
		return nil, fmt.Errorf("connect to database %s: %w", database, err)
	}
	return conn, nil
}

// connectForLong is connect for what may take long: no limit of the server's, or of the role's, ends it.
func (s *Server) connectForLong(ctx context.Context, purpose string, settings map[string]string) (*pgx.Conn, error) {
	all := map[string]string{"statement_timeout": "0", "lock_timeout": "0"}
	maps.Copy(all, settings)
	conn, err := s.connect(ctx, s.database, purpose, all)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, noTransactionTimeoutSQL); err != nil {
		hangUp(conn)
		return nil, err
	}
	return conn, nil
}

// hangUp closes a connection even when the caller's context has ended. What the server still had to say is of no use.
func hangUp(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = conn.Close(ctx)
}

// Close waits for the calls that run, ends every connection, a probe that still waits included, and returns when all
// have ended. No other method may be called afterwards.
func (s *Server) Close() {
	s.gate <- struct{}{}
	defer s.gate.give()
	s.wait.turn <- struct{}{}
	defer s.wait.give()
	if p := s.wait.pending; p != nil {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		p.end(ctx, s.pool)
		cancel()
	}
	s.pool.Close()
}

// Health is what Ping saw.
type Health struct {
	Database string
	// InRecovery is true on a physical standby, which can be no partner.
	InRecovery bool
	// PostmasterStart changes when the server is restarted.
	PostmasterStart time.Time
	// CheckpointerStart changes when the server is restarted, and also when the crash of one session made it throw away
	// its shared memory. In both cases commits that were waiting for the mirror have become visible without it.
	CheckpointerStart time.Time
	// Flushed is the end of this server's log on its disk, zero in recovery.
	Flushed mirror.LSN
}

// Ping asks the server how it is.
func (s *Server) Ping(ctx context.Context) (Health, error) {
	var h Health
	var checkpointer *time.Time
	err := s.pool.QueryRow(ctx, `
		SELECT current_database(), pg_is_in_recovery(), pg_postmaster_start_time(),
			(SELECT max(backend_start) FROM pg_stat_activity WHERE backend_type = 'checkpointer'),
			CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn()::text END`).
		Scan(&h.Database, &h.InRecovery, &h.PostmasterStart, &checkpointer, lsnColumn{&h.Flushed})
	if err != nil {
		return Health{}, fmt.Errorf("ping server: %w", err)
	}
	if checkpointer != nil {
		h.CheckpointerStart = *checkpointer
	}
	return h, nil
}

// lsnColumn scans a pg_lsn that was cast to text; NULL gives zero.
type lsnColumn struct{ to *mirror.LSN }

// Scan implements sql.Scanner.
func (c lsnColumn) Scan(src any) (err error) {
	switch v := src.(type) {
	case nil:
		*c.to = 0
	case string:
		*c.to, err = mirror.ParseLSN(v)
	default:
		err = fmt.Errorf("scan LSN: %T is not text", src)
	}
	return err
}

// quoteLiteral is for the few statements that take no parameters. The connection has standard_conforming_strings=on.
func quoteLiteral(s string) string {
	quoted := make([]byte, 0, len(s)+2)
	quoted = append(quoted, '\'')
	for _, b := range []byte(s) {
		if b == '\'' {
			quoted = append(quoted, '\'')
		}
		quoted = append(quoted, b)
	}
	return string(append(quoted, '\''))
}

func quoteIdent(parts ...string) string { return pgx.Identifier(slices.Clone(parts)).Sanitize() }

const (
	pollFirst = time.Millisecond
	pollMost  = 50 * time.Millisecond
)

// poll asks until check says it is done or fails, or the context ends. The pauses grow from pollFirst to pollMost.
func poll(ctx context.Context, check func() (done bool, err error)) error {
	pause := pollFirst
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		done, err := check()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
		}
		pause = min(2*pause, pollMost)
		timer.Reset(pause)
	}
}
