// Package trio runs the three servers of a session, two partners and a witness, as processes of this machine: each is
// the calling program started once more. The programs in examples that need a whole session share it.
//
// A program that uses it begins with
//
//	if settings, ok := trio.Child(os.Args); ok {
//		os.Exit(trio.RunProgram(settings, app))
//	}
package trio

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint/certs"
)

// Config is what a Trio is made with.
type Config struct {
	Dir     string    // of everything that the three servers keep; it exists
	Profile string    // how soon a silent server is given up; see [operator.Profile]
	DSN     [3]string // of the mirrored PostgreSQL database, by mirror.Server; the first is unused
	// ThroughPartner sends log from partner to partner, see pglog.Config.
	ThroughPartner bool
	Path           [3]string // of the mirrored SQLite database instead
	// Via is a command that runs the command behind it, in front of each process. Nil: none.
	Via []string
	// Heard is told each line that a process prints, from a goroutine of that process. Nil: nobody.
	Heard func(p mirror.Server, line []byte)
}

// Trio is three servers of one session. Partner-a is to be the first principal. Its methods belong to one goroutine.
type Trio struct {
	cfg      Config
	session  string
	programs [4]*process // nil: not running, as it should be
	addr     [4]string   // of the endpoints
	page     [3]Page
}

// New takes addresses, makes a certificate for each server, and writes what the processes need. It starts none.
func New(cfg Config) (*Trio, error) {
	if cfg.Heard == nil {
		cfg.Heard = func(mirror.Server, []byte) {}
	}
	var id [16]byte
	rand.Read(id[:])
	t := &Trio{cfg: cfg, session: hex.EncodeToString(id[:])}
	if err := t.takePorts(); err != nil {
		return nil, err
	}
	return t, t.writeSettings()
}

// Page is the page of a partner's operator.
func (t *Trio) Page(p mirror.Server) Page { return t.page[p] }

// Dir is the directory of one server.
func (t *Trio) Dir(p mirror.Server) string { return t.path(p, "d") }

// life is how long the certificates are valid.
const life = 24 * time.Hour

// writeSettings makes a certificate for each server of the session, and the file that its process reads.
func (t *Trio) writeSettings() error {
	authority, err := certs.NewAuthority("trio", life)
	if err != nil {
		return err
	}
	ca := filepath.Join(t.cfg.Dir, "ca.pem")
	if err := authority.Write(ca, filepath.Join(t.cfg.Dir, "ca.key")); err != nil {
		return err
	}
	for p := mirror.PartnerA; p <= mirror.Witness; p++ {
		name := t.path(p, "")
		credentials := endpoint.Credentials{CertFile: name + "pem", KeyFile: name + "key", CAFile: ca}
		identity := endpoint.Identity{Session: t.session, Role: host.Role(p)}
		certificate, err := authority.Issue(identity.URI(endpoint.DefaultDomain), life)
		if err != nil {
			return err
		}
		if err := certs.Write(certificate, credentials.CertFile, credentials.KeyFile); err != nil {
			return err
		}
		set := settings{Session: t.session, Self: p, Dir: t.path(p, "d"), Addr: t.addr, Profile: t.cfg.Profile, Credentials: credentials}
		if p.IsPartner() {
			set.DSN, set.PeerDSN, set.Path, set.Operator = t.cfg.DSN[p], t.cfg.DSN[p.Other()], t.cfg.Path[p], string(t.page[p])
			set.ThroughPartner, set.Other = t.cfg.ThroughPartner, string(t.page[p.Other()])
		}
		raw, err := json.Marshal(set)
		if err != nil {
			return err
		}
		if err := os.WriteFile(t.path(p, "json"), raw, 0o600); err != nil {
			return fmt.Errorf("write settings: %w", err)
		}
	}
	return nil
}

// path is that of a server's file of a kind; kind d is its directory.
func (t *Trio) path(p mirror.Server, kind string) string {
	return filepath.Join(t.cfg.Dir, p.String()+"."+kind)
}

// Start runs the process of one server of the session.
func (t *Trio) Start(p mirror.Server) error {
	made, err := startProcess(p.String(), t.cfg.Via, t.path(p, "json"), t.path(p, "log"), func(line []byte) { t.cfg.Heard(p, line) })
	if err != nil {
		return err
	}
	t.programs[p] = made
	return nil
}

// Kill ends the process of one server like a power cut.
func (t *Trio) Kill(p mirror.Server) error {
	program := t.programs[p]
	t.programs[p] = nil
	return program.kill()
}

// Stop ends the process of one server in order.
func (t *Trio) Stop(p mirror.Server) error {
	program := t.programs[p]
	t.programs[p] = nil
	return program.stop(10 * time.Second)
}

// Pause stops the process of a server between two instructions, until Resume lets it go on.
func (t *Trio) Pause(p mirror.Server) error { return t.programs[p].cmd.Process.Signal(syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (t *Trio) Resume(p mirror.Server) error {
	return t.programs[p].cmd.Process.Signal(syscall.SIGCONT)
}

// Crashed is an error when a process has ended that should run.
func (t *Trio) Crashed() error {
	for _, p := range t.Ended() {
		return fmt.Errorf("%s has ended by itself: %w", p, t.programs[p].err)
	}
	return nil
}

// Ended are the servers whose process has ended and should run. Start runs it again.
func (t *Trio) Ended() (all []mirror.Server) {
	for p := mirror.PartnerA; p <= mirror.Witness; p++ {
		if t.programs[p] == nil {
			continue
		}
		select {
		case <-t.programs[p].done:
			all = append(all, p)
		default:
		}
	}
	return all
}

// Tails returns the ends of the logs of all processes, for a person who looks for what went wrong.
func (t *Trio) Tails() string {
	var text strings.Builder
	for p := mirror.PartnerA; p <= mirror.Witness; p++ {
		text.WriteString(Tail(p.String(), t.path(p, "log")))
	}
	return text.String()
}

// Tail is the end of one file under a heading; it is empty when there is no such file yet.
func Tail(name, file string) string {
	raw, err := os.ReadFile(file)
	if err != nil {
		return "" // it never came to a log
	}
	lines := strings.Split(strings.TrimRight(string(raw), "\n"), "\n")
	return fmt.Sprintf("\n--- the last lines of %s\n%s\n", name, strings.Join(lines[max(0, len(lines)-12):], "\n"))
}

// Close ends every process.
func (t *Trio) Close() error {
	var all error
	for _, program := range t.programs {
		if program != nil {
			all = errors.Join(all, program.kill())
		}
	}
	return all
}

// Pid is the process of a server that runs.
func (t *Trio) Pid(p mirror.Server) int { return t.programs[p].cmd.Process.Pid }
