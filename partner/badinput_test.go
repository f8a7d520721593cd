package partner

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
)

// What is wrong ends in one error that names cause and mend, shows at both partners, and has changed nothing.

// TestBadConfig: settings that cannot be, and settings that contradict each other, are refused before anything is done.
func TestBadConfig(t *testing.T) {
	cases := map[string]struct {
		edit        func(*Config)
		cause, mend string
	}{
		"no session":         {func(c *Config) { c.Session = "" }, "Session is empty", "openssl rand -hex 16"},
		"session of letters": {func(c *Config) { c.Session = "orders" }, `"orders" is not 32 hexadecimal digits`, "openssl rand -hex 16"},
		"no directory":       {func(c *Config) { c.Dir = "" }, "Dir is empty", "name a directory"},
		"no backend":         {func(c *Config) { c.Backend = nil }, "Backend is empty", "as pglog.New makes it"},
		"no peer":            {func(c *Config) { c.Peer = "" }, "Peer is empty", "address of the other partner"},
		"peer without port":  {func(c *Config) { c.Peer = "b.example" }, "Peer: address b.example", "host:port"},
		"one address twice":  {func(c *Config) { c.Witness = c.Peer }, "Peer and Witness are both", "an address each"},
		"self is a witness":  {func(c *Config) { c.Self = mirror.Witness }, "Self is witness", "partner-a on one side"},
		"unknown safety":     {func(c *Config) { c.Safety = 9 }, "Safety is", "FULL or OFF"},
		"serve at once":      {func(c *Config) { c.Options.ServeAtOnce = true }, "contradicts Witness", "leave out one"},
		"lease too long":     {func(c *Config) { c.Timing = host.Timing{Lease: 9 * time.Second, Fence: 2 * time.Second} }, "together exceed", "raise Timeout"},
		"timeout too short":  {func(c *Config) { c.Timing = host.Timing{Timeout: time.Second} }, "timeout 1s is below 3s", "raise it"},
		"small budget":       {func(c *Config) { c.Limits.LogBudget = 1000 }, "LogBudget is 1000", "1 MiB or more"},
		"negative queue":     {func(c *Config) { c.Limits.RedoQueue = -1 }, "RedoQueue -1", "zero for the default"},
		"negative grace":     {func(c *Config) { c.Limits.Grace = -1 }, "Grace is", "zero for the default"},
		"negative workers":   {func(c *Config) { c.Limits.CopyWorkers = -1 }, "CopyWorkers is -1", "zero for the default"},
		"no credentials":     {func(c *Config) { c.Credentials = endpoint.Credentials{} }, "none given", "name CertFile, KeyFile and CAFile"},
		"plaintext and file": {func(c *Config) { c.Credentials.CertFile = "a.pem" }, "Plaintext excludes certificates", ""},
		"plaintext abroad":   {func(c *Config) { c.Peer = "203.0.113.9:7000" }, "plaintext is for loopback only", "certificates"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "dir")
			cfg := Config{
				Session: strings.Repeat("ab", 16), Self: mirror.PartnerA, Dir: dir,
				Backend: between(t, "postgres://u:hidden@127.0.0.1:1/db", "postgres://u:hidden@127.0.0.1:2/db"),
				Listen:  "127.0.0.1:3", Peer: "127.0.0.1:4", Witness: "127.0.0.1:5",
				Credentials: endpoint.Credentials{Plaintext: true},
			}
			c.edit(&cfg)
			_, err := New(cfg)
			require.ErrorContains(t, err, c.cause)
			require.ErrorContains(t, err, c.mend)
			require.NotContains(t, err.Error(), "hidden", "a password is shown")
			require.NotContains(t, err.Error(), "\n", "one error on one line")
			require.NoDirExists(t, dir)
		})
	}
}

// TestBadDirectory: a partner whose directory cannot be used does not start, and the other one says why.
func TestBadDirectory(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	other := begin(t, p.config(mirror.PartnerA))
	other.await("waiting", func(st Status) bool { return strings.Contains(st.Trouble, "partner-b has not said") })
	cases := badDirectories
	if mayMount() {
		cases = append(slices.Clip(cases), badDirectory{"full", func(t *testing.T, _ *pair, cfg Config) {
			limitSpace(t, cfg.Dir)(t)
		}, "no space left on device", "make room for"})
	} else {
		t.Log("a full directory is not tried: only root on Linux can give it a file system of its own")
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			log := new(logBook)
			cfg := p.config(mirror.PartnerB)
			cfg.Dir, cfg.Logger = filepath.Join(t.TempDir(), "dir"), log.logger()
			c.spoil(t, p, cfg)
			before := listing(t, cfg.Dir)
			_, err := New(cfg)
			require.ErrorContains(t, err, c.cause)
			require.ErrorContains(t, err, c.mend)
			other.await("aware of "+c.name, func(st Status) bool {
				return strings.Contains(st.Trouble, "partner-b has stopped: "+err.Error())
			})
			require.Contains(t, other.log.String(), "the other partner is in trouble")
			require.Equal(t, before, listing(t, cfg.Dir))
		})
	}
}

// TestManyFindings: a partner that does not start for more than a note can tell says to the other one why it does not.
func TestManyFindings(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	const tables = noteLimit + 10
	p.exec(mirror.PartnerA, fmt.Sprintf("DO $$BEGIN FOR i IN 1..%d LOOP EXECUTE 'CREATE TABLE loose' || i || ' (a int)'; END LOOP; END$$", tables))
	other := begin(t, p.config(mirror.PartnerB))
	other.await("listening", func(st Status) bool { return st.Trouble != "" }) // the last note is sent once
	err := begin(t, p.config(mirror.PartnerA)).failure()
	require.Equal(t, tables, strings.Count(err.Error(), "fatal: principal: replica_identity"))
	st := other.await("aware of why the other one does not run", func(st Status) bool {
		return strings.Contains(st.Trouble, "partner-a has stopped: preflight: fatal: principal: replica_identity")
	})
	require.NotEmpty(t, st.Findings)
}

type badDirectory struct {
	name        string
	spoil       func(t *testing.T, p *pair, cfg Config)
	cause, mend string
}

var badDirectories = []badDirectory{
	{"a file in its place", func(t *testing.T, _ *pair, cfg Config) {
		require.NoError(t, os.WriteFile(cfg.Dir, nil, 0o600))
	}, "not a directory", "choose another Dir"},
	{"open to everybody", func(t *testing.T, _ *pair, cfg Config) {
		require.NoError(t, os.Mkdir(cfg.Dir, 0o700))
		require.NoError(t, os.Chmod(cfg.Dir, 0o777))
	}, "everybody may write in directory", "chmod o-w"},
	{"forbidden", forbid, "make state file", "let the user that runs this program write in the directory"},
	{"log readable by everybody", func(t *testing.T, _ *pair, cfg Config) {
		made(t, cfg)
		require.NoError(t, os.Chmod(filepath.Join(cfg.Dir, "log"), 0o755))
	}, "mode 0755", "chmod 0700"},
	{"in use", func(t *testing.T, _ *pair, cfg Config) {
		used, err := New(cfg)
		require.NoError(t, err)
		t.Cleanup(used.close)
	}, "is open in another process", "stop that one first"},
	{"damaged state", func(t *testing.T, _ *pair, cfg Config) {
		made(t, cfg)
		f, err := os.OpenFile(filepath.Join(cfg.Dir, "state"), os.O_WRONLY, 0)
		require.NoError(t, err)
		_, err = f.WriteAt(bytes.Repeat([]byte{0xff}, 16<<10), 0)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}, "is damaged", "add it again as a new one"},
	{"state of another session", func(t *testing.T, _ *pair, cfg Config) {
		cfg.Session = strings.Repeat("ef", 16)
		made(t, cfg)
	}, "belongs to another session", "name the right file"},
	{"state of the other partner", func(t *testing.T, p *pair, cfg Config) {
		mine := p.config(mirror.PartnerA)
		mine.Dir = cfg.Dir
		made(t, mine)
	}, "holds the state of partner-a, this is partner-b", "a Dir of its own"},
	{"log of another session", func(t *testing.T, _ *pair, cfg Config) {
		foreign := cfg
		foreign.Dir, foreign.Session = cfg.Dir+"-foreign", strings.Repeat("ef", 16)
		made(t, foreign)
		made(t, cfg)
		require.NoError(t, os.RemoveAll(filepath.Join(cfg.Dir, "log")))
		require.NoError(t, os.Rename(filepath.Join(foreign.Dir, "log"), filepath.Join(cfg.Dir, "log")))
	}, "belongs to another session", "choose another directory"},
}

// made leaves behind what a partner makes in its directory.
func made(t *testing.T, cfg Config) {
	p, err := New(cfg)
	require.NoError(t, err)
	p.close()
}

// forbid makes a directory in which nothing can be written, for root too.
func forbid(t *testing.T, _ *pair, cfg Config) {
	require.NoError(t, os.Mkdir(cfg.Dir, 0o500))
	if os.Geteuid() != 0 {
		t.Cleanup(func() { _ = os.Chmod(cfg.Dir, 0o700) })
		return
	}
	mountTmpfs(t, cfg.Dir, mountReadOnly, "mode=0500")
}

// mayMount says whether this test can give a directory a file system of its own.
func mayMount() bool { return runtime.GOOS == "linux" && os.Geteuid() == 0 }

// limitSpace puts a directory on a small file system of its own, and returns what fills it up until release is called.
func limitSpace(t *testing.T, dir string) (fill func(*testing.T) (release func())) {
	require.NoError(t, os.Mkdir(dir, 0o700))
	mountTmpfs(t, dir, 0, "mode=0700,size=12m")
	return func(t *testing.T) func() {
		ballast := filepath.Join(dir, "ballast")
		f, err := os.Create(ballast)
		require.NoError(t, err)
		defer f.Close()
		for err == nil {
			_, err = f.Write(make([]byte, 4<<10))
		}
		require.ErrorIs(t, err, syscall.ENOSPC)
		return func() { require.NoError(t, os.Remove(ballast)) }
	}
}

func listing(t *testing.T, dir string) (names []string) {
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		names = append(names, path)
		return err
	}))
	return names
}

// beginning is a partner that runs and may end with an error.
type beginning struct {
	*Partner
	t    *testing.T
	log  *logBook
	done chan struct{}
	err  error // after done
	stop context.CancelFunc
}

// begin runs a partner until the test ends, or it ends by itself.
func begin(t *testing.T, cfg Config) *beginning {
	t.Helper()
	b := &beginning{t: t, log: new(logBook), done: make(chan struct{})}
	cfg.Logger = b.log.logger()
	made, err := New(cfg)
	require.NoError(t, err)
	b.Partner = made
	ctx, cancel := context.WithCancel(context.Background())
	b.stop = cancel
	go func() {
		defer close(b.done)
		b.err = made.Run(ctx)
	}()
	t.Cleanup(b.end)
	return b
}

// end stops the partner, if it has not ended yet.
func (b *beginning) end() {
	b.stop()
	<-b.done
	if b.t.Failed() {
		b.t.Logf("--- %s\n%s", b.cfg.Self, b.log)
	}
}

// failure waits until the partner ends by itself, and returns why.
func (b *beginning) failure() error {
	b.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-b.done:
		return b.err
	case <-limit.C:
		b.t.Fatalf("%s still runs: %s", b.cfg.Self, b.describe())
		return nil
	}
}

func (b *beginning) describe() string {
	st := b.Status()
	return fmt.Sprintf("%s %s (%s) trouble=%q findings=%v links=%q", st.Role, st.State, st.Reason, st.Trouble, st.Findings, st.Links)
}

func (b *beginning) await(what string, ok func(Status) bool) Status {
	b.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		st := b.Status()
		if ok(st) {
			return st
		}
		select {
		case <-tick.C:
		case <-limit.C:
			b.t.Fatalf("%s is not %s: %s", b.cfg.Self, what, b.describe())
		}
	}
}

// logBook is a log that can be read while it is written.
type logBook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBook) logger() *slog.Logger { return testLogger(l) }
