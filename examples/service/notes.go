package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// Bounds of one try. Without them a lost server is noticed only when the system gives its connections up.
const (
	connectTimeout = 2 * time.Second
	tryTimeout     = 3 * time.Second
	pause          = 100 * time.Millisecond // between tries
)

// notes are kept in the table note of the mirrored database.
type notes struct {
	pool    *pgxpool.Pool
	retries *prometheus.CounterVec
	writes  *prometheus.CounterVec
}

// open makes the pool. It does not connect: the service starts while no database serves.
func open(ctx context.Context, dsn string, registry *prometheus.Registry) (*notes, error) {
	cfg, err := poolConfig(dsn)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("make pool: %w", err)
	}
	n := &notes{
		pool: pool,
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "service_retries_total", Help: "Tries that had to be repeated, by what was tried."}, []string{"what"}),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "service_writes_total", Help: "Writes by their last known outcome."}, []string{"outcome"}),
	}
	registry.MustRegister(n.retries, n.writes, poolGauge(pool, "acquired", (*pgxpool.Stat).AcquiredConns),
		poolGauge(pool, "idle", (*pgxpool.Stat).IdleConns), poolGauge(pool, "max", (*pgxpool.Stat).MaxConns))
	return n, nil
}

func poolGauge(pool *pgxpool.Pool, kind string, value func(*pgxpool.Stat) int32) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "service_pool_connections", Help: "Connections of the pool.", ConstLabels: prometheus.Labels{"kind": kind},
	}, func() float64 { return float64(value(pool.Stat())) })
}

// poolConfig reads a DSN that must lead to both servers and step over the one that is not the principal.
func poolConfig(dsn string) (*pgxpool.Config, error) {
	if dsn == "" {
		return nil, errors.New("the database is not named; set DBMIRROR_DSN or -dsn")
	}
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("the DSN can not be read: %w", err)
	}
	server := func(host string, port uint16) string { return fmt.Sprintf("%s:%d", host, port) }
	servers := []string{server(cfg.ConnConfig.Host, cfg.ConnConfig.Port)}
	for _, f := range cfg.ConnConfig.Fallbacks {
		servers = append(servers, server(f.Host, f.Port))
	}
	slices.Sort(servers)
	switch {
	case len(slices.Compact(servers)) < 2:
		return nil, errors.New("the DSN names one server; name both partners, as in postgres://app@db-a:5432,db-b:5432/app")
	case cfg.ConnConfig.ValidateConnect == nil:
		return nil, errors.New("the DSN takes a mirror for the principal; add target_session_attrs=read-write")
	}
	if cfg.ConnConfig.ConnectTimeout == 0 || cfg.ConnConfig.ConnectTimeout > connectTimeout {
		cfg.ConnConfig.ConnectTimeout = connectTimeout
	}
	cfg.ConnConfig.OnNotice = takeNotice
	return cfg, nil
}

// closeTimeout bounds the wait for commits that no server answers any more.
const closeTimeout = 5 * time.Second

func (n *notes) close() {
	closed := make(chan struct{})
	go func() {
		n.pool.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(closeTimeout):
	}
}

// read returns a note. It is tried again until ctx ends: reading twice does no harm.
func (n *notes) read(ctx context.Context, id string) (body string, found bool, err error) {
	err = n.repeat(ctx, "read", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, tryTimeout)
		defer cancel()
		return n.pool.QueryRow(ctx, "SELECT body FROM note WHERE id = $1", id).Scan(&body)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return "", false, nil
	}
	return body, err == nil, err
}

// write makes or replaces a note. It is tried again also when its outcome is unknown, because to write the same note
// twice is to write it once. A repeated INSERT that does nothing when the row is there would not do: it writes nothing, so its
// COMMIT waits for nobody, and does not show that the mirror has the row.
func (n *notes) write(ctx context.Context, id, body string) (outcome, error) {
	last := refused
	err := n.repeat(ctx, "write", func(ctx context.Context) error {
		result, err := n.tryWrite(ctx, id, body)
		if result == refused && last == unknown {
			return err // an earlier try may have been committed all the same
		}
		last = result
		if result == unknown && err == nil {
			err = errors.New("the commit has not waited for the mirror")
		}
		return err
	})
	n.writes.WithLabelValues(last.String()).Inc()
	return last, err
}

func (n *notes) tryWrite(ctx context.Context, id, body string) (outcome, error) {
	try, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	conn, err := n.pool.Acquire(try)
	if err != nil {
		return refused, err
	}
	tx, err := conn.Begin(try)
	if err == nil {
		_, err = tx.Exec(try, "INSERT INTO note (id, body) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET body = excluded.body", id, body)
	}
	if err != nil {
		conn.Release() // a connection in a transaction is closed, which rolls it back
		return refused, err
	}
	return commit(try, tx, conn.Release)
}

// repeat tries until it succeeds, is refused for good, or ctx ends.
func (n *notes) repeat(ctx context.Context, what string, try func(context.Context) error) error {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil || errors.Is(err, pgx.ErrNoRows) || !transient(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
			n.retries.WithLabelValues(what).Inc()
		}
	}
}
