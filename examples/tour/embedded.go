package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/f19126b3/dbmirror/examples/internal/trio"
	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/sqlitelog"
)

// embedded are two SQLite databases, each in the process of its partner, together with the application.
type embedded struct {
	*stage
	file [3]string // by mirror.Server
	down [3]bool
}

func (k *embedded) start(_ context.Context, cfg *trio.Config) error {
	for p := mirror.PartnerA; p <= mirror.PartnerB; p++ {
		k.file[p] = filepath.Join(k.dir, p.String()+".db")
		cfg.Path[p] = k.file[p]
	}
	k.out.note("three processes: two partners, each with its database file and the application, and a witness")
	return nil
}

// prepare makes the tables in the database that will be principal.
func (k *embedded) prepare(ctx context.Context) error {
	db, err := sqlitelog.Open(sqlitelog.Config{Path: k.file[mirror.PartnerA]})
	if err != nil {
		return err
	}
	err = db.Write(ctx, func(conn *sqlite.Conn) error { return sqlitex.ExecuteScript(conn, makeEmbedded, nil) })
	return errors.Join(err, db.Close())
}

func (k *embedded) caller() *caller {
	return newCaller([3]string{mirror.PartnerA: string(k.Page(mirror.PartnerA)), mirror.PartnerB: string(k.Page(mirror.PartnerB))})
}

func (k *embedded) payer(int) (payer, error) { return k.caller(), nil }

func (k *embedded) whole() string {
	return "the principal's process, which is application, database and partner in one"
}

// kill pauses the mirror before it kills the principal, so that the principal's disk has what the mirror lacks: an upload,
// and what the clients wrote behind it. Nobody was told that any of it is committed.
func (k *embedded) kill(ctx context.Context, p mirror.Server) (at time.Time, err error) {
	if err := k.Pause(p.Other()); err != nil {
		return at, fmt.Errorf("pause the mirror: %w", err)
	}
	defer func() { err = errors.Join(err, k.Resume(p.Other())) }()
	err = k.beginUpload(ctx, p)
	k.down[p] = true
	at = time.Now()
	return at, errors.Join(err, k.Kill(p))
}

// beginUpload returns when an upload is committed on the principal's own disk, and nothing more: all clients wait.
func (k *embedded) beginUpload(ctx context.Context, p mirror.Server) error {
	c := k.caller()
	defer c.hangUp()
	var before, last, now mirror.LSN
	if err := c.call(ctx, p, http.MethodGet, "/end", nil, &before); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- c.call(ctx, p, http.MethodPost, "/uploads", nil, new(any)) }() // ends with the process at the latest
	err := k.Await(ctx, func() (bool, string, error) {
		select {
		case err := <-done:
			return false, "", fmt.Errorf("the upload was answered, though the mirror does not have it: %w", err)
		default:
		}
		last = now
		err := c.call(ctx, p, http.MethodGet, "/end", nil, &now)
		return now >= before+uploadMiB<<20 && now == last, "the upload is not committed, or commits do not wait for the mirror", err
	})
	if err == nil {
		k.out.note("the mirror's process is paused: an upload of %d MiB is on the principal's disk alone, and every client waits", uploadMiB)
	}
	return err
}

func (k *embedded) restart(_ context.Context, p mirror.Server) error {
	k.down[p] = false
	return k.Start(p)
}

// ask shows that the mirror can be read, and not be written to.
func (k *embedded) ask(ctx context.Context, principal mirror.Server) error {
	mirrored := principal.Other()
	if k.down[mirrored] {
		return nil
	}
	c := k.caller()
	defer c.hangUp()
	var all books
	if err := c.call(ctx, mirrored, http.MethodGet, "/payments", nil, &all); err != nil {
		return err
	}
	err := c.call(ctx, mirrored, http.MethodPost, "/payments", []byte(`{"Client": -1, "Account": 1}`), new(int64))
	var refused *refusal
	if !errors.As(err, &refused) || refused.status != http.StatusMisdirectedRequest {
		return fmt.Errorf("%s is the mirror and lets its clients write: %w", mirrored, err)
	}
	if there := string(k.Page(principal)); !strings.Contains(refused.text, there) {
		return fmt.Errorf("%s does not say that the principal is at %s: %w", mirrored, there, err)
	}
	k.out.note("the mirror can be read (%d payments), and refuses to write: %s", len(all.Payments), refused.text)
	return nil
}

func (k *embedded) compare(ctx context.Context) (backend.Comparison, error) {
	c := k.caller()
	defer c.hangUp()
	var sums [3]map[string]backend.TableSum
	for p := mirror.PartnerA; p <= mirror.PartnerB; p++ {
		if err := c.call(ctx, p, http.MethodGet, "/sums", nil, &sums[p]); err != nil {
			return backend.Comparison{}, err
		}
	}
	return backend.Compare(sums[mirror.PartnerA], sums[mirror.PartnerB]), nil
}

func (k *embedded) payments(ctx context.Context, p mirror.Server) (there map[payment]found, balanced bool, err error) {
	c := k.caller()
	defer c.hangUp()
	var all books
	if err := c.call(ctx, p, http.MethodGet, "/payments", nil, &all); err != nil {
		return nil, false, err
	}
	there = map[payment]found{}
	for _, row := range all.Payments {
		there[payment{int(row[0]), row[1]}] = found{row[2], row[3]}
	}
	return there, all.Balanced, nil
}

func (k *embedded) tails() string { return "" }
func (k *embedded) close() error  { return nil }
