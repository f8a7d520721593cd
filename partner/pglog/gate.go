package pglog

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
)

// Strength is what a position of the gate means to a kind of user.
type Strength uint8

// The strengths, from nothing upwards.
const (
	StrengthNone    Strength = iota + 1 // not held off
	StrengthDefault                     // writing is refused until the session sets default_transaction_read_only=off
	StrengthUndo                        // refused here; may undo the gate from another database of the server
	StrengthRefused                     // refused
)

// String returns what the strength means.
func (s Strength) String() string {
	switch s {
	case StrengthNone:
		return "not held off"
	case StrengthDefault:
		return "read-only by default"
	case StrengthUndo:
		return "refused, may undo"
	case StrengthRefused:
		return "refused"
	}
	return "invalid"
}

// Proof is what the server's catalog and session list say of the gate, read anew.
//
// Strengths: a closed gate (CONNECTION LIMIT 0 and every session ended) refuses ordinary users and the owner, but the
// owner can lift the limit from another database, and a superuser still gets in, read-only by default. A read-only gate
// is a default only, which every session may change for itself; what it does for certain is to let clients with
// target_session_attrs=read-write step over the server. Walsenders are never held off, so that the log can drain; a
// role with REPLICATION can also run SQL through one. Background workers, such as subscriptions, are no clients and
// stay.
//
// It shows what is, not what was: a Writers above zero at a mirror is a stray write, or at the least a transaction number
// taken, while a write that began and ended between two looks leaves nothing that SQL could tell from redo. Only a
// comparison of the rows finds that one.
type Proof struct {
	// Gate is what the settings of the database amount to. When it is not where SetGate has put it, somebody else has
	// moved it.
	Gate mirror.Gate

	ConnLimit int  // the database's connection limit, -1 for none
	ReadOnly  bool // default_transaction_read_only=on for the database

	Sessions   int // sessions of clients, superusers included
	Superusers int // those of superusers
	Writers    int // transactions of clients that have written and have not ended, prepared ones included
	Workers    int // background workers in the database, such as those of subscriptions; autovacuum left out

	// Exempt are the roles with a setting of their own that overrides the read-only default.
	Exempt []string

	Ordinary, Owner, Superuser Strength
}

// Holds tells whether the position has been reached: with a closed gate, that no session of an ordinary client is left.
func (p Proof) Holds() bool {
	return p.Gate != mirror.GateClosed || p.Sessions == p.Superusers
}

const (
	settingConnLimit = "connection_limit"
	// settingWasReadOnly is there while an open database may have sessions that began under the read-only default: whoever
	// opens it may be broken off before he has ended them.
	settingWasReadOnly = "was_read_only"
	// startingPatience is how long a session may take to start before it is ended: one that read the settings before
	// they changed does not show in pg_stat_activity until it has started.
	startingPatience = time.Second
)

// clientSessions selects from pg_stat_activity the sessions that the gate is for. A connection of ours is told by name
// and role: the name alone anyone may take.
const clientSessions = `
	a.datid = (SELECT oid FROM pg_database WHERE datname = current_database())
	AND a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
	AND NOT (a.application_name LIKE 'dbmirror %'
		AND a.usesysid = (SELECT oid FROM pg_roles WHERE rolname = session_user))`

// Gate reads where the gate is.
func (s *Server) Gate(ctx context.Context) (Proof, error) {
	var p Proof
	err := s.pool.QueryRow(ctx, `
		WITH db AS (SELECT oid, datconnlimit FROM pg_database WHERE datname = current_database()),
		clients AS (
			SELECT coalesce(r.rolsuper, false) AS super, a.backend_xid IS NOT NULL AS writes
			FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid WHERE `+clientSessions+`)
		SELECT db.datconnlimit,
			EXISTS (SELECT FROM pg_db_role_setting x WHERE x.setdatabase = db.oid AND x.setrole = 0
				AND 'default_transaction_read_only=on' = ANY (x.setconfig)),
			(SELECT count(*) FROM clients), (SELECT count(*) FROM clients WHERE super),
			(SELECT count(*) FROM clients WHERE writes)
				+ (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()),
			(SELECT count(*) FROM pg_stat_activity a WHERE a.datid = db.oid AND a.backend_type NOT IN
				('client backend', 'walsender', 'autovacuum worker', 'parallel worker')),
			ARRAY(SELECT DISTINCT r.rolname::text FROM pg_db_role_setting x JOIN pg_roles r ON r.oid = x.setrole,
				unnest(x.setconfig) c WHERE x.setdatabase IN (0, db.oid)
				AND c LIKE 'default\_transaction\_read\_only=%' AND c <> 'default_transaction_read_only=on')
		FROM db`).
		Scan(&p.ConnLimit, &p.ReadOnly, &p.Sessions, &p.Superusers, &p.Writers, &p.Workers, &p.Exempt)
	if err != nil {
		return Proof{}, fmt.Errorf("read gate: %w", err)
	}
	p.judge()
	return p, nil
}

func (p *Proof) judge() {
	soft := StrengthNone
	if p.ReadOnly {
		soft = StrengthDefault
	}
	p.Ordinary, p.Owner, p.Superuser = soft, soft, soft
	switch {
	case p.ConnLimit == 0:
		p.Gate, p.Ordinary, p.Owner = mirror.GateClosed, StrengthRefused, StrengthUndo
	case p.ReadOnly:
		p.Gate = mirror.GateReadOnly
	default:
		p.Gate = mirror.GateOpen
	}
}

// SetGate moves the gate and returns the proof that it is there. GateKeep changes nothing.
//
// Open gives back the connection limit that the database had before it was first closed, and takes away the read-only
// default; sessions that began under that default and are idle are ended, or pools would go on offering them. ReadOnly
// ends the sessions that began without the default. Closed ends every session: sessions that do nothing at once, the
// others when they are done or grace has passed. It returns when none is left. A superuser who comes back meanwhile is
// ended again and then only counted, since nothing keeps him out.
//
// Nobody can hold the gate where it is: a session, of whomever and in whatever database, that for lockPatience holds a
// lock which the change needs, is ended. A prepared transaction can, and the error names it. Closed ends the sessions of
// clients even while the settings cannot be changed, and tries again until ctx ends: give it one that does.
//
// Nothing here waits for a mirror: the statements commit locally.
func (s *Server) SetGate(ctx context.Context, g mirror.Gate, grace time.Duration) (Proof, error) {
	if err := s.gate.take(ctx); err != nil {
		return Proof{}, fmt.Errorf("set gate: %w", err)
	}
	defer s.gate.give()
	var err error
	switch g {
	case mirror.GateKeep:
		return s.Gate(ctx)
	case mirror.GateOpen:
		err = s.openGate(ctx)
	case mirror.GateReadOnly, mirror.GateClosed:
		err = s.narrowGate(ctx, g, grace)
	default:
		return Proof{}, fmt.Errorf("set gate: %s is not a position", g)
	}
	if err != nil {
		return Proof{}, fmt.Errorf("set gate %s: %w", g, err)
	}
	p, err := s.Gate(ctx)
	if err == nil && (p.Gate != g || !p.Holds()) {
		err = fmt.Errorf("set gate %s: the server shows it %s with %d sessions: somebody else changes it", g, p.Gate, p.Sessions)
	}
	return p, err
}

func (s *Server) openGate(ctx context.Context) error {
	if err := s.writeGate(ctx, mirror.GateOpen, time.Time{}); err != nil {
		return err
	}
	var was bool
	err := s.pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM dbmirror.settings WHERE name = $1)", settingWasReadOnly).Scan(&was)
	if err != nil || !was {
		return err
	}
	sessions, err := s.settledSessions(ctx)
	if err != nil {
		return err
	}
	if err := s.endSessions(ctx, sessions, true); err != nil {
		return err
	}
	_, err = s.pool.Exec(ctx, "DELETE FROM dbmirror.settings WHERE name = $1", settingWasReadOnly)
	return err
}

// narrowGate takes rights away: first from those to come, then from those that are there.
func (s *Server) narrowGate(ctx context.Context, g mirror.Gate, grace time.Duration) error {
	deadline := time.Now().Add(grace)
	if err := s.writeGate(ctx, g, deadline); err != nil {
		return err
	}
	if g == mirror.GateClosed {
		// At once: whoever is still starting may take long, or never come to an end.
		if err := s.endClients(ctx, deadline); err != nil {
			return err
		}
	}
	old, err := s.settledSessions(ctx)
	if err != nil {
		return err
	}
	return s.drain(ctx, g, old, deadline)
}

// clientSession is one row of pg_stat_activity. The start tells it from a later session with the same process number.
type clientSession struct {
	PID   int32
	Start time.Time
	Idle  bool // between transactions
	Super bool
}

func (c clientSession) is(d clientSession) bool { return c.PID == d.PID && c.Start.Equal(d.Start) }

func (s *Server) sessions(ctx context.Context) ([]clientSession, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT a.pid, a.backend_start, coalesce(a.state = 'idle', false), coalesce(r.rolsuper, false)
		FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid WHERE `+clientSessions)
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[clientSession])
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	return list, nil
}

// settledSessions lists the sessions, with every one that may have read the settings as they were before the call.
//
// A backend reads the settings of its database some time before it shows in pg_stat_activity; all that while it holds a
// lock on the database, so it shows in pg_locks. Whoever holds that lock now is waited for, and ended if it takes long.
// Whoever takes it later reads the settings as they are.
func (s *Server) settledSessions(ctx context.Context) ([]clientSession, error) {
	starting, err := s.starting(ctx)
	if err != nil {
		return nil, err
	}
	patience := time.Now().Add(startingPatience)
	err = poll(ctx, func() (bool, error) {
		if len(starting) == 0 {
			return true, nil
		}
		now, err := s.starting(ctx)
		if err != nil {
			return false, err
		}
		for pid := range starting {
			if !now[pid] {
				delete(starting, pid)
			} else if time.Now().After(patience) {
				if _, err := s.pool.Exec(ctx, "SELECT pg_terminate_backend($1)", pid); err != nil {
					return false, err
				}
			}
		}
		return len(starting) == 0, nil
	})
	if err != nil {
		return nil, fmt.Errorf("wait for sessions that start: %w", err)
	}
	return s.sessions(ctx)
}

func (s *Server) starting(ctx context.Context) (map[int32]bool, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT l.pid FROM pg_locks l JOIN pg_database d ON d.oid = l.objid
		WHERE d.datname = current_database() AND l.locktype = 'object' AND l.classid = 'pg_database'::regclass
			AND l.mode = 'RowExclusiveLock' AND l.granted AND l.pid <> pg_backend_pid()`)
	if err != nil {
		return nil, fmt.Errorf("list starting sessions: %w", err)
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	if err != nil {
		return nil, fmt.Errorf("list starting sessions: %w", err)
	}
	starting := make(map[int32]bool, len(pids))
	for _, pid := range pids {
		starting[pid] = true
	}
	return starting, nil
}

// drain ends sessions until none is left that the position excludes: of a closed gate everybody, except superusers who
// came after old was listed; of a read-only gate those in old.
func (s *Server) drain(ctx context.Context, g mirror.Gate, old []clientSession, deadline time.Time) error {
	left := 0
	err := poll(ctx, func() (bool, error) {
		list, err := s.sessions(ctx)
		if err != nil {
			return false, err
		}
		var excluded []clientSession
		left = 0
		for _, c := range list {
			before := contains(old, c)
			if g == mirror.GateReadOnly && !before {
				continue
			}
			excluded = append(excluded, c)
			if before || !c.Super {
				left++
			}
		}
		if err := s.endSessions(ctx, excluded, time.Now().Before(deadline)); err != nil {
			return false, err
		}
		return left == 0, nil
	})
	if err != nil {
		return fmt.Errorf("end sessions, %d left: %w", left, err)
	}
	return nil
}

func contains(list []clientSession, c clientSession) bool {
	for _, d := range list {
		if c.is(d) {
			return true
		}
	}
	return false
}

// endSessions tells the sessions to end, or only the idle ones of them.
func (s *Server) endSessions(ctx context.Context, list []clientSession, idleOnly bool) error {
	pids, starts := make([]int32, 0, len(list)), make([]time.Time, 0, len(list))
	for _, c := range list {
		if c.Idle || !idleOnly {
			pids, starts = append(pids, c.PID), append(starts, c.Start)
		}
	}
	if len(pids) == 0 {
		return nil
	}
	crashpoint.Hit(crashpoint.SessionsUnended)
	_, err := s.pool.Exec(ctx, `
		SELECT pg_terminate_backend(a.pid) FROM unnest($1::int[], $2::timestamptz[]) AS x (pid, start)
		JOIN pg_stat_activity a ON a.pid = x.pid AND a.backend_start = x.start`, pids, starts)
	if err != nil {
		return fmt.Errorf("end sessions: %w", err)
	}
	crashpoint.Hit(crashpoint.SessionsEnded)
	return nil
}
