package partner_test

import (
	"context"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/endpoint"
	"github.com/f19126b3/dbmirror/partner"
	"github.com/f19126b3/dbmirror/partner/pglog"
)

// One partner as a program. The other one runs beside the other server, with Self and the addresses exchanged and
// without Establish.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	database, err := pglog.New(pglog.Config{
		DSN:     pglog.Secret(os.Getenv("DBMIRROR_DSN")),
		PeerDSN: pglog.Secret(os.Getenv("DBMIRROR_PEER_DSN")),
	})
	if err != nil {
		log.Fatal(err) // names the cause and the mend
	}
	p, err := partner.New(partner.Config{
		Session:     "00112233445566778899aabbccddeeff", // openssl rand -hex 16
		Self:        mirror.PartnerA,
		Dir:         "/var/lib/dbmirror",
		Backend:     database,
		Listen:      ":7000",
		Peer:        "db-b.example.org:7000",
		Witness:     "witness.example.org:7001",
		Credentials: endpoint.Credentials{CertFile: "a.pem", KeyFile: "a.key", CAFile: "ca.pem"},
		Establish:   true, // make the session, as principal, when there is none yet
		Logger:      slog.Default(),
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := p.Run(ctx); err != nil { // principal or mirror: it finds out by itself
		log.Fatal(err)
	}
}

// TestReadmeShowsTheExample keeps the program in README.md the one that is compiled here.
func TestReadmeShowsTheExample(t *testing.T) {
	source, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	_, body, found := strings.Cut(string(source), "func Example() {\n")
	require.True(t, found)
	body, _, found = strings.Cut(body, "\n}\n")
	require.True(t, found)
	lines := strings.Split(body, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimPrefix(line, "\t")
	}
	require.Contains(t, string(readme), "```go\n"+strings.Join(lines, "\n")+"\n```", "README.md shows another program")
}
