package pglog

import (
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/f19126b3/dbmirror/partner/backend"
	"github.com/f19126b3/dbmirror/partner/pgtest"
)

// A PeerDSN that became wrong after the session was made shows as trouble: one line, with cause and mend.
func TestPeerThatIsNotReachedNamesTheMend(t *testing.T) {
	server := pgtest.New(t, nil)
	p := &peer{dsn: Secret(server.DSN("nowhere")), env: backend.Env{Session: "00112233445566778899aabbccddeeff"}}
	t.Cleanup(p.close)
	_, err := p.Reign(t.Context(), 1)
	require.EqualError(t, err, `connect to the other side's server by PeerDSN: the server refuses: database "nowhere" does not exist `+
		`(SQLSTATE 3D000); the DSN names a database that does not exist`)
	var refused *pgconn.PgError
	require.ErrorAs(t, err, &refused)
}
