package endpoint

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Credentials are how a server proves who it is and verifies others: three files, or the same in memory, or Plaintext.
type Credentials struct {
	// PEM files. They are read again when they change, which each new connection notices at once and an open one within
	// a second; a change that cannot be used is logged, and the old ones stay in use. Nobody but user and group may read
	// KeyFile. Replace files by renaming.
	CertFile, KeyFile, CAFile string

	Certificate tls.Certificate
	Authorities *x509.CertPool // of this session; never the system's

	// Plaintext does without. It is for loopback only.
	Plaintext bool
}

func (c Credentials) validate() error {
	files := c.CertFile != "" || c.KeyFile != "" || c.CAFile != ""
	memory := len(c.Certificate.Certificate) > 0 || c.Authorities != nil
	switch {
	case c.Plaintext && (files || memory):
		return errors.New("credentials: Plaintext excludes certificates")
	case c.Plaintext:
		return nil
	case files && memory:
		return errors.New("credentials: give files or certificates in memory, not both")
	case files && (c.CertFile == "" || c.KeyFile == "" || c.CAFile == ""):
		return errors.New("credentials: CertFile, KeyFile and CAFile belong together")
	case memory && (len(c.Certificate.Certificate) == 0 || c.Authorities == nil):
		return errors.New("credentials: Certificate and Authorities belong together")
	case !files && !memory:
		return errors.New("credentials: none given; name CertFile, KeyFile and CAFile")
	}
	return nil
}

// material is one generation of credentials. It does not change.
type material struct {
	certificate *tls.Certificate
	authorities *x509.CertPool
	files       fileState
}

// fileState tells whether files have changed.
type fileState [3]os.FileInfo

func (f fileState) same(g fileState) bool {
	for i := range f {
		if f[i] == nil || g[i] == nil {
			if f[i] != g[i] {
				return false
			}
		} else if !os.SameFile(f[i], g[i]) || f[i].Size() != g[i].Size() || !f[i].ModTime().Equal(g[i].ModTime()) {
			return false
		}
	}
	return true
}

// source hands out the present material. It is safe for concurrent use.
type source struct {
	credentials Credentials
	self        Identity
	domain      string
	logger      *slog.Logger
	failures    atomic.Uint64

	mu struct {
		sync.Mutex
		current *material
		bad     fileState // the last state of the files that could not be used
		looked  time.Time // at the files
	}
}

// newSource reads the credentials of self. It refuses those of somebody else.
func newSource(credentials Credentials, self Identity, domain string, logger *slog.Logger) (*source, error) {
	s := &source{credentials: credentials, self: self, domain: domain, logger: logger}
	current, err := s.load(s.look())
	if err != nil {
		return nil, err
	}
	s.mu.current, s.mu.looked = current, time.Now()
	return s, nil
}

// lookEvery is how often the files are looked at on behalf of messages, of which there may be thousands a second.
const lookEvery = time.Second

// material returns credentials that were the newest within lookEvery.
func (s *source) material() *material {
	s.mu.Lock()
	current, fresh := s.mu.current, time.Since(s.mu.looked) < lookEvery
	s.mu.Unlock()
	if fresh || s.credentials.CertFile == "" {
		return current
	}
	return s.newest()
}

// newest returns the newest credentials that could be used.
func (s *source) newest() *material {
	state := s.look()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.looked = time.Now()
	if state.same(s.mu.current.files) || state.same(s.mu.bad) {
		return s.mu.current
	}
	next, err := s.load(state)
	if err != nil {
		s.mu.bad = state
		s.failures.Add(1)
		s.logger.Warn("changed credentials are not usable, the old ones stay in use",
			"session", s.self.Session, "role", string(s.self.Role), "reason", err.Error())
		return s.mu.current
	}
	s.mu.current = next
	s.logger.Info("credentials replaced", "session", s.self.Session, "role", string(s.self.Role),
		"expires", next.certificate.Leaf.NotAfter)
	return next
}

// look takes the state of the files. A missing file is nil; load says so.
func (s *source) look() (state fileState) {
	if s.credentials.CertFile == "" {
		return state
	}
	for i, name := range []string{s.credentials.CertFile, s.credentials.KeyFile, s.credentials.CAFile} {
		if info, err := os.Stat(name); err == nil {
			state[i] = info
		}
	}
	return state
}

func (s *source) load(state fileState) (*material, error) {
	m := &material{authorities: s.credentials.Authorities, files: state}
	pair := s.credentials.Certificate
	if s.credentials.CertFile != "" {
		var err error
		if pair, m.authorities, err = s.read(state); err != nil {
			return nil, err
		}
	}
	if m.authorities.Equal(x509.NewCertPool()) {
		return nil, errors.New("credentials: there is no authority to verify others by")
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("credentials: parse our certificate: %w", err)
	}
	pair.Leaf = leaf
	m.certificate = &pair
	if expected := s.self.URI(s.domain); len(leaf.URIs) != 1 || leaf.URIs[0].String() != expected.String() {
		return nil, fmt.Errorf("credentials: our own %w", &CertificateError{
			Presented: urisOf(leaf), Expected: expected.String(),
			Detail: "this is not the certificate of this server; name the right file, or issue one with exactly that URI",
		})
	}
	return m, nil
}

// read reads the three files. Its errors do not tell the place or the content of the key.
func (s *source) read(state fileState) (pair tls.Certificate, pool *x509.CertPool, err error) {
	cert, err := os.ReadFile(s.credentials.CertFile)
	if err != nil {
		return pair, nil, fmt.Errorf("credentials: read CertFile: %w", err)
	}
	key, err := os.ReadFile(s.credentials.KeyFile)
	if err != nil {
		return pair, nil, fmt.Errorf("credentials: read KeyFile: %w", withoutPath(err))
	}
	if state[1] != nil && state[1].Mode().Perm()&0o007 != 0 {
		return pair, nil, fmt.Errorf("credentials: everybody may access KeyFile (mode %04o); chmod 600 it",
			state[1].Mode().Perm())
	}
	authorities, err := os.ReadFile(s.credentials.CAFile)
	if err != nil {
		return pair, nil, fmt.Errorf("credentials: read CAFile: %w", err)
	}
	pair, err = tls.X509KeyPair(cert, key)
	if err != nil {
		return pair, nil, fmt.Errorf("credentials: CertFile and KeyFile: %w", err)
	}
	pool = x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authorities) {
		return pair, nil, fmt.Errorf("credentials: CAFile %s has no certificate in PEM form", s.credentials.CAFile)
	}
	return pair, pool, nil
}

func withoutPath(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
