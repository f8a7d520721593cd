package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"zombiezen.com/go/sqlite"
)

// plainArgument is the first argument of a process that writes to a database without mirroring:
//
//	bench write-plain-sqlite FILE shared|each WRITERS TIME
const plainArgument = "write-plain-sqlite"

// plainChild writes, if this process is to, prints the transactions a second, and returns the exit status.
func plainChild(args []string) (int, bool) {
	if len(args) != 6 || args[1] != plainArgument {
		return 0, false
	}
	rate, err := runPlain(args[2], args[3] == "each", args[4], args[5])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	fmt.Println(rate)
	return 0, true
}

func runPlain(path string, each bool, number, duration string) (rate float64, err error) {
	count, notNumber := strconv.Atoi(number)
	lasts, notTime := time.ParseDuration(duration)
	if err := errors.Join(notNumber, notTime); err != nil {
		return 0, err
	}
	p, err := openPlain(path, count)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if each {
		return writers(count, lasts, p.each)
	}
	return writers(count, lasts, p.oneByOne)
}

// writePlain lets writers work in a process of their own, as the pairs' do.
func (l *lab) writePlain(d disk, how string) func(context.Context, int, time.Duration) (float64, error) {
	return func(ctx context.Context, count int, lasts time.Duration) (float64, error) {
		self, err := os.Executable()
		if err != nil {
			return 0, err
		}
		via, err := l.via(d)
		if err != nil {
			return 0, err
		}
		words := append(via, self, plainArgument, filepath.Join(l.dir, "plain.db"), how, strconv.Itoa(count), lasts.String())
		out, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput()
		if err != nil {
			return 0, fmt.Errorf("write to plain SQLite: %w: %s", err, out)
		}
		return strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	}
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
			script += strings.Replace(embeddedTable, "TABLE", "TABLE IF NOT EXISTS", 1)
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
