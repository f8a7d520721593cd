package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/f19126b3/dbmirror/examples/internal/trio"
	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint/certs"
	"github.com/f19126b3/dbmirror/witness"
)

// witnessed is the number of sessions on the one witness that is measured.
const witnessed = 1000

// witnessArgument is the first argument of a process that is to be a witness of many sessions; the second names the file
// with its configuration.
const witnessArgument = "witness-of-many"

// witnessChild runs the witness if this process is to be one, and returns its exit status.
func witnessChild(args []string) (int, bool) {
	if len(args) != 3 || args[1] != witnessArgument {
		return 0, false
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := runWitness(ctx, args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "witness:", err)
		return 1, true
	}
	return 0, true
}

func runWitness(ctx context.Context, file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var cfg witness.Config
	if err := json.Unmarshal(raw, &cfg); err != nil {
		return err
	}
	w, err := witness.New(cfg)
	if err != nil {
		return err
	}
	return w.Run(ctx)
}

// manySessions measures what one witness process costs that serves many sessions in which nothing happens. Each session
// has been established by two partners, an authority and certificates of its own, and is pinged by both over TLS; what
// the partners lack is a database. They run here, the witness in a process of its own.
func manySessions(ctx context.Context, l *lab) ([]row, error) {
	c, err := l.newCrowd(witnessed)
	if err != nil {
		return nil, err
	}
	l.atClose(c.close)
	if err := c.establish(ctx); err != nil {
		return nil, err
	}
	// Nothing happens for so long, at the end of which the memory is looked at: that a crowd of partners came at once is
	// long over then.
	const idle = 45 * time.Second
	before, err := cpuTime(c.witness.Process.Pid)
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	timer := time.NewTimer(idle)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	after, err1 := cpuTime(c.witness.Process.Pid)
	memory, err2 := resident(c.witness.Process.Pid)
	share := 100 * (after - before).Seconds() / time.Since(begun).Seconds()
	name := fmt.Sprintf("witness of %d idle sessions, each pinged by two partners over TLS, ", witnessed)
	return []row{
		alone(name+"memory", "MiB", []float64{memory}, atMostOf(20+witnessed*8/1024.0, "MiB")),
		alone(name+"processor", "% of a core", []float64{share}, atMostOf(2, "%")),
	}, errors.Join(err1, err2)
}

// cpuTime is the processor time that a process has used.
func cpuTime(pid int) (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read processor time of a process: %w", err)
	}
	const user, system = 11, 12 // after the name, in hundredths of a second
	_, after, _ := strings.Cut(string(raw), ") ")
	fields := strings.Fields(after)
	if len(fields) <= system {
		return 0, fmt.Errorf("read processor time of process %d: unknown format", pid)
	}
	inUser, err1 := strconv.Atoi(fields[user])
	inSystem, err2 := strconv.Atoi(fields[system])
	return time.Duration(inUser+inSystem) * 10 * time.Millisecond, errors.Join(err1, err2)
}

// crowd is one witness and the partners of many sessions.
type crowd struct {
	dir      string
	addr     [4]string // by mirror.Server: all sessions' partners of one side share an address
	servers  [3]*endpoint.Server
	sessions [][3]*host.Host // by mirror.Server
	witness  *exec.Cmd
	stop     context.CancelFunc
	running  sync.WaitGroup
}

func (l *lab) newCrowd(sessions int) (*crowd, error) {
	c := &crowd{dir: filepath.Join(l.dir, "witness")}
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
		if err := c.listen(ctx, s); err != nil {
			return c, err
		}
	}
	port, err := trio.FreePort()
	if err != nil {
		return c, err
	}
	c.addr[mirror.Witness] = fmt.Sprintf("127.0.0.1:%d", port)
	cfg := witness.Config{Dir: filepath.Join(c.dir, "state"), Listen: c.addr[mirror.Witness]}
	for range sessions {
		added, err := c.add()
		if err != nil {
			return c, err
		}
		cfg.Sessions = append(cfg.Sessions, added)
	}
	if err := c.startWitness(cfg); err != nil {
		return c, err
	}
	for _, hosts := range c.sessions {
		for _, h := range hosts[mirror.PartnerA:] {
			c.running.Go(func() { _ = h.Run(ctx) }) // what ends it shows in that its session is not established
		}
	}
	return c, nil
}

// listen serves the partners of one side.
func (c *crowd) listen(ctx context.Context, s mirror.Server) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	c.addr[s] = listener.Addr().String()
	if c.servers[s], err = endpoint.NewServer(endpoint.ServerConfig{}); err != nil {
		return errors.Join(err, listener.Close())
	}
	c.running.Go(func() { _ = c.servers[s].Serve(ctx, listener) }) // the same
	return nil
}

func (c *crowd) startWitness(cfg witness.Config) error {
	raw, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	file := filepath.Join(c.dir, "witness.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c.witness = exec.Command(self, witnessArgument, file)
	c.witness.Stderr = os.Stderr
	return c.witness.Start()
}

// add makes the two partners of a session, and what the witness is to know of it.
func (c *crowd) add() (witness.Session, error) {
	var id host.SessionID
	rand.Read(id[:])
	authority, err := certs.NewAuthority("bench", time.Hour)
	if err != nil {
		return witness.Session{}, err
	}
	var hosts [3]*host.Host
	for self := mirror.PartnerA; self <= mirror.PartnerB; self++ {
		if hosts[self], err = c.partner(id, self, authority); err != nil {
			return witness.Session{}, err
		}
	}
	c.sessions = append(c.sessions, hosts)
	name := filepath.Join(c.dir, id.String())
	credentials := endpoint.Credentials{CertFile: name + ".pem", KeyFile: name + ".key", CAFile: name + ".ca"}
	certificate, err := authority.Issue(identity(id, mirror.Witness).URI(endpoint.DefaultDomain), time.Hour)
	return witness.Session{
		ID: id.String(), PartnerA: c.addr[mirror.PartnerA], PartnerB: c.addr[mirror.PartnerB], Credentials: credentials,
	}, errors.Join(err, authority.Write(credentials.CAFile, name+".ca-key"), certs.Write(certificate, credentials.CertFile, credentials.KeyFile))
}

func identity(id host.SessionID, s mirror.Server) endpoint.Identity {
	return endpoint.Identity{Session: id.String(), Role: host.Role(s)}
}

func (c *crowd) partner(id host.SessionID, self mirror.Server, authority *certs.Authority) (*host.Host, error) {
	certificate, err := authority.Issue(identity(id, self).URI(endpoint.DefaultDomain), time.Hour)
	if err != nil {
		return nil, err
	}
	credentials := endpoint.Credentials{Certificate: certificate, Authorities: authority.Pool()}
	peers := map[mirror.Server]*endpoint.Client{}
	for _, peer := range []mirror.Server{self.Other(), mirror.Witness} {
		peers[peer], err = endpoint.NewClient(endpoint.ClientConfig{
			Self: identity(id, self), Peer: identity(id, peer), Addr: c.addr[peer], Credentials: credentials,
		})
		if err != nil {
			return nil, err
		}
	}
	made, err := host.New(host.Config{Session: id, Self: self, Store: &forgetful{}, Peers: peers})
	if err != nil {
		return nil, err
	}
	return made, c.servers[self].Register(endpoint.SessionConfig{
		Self: identity(id, self), Credentials: credentials, Allow: host.Allow(self), Handler: made.Receive,
	})
}

// forgetful is the state of a partner that lives no longer than this process.
type forgetful struct{}

// Load finds nothing.
func (*forgetful) Load() ([]byte, bool, error) { return nil, false, nil }

// Save keeps nothing.
func (*forgetful) Save([]byte) error { return nil }

// establish makes every session, and returns when all three servers of each know it.
func (c *crowd) establish(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, synchronizing, fmt.Errorf("not all sessions were established within %s", synchronizing))
	defer cancel()
	failed := make(chan error, len(c.sessions))
	for _, s := range c.sessions {
		go func() { failed <- establish(ctx, s[mirror.PartnerA], s[mirror.PartnerB]) }()
	}
	var all error
	for range c.sessions {
		if err := <-failed; all == nil {
			all = err
		}
	}
	return all
}

func establish(ctx context.Context, a, b *host.Host) error {
	if err := poll(ctx, func() bool {
		peers := a.Status().Peers
		return peers[mirror.PartnerB].Connected && peers[mirror.Witness].Newcomer != 0
	}); err != nil {
		return err
	}
	if err := a.Ask(ctx, mirror.Event{Kind: mirror.EventCommanded, Command: mirror.Command{
		Kind: mirror.CommandEstablish, Safety: mirror.SafetyFull, Incarnation: a.Status().Peers[mirror.Witness].Newcomer,
	}}); err != nil {
		return err
	}
	return poll(ctx, func() bool { return a.Status().Lease > 0 && b.Status().Quorum == mirror.QuorumFull })
}

// poll waits until something is so, for which there is no event.
func poll(ctx context.Context, so func() bool) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (c *crowd) close() error {
	c.stop()
	c.running.Wait()
	if c.witness == nil || c.witness.Process == nil {
		return nil
	}
	return errors.Join(c.witness.Process.Kill(), ignoreKilled(c.witness.Wait()))
}

// ignoreKilled passes over that a process ended because it was killed.
func ignoreKilled(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}
