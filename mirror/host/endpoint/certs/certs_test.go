package certs

import (
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestIssue(t *testing.T) {
	identity := &url.URL{Scheme: "spiffe", Host: "example", Path: "/mirror/s/witness"}
	authority, err := NewAuthority("test", 2*time.Hour)
	require.NoError(t, err)
	for lifetime, want := range map[time.Duration]time.Duration{time.Hour: time.Hour, 5 * time.Hour: 2 * time.Hour} {
		pair, err := authority.Issue(identity, lifetime)
		require.NoError(t, err)
		require.WithinDuration(t, time.Now().Add(want), pair.Leaf.NotAfter, time.Minute)
		require.True(t, pair.Leaf.NotBefore.Before(time.Now()))
		require.Equal(t, []*url.URL{identity}, pair.Leaf.URIs)
		require.Empty(t, pair.Leaf.DNSNames)
		require.False(t, pair.Leaf.IsCA)
		for _, usage := range pair.Leaf.ExtKeyUsage {
			_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: authority.Pool(), KeyUsages: []x509.ExtKeyUsage{usage}})
			require.NoError(t, err)
		}
		require.Len(t, pair.Leaf.ExtKeyUsage, 2)
	}
	_, err = authority.Issue(identity, 0)
	require.ErrorContains(t, err, "lifetime")
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	authority, err := NewAuthority("test", time.Hour)
	require.NoError(t, err)
	require.NoError(t, authority.Write(file("ca.pem"), file("ca.key")))
	again, err := LoadAuthority(file("ca.pem"), file("ca.key"))
	require.NoError(t, err)

	pair, err := again.Issue(&url.URL{Scheme: "spiffe", Host: "h", Path: "/p"}, time.Hour)
	require.NoError(t, err)
	require.NoError(t, Write(pair, file("a.pem"), file("a.key")))
	loaded, err := tls.LoadX509KeyPair(file("a.pem"), file("a.key"))
	require.NoError(t, err)
	_, err = loaded.Leaf.Verify(x509.VerifyOptions{Roots: authority.Pool()})
	require.NoError(t, err)

	info, err := os.Stat(file("a.key"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 4, "no temporary file is left")

	_, err = LoadAuthority(file("a.pem"), file("a.key"))
	require.ErrorContains(t, err, "not the certificate of an authority")
	_, err = LoadAuthority(file("ca.pem"), file("secret-place"))
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NotContains(t, err.Error(), "secret-place")
	err = Write(pair, file("a.pem"), file("no/secret-place"))
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NotContains(t, err.Error(), "secret-place")
}
