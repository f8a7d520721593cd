package trio

import (
	"fmt"
	"math/rand/v2"
	"net"

	"github.com/f19126b3/dbmirror/mirror"
)

// FreePort returns a port of loopback where nobody listens now, for a program that is told where to. It lies below the
// ports that systems give to whoever asks for any: a connection that took it before the program listens, or while it is
// down, would keep the program away.
func FreePort() (int, error) {
	l, err := listen()
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

func listen() (l net.Listener, err error) {
	for range 100 {
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000))); err == nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("find a free port: none of 100 between 20000 and 32000 is free: %w", err)
}

// takePorts picks the addresses of the endpoints and the operators.
func (t *Trio) takePorts() error {
	var held []net.Listener // so that none is picked twice
	defer func() {
		for _, l := range held {
			l.Close()
		}
	}()
	take := func() (string, error) {
		l, err := listen()
		if err != nil {
			return "", err
		}
		held = append(held, l)
		return l.Addr().String(), nil
	}
	var err error
	for p := mirror.PartnerA; p <= mirror.Witness && err == nil; p++ {
		t.addr[p], err = take()
	}
	for p := mirror.PartnerA; p <= mirror.PartnerB && err == nil; p++ {
		var addr string
		addr, err = take()
		t.page[p] = Page(addr)
	}
	return err
}
