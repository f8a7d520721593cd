package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Config says how a server is set up.
type Config struct {
	// Dir is the server's directory. It is required, made when missing, and must hold no other server.
	Dir string
	// Port is the TCP port on 127.0.0.1. Default 0: a free one, kept for this server until Remove.
	Port int
	// Settings are added to, or override, the defaults of postgresql.conf. The port is not one of them.
	Settings map[string]string
	// Database is the database that is created. Default "app".
	Database string
	// Log gets a line when the server starts, stops or is killed. Default: nowhere.
	Log io.Writer
}

// portTries is how often a free port is tried anew when somebody else takes it first.
const portTries = 5

// Server is one PostgreSQL server. Its methods may be called from several goroutines, except that starts do not
// overlap: call Restart and Remove from one goroutine at a time.
type Server struct {
	install Install
	cfg     Config
	account account
	port    int
	release func() // gives the port back

	mu struct {
		sync.Mutex
		run *run // the newest run of the server, ended or not
	}
}

// Start makes a data directory, starts a server on it and waits until it accepts connections and the database exists.
// The context bounds the start, not the life of the server: end it with Remove.
func Start(ctx context.Context, in Install, cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	acc, err := serverAccount()
	if err != nil {
		return nil, err
	}
	s := &Server{install: in, cfg: cfg, account: acc, release: func() {}}
	if err := s.initialize(ctx); err != nil {
		return nil, err
	}
	if err := s.startOnPort(ctx); err != nil {
		return nil, errors.Join(err, s.abandon())
	}
	if err := s.createDatabase(ctx); err != nil {
		return nil, errors.Join(err, s.abandon())
	}
	return s, nil
}

func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" {
		return c, errors.New("start PostgreSQL: Config.Dir is empty: name a directory for the server")
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return c, fmt.Errorf("start PostgreSQL: Config.Dir: %w", err)
	}
	c.Dir = dir
	if c.Port < 0 || c.Port > 65535 {
		return c, fmt.Errorf("start PostgreSQL: Config.Port %d is not between 0 and 65535", c.Port)
	}
	if c.Database == "" {
		c.Database = "app"
	}
	if c.Log == nil {
		c.Log = io.Discard
	}
	settings := map[string]string{
		// Parallel queries' memory then lives in the data directory and goes with it, even after a kill.
		"dynamic_shared_memory_type": "mmap",
		"fsync":                      "on",
		"listen_addresses":           "127.0.0.1",
		"max_connections":            "100",
		"max_replication_slots":      "16",
		"max_wal_senders":            "16",
		"shared_buffers":             "32MB",
		"unix_socket_directories":    "",
		"wal_level":                  "logical",
	}
	maps.Copy(settings, c.Settings)
	c.Settings = settings
	return c, c.validateSettings()
}

func (c Config) validateSettings() error {
	name := regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)
	for key := range c.Settings {
		if strings.EqualFold(key, "port") {
			return errors.New("start PostgreSQL: Config.Settings holds the port: use Config.Port")
		}
		if !name.MatchString(key) {
			return fmt.Errorf("start PostgreSQL: Config.Settings: %q is not the name of a setting", key)
		}
	}
	return nil
}

// initialize makes the directory and the data in it.
func (s *Server) initialize(ctx context.Context) error {
	if err := s.account.prepare(s.cfg.Dir); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(s.install.Bin, "initdb"),
		"-D", s.dataDir(), "-U", "postgres", "--auth=trust", "-E", "UTF8", "--no-locale", "--no-sync")
	s.dress(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make data directory: initdb: %w: %s", err, lastLines(string(out), 5))
	}
	conf, err := os.OpenFile(filepath.Join(s.dataDir(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	_, err = conf.WriteString(s.cfg.settingsText())
	if err := errors.Join(err, conf.Close()); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}

// settingsText writes the settings as lines of postgresql.conf, where quote and backslash are escaped by doubling.
func (c Config) settingsText() string {
	escape := strings.NewReplacer(`'`, `''`, `\`, `\\`)
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(c.Settings)) {
		fmt.Fprintf(&text, "%s = '%s'\n", key, escape.Replace(c.Settings[key]))
	}
	return text.String()
}

// dress gives a command the server's account, a directory that this account may enter, and an environment in which no
// variable of libpq or locale of the caller changes what the program does.
func (s *Server) dress(cmd *exec.Cmd) {
	cmd.Dir = s.cfg.Dir
	cmd.Env = append(plainEnv(), "LC_ALL=C")
	cmd.SysProcAttr = processAttr(s.account)
}

func plainEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PG") })
}

// startOnPort starts the server on the configured port, or on free ones until it gets one.
func (s *Server) startOnPort(ctx context.Context) error {
	if s.cfg.Port != 0 {
		s.port = s.cfg.Port
		return s.launch(ctx)
	}
	var err error
	for range portTries {
		s.release()
		if s.port, s.release, err = freePort(); err != nil {
			return fmt.Errorf("find a free port: %w", err)
		}
		if err = s.launch(ctx); !errors.Is(err, errPortTaken) {
			return err
		}
	}
	return err
}

// createDatabase uses a session that does not wait for a standby: the settings may name one that is not there yet.
func (s *Server) createDatabase(ctx context.Context) error {
	if s.cfg.Database == "postgres" {
		return nil
	}
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return fmt.Errorf("create database: %w", err)
	}
	_, err = conn.Exec(ctx, "SET synchronous_commit = local")
	if err == nil {
		_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{s.cfg.Database}.Sanitize())
	}
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		return fmt.Errorf("create database: %w", err)
	}
	return nil
}

// Restart starts the server again, on the same data directory and port, after Kill or Stop or when it ended by itself,
// and waits until it accepts connections. The context bounds the start only.
func (s *Server) Restart(ctx context.Context) error {
	if s.Running() {
		return errors.New("restart PostgreSQL: it still runs: stop or kill it first")
	}
	return s.launch(ctx)
}

// Remove ends the server if it runs, and deletes its directory. The server is of no use afterwards.
func (s *Server) Remove() error {
	if err := s.abandon(); err != nil {
		return err
	}
	if err := os.RemoveAll(s.cfg.Dir); err != nil {
		return fmt.Errorf("remove server directory: %w", err)
	}
	return nil
}

// abandon ends the server and gives back what it holds outside its directory, which stays for a look at the log.
func (s *Server) abandon() error {
	s.release()
	s.release = func() {}
	if s.current() == nil {
		return nil
	}
	if err := s.Stop("immediate"); err != nil {
		if err := s.Kill(); err != nil {
			return err
		}
	}
	return freeSharedMemory(s.dataDir())
}

// DSN returns a connection URL for pgx and libpq: user postgres, who is superuser, over 127.0.0.1 and without TLS. It
// stays the same over restarts.
func (s *Server) DSN(database string) string {
	dsn := url.URL{
		Scheme:   "postgres",
		User:     url.User("postgres"),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return dsn.String()
}

// Port returns the server's TCP port. It stays the same over restarts.
func (s *Server) Port() int { return s.port }

// LogFile returns the path of the file with what the server has logged since Start.
func (s *Server) LogFile() string { return filepath.Join(s.cfg.Dir, "server.log") }

func (s *Server) dataDir() string { return filepath.Join(s.cfg.Dir, "data") }

// Psql runs sql on a database of the server with the psql program, hence with libpq; see [Install.Psql].
func (s *Server) Psql(ctx context.Context, database, sql string) (string, error) {
	return s.install.Psql(ctx, s.DSN(database), sql)
}

// Psql runs sql with the psql program on whatever conninfo, a URL or key=value words, leads to, and returns the rows
// without heading, columns separated by |, with no newline at the end. It stops at the first error, which holds what
// psql said.
func (in Install) Psql(ctx context.Context, conninfo, sql string) (string, error) {
	program := filepath.Join(in.Bin, "psql")
	if _, err := os.Stat(program); err != nil {
		if program, err = exec.LookPath("psql"); err != nil {
			return "", fmt.Errorf("run psql: neither in %s nor on PATH: install PostgreSQL's client programs", in.Bin)
		}
	}
	cmd := exec.CommandContext(ctx, program, "-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-d", conninfo, "-c", sql)
	cmd.Env = append(plainEnv(), "LC_ALL=C", "PGCLIENTENCODING=UTF8")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("run psql: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}
