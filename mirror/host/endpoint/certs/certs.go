// Package certs makes the certificates the servers of a session know each other by: an authority of the session's own
// and one short-lived certificate per server, with its identity as the only URI.
//
// It is meant for tests, examples and small set-ups. It keeps no list of what was issued and revokes nothing: what ends
// a certificate is its lifetime, or another authority. Where a certificate service is in use already, let that issue
// them; the endpoint asks only for one URI of the form endpoint.Identity.URI gives, usable for client and server.
package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// clockSkew is how far a certificate is dated back, for servers whose clocks are behind.
const clockSkew = 5 * time.Minute

// Authority signs certificates. It is safe for concurrent use.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority makes an authority with a new ECDSA P-256 key. The name is shown to people only.
func NewAuthority(name string, lifetime time.Duration) (*Authority, error) {
	template, key, err := prepare(name, lifetime)
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.MaxPathLenZero = true
	template.KeyUsage = x509.KeyUsageCertSign
	certificate, err := sign(template, template, key, key)
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	return &Authority{certificate: certificate, key: key}, nil
}

// LoadAuthority reads what [Authority.Write] wrote.
func LoadAuthority(certFile, keyFile string) (*Authority, error) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("load authority: %w", withoutPath(err))
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA {
		return nil, fmt.Errorf("load authority: %s is not the certificate of an authority with an ECDSA key", certFile)
	}
	return &Authority{certificate: pair.Leaf, key: key}, nil
}

// Issue makes a certificate for one server, with a new ECDSA P-256 key, good as a client's and as a server's. It ends
// with the authority's if that comes first.
func (a *Authority) Issue(identity *url.URL, lifetime time.Duration) (tls.Certificate, error) {
	template, key, err := prepare("", lifetime)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issue certificate for %s: %w", identity, err)
	}
	if template.NotAfter.After(a.certificate.NotAfter) {
		template.NotAfter = a.certificate.NotAfter
	}
	template.URIs = []*url.URL{identity}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	leaf, err := sign(template, a.certificate, key, a.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issue certificate for %s: %w", identity, err)
	}
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// Pool holds the authority and nothing else.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// Write puts the authority's certificate, which every server of the session gets, and its key, which none of them
// needs, into PEM files.
func (a *Authority) Write(certFile, keyFile string) error {
	return Write(tls.Certificate{Certificate: [][]byte{a.certificate.Raw}, PrivateKey: a.key}, certFile, keyFile)
}

// Write puts a certificate and its key into PEM files; only the owner may read the key. Each file is replaced as a
// whole, the key first.
func Write(certificate tls.Certificate, certFile, keyFile string) error {
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	if err := replace(keyFile, 0o600, "PRIVATE KEY", key); err != nil {
		return fmt.Errorf("write key: %w", withoutPath(err))
	}
	if err := replace(certFile, 0o644, "CERTIFICATE", certificate.Certificate...); err != nil {
		return fmt.Errorf("write certificate: %w", err)
	}
	return nil
}

func prepare(name string, lifetime time.Duration) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	if lifetime <= 0 {
		return nil, nil, fmt.Errorf("a lifetime of %s is not a lifetime", lifetime)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-clockSkew),
		NotAfter:     now.Add(lifetime),
	}, key, nil
}

func sign(template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) (*x509.Certificate, error) {
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(raw)
}

// replace writes the file beside its place and moves it there, so that a reader sees the old one or the new one.
func replace(path string, mode os.FileMode, kind string, blocks ...[]byte) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	for _, block := range blocks {
		err = errors.Join(err, pem.Encode(file, &pem.Block{Type: kind, Bytes: block}))
	}
	err = errors.Join(err, file.Chmod(mode), file.Sync(), file.Close())
	if err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

// withoutPath keeps the place of a key out of errors, which end up in logs.
func withoutPath(err error) error {
	var path *os.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	default:
		return err
	}
}
