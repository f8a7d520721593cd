package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/f19126b3/dbmirror/examples/internal/trio"
	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/sqlitelog"
)

// What writers of an embedded database do: each insert is a transaction.
const (
	embeddedTable  = "CREATE TABLE ins (id INTEGER PRIMARY KEY, a INTEGER, b TEXT, ts TEXT DEFAULT CURRENT_TIMESTAMP)"
	embeddedInsert = "INSERT INTO ins (a, b) VALUES (?, 'forty characters are what this text holds')"
)

func insertOne(conn *sqlite.Conn, a int) error {
	return sqlitex.Execute(conn, embeddedInsert, &sqlitex.ExecOptions{Args: []any{a}})
}

// writers lets so many goroutines write for so long, and returns how many transactions were committed a second.
func writers(count int, lasts time.Duration, write func(writer, a int) error) (float64, error) {
	done := make([]int, count)
	errs := make([]error, count)
	begun := time.Now()
	var running sync.WaitGroup
	for i := range count {
		running.Go(func() {
			for time.Since(begun) < lasts && errs[i] == nil {
				if errs[i] = write(i, done[i]); errs[i] == nil {
					done[i]++
				}
			}
		})
	}
	running.Wait()
	total := 0
	for _, n := range done {
		total += n
	}
	return float64(total) / time.Since(begun).Seconds(), errors.Join(errs...)
}

// inserts is the application of an embedded pair: POST /app/?writers=8&lasts=2s answers with transactions a second.
func inserts(db *sqlitelog.DB) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		count, err := strconv.Atoi(r.FormValue("writers"))
		lasts, notTime := time.ParseDuration(r.FormValue("lasts"))
		if err = errors.Join(err, notTime); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		rate, err := writers(count, lasts, func(_, a int) error {
			return db.Write(r.Context(), func(conn *sqlite.Conn) error { return insertOne(conn, a) })
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(rate) // whoever asked has gone away
	})
}

// plain is a SQLite database without mirroring, as durable as the principal's: same driver, WAL, synchronous=FULL.
type plain struct {
	conns  []*sqlite.Conn
	shared sync.Mutex // held to use the first, when all writers share it
}

func openPlain(path string, conns int) (*plain, error) {
	p := &plain{}
	for i := range conns {
		conn, err := sqlite.OpenConn(path, sqlite.OpenReadWrite, sqlite.OpenCreate, sqlite.OpenWAL)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open plain SQLite: %w", err), p.close())
		}
		p.conns = append(p.conns, conn)
		script := "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 10000;"
		if i == 0 {
			script += embeddedTable
		}
		if err := runScript(conn, script); err != nil {
			return nil, errors.Join(fmt.Errorf("open plain SQLite: %w", err), p.close())
		}
	}
	return p, nil
}

// runScript runs statements outside of a transaction.
func runScript(conn *sqlite.Conn, script string) error {
	for script != "" {
		stmt, rest, err := conn.PrepareTransient(script)
		if err != nil {
			return err
		}
		for more := true; more && err == nil; {
			more, err = stmt.Step()
		}
		if err = errors.Join(err, stmt.Finalize()); err != nil {
			return err
		}
		script = script[len(script)-rest:]
	}
	return nil
}

func (p *plain) close() (all error) {
	for _, conn := range p.conns {
		all = errors.Join(all, conn.Close())
	}
	return all
}

// oneByOne lets writers take turns on one connection, which is the fastest that SQLite can do.
func (p *plain) oneByOne(_, a int) error {
	p.shared.Lock()
	defer p.shared.Unlock()
	return insertOne(p.conns[0], a)
}

// each lets every writer use a connection of its own.
func (p *plain) each(writer, a int) error { return insertOne(p.conns[writer], a) }

// embeddedSide is one of those that are compared: it lets writers write for some time.
type embeddedSide struct {
	name string
	run  func(ctx context.Context, writers int, lasts time.Duration) (float64, error)
}

// embedded measures what mirroring costs an embedded database, in FULL and OFF, beside plain SQLite.
func embedded(ctx context.Context, l *lab) ([]row, error) {
	full, err := l.newEmbedded(ctx, "full", "FULL")
	if err != nil {
		return nil, err
	}
	off, err := l.newEmbedded(ctx, "off", "OFF")
	if err != nil {
		return nil, err
	}
	const most = 8
	plain, err := openPlain(filepath.Join(l.dir, "plain.db"), most)
	if err != nil {
		return nil, err
	}
	l.atClose(plain.close)
	own := func(write func(writer, a int) error) func(context.Context, int, time.Duration) (float64, error) {
		return func(_ context.Context, count int, lasts time.Duration) (float64, error) {
			return writers(count, lasts, write)
		}
	}
	sides := []embeddedSide{{"FULL", full}, {"OFF", off}, {"plain SQLite", own(plain.oneByOne)}}
	var rows []row
	for _, count := range []int{1, most} {
		if count > 1 {
			sides = append(sides, embeddedSide{"plain SQLite, 8 connections", own(plain.each)})
		}
		got, err := l.embeddedTurns(ctx, sides, count)
		if err != nil {
			return rows, err
		}
		name := fmt.Sprintf("embedded-c%d", count)
		rows = append(rows, beside(name+" FULL", "tx/s", got[0], sides[2].name, got[2], goal{}))
		if count > 1 {
			rows = append(rows, beside(name+" FULL", "tx/s", got[0], sides[3].name, got[3], goal{}))
		}
		rows = append(rows, beside(name+" OFF", "tx/s", got[1], sides[2].name, got[2], goal{}))
	}
	return rows, nil
}

// embeddedTurns lets the writers work at each side in every round, beginning with another side each time. The first
// round warms up and is left out.
func (l *lab) embeddedTurns(ctx context.Context, sides []embeddedSide, count int) ([][]float64, error) {
	const lasts = 2 * time.Second
	got := make([][]float64, len(sides))
	for round := range l.rounds + 1 {
		for k := range sides {
			i := (round + k) % len(sides)
			limit := lasts
			if round == 0 {
				limit = lasts / 4
			}
			rate, err := sides[i].run(ctx, count, limit)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", sides[i].name, err)
			}
			if round > 0 {
				got[i] = append(got[i], rate)
			}
		}
	}
	return got, nil
}

// newEmbedded starts two partners with a database each, and a witness, all of them processes. It returns when the
// session is SYNCHRONIZED in that safety, and what lets writers work in the principal's process.
func (l *lab) newEmbedded(ctx context.Context, name, safety string) (func(context.Context, int, time.Duration) (float64, error), error) {
	cfg := trio.Config{Dir: filepath.Join(l.dir, "embedded-"+name), Profile: "default"}
	if err := os.Mkdir(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	for p := mirror.PartnerA; p <= mirror.PartnerB; p++ {
		cfg.Path[p] = filepath.Join(cfg.Dir, p.String()+".db")
	}
	if err := makeEmbedded(ctx, cfg.Path[mirror.PartnerA]); err != nil {
		return nil, err
	}
	made, err := trio.New(cfg)
	if err != nil {
		return nil, err
	}
	l.atClose(made.Close)
	for s := mirror.PartnerA; s <= mirror.Witness; s++ {
		if err := made.Start(s); err != nil {
			return nil, err
		}
	}
	p := &pair{Trio: made}
	if err := p.synchronized(ctx, mirror.PartnerA); err != nil {
		return nil, err
	}
	page := made.Page(mirror.PartnerA)
	if safety == "OFF" { // else it is as it was made
		if err := page.Command(ctx, "/safety?level=OFF"); err != nil {
			return nil, err
		}
	}
	limited, cancel := context.WithTimeout(ctx, synchronizing)
	defer cancel()
	err = made.AwaitReport(limited, mirror.PartnerA, func(r trio.Report) bool { return r.Safety == safety && (r.WaitsFor != "") == (safety == "FULL") })
	return func(ctx context.Context, count int, lasts time.Duration) (float64, error) {
		return askInserts(ctx, page, count, lasts)
	}, err
}

// askInserts lets writers work in the process of a partner.
func askInserts(ctx context.Context, page trio.Page, count int, lasts time.Duration) (rate float64, err error) {
	where := fmt.Sprintf("http://%s/app/?writers=%d&lasts=%s", page, count, lasts)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, where, nil)
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("write at %s: %s: %s", page, answer.Status, bytes.TrimSpace(raw))
	}
	if err != nil {
		return 0, err
	}
	return rate, json.Unmarshal(raw, &rate)
}

func makeEmbedded(ctx context.Context, path string) error {
	db, err := sqlitelog.Open(sqlitelog.Config{Path: path})
	if err != nil {
		return err
	}
	err = db.Write(ctx, func(conn *sqlite.Conn) error { return sqlitex.ExecuteScript(conn, embeddedTable, nil) })
	return errors.Join(err, db.Close())
}
