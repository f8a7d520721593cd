package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint/certs"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// stage is everything that the tour needs of this machine: two PostgreSQL servers, the processes of the session, and a
// directory for all of them. Its methods are called by one goroutine.
type stage struct {
	out      *console
	profile  string
	session  string
	dir      string
	install  pgtest.Install
	pg       [3]*pgtest.Server // by mirror.Server
	programs [4]*process       // nil: not running, as it should be
	addr     [4]string         // of the endpoints
	page     [3]page           // of the partners' operators
}

// newStage finds PostgreSQL, makes two servers, and writes what the processes need. Close must be called also when it
// returns an error.
func newStage(ctx context.Context, out *console, profile string) (*stage, error) {
	s := &stage{out: out, profile: profile}
	var err error
	if s.install, err = pgtest.Find(ctx, out); err != nil {
		return s, err
	}
	if s.dir, err = os.MkdirTemp("", "dbmirror-tour-"); err != nil {
		return s, fmt.Errorf("make directory: %w", err)
	}
	var id [16]byte
	rand.Read(id[:])
	s.session = hex.EncodeToString(id[:])
	if err := s.startServers(ctx); err != nil {
		return s, err
	}
	out.note("PostgreSQL %d from %s: partner-a's server on port %d, partner-b's on port %d", s.install.Version, s.install.Bin,
		s.pg[mirror.PartnerA].Port(), s.pg[mirror.PartnerB].Port())
	if err := s.takePorts(); err != nil {
		return s, err
	}
	return s, s.writeSettings()
}

func (s *stage) startServers(ctx context.Context) error {
	var starting sync.WaitGroup
	var errs [3]error
	for p := mirror.PartnerA; p <= mirror.PartnerB; p++ {
		starting.Go(func() {
			s.pg[p], errs[p] = pgtest.Start(ctx, s.install, pgtest.Config{Dir: filepath.Join(s.dir, "postgresql-"+p.String())})
		})
	}
	starting.Wait()
	return errors.Join(errs[:]...)
}

// takePorts picks the addresses of the endpoints and the operators. They lie below the ports that systems give to
// whoever asks for any, so that nobody takes one while its process is down.
func (s *stage) takePorts() error {
	var held []net.Listener
	defer func() {
		for _, l := range held {
			l.Close()
		}
	}()
	take := func() (string, error) {
		for range 100 {
			n, err := rand.Int(rand.Reader, big.NewInt(12000))
			if err != nil {
				return "", err
			}
			if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+n.Int64())); err == nil {
				held = append(held, l)
				return l.Addr().String(), nil
			}
		}
		return "", errors.New("find a free port: none of 100 between 20000 and 32000 is free")
	}
	var err error
	for p := mirror.PartnerA; p <= mirror.Witness && err == nil; p++ {
		s.addr[p], err = take()
	}
	for p := mirror.PartnerA; p <= mirror.PartnerB && err == nil; p++ {
		var addr string
		addr, err = take()
		s.page[p] = page(addr)
	}
	return err
}

// writeSettings makes a certificate for each server of the session, and the file that its process reads.
func (s *stage) writeSettings() error {
	authority, err := certs.NewAuthority("tour", time.Hour)
	if err != nil {
		return err
	}
	ca := filepath.Join(s.dir, "ca.pem")
	if err := authority.Write(ca, filepath.Join(s.dir, "ca.key")); err != nil {
		return err
	}
	for p := mirror.PartnerA; p <= mirror.Witness; p++ {
		name := s.path(p, "")
		credentials := endpoint.Credentials{CertFile: name + "pem", KeyFile: name + "key", CAFile: ca}
		identity := endpoint.Identity{Session: s.session, Role: host.Role(p)}
		certificate, err := authority.Issue(identity.URI(endpoint.DefaultDomain), time.Hour)
		if err != nil {
			return err
		}
		if err := certs.Write(certificate, credentials.CertFile, credentials.KeyFile); err != nil {
			return err
		}
		set := settings{Session: s.session, Self: p, Dir: s.path(p, "d"), Addr: s.addr, Profile: s.profile, Credentials: credentials}
		if p.IsPartner() {
			set.DSN, set.PeerDSN, set.Operator = s.pg[p].DSN("app"), s.pg[p.Other()].DSN("app"), string(s.page[p])
		}
		raw, err := json.Marshal(set)
		if err != nil {
			return err
		}
		if err := os.WriteFile(s.path(p, "json"), raw, 0o600); err != nil {
			return fmt.Errorf("write settings: %w", err)
		}
	}
	return nil
}

// path is that of a server's file of a kind; kind d is its directory.
func (s *stage) path(p mirror.Server, kind string) string {
	return filepath.Join(s.dir, p.String()+"."+kind)
}

// start runs the process of one server of the session.
func (s *stage) start(p mirror.Server) error {
	made, err := startProcess(p.String(), s.path(p, "json"), s.path(p, "log"), func(line []byte) { s.heard(p, line) })
	if err != nil {
		return err
	}
	s.programs[p] = made
	return nil
}

// kill ends the process of one server like a power cut.
func (s *stage) kill(p mirror.Server) error {
	program := s.programs[p]
	s.programs[p] = nil
	return program.kill()
}

// stop ends the process of one server in order.
func (s *stage) stop(p mirror.Server) error {
	program := s.programs[p]
	s.programs[p] = nil
	return program.stop(10 * time.Second)
}

// crashed is an error when a process has ended that should run.
func (s *stage) crashed() error {
	for _, program := range s.programs {
		if program == nil {
			continue
		}
		select {
		case <-program.done:
			return fmt.Errorf("%s has ended by itself: %w", program.name, program.err)
		default:
		}
	}
	return nil
}

// tails returns the ends of all logs.
func (s *stage) tails() string {
	var text strings.Builder
	add := func(name, file string) {
		raw, err := os.ReadFile(file)
		if err != nil {
			return // it never came to a log
		}
		fmt.Fprintf(&text, "\n--- the last lines of %s\n%s\n", name, last(strings.TrimRight(string(raw), "\n"), 12))
	}
	for p := mirror.PartnerA; p <= mirror.Witness; p++ {
		add(p.String(), s.path(p, "log"))
		if p.IsPartner() && s.pg[p] != nil {
			add("the PostgreSQL server of "+p.String(), s.pg[p].LogFile())
		}
	}
	return text.String()
}

// last returns the last n lines.
func last(text string, n int) string {
	all := strings.Split(text, "\n")
	return strings.Join(all[max(0, len(all)-n):], "\n")
}

// close ends every process and removes every file.
func (s *stage) close() error {
	var all error
	for _, program := range s.programs {
		if program != nil {
			all = errors.Join(all, program.kill())
		}
	}
	for _, server := range s.pg {
		if server != nil {
			all = errors.Join(all, server.Remove())
		}
	}
	if s.dir == "" {
		return all
	}
	return errors.Join(all, os.RemoveAll(s.dir))
}
