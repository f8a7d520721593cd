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

// embeddedSide is one of those that are compared: it lets writers write for some time.
type embeddedSide struct {
	name string
	run  func(ctx context.Context, writers int, lasts time.Duration) (float64, error)
}

// embedded measures what mirroring costs an embedded database, in FULL and OFF, beside plain SQLite.
func embedded(d disk) func(context.Context, *lab) ([]row, error) {
	return func(ctx context.Context, l *lab) ([]row, error) {
		sides, err := l.embeddedSides(ctx, d)
		if err != nil {
			return nil, err
		}
		full, off, shared, each := sides[0], sides[1], sides[2], sides[3]
		prefix := map[disk]string{ordinaryDisk: "embedded", slowDisk: "slow-embedded"}[d]
		alone, err := l.embeddedTurns(ctx, []embeddedSide{full, off, shared}, 1)
		if err != nil {
			return nil, err
		}
		eight, err := l.embeddedTurns(ctx, sides, 8)
		if err != nil {
			return nil, err
		}
		limit := map[disk]string{ordinaryDisk: "reading and recording the rows of each write", slowDisk: "a sync for each transaction"}[d]
		return []row{
			beside(prefix+"-c1 FULL", "tx/s", alone[0], shared.name, alone[2], goal{}).within(limit),
			beside(prefix+"-c1 OFF", "tx/s", alone[1], shared.name, alone[2], goal{}).within(limit),
			beside(prefix+"-c8 FULL", "tx/s", eight[0], shared.name, eight[2], goal{}).within(limit),
			beside(prefix+"-c8 FULL", "tx/s", eight[0], each.name, eight[3], goal{}).within(limit),
			beside(prefix+"-c8 OFF", "tx/s", eight[1], shared.name, eight[2], goal{}).within(limit),
		}, nil
	}
}

// embeddedSides are a pair in FULL, one in OFF, and plain SQLite whose writers share a connection, or have one each.
func (l *lab) embeddedSides(ctx context.Context, d disk) ([]embeddedSide, error) {
	if d == slowDisk {
		if err := l.slowSyncs(); err != nil {
			return nil, err
		}
	}
	full, err := l.newEmbedded(ctx, d, "FULL")
	if err != nil {
		return nil, err
	}
	off, err := l.newEmbedded(ctx, d, "OFF")
	if err != nil {
		return nil, err
	}
	return []embeddedSide{
		{"FULL", full}, {"OFF", off},
		{"plain SQLite", l.writePlain(d, "shared")}, {"plain SQLite, a connection each", l.writePlain(d, "each")},
	}, nil
}

// embeddedTurns lets the writers work at each side in every round, beginning with another side each time. The first
// round warms up and is left out.
func (l *lab) embeddedTurns(ctx context.Context, sides []embeddedSide, count int) ([][]float64, error) {
	const lasts = time.Second
	got := make([][]float64, len(sides))
	for round := range l.rounds + 1 {
		for k := range sides {
			i := (round + k) % len(sides)
			these := lasts
			if round == 0 {
				these = lasts / 4
			}
			rate, err := sides[i].run(ctx, count, these)
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
func (l *lab) newEmbedded(ctx context.Context, d disk, safety string) (func(context.Context, int, time.Duration) (float64, error), error) {
	via, err := l.via(d)
	if err != nil {
		return nil, err
	}
	cfg := trio.Config{Dir: filepath.Join(l.dir, "embedded-"+safety), Profile: "default", Via: via}
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
