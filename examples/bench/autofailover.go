package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/examples/internal/trio"
)

// errNotInstalled is returned when the programs of a peer are not on this machine.
var errNotInstalled = errors.New("install the packages pg-auto-failover-cli and postgresql-15-auto-failover")

// autoFailoverSettings are what differs from pg_auto_failover's defaults.
type autoFailoverSettings struct {
	name      string
	monitor   map[string]int // milliseconds
	partition string         // the servers' timeout.network_partition_timeout, in seconds; empty: the default
}

// fastestSane are pg_auto_failover's fastest sane settings. Lower values can be set; a stall of a second would then be a
// failover.
func fastestSane() autoFailoverSettings {
	return autoFailoverSettings{"fast", map[string]int{
		"health_check_period": 1000, "health_check_timeout": 1000, "health_check_max_retries": 1, "health_check_retry_delay": 500,
		"node_considered_unhealthy_timeout": 3000, "primary_demote_timeout": 4000,
	}, "3"}
}

// autoFailover is a monitor and two servers of pg_auto_failover. Each is a process that starts a PostgreSQL server.
type autoFailover struct {
	lab     *lab
	set     autoFailoverSettings
	dir     string
	account *user.User // who may run a server
	ports   [3]int     // the monitor's is the first
	run     [3]*exec.Cmd
	killed  int // 1 or 2
}

// newAutoFailover starts nothing yet. It returns errNotInstalled where that cannot be done.
func (l *lab) newAutoFailover(set autoFailoverSettings) (*autoFailover, error) {
	if _, err := exec.LookPath("pg_autoctl"); err != nil {
		return nil, fmt.Errorf("pg_autoctl is not on PATH: %w", errNotInstalled)
	}
	if os.Getuid() != 0 {
		return nil, errors.New("it runs under the account postgres, and only root can change to that: run this as root")
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errNotInstalled)
	}
	a := &autoFailover{lab: l, set: set, dir: filepath.Join(l.dir, "auto-failover"), account: account}
	l.atClose(a.close)
	return a, nil
}

// begin starts the monitor and both servers, and returns when one replicates to the other and the settings hold. Until
// then it is at its fastest, for nothing is measured.
func (a *autoFailover) begin(ctx context.Context) error {
	uid, err := strconv.Atoi(a.account.Uid)
	if err != nil {
		return err
	}
	if err := os.Mkdir(a.dir, 0o700); err != nil {
		return err
	}
	if err := os.Chown(a.dir, uid, -1); err != nil {
		return err
	}
	for i := range a.ports {
		if a.ports[i], err = trio.FreePort(); err != nil {
			return err
		}
	}
	if err := a.start(0, "create", "monitor"); err != nil {
		return err
	}
	if err := a.awaitMonitor(ctx, "SELECT true"); err != nil {
		return err
	}
	if err := a.tell(ctx, fastestSane()); err != nil {
		return err
	}
	for i := 1; i <= 2; i++ {
		if err := a.create(ctx, i); err != nil {
			return err
		}
	}
	if err := a.settled(ctx); err != nil {
		return err
	}
	if err := a.adopt(ctx); err != nil {
		return err
	}
	return a.atServers(ctx, probeTable)
}

// create makes the first server, or the second as a copy of it.
func (a *autoFailover) create(ctx context.Context, i int) error {
	monitor := fmt.Sprintf("postgres://autoctl_node@127.0.0.1:%d/pg_auto_failover?sslmode=disable", a.ports[0])
	if err := a.start(i, "create", "postgres", "--monitor", monitor, "--name", fmt.Sprintf("n%d", i), "--dbname", "app"); err != nil {
		return err
	}
	copying, stop := context.WithCancel(ctx)
	defer stop()
	if i == 2 {
		go a.checkpoints(copying)
	}
	return a.awaitMonitor(ctx, fmt.Sprintf("SELECT count(*) = %d FROM pgautofailover.node WHERE reportedstate IN ('single', 'primary', 'secondary')", i))
}

// checkpoints hurries the copy of the first server: it begins with a checkpoint that pg_basebackup asks to be slow, which
// takes up to minutes if nobody asks for a fast one meanwhile.
func (a *autoFailover) checkpoints(ctx context.Context) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		_ = a.atServers(ctx, "CHECKPOINT") // if this one was not done, the next will be
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// tell gives the monitor its settings; what they do not name gets its default.
func (a *autoFailover) tell(ctx context.Context, set autoFailoverSettings) error {
	for name := range fastestSane().monitor {
		value := "DEFAULT"
		if v, ok := set.monitor[name]; ok {
			value = strconv.Itoa(v)
		}
		if err := a.atMonitor(ctx, fmt.Sprintf("ALTER SYSTEM SET pgautofailover.%s = %s", name, value)); err != nil {
			return err
		}
	}
	return a.atMonitor(ctx, "SELECT pg_reload_conf()")
}

// adopt gives the monitor and both servers the settings that are measured.
func (a *autoFailover) adopt(ctx context.Context) error {
	if err := a.tell(ctx, a.set); err != nil || a.set.partition == "" {
		return err
	}
	for i := 1; i <= 2; i++ {
		for _, words := range [][]string{
			{"config", "set", "--pgdata", a.data(i), "timeout.network_partition_timeout", a.set.partition},
			{"reload", "--pgdata", a.data(i)},
		} {
			if out, err := a.command(words...).CombinedOutput(); err != nil {
				return fmt.Errorf("set up: %w: %s", err, out)
			}
		}
	}
	return nil
}

// settled waits until one serves and the other follows.
func (a *autoFailover) settled(ctx context.Context) error {
	return a.awaitMonitor(ctx, "SELECT count(*) FILTER (WHERE reportedstate = 'primary' AND goalstate = 'primary') = 1 AND "+
		"count(*) FILTER (WHERE reportedstate = 'secondary' AND goalstate = 'secondary') = 1 FROM pgautofailover.node")
}

func (a *autoFailover) kill(ctx context.Context) (float64, error) {
	conn, err := a.monitor(ctx)
	if err != nil {
		return 0, err
	}
	var serving int
	err = conn.QueryRow(ctx, "SELECT nodeport FROM pgautofailover.node WHERE reportedstate = 'primary'").Scan(&serving)
	conn.Close(ctx)
	if err != nil {
		return 0, err
	}
	a.killed = slices.Index(a.ports[:], serving)
	return without(ctx, a.dsn(), func() error {
		killTree(a.run[a.killed].Process.Pid)
		_ = a.run[a.killed].Wait() // it was killed
		return nil
	})
}

func (a *autoFailover) mend(ctx context.Context) error {
	if err := a.start(a.killed, "run"); err != nil {
		return err
	}
	return a.settled(ctx)
}

// dsn is a connection string to the server that serves.
func (a *autoFailover) dsn() string { return eitherDSN(a.ports[1], a.ports[2], "postgres") }

func (a *autoFailover) data(i int) string { return filepath.Join(a.dir, fmt.Sprintf("data-%d", i)) }

// command is pg_autoctl under the account that may run servers, with everything that it keeps in our directory.
func (a *autoFailover) command(args ...string) *exec.Cmd {
	cmd := exec.Command("setpriv", append([]string{"--reuid", a.account.Uid, "--regid", a.account.Gid, "--clear-groups", "pg_autoctl"}, args...)...)
	cmd.Dir = a.dir
	cmd.Env = []string{
		"PATH=" + a.lab.install.Bin + ":" + os.Getenv("PATH"), "HOME=" + a.dir, "LC_ALL=C",
		"XDG_CONFIG_HOME=" + a.dir, "XDG_DATA_HOME=" + a.dir, "XDG_RUNTIME_DIR=" + a.dir,
	}
	return cmd
}

// start runs one of the three: with create for the first time, with run again.
func (a *autoFailover) start(i int, words ...string) error {
	args := append(words, "--pgdata", a.data(i))
	if words[0] == "create" {
		args = append(args, "--pgport", strconv.Itoa(a.ports[i]), "--pgctl", filepath.Join(a.lab.install.Bin, "pg_ctl"),
			"--hostname", "127.0.0.1", "--auth", "trust", "--no-ssl", "--run")
	}
	cmd := a.command(args...)
	log, err := os.OpenFile(filepath.Join(a.lab.dir, fmt.Sprintf("auto-failover-%d.log", i)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	a.run[i] = cmd
	return cmd.Start()
}

func (a *autoFailover) monitor(ctx context.Context) (*pgx.Conn, error) {
	return pgx.Connect(ctx, fmt.Sprintf("postgres://autoctl_node@127.0.0.1:%d/pg_auto_failover?sslmode=disable", a.ports[0]))
}

func (a *autoFailover) atMonitor(ctx context.Context, sql string) error {
	return once(ctx, fmt.Sprintf("postgres://postgres@127.0.0.1:%d/pg_auto_failover?sslmode=disable", a.ports[0]), sql)
}

// atServers runs a statement at the server that serves.
func (a *autoFailover) atServers(ctx context.Context, sql string) error {
	return once(ctx, a.dsn(), sql)
}

// once runs a statement on a connection of its own.
func once(ctx context.Context, dsn, sql string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, sql)
	return err
}

// awaitMonitor waits until a query of the monitor says true.
func (a *autoFailover) awaitMonitor(ctx context.Context, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		var holds bool
		conn, err := a.monitor(ctx)
		if err == nil {
			err = conn.QueryRow(ctx, sql).Scan(&holds)
			conn.Close(ctx)
		}
		if err == nil && holds {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not so within %s: %s (%w)", patience, sql, err)
		}
	}
}

func (a *autoFailover) close() error {
	for _, cmd := range a.run {
		if cmd != nil {
			killTree(cmd.Process.Pid)
			_ = cmd.Wait()
		}
	}
	return nil
}

// killTree kills a process and all that come from it, at once as far as that goes: first everything is stopped, so that
// nobody has time to see another one die.
func killTree(root int) {
	tree := []int{root}
	for i := 0; i < len(tree); i++ {
		_ = syscall.Kill(tree[i], syscall.SIGSTOP)
		tree = append(tree, children(tree[i])...)
	}
	for _, pid := range tree {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// children are the processes whose parent is pid, as the system shows them in /proc.
func children(pid int) (found []int) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		_, after, _ := strings.Cut(string(raw), ") ") // the name before it may hold anything
		fields := strings.Fields(after)
		if len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			if child, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
				found = append(found, child)
			}
		}
	}
	return found
}
