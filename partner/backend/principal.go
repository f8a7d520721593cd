package backend

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// Probe tells whether the database is there and which one it is.
type Probe interface {
	// Ping asks the database how it is. It is called a few times a second.
	Ping(ctx context.Context) (Health, error)
	// Identity reads which database it is.
	Identity(ctx context.Context) (Identity, error)
}

// Health is what Ping saw.
type Health struct {
	// Started is when the database last began its life. It changes whenever what was proven of it before is void: after
	// it, settings are those that were persisted, and commits that waited for the mirror may be visible.
	Started time.Time
	End     mirror.LSN // the end of this database's log on its disk
}

// Identity tells one database from every other.
type Identity struct {
	// ID is what is compared: at most 64 bytes, without spaces. A database keeps it for its whole life, under another name
	// and after a restore too; one that is made anew in its place has another.
	ID string `json:"id"`
	// Name is how it is called in messages, such as "database app of the server with system identifier 7". No secrets.
	Name string `json:"name"`
}

// String is the Name.
func (i Identity) String() string { return i.Name }

// Same says whether both are one database.
func (i Identity) Same(j Identity) bool { return i.ID == j.ID }

// Gate holds clients off the database, or lets them in.
type Gate interface {
	// Gate reads where the gate is, from the database itself: nobody's memory of having put it there counts.
	Gate(ctx context.Context) (mirror.Gate, error)
	// SetGate moves the gate, and returns when it is proven to be there: open, read-only or closed. Closing ends whatever
	// clients do; one that is in the middle of something may finish it within grace. Rights are taken away before
	// anything else is waited for. A database that restarts is where it was put, or closed.
	//
	// It must work, and soon, while commits wait for a mirror that is gone.
	SetGate(ctx context.Context, gate mirror.Gate, grace time.Duration) error
}

// Commits says whom the commits of this database wait for. What is said here is in force for every commit that returns
// after the call, and survives a restart of the database unless it says otherwise.
//
// A name is that of one incarnation of the mirror in one role sequence: dbmirror_, Env.Short, and what tells it from every
// other, in a-z, 0-9 and _, at most 63 bytes. The same name is in Source.Name on the mirror's side: the reports of a
// stream of any other name release nothing.
type Commits interface {
	// Waiting reads what is in force now.
	Waiting(ctx context.Context) (Waiting, error)
	// WaitMirror makes commits wait until the mirror of that name has hardened them, and proves it. A commit that returns
	// from now on has been hardened by that mirror, or ends at or before end.
	WaitMirror(ctx context.Context, name string) (end mirror.LSN, err error)
	// WaitNone lets commits return without the mirror, those that wait already too. A database that restarts must not
	// return any before it is told whom to wait for.
	WaitNone(ctx context.Context) error
	// WaitBlock lets no commit return, also after a restart. It is called before a principal is closed that may not serve
	// any more, because ending what waits can make it visible.
	WaitBlock(ctx context.Context) error
	// WaitRemove takes back whatever of this session is in force or persisted: the database is closed or read-only.
	WaitRemove(ctx context.Context) error
	// Heartbeat commits something that carries no data, as a client does, and waits as that commit waits.
	Heartbeat(ctx context.Context, name string) (Beat, error)
}

// Waiting is whom commits wait for.
type Waiting struct {
	Name    string // in force for this session: a mirror's, one that nobody bears, or empty for nobody
	Blocked bool   // it is one that nobody bears: no commit returns
	// RestartWaits: a database that restarts now returns no commit before it is told whom to wait for.
	RestartWaits bool
	// Reloaded: what was persisted for the next restart has come into force already, by somebody else's doing.
	Reloaded bool
	Foreign  int    // how many others could release commits in the mirror's place
	InForce  string // the whole of it, for people
}

// Beat is what a Heartbeat felt.
type Beat struct {
	Took     time.Duration // of its commit
	Unwaited bool          // it returned, and the mirror of the name had certainly not hardened it
}

// ErrNoReign is returned when a database has no record of a role sequence.
var ErrNoReign = errors.New("no such role sequence on this server")

// ErrNoLog is returned when a database keeps no log for the mirror under a reign.
var ErrNoLog = errors.New("no log is kept for the mirror")

// Reign is the beginning of a role sequence in the log of the database that became principal with it. It is written there
// before the database opens, so that the mirror knows where to begin and which log came before.
type Reign struct {
	Seq   mirror.RoleSeq
	Start mirror.LSN      // every transaction of the reign that ends beyond it is in the log that is kept for the mirror
	Fork  mirror.Position // the end, in the former principal's log, of what this database has of it; zero for the first reign
	// Log and Origin are the backend's own: what the kept log is called, and a number of the database whose log it is.
	Log      string
	Origin   uint64
	OpenedAt time.Time // by the database's clock; set when written
}

// Reigns keeps where each role sequence begins in this database's log, and the log itself for the mirror.
type Reigns interface {
	// Prepare makes what the library keeps in the database, where it is missing. It comes before everything else here.
	Prepare(ctx context.Context) error

	// Reign reads the beginning of a role sequence in this database. It returns ErrNoReign when there is none.
	Reign(ctx context.Context, seq mirror.RoleSeq) (Reign, error)
	// LatestReign is the newest below a role sequence. It returns ErrNoReign when there is none.
	LatestReign(ctx context.Context, before mirror.RoleSeq) (Reign, error)
	// WriteReign records one, in the place of an older record of the same role sequence.
	WriteReign(ctx context.Context, r Reign) error

	// BeginLog begins to keep log for the mirror of a role sequence, and returns its Reign, without a fork. Log kept under
	// the same role sequence before is given up first. Nobody can write meanwhile, unless it is the first role sequence.
	BeginLog(ctx context.Context, seq mirror.RoleSeq) (Reign, error)
	// Retained is how many bytes of log are kept for the mirror. It returns ErrNoLog when none is.
	Retained(ctx context.Context, r Reign) (bytes int64, err error)
	// DropLog gives up the log of a reign; none is as good as given up. A mirror that asks for it then finds a gap.
	DropLog(ctx context.Context, r Reign) error
	// DropLogs gives up the logs of all reigns of this session: this database follows another one now.
	DropLogs(ctx context.Context) error

	// MoveOn is for a mirror that becomes principal: what the former one may have handed out to clients, and no log
	// tells, such as the numbers of a sequence, is moved past. exact: the former principal handed over, and was sampled
	// (see Sampler) when its last client had gone.
	MoveOn(ctx context.Context, exact bool) error
}

// Barriers marks the last commit of a principal that hands over.
type Barriers interface {
	// WriteBarrier commits a barrier. Whoever has hardened the log up to its End has everything that was committed before
	// the call, and so has every state of this database in which LatestBarrier finds it. It does not wait for the mirror,
	// and works while the gate is closed.
	WriteBarrier(ctx context.Context) (Barrier, error)
	// LatestBarrier is the At of the latest barrier in this database, zero if it has none.
	LatestBarrier(ctx context.Context) (mirror.LSN, error)
}

// Barrier is the last commit of a principal that hands over.
type Barrier struct {
	At  mirror.LSN // above that of every earlier barrier; in the database with the barrier
	End mirror.LSN // end of log when the barrier was on disk
}

// ErrTailGone is returned when a database cannot tell any more what was committed in it after a position.
var ErrTailGone = errors.New("the log does not reach back to the position")

// Tail is for a former principal: the gate is closed.
type Tail interface {
	// Keeps says whether this database still has all of its own log of a reign up to fork, and nothing in it may yet
	// become a commit. One that was put back to an older state has not.
	Keeps(ctx context.Context, own Reign, fork mirror.LSN) (bool, error)
	// SaveTail writes to w, one JSON object a line, what was committed in this database's reign after fork. It changes nothing. It
	// returns ErrTailGone when that cannot be told: the database is copied anew then.
	SaveTail(ctx context.Context, own Reign, fork mirror.LSN, w io.Writer) (TailSummary, error)
}

// TailSummary is what SaveTail found.
type TailSummary struct {
	Transactions int64
	Changes      int64    // of rows
	Tables       []string // that were touched, sorted
}

// ErrCannotUndo is returned when a tail cannot be undone: the database is copied anew then. Nothing has been changed.
var ErrCannotUndo = errors.New("the tail cannot be undone")

// Undoer is a Database that can take back what SaveTail has saved.
type Undoer interface {
	// Undo makes the database what it was at fork, and its own log end there. What it takes back is on disk in a file. If
	// it is broken off, SaveTail and Undo find what is left to do.
	Undo(ctx context.Context, own Reign, fork mirror.LSN) error
}

// Sampler is a Database of whose principal the log does not tell everything that MoveOn has to know.
type Sampler interface {
	// Sample looks at the principal's database and keeps here what it saw. It is called once a second while that is
	// followed, and once when it has handed over.
	Sample(ctx context.Context) error
}
