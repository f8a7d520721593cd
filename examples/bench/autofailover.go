package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
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
}

// autoFailover measures how long nobody acknowledges a commit after a server with everything beside it was killed.
func (l *lab) autoFailover(ctx context.Context, set autoFailoverSettings, rounds int) ([]float64, error) {
	if _, err := exec.LookPath("pg_autoctl"); err != nil {
		return nil, errNotInstalled
	}
	if os.Getuid() != 0 {
		return nil, fmt.Errorf("%w, and run this as root, who can change to the account postgres", errNotInstalled)
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotInstalled, err)
	}
	a := &autoFailover{lab: l, set: set, dir: filepath.Join(l.dir, "auto-failover"), account: account}
	l.atClose(a.close)
	if err := a.begin(ctx); err != nil {
		return nil, err
	}
	probe := startProber(eitherDSN(a.ports[1], a.ports[2], "postgres"))
	defer probe.end()
	var took []float64
	for i := range rounds {
		seconds, err := a.killOnce(ctx, probe, i < rounds-1)
		if err != nil {
			return nil, err
		}
		took = append(took, seconds)
	}
	return took, nil
}

// begin starts the monitor and both servers, and returns when one replicates to the other.
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
		if a.ports[i], err = freePort(); err != nil {
			return err
		}
	}
	if err := a.start(0, "create", "monitor"); err != nil {
		return err
	}
	if err := a.awaitMonitor(ctx, "SELECT true"); err != nil {
		return err
	}
	for name, value := range a.set.monitor {
		if err := a.atMonitor(ctx, fmt.Sprintf("ALTER SYSTEM SET pgautofailover.%s = %d", name, value)); err != nil {
			return err
		}
	}
	if err := a.atMonitor(ctx, "SELECT pg_reload_conf()"); err != nil {
		return err
	}
	for i := 1; i <= 2; i++ {
		monitor := fmt.Sprintf("postgres://autoctl_node@127.0.0.1:%d/pg_auto_failover?sslmode=disable", a.ports[0])
		if err := a.start(i, "create", "postgres", "--monitor", monitor, "--name", fmt.Sprintf("n%d", i), "--dbname", "app"); err != nil {
			return err
		}
		if err := a.awaitMonitor(ctx, fmt.Sprintf("SELECT count(*) = %d FROM pgautofailover.node WHERE reportedstate IN ('single', 'primary', 'secondary')", i)); err != nil {
			return err
		}
		if err := a.configure(i); err != nil {
			return err
		}
	}
	if err := a.settled(ctx); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, eitherDSN(a.ports[1], a.ports[2], "postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, probeTable)
	return err
}

// configure gives a server its settings.
func (a *autoFailover) configure(i int) error {
	if a.set.partition == "" {
		return nil
	}
	for _, words := range [][]string{
		{"config", "set", "--pgdata", a.data(i), "timeout.network_partition_timeout", a.set.partition},
		{"reload", "--pgdata", a.data(i)},
	} {
		if out, err := a.command(words...).CombinedOutput(); err != nil {
			return fmt.Errorf("set up: %w: %s", err, out)
		}
	}
	return nil
}

// settled waits until one serves and the other follows.
func (a *autoFailover) settled(ctx context.Context) error {
	return a.awaitMonitor(ctx, "SELECT count(*) FILTER (WHERE reportedstate = 'primary' AND goalstate = 'primary') = 1 AND "+
		"count(*) FILTER (WHERE reportedstate = 'secondary' AND goalstate = 'secondary') = 1 FROM pgautofailover.node")
}

// killOnce returns the seconds without an acknowledged commit. With again it returns when both are there for the next
// kill.
func (a *autoFailover) killOnce(ctx context.Context, probe *prober, again bool) (float64, error) {
	var serving int
	conn, err := a.monitor(ctx)
	if err != nil {
		return 0, err
	}
	err = conn.QueryRow(ctx, "SELECT nodeport FROM pgautofailover.node WHERE reportedstate = 'primary'").Scan(&serving)
	conn.Close(ctx)
	if err != nil {
		return 0, err
	}
	victim := 1
	if a.ports[2] == serving {
		victim = 2
	}
	if err := awaitAck(ctx, probe, time.Now()); err != nil {
		return 0, err
	}
	killed := time.Now()
	killTree(a.run[victim].Process.Pid)
	_ = a.run[victim].Wait()
	gone := time.Now()
	if err := awaitAck(ctx, probe, gone); err != nil {
		return 0, err
	}
	took := probe.after(gone).Sub(killed).Seconds()
	if !again {
		return took, nil
	}
	if err := a.start(victim, "run"); err != nil {
		return 0, err
	}
	return took, a.settled(ctx)
}

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
	conn, err := pgx.Connect(ctx, fmt.Sprintf("postgres://postgres@127.0.0.1:%d/pg_auto_failover?sslmode=disable", a.ports[0]))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

// awaitMonitor waits until a query of the monitor says true.
func (a *autoFailover) awaitMonitor(ctx context.Context, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
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

func awaitAck(ctx context.Context, probe *prober, since time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for probe.after(since).IsZero() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("no commit was acknowledged within %s", patience)
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

// freePort is a port of loopback that nobody listens on now. It lies below the ports that systems give to whoever asks
// for any: a connection that took it before the server listens, or while the server is down, would keep the server away.
func freePort() (int, error) {
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000)))
		if err == nil {
			defer l.Close()
			return l.Addr().(*net.TCPAddr).Port, nil
		}
	}
	return 0, errors.New("find a free port: none of 100 between 20000 and 32000 is free")
}
