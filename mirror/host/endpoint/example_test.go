package endpoint_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint/certs"
)

// A witness listens, and a partner of its session sends it what it may, and what it may not.
func Example() {
	const session = "00112233445566778899aabbccddeeff"
	partner := endpoint.Identity{Session: session, Role: endpoint.PartnerA}
	witness := endpoint.Identity{Session: session, Role: endpoint.Witness}
	authority, err := certs.NewAuthority("example", time.Hour)
	if err != nil {
		log.Fatal(err)
	}
	credentials := func(who endpoint.Identity) endpoint.Credentials {
		certificate, err := authority.Issue(who.URI(endpoint.DefaultDomain), time.Hour)
		if err != nil {
			log.Fatal(err)
		}
		return endpoint.Credentials{Certificate: certificate, Authorities: authority.Pool()}
	}

	server, err := endpoint.NewServer(endpoint.ServerConfig{})
	if err != nil {
		log.Fatal(err)
	}
	err = server.Register(endpoint.SessionConfig{
		Self: witness, Credentials: credentials(witness),
		Allow: endpoint.Table{endpoint.PartnerA: {"vote": true}},
		Handler: func(_ context.Context, from endpoint.Identity, kind endpoint.Kind, body []byte) ([]byte, error) {
			return fmt.Appendf(nil, "%s for %s: granted %s", kind, from.Role, body), nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- server.Serve(ctx, listener) }()

	client, err := endpoint.NewClient(endpoint.ClientConfig{
		Self: partner, Peer: witness, Addr: listener.Addr().String(), Credentials: credentials(partner),
	})
	if err != nil {
		log.Fatal(err)
	}
	reply, err := client.Send(ctx, "vote", []byte("role sequence 7"))
	fmt.Println(string(reply), err)
	_, err = client.Send(ctx, "log", nil)
	fmt.Println(err != nil)
	client.Close()
	stop()
	fmt.Println(<-served)
	// Output:
	// vote for partner-a: granted role sequence 7 <nil>
	// true
	// <nil>
}
