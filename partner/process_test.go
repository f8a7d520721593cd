package partner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
	"github.com/f19126b3/dbmirror/mirror/host/statefile"
	"github.com/f19126b3/dbmirror/partner/pglog"
)

// The tests that kill programs run them as processes: this test binary, started again with its orders in the
// environment.
const ordersVariable = "DBMIRROR_TEST_ORDERS"

func TestMain(m *testing.M) {
	if text := os.Getenv(ordersVariable); text != "" {
		var o orders
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		if err := o.run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// orders say what a process is to be.
type orders struct {
	Session   string
	Self      mirror.Server
	Dir       string
	DSN, Peer string    // of the databases
	Through   bool      // pglog.Config.ThroughPartner
	Addr      [4]string // of the endpoints, as this program reaches them
	Control   string
	Establish bool
	Timing    host.Timing
	Limits    Limits
	Crash     crash // where to end
}

func (o orders) run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /failing", func(rw http.ResponseWriter, r *http.Request) {
		if err := failSystemCall(r.FormValue("call")); err != nil {
			http.Error(rw, err.Error(), http.StatusConflict)
		}
	})
	control := &http.Server{Addr: o.Control, Handler: mux}
	defer control.Close()
	failed := make(chan error, 1)
	go func() {
		if err := control.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	}()
	go func() { failed <- o.runServer(ctx, mux) }()
	return <-failed
}

func (o orders) runServer(ctx context.Context, mux *http.ServeMux) error {
	c := &crasher{dir: o.Dir}
	c.arm(o.Crash)
	c.obey(mux)
	if o.Self == mirror.Witness {
		w, err := newWitness(o.Session, o.Dir, o.Addr, o.Timing)
		if err != nil {
			return err
		}
		c.host.Store(w.host)
		mux.HandleFunc("GET /status", func(rw http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(rw).Encode(Status{Status: w.host.Status()})
		})
		return w.run(ctx)
	}
	database, err := pglog.New(pglog.Config{DSN: pglog.Secret(o.DSN), PeerDSN: pglog.Secret(o.Peer), ThroughPartner: o.Through})
	if err != nil {
		return err
	}
	p, err := New(Config{
		Session: o.Session, Self: o.Self, Dir: o.Dir, Backend: database,
		Listen: o.Addr[o.Self], Peer: o.Addr[o.Self.Other()], Witness: o.Addr[mirror.Witness],
		Credentials: endpoint.Credentials{Plaintext: true}, Establish: o.Establish, Timing: o.Timing, Limits: o.Limits, Logger: testLogger(os.Stderr),
	})
	if err != nil {
		return err
	}
	c.host.Store(p.host)
	c.command(mux, p)
	mux.HandleFunc("GET /status", func(rw http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(rw).Encode(p.Status()) })
	for name, command := range map[string]func(context.Context) error{
		"failover": p.Failover, "suspend": p.Suspend, "resume": p.Resume, "reseed": p.Reseed,
	} {
		mux.HandleFunc("POST /"+name, func(rw http.ResponseWriter, r *http.Request) {
			if err := command(r.Context()); err != nil {
				http.Error(rw, err.Error(), http.StatusConflict)
			}
		})
	}
	return p.Run(ctx)
}

// witnessHost is a witness without the package of that name, which the partners' package does not know.
type witnessHost struct {
	host   *host.Host
	server *endpoint.Server
	addr   string
	store  *statefile.File
	peers  map[mirror.Server]*endpoint.Client
}

func newWitness(session, dir string, addr [4]string, timing host.Timing) (*witnessHost, error) {
	id, err := host.ParseSessionID(session)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	w := &witnessHost{addr: addr[mirror.Witness], peers: map[mirror.Server]*endpoint.Client{}}
	if w.store, err = statefile.Open(filepath.Join(dir, "state"), id); err != nil {
		return nil, err
	}
	plain := endpoint.Credentials{Plaintext: true}
	self := endpoint.Identity{Session: session, Role: endpoint.Witness}
	for s := mirror.PartnerA; s <= mirror.PartnerB; s++ {
		peer := endpoint.Identity{Session: session, Role: host.Role(s)}
		w.peers[s], err = endpoint.NewClient(endpoint.ClientConfig{Self: self, Peer: peer, Addr: addr[s], Credentials: plain, Timeout: time.Second})
		if err != nil {
			return nil, err
		}
	}
	if w.server, err = endpoint.NewServer(endpoint.ServerConfig{Plaintext: true}); err != nil {
		return nil, err
	}
	w.host, err = host.New(host.Config{Session: id, Self: mirror.Witness, Store: w.store, Timing: timing, Peers: w.peers})
	if err != nil {
		return nil, err
	}
	return w, w.server.Register(endpoint.SessionConfig{Self: self, Credentials: plain, Allow: host.Allow(mirror.Witness), Handler: w.host.Receive})
}

func (w *witnessHost) run(ctx context.Context) error {
	serving, stop := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() { _ = w.server.ListenAndServe(serving, w.addr) })
	err := w.host.Run(ctx)
	stop()
	done.Wait()
	for _, c := range w.peers {
		c.Close()
	}
	return errors.Join(err, w.store.Close())
}

// process is one of the three programs of a pair, as a process of its own.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// orders are those for a server's program.
func (p *pair) orders(s mirror.Server) orders {
	o := orders{Session: p.session, Self: s, Dir: filepath.Join(p.dir, s.String()), Addr: p.addr, Control: p.control[s],
		Establish: s == mirror.PartnerA, Timing: p.timing}
	if s.IsPartner() {
		o.DSN, o.Peer = p.pg[s].DSN("app"), p.pg[s.Other()].DSN("app")
	}
	if p.order != nil {
		p.order(&o)
	}
	return o
}

// launch starts a server's program as a process.
func (p *pair) launch(s mirror.Server) {
	p.t.Helper()
	require.NoError(p.t, p.spawn(s))
}

// spawn is launch for any goroutine.
func (p *pair) spawn(s mirror.Server) error {
	text, err := json.Marshal(p.orders(s))
	if err != nil {
		return err
	}
	log, err := os.OpenFile(p.logFile(s), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), ordersVariable+"="+string(text))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = dieWithParent()
	made := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the death signal is bound to the thread that started the process
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
		log.Close()
		close(made.done)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", s, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.process[s] = made
	return nil
}

// logFile is where a program's output goes.
func (p *pair) logFile(s mirror.Server) string { return filepath.Join(p.dir, s.String()+".log") }

// signal sends a signal to a program that runs.
func (p *pair) signal(s mirror.Server, sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process[s] == nil {
		return os.ErrProcessDone
	}
	return p.process[s].cmd.Process.Signal(sig)
}

// pid is the number of a program's process, zero if it does not run.
func (p *pair) pid(s mirror.Server) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process[s] == nil {
		return 0
	}
	return p.process[s].cmd.Process.Pid
}

// ended says whether a program does not run.
func (p *pair) ended(s mirror.Server) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process[s] == nil {
		return true
	}
	select {
	case <-p.process[s].done:
		return true
	default:
		return false
	}
}

// kill ends a process without a word.
func (p *pair) kill(s mirror.Server) {
	p.mu.Lock()
	found := p.process[s]
	p.process[s] = nil
	p.mu.Unlock()
	if found != nil {
		_ = found.cmd.Process.Kill()
		<-found.done
	}
}

// ask reads the status of a process.
func (p *pair) ask(s mirror.Server) (Status, error) {
	client := http.Client{Timeout: 2 * time.Second}
	var st Status
	r, err := client.Get("http://" + p.control[s] + "/status")
	if err != nil {
		return st, err
	}
	defer r.Body.Close()
	return st, json.NewDecoder(r.Body).Decode(&st)
}

// tail shows the end of the processes' logs when a test has failed.
func (p *pair) tail() {
	if !p.t.Failed() {
		return
	}
	for s := mirror.PartnerA; s <= mirror.Witness; s++ {
		b, err := os.ReadFile(p.logFile(s))
		if err == nil {
			p.t.Logf("--- %s\n%s", s, b[max(0, len(b)-6000):])
		}
	}
}

// post gives a command to a process.
func (p *pair) post(s mirror.Server, path string) {
	p.t.Helper()
	require.NoError(p.t, p.give(s, path))
}

// give is post for any goroutine; a refusal is an error.
func (p *pair) give(s mirror.Server, path string) error {
	client := http.Client{Timeout: 10 * time.Second}
	r, err := client.Post("http://"+p.control[s]+path, "", nil)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s at %s: %s", path, s, text)
	}
	return err
}

// awaitSettledAt waits until the session is healed with that principal.
func (p *pair) awaitSettledAt(s mirror.Server) {
	p.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for p.settle() != s {
		select {
		case <-tick.C:
		case <-deadline.C:
			p.t.Fatalf("%s does not become principal", s)
		}
	}
}
