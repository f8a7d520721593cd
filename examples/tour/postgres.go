package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/examples/internal/trio"
	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/pglog"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// postgres are two PostgreSQL servers, each beside the process of its partner.
type postgres struct {
	*stage
	install pgtest.Install
	pg      [3]*pgtest.Server // by mirror.Server
}

func (k *postgres) start(ctx context.Context, cfg *trio.Config) error {
	var starting sync.WaitGroup
	var errs [3]error
	for p := mirror.PartnerA; p <= mirror.PartnerB; p++ {
		starting.Go(func() {
			k.pg[p], errs[p] = pgtest.Start(ctx, k.install, pgtest.Config{Dir: filepath.Join(k.dir, "postgresql-"+p.String())})
		})
	}
	starting.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	k.out.note("partner-a's server listens on port %d, partner-b's on port %d", k.pg[mirror.PartnerA].Port(), k.pg[mirror.PartnerB].Port())
	for p := mirror.PartnerA; p <= mirror.PartnerB; p++ {
		cfg.DSN[p] = k.pg[p].DSN("app")
	}
	return nil
}

// prepare makes the role on both servers and the tables on the one that will be principal.
func (k *postgres) prepare(ctx context.Context) error {
	for p := mirror.PartnerA; p <= mirror.PartnerB; p++ {
		if err := k.asSuperuser(ctx, p, func(conn *pgx.Conn) error { return execute(ctx, conn, makeRole) }); err != nil {
			return fmt.Errorf("make role: %w", err)
		}
	}
	return k.asSuperuser(ctx, mirror.PartnerA, func(conn *pgx.Conn) error {
		return execute(ctx, conn, "SET ROLE clients;"+makeTables)
	})
}

func execute(ctx context.Context, conn *pgx.Conn, sql string) error {
	_, err := conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	return err
}

// asSuperuser runs f with a session at one server.
func (k *postgres) asSuperuser(ctx context.Context, p mirror.Server, f func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, k.pg[p].DSN("app"))
	if err != nil {
		return fmt.Errorf("connect to the server of %s: %w", p, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return f(conn)
}

func (k *postgres) whole() string { return "the principal's server and its partner" }

func (k *postgres) kill(_ context.Context, p mirror.Server) (time.Time, error) {
	at := time.Now()
	var both sync.WaitGroup
	var program, server error
	both.Go(func() { program = k.Kill(p) })
	both.Go(func() { server = k.pg[p].Kill() })
	both.Wait()
	return at, errors.Join(program, server)
}

func (k *postgres) restart(ctx context.Context, p mirror.Server) error {
	if err := k.pg[p].Restart(ctx); err != nil {
		return err
	}
	return k.Start(p)
}

// dsn is all that the clients know: both servers, and that they want the one where they can write.
func (k *postgres) dsn() string {
	port := func(p mirror.Server) string { return strconv.Itoa(k.pg[p].Port()) }
	dsn := url.URL{Scheme: "postgres", User: url.User("clients"), Path: "/app",
		Host:     "127.0.0.1:" + port(mirror.PartnerA) + ",127.0.0.1:" + port(mirror.PartnerB),
		RawQuery: "target_session_attrs=read-write&connect_timeout=2&sslmode=disable&application_name=tour"}
	return dsn.String()
}

// ask lets libpq look for the principal with the same DSN.
func (k *postgres) ask(ctx context.Context, principal mirror.Server) error {
	port, err := k.install.Psql(ctx, k.dsn(), "SELECT inet_server_port()")
	if err != nil {
		return err
	}
	if want := strconv.Itoa(k.pg[principal].Port()); port != want {
		return fmt.Errorf("psql with %s finds the server on port %s, want that of %s on port %s", k.dsn(), port, principal, want)
	}
	k.out.note("psql with both servers in its DSN finds %s", principal)
	return nil
}

func (k *postgres) compare(ctx context.Context) (c backend.Comparison, err error) {
	err = k.asSuperuser(ctx, mirror.PartnerA, func(a *pgx.Conn) error {
		return k.asSuperuser(ctx, mirror.PartnerB, func(b *pgx.Conn) error {
			c, err = pglog.Compare(ctx, a, b)
			return err
		})
	})
	return c, err
}

func (k *postgres) payments(ctx context.Context, p mirror.Server) (there map[payment]found, balanced bool, err error) {
	there = map[payment]found{}
	err = k.asSuperuser(ctx, p, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, "SELECT client, number, count(*), max(ticket) FROM payment GROUP BY client, number")
		if err != nil {
			return err
		}
		var p payment
		var f found
		_, err = pgx.ForEachRow(rows, []any{&p.client, &p.number, &f.rows, &f.ticket}, func() error {
			there[p] = f
			return nil
		})
		if err != nil {
			return err
		}
		return conn.QueryRow(ctx, "SELECT (SELECT sum(balance) FROM account) = (SELECT sum(amount) FROM payment)").Scan(&balanced)
	})
	return there, balanced, err
}

func (k *postgres) tails() (text string) {
	for p := mirror.PartnerA; p <= mirror.PartnerB; p++ {
		text += trio.Tail("the PostgreSQL server of "+p.String(), k.pg[p].LogFile())
	}
	return text
}

func (k *postgres) close() (all error) {
	for _, server := range k.pg {
		if server != nil {
			all = errors.Join(all, server.Remove())
		}
	}
	return all
}
