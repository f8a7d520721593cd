package backend

import (
	"context"
	"log/slog"
	"net"

	"github.com/f19126b3/dbmirror/mirror"
)

// Backend is one database and the way to it, as the program configured it. What a program can get wrong was checked when
// it was made. One Backend serves one Partner.
type Backend interface {
	// Open opens the database on this side; the other side need not be reachable. It is called once, when the partner
	// begins to run, changes nothing in the database, and must not let anybody write who could not before. A later loss
	// of the database is no concern of Open: the Database comes back by itself, and Probe tells.
	Open(ctx context.Context, env Env) (Database, error)
	// Unreachable explains the error of an Open, or of a call of Probe or Peer that did not get through, as a fatal
	// finding at a server, "principal" or "mirror": what in the configuration, or there, has to change.
	Unreachable(server string, err error) Finding
	// Settings are what the settings of this backend are called that lead to the database here and to the one on the other
	// side, for messages such as "PeerDSN leads to ...: correct PeerDSN".
	Settings() (here, there string)
}

// Env is what a partner gives its backend.
type Env struct {
	Session string        // 32 hexadecimal digits, the same on both sides
	Self    mirror.Server // PartnerA or PartnerB
	Dir     string        // the backend's own directory; it does not exist before the backend makes it
	Logger  *slog.Logger

	// Dial connects to the other partner, which hands its end to the Acceptor of its backend. The connection is
	// authenticated and, between machines, encrypted. It breaks like any other, and the other side may be down, or older.
	Dial func(ctx context.Context) (net.Conn, error)

	// Principal says where the principal is: the address of the other partner's endpoint, or nothing while the principal is
	// here, or nobody is known to be it. Clients that are not let in can be told. It does not block; nil: nothing is known.
	Principal func() string

	LogBudget   int64 // how much log, in bytes, the principal may keep for the mirror: see Reigns.Retained
	CopyWorkers int   // how much may be copied at a time, 1 to 64
	SafetyOff   bool  // the session is to be made with safety OFF: requirements of FULL are no more than worth a warning
}

// Short is the part of the session that is in names on servers: eight hexadecimal digits.
func (e Env) Short() string { return e.Session[:min(8, len(e.Session))] }

// Database is the database on this side.
type Database interface {
	Probe
	Gate
	Commits
	Reigns
	Barriers
	Tail
	Follower
	Seeder
	Examiner
	Verifier

	// Peer is the other side's database. It connects to nothing by itself; what has to be connected is when one of its
	// methods is called.
	Peer() Peer
	// Close ends what was opened. It is the last call. The gate and whom commits wait for stay as they are, for as long as
	// the database itself lives.
	Close()
}

// Peer is the other side's database, as it can be asked from here. Its methods return an error when the other side does
// not answer, within seconds or when the context ends.
type Peer interface {
	// Identity is the other side's.
	Identity(ctx context.Context) (Identity, error)
	// Reign is the beginning of a role sequence in that database's log. It returns ErrNoReign when that is not, or not
	// yet, principal in it.
	Reign(ctx context.Context, seq mirror.RoleSeq) (Reign, error)
	// Gate is where the other side's gate is.
	Gate(ctx context.Context) (mirror.Gate, error)
}

// Acceptor is a Database that takes connections which the other partner's backend makes by Env.Dial. Where a database is
// reached by connections of its own it need not be one.
type Acceptor interface {
	// Accept serves one connection until ctx ends, or the connection does, and then returns. The caller closes it. Several
	// may be served at a time, also while the session has not begun: who may ask for what is the backend's to decide.
	Accept(ctx context.Context, conn net.Conn) error
}
