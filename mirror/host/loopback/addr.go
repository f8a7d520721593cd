// Package loopback gives tests addresses of this machine at which their programs listen, stop and listen again. It imports
// nothing of the module, so that every package's tests can use it.
package loopback

import (
	"net"
	"strconv"
	"testing"
)

// Addr is an address at which nobody listens. It is the test's until its end: nobody is given it as the port of an
// outgoing connection, or of a listener that asks for any, while the program that listens there is down. Who sets
// SO_REUSEADDR, as Go and PostgreSQL do, can listen there. (On systems other than Linux it is free only now.)
func Addr(t testing.TB) string {
	t.Helper()
	port, release, err := hold()
	if err != nil {
		t.Fatalf("find a free port: %v", err)
	}
	t.Cleanup(release)
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}
