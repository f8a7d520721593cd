package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/f19126b3/dbmirror/mirror"
)

// session is a client's connection to whichever server can be written to. It knows both by one DSN and nothing of
// mirroring.
type session struct {
	client  int
	cfg     *pgx.ConnConfig
	servers map[int]mirror.Server // by port
	conn    *pgx.Conn
	doubt   bool // the server said that it gave up waiting for the mirror
}

func (k *postgres) payer(client int) (payer, error) {
	cfg, err := pgx.ParseConfig(k.dsn())
	if err != nil {
		return nil, fmt.Errorf("start clients: %w", err)
	}
	c := &session{client: client, cfg: cfg, servers: map[int]mirror.Server{}}
	for p := mirror.PartnerA; p <= mirror.PartnerB; p++ {
		c.servers[k.pg[p].Port()] = p
	}
	c.cfg.OnNotice = c.notice
	return c, nil
}

// patience is for everything but COMMIT: once that is sent, only the server can say what became of it.
const patience = 5 * time.Second

func (c *session) connected() bool { return c.conn != nil }

func (c *session) connect() bool {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, c.cfg)
	if err == nil {
		c.conn = conn
	}
	return err == nil // while nobody serves there is nothing to do but to try again
}

func (c *session) hangUp() {
	if c.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c.conn.Close(ctx) // a broken connection is closed all the same
		c.conn = nil
	}
}

// notice hears what the server says beside its answers: a commit whose wait for the mirror was ended is acknowledged,
// but only this server is known to have it.
func (c *session) notice(_ *pgconn.PgConn, n *pgconn.Notice) {
	if n.Code == "57P01" || n.Code == "01000" && strings.Contains(n.Message, "synchronous replication") {
		c.doubt = true
	}
}

func (c *session) pay(order order) receipt {
	var r receipt
	c.doubt = false
	if err := c.write(order, &r); err != nil {
		c.hangUp()
		return r
	}
	// No deadline: a commit that is broken off here may still be done there.
	tag, err := c.conn.Exec(context.Background(), "COMMIT")
	switch {
	case err == nil && tag.String() == "ROLLBACK":
	case err != nil || c.doubt:
		r.fate = unknown
		c.hangUp()
	default:
		r.fate, r.by = acknowledged, c.server()
	}
	return r
}

// write does everything of a payment but the commit.
func (c *session) write(o order, r *receipt) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := c.conn.Exec(ctx, "BEGIN"); err != nil {
		return err
	}
	err := c.conn.QueryRow(ctx, "INSERT INTO payment (client, number, account, amount) VALUES ($1, $2, $3, $4) RETURNING ticket",
		o.Client, o.Number, o.Account, o.Amount).Scan(&r.ticket)
	if err != nil {
		return err
	}
	r.told = true
	paid, err := c.conn.Exec(ctx, "UPDATE account SET balance = balance + $2 WHERE id = $1", o.Account, o.Amount)
	if err == nil && paid.RowsAffected() != 1 {
		err = errors.New("the account is missing")
	}
	return err
}

// server is the one that answered.
func (c *session) server() mirror.Server {
	if addr, ok := c.conn.PgConn().Conn().RemoteAddr().(*net.TCPAddr); ok {
		return c.servers[addr.Port]
	}
	return 0
}
