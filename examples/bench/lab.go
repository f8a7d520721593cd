package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// lab is what one metric is measured in: servers and processes of its own, and a directory for all of them.
type lab struct {
	rounds   int
	progress io.Writer
	install  pgtest.Install // found when the first server is started
	dir      string
	fsync    float64 // microseconds that a sync takes
	slow     *slowed // nil: the disk is as it is
	slowBin  pgtest.Install
	servers  []*pgtest.Server
	closers  []func() error // run in reverse, before the servers go
}

func newLab(rounds int, progress io.Writer) (*lab, error) {
	dir, err := os.MkdirTemp("", "dbmirror-bench-")
	if err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	l := &lab{rounds: rounds, progress: progress, dir: dir}
	if l.fsync, err = syncMicroseconds(dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return l, os.Chmod(dir, 0o711) // servers run under another account
}

func (l *lab) close() error {
	var all error
	for i := len(l.closers) - 1; i >= 0; i-- {
		all = errors.Join(all, l.closers[i]())
	}
	for _, s := range l.servers {
		all = errors.Join(all, s.Remove())
	}
	if l.slow != nil {
		all = errors.Join(all, l.slow.close())
	}
	return errors.Join(all, os.RemoveAll(l.dir))
}

// atClose runs f before the servers are removed; what was asked for last runs first.
func (l *lab) atClose(f func() error) { l.closers = append(l.closers, f) }

// settings make servers fit for measuring: the same for everybody.
func settings() map[string]string {
	return map[string]string{
		"shared_buffers": "512MB", "max_wal_size": "8GB", "checkpoint_timeout": "30min", "wal_level": "logical",
		"max_wal_senders": "20", "max_replication_slots": "20", "full_page_writes": "on", "autovacuum": "on",
		// A subscription that is made within five seconds of the last one would otherwise wait for the rest of them.
		"wal_retrieve_retry_interval": "10ms",
	}
}

// find looks for PostgreSQL's programs, once.
func (l *lab) find(ctx context.Context) (err error) {
	if l.install.Bin == "" {
		l.install, err = pgtest.Find(ctx, l.progress)
	}
	return err
}

// start starts servers at once, each of which keeps its data in a directory of that name.
func (l *lab) start(ctx context.Context, d disk, names ...string) ([]*pgtest.Server, error) {
	if err := l.find(ctx); err != nil {
		return nil, err
	}
	install := l.install
	if d == slowDisk {
		if err := l.slowDown(); err != nil {
			return nil, err
		}
		install = l.slowBin
	}
	started := make([]*pgtest.Server, len(names))
	errs := make([]error, len(names))
	var starting sync.WaitGroup
	for i, name := range names {
		starting.Go(func() {
			started[i], errs[i] = pgtest.Start(ctx, install, pgtest.Config{Dir: filepath.Join(l.dir, name), Settings: settings()})
		})
	}
	starting.Wait()
	for _, s := range started {
		if s != nil {
			l.servers = append(l.servers, s)
		}
	}
	return started, errors.Join(errs...)
}

// slowSyncs makes the disk slow for every process that runs by way of via.
func (l *lab) slowSyncs() (err error) {
	if l.slow, err = newSlowed(filepath.Join(l.dir, "slow.sock")); err != nil {
		return err
	}
	l.fsync += float64(slowSync.Microseconds())
	words, err := l.via(slowDisk)
	if err != nil {
		return err
	}
	words = append(words, "/bin/sh", "-c", "true")
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("make a slow disk: %w: %s: run this where processes may filter their system calls, as in no "+
			"container that forbids it, or leave out the metrics named slow-", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// slowDown prepares a directory of programs whose server runs on a slow disk.
func (l *lab) slowDown() error {
	if l.slow != nil {
		return nil
	}
	if err := l.slowSyncs(); err != nil {
		return err
	}
	l.slowBin = pgtest.Install{Bin: filepath.Join(l.dir, "bin"), Version: l.install.Version}
	if err := os.Mkdir(l.slowBin.Bin, 0o755); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, name := range []string{"initdb", "pg_dump", "psql"} {
		if err := os.Symlink(filepath.Join(l.install.Bin, name), filepath.Join(l.slowBin.Bin, name)); err != nil {
			return err
		}
	}
	// What initdb starts is as fast as ever; only a server on its data is not.
	script := fmt.Sprintf("#!/bin/sh\n[ \"$1\" = -D ] && exec %[1]q %[2]s %[3]q %[4]q \"$@\"\nexec %[4]q \"$@\"\n",
		self, slowArgument, filepath.Join(l.dir, "slow.sock"), filepath.Join(l.install.Bin, "postgres"))
	return os.WriteFile(filepath.Join(l.slowBin.Bin, "postgres"), []byte(script), 0o755)
}

// via is what runs a process of ours on the same disk as the servers.
func (l *lab) via(d disk) ([]string, error) {
	if d == ordinaryDisk {
		return nil, nil
	}
	self, err := os.Executable()
	return []string{self, slowArgument, filepath.Join(l.dir, "slow.sock")}, err
}

// program is the path of one of PostgreSQL's client programs.
func (l *lab) program(name string) (string, error) {
	path := filepath.Join(l.install.Bin, name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("run %s: neither in %s nor on PATH: install PostgreSQL's client programs", name, l.install.Bin)
	}
	return path, nil
}

// command runs a program to its end and returns what it printed.
func (l *lab) command(ctx context.Context, name string, args ...string) (string, error) {
	path, err := l.program(name)
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("run %s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// execute runs statements one by one at a server, on one connection that does not wait for any mirror.
func execute(ctx context.Context, s *pgtest.Server, statements ...string) error {
	return asSuperuser(ctx, s, func(conn *pgx.Conn) error {
		for _, sql := range append([]string{"SET synchronous_commit = local"}, statements...) {
			if _, err := conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
				return fmt.Errorf("%s: %w", sql, err)
			}
		}
		return nil
	})
}

func asSuperuser(ctx context.Context, s *pgtest.Server, f func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, s.DSN("app"))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return f(conn)
}

// text is the one value that a query returns.
func text(ctx context.Context, s *pgtest.Server, sql string) (value string, err error) {
	err = asSuperuser(ctx, s, func(conn *pgx.Conn) error { return conn.QueryRow(ctx, sql).Scan(&value) })
	if err != nil {
		err = fmt.Errorf("%s: %w", sql, err)
	}
	return value, err
}
