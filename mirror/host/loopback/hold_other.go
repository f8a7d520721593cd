//go:build !linux

package loopback

import "net"

// hold finds a port that is free now; these systems do not let it be held for somebody else.
func hold() (port int, release func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, nil, err
	}
	return l.Addr().(*net.TCPAddr).Port, func() {}, l.Close()
}
