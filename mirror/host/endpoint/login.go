package endpoint

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// protocol is the only application protocol, as ALPN names it. One connection carries one message at a time.
const protocol = "http/1.1"

// verifier verifies the other side of connections of one session. The last verification of each role is kept, because a
// connection is verified anew with every message. It is safe for concurrent use.
type verifier struct {
	own      *source
	domain   string
	usage    x509.ExtKeyUsage
	expected []Identity

	mu struct {
		sync.Mutex
		last []verified // one for each who is expected, in the same order
	}
}

// verified is a leaf of who is expected, that was verified by material and is good until a time.
type verified struct {
	material *material
	leaf     *x509.Certificate
	until    time.Time
}

func newVerifier(own *source, domain string, usage x509.ExtKeyUsage, expected ...Identity) *verifier {
	v := &verifier{own: own, domain: domain, usage: usage, expected: expected}
	v.mu.last = make([]verified, len(expected))
	return v
}

// verify returns who is at the other end. Its error is a *CertificateError.
func (v *verifier) verify(chain []*x509.Certificate) (Identity, error) {
	if len(chain) == 0 {
		return Identity{}, v.refuse(nil, "the other side has no certificate; give it one", errors.New("no certificate"))
	}
	leaf, present := chain[0], v.own.material()
	if who, ok := v.recall(leaf, present); ok {
		return who, nil
	}
	until, err := v.verifyChain(chain, present)
	if err != nil {
		if newest := v.own.newest(); newest != present {
			present = newest
			until, err = v.verifyChain(chain, present)
		}
	}
	if err != nil {
		return Identity{}, v.refuse(leaf, explain(leaf, err), err)
	}
	who, err := v.identify(leaf)
	if err != nil {
		return Identity{}, err
	}
	v.mu.Lock()
	v.mu.last[slices.Index(v.expected, who)] = verified{material: present, leaf: leaf, until: until}
	v.mu.Unlock()
	return who, nil
}

// recall says whose leaf it is if it has been verified by present and is good still.
func (v *verifier) recall(leaf *x509.Certificate, present *material) (Identity, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i, last := range v.mu.last {
		if last.leaf != nil && (last.leaf == leaf || last.leaf.Equal(leaf)) {
			return v.expected[i], last.material == present && time.Now().Before(last.until)
		}
	}
	return Identity{}, false
}

// identify compares the only URI with who is expected. It does not verify the certificate.
func (v *verifier) identify(leaf *x509.Certificate) (Identity, error) {
	if len(leaf.URIs) != 1 {
		return Identity{}, v.refuse(leaf, fmt.Sprintf("it has %d URIs; issue one with exactly one", len(leaf.URIs)), nil)
	}
	identity, err := ParseIdentity(v.domain, leaf.URIs[0])
	if err != nil {
		return Identity{}, v.refuse(leaf, "it is not that of a server of a session; issue one with the expected URI", nil)
	}
	if !slices.Contains(v.expected, identity) {
		return Identity{}, v.refuse(leaf, "it is somebody else's; check the address and which certificate is installed there", nil)
	}
	return identity, nil
}

func (v *verifier) verifyChain(chain []*x509.Certificate, m *material) (until time.Time, err error) {
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	chains, err := chain[0].Verify(x509.VerifyOptions{
		Roots: m.authorities, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{v.usage},
	})
	if err != nil {
		return time.Time{}, err
	}
	for _, c := range chains {
		end := c[0].NotAfter
		for _, link := range c {
			if link.NotAfter.Before(end) {
				end = link.NotAfter
			}
		}
		if end.After(until) {
			until = end
		}
	}
	return until, nil
}

func (v *verifier) refuse(leaf *x509.Certificate, detail string, err error) *CertificateError {
	var expected []string
	for _, identity := range v.expected {
		expected = append(expected, identity.URI(v.domain).String())
	}
	return &CertificateError{
		Presented: urisOf(leaf), Expected: strings.Join(expected, " or "), Detail: detail, Err: err,
	}
}

// verifyConnection is for tls.Config.
func (v *verifier) verifyConnection(state tls.ConnectionState) error {
	if state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != protocol {
		return fmt.Errorf("%s with protocol %q was negotiated, TLS 1.3 with %s is needed",
			tls.VersionName(state.Version), state.NegotiatedProtocol, protocol)
	}
	_, err := v.verify(state.PeerCertificates)
	return err
}

// explain says what is wrong with a certificate that could not be verified, and how to mend it.
func explain(leaf *x509.Certificate, err error) string {
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && time.Now().Before(leaf.NotBefore):
		return fmt.Sprintf("it is valid from %s on; compare the clocks of the two servers", leaf.NotBefore.UTC().Format(time.RFC3339))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Sprintf("it, or its authority, has expired (%s); issue a new one, it is picked up without a restart",
			leaf.NotAfter.UTC().Format(time.RFC3339))
	case errors.As(err, &unknown):
		return "another authority issued it; give both servers of the session certificates of the same authority (CAFile)"
	default:
		return oneLine(err.Error())
	}
}

// urisOf lists the URIs of a certificate for a message; there may be many, and they may be long.
func urisOf(leaf *x509.Certificate) []string {
	var uris []string
	if leaf == nil {
		return nil
	}
	for i, uri := range leaf.URIs {
		if i == 4 {
			return append(uris, fmt.Sprintf("%d more", len(leaf.URIs)-i))
		}
		s := uri.String()
		if len(s) > 200 {
			s = s[:200] + "…"
		}
		uris = append(uris, oneLine(s))
	}
	return uris
}
