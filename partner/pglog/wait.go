package pglog

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
)

const (
	// lockWaitSQL takes the lock under which the setting is composed, by all sessions of the server. It is on a catalog
	// that all databases share and nothing here uses, in a mode that only a superuser can take or keep from us: an
	// advisory lock could be held by anybody, for ever, and the fence with it. The lock lasts as long as its transaction,
	// in which ALTER SYSTEM cannot run.
	lockWaitSQL = "LOCK TABLE pg_catalog.pg_shseclabel IN SHARE UPDATE EXCLUSIVE MODE"
	// settlePatience is how long a walsender has to show that it does not release commits any more, before it is ended.
	settlePatience = 500 * time.Millisecond
	// nonePatience is how long WaitNone tries to see commits wait before it releases them without that proof.
	nonePatience = 5 * time.Second
)

// ErrForeignWalsender is returned when another connection bears the name that commits are to wait for: its reports would
// release them.
var ErrForeignWalsender = errors.New("another walsender bears the mirror's name")

// WaitPrefix begins the names that this session may list in synchronous_standby_names: dbmirror_<session>_. A mirror's
// name is this and something that is new for each incarnation of the mirror.
func (s *Server) WaitPrefix() string { return ourPrefix + s.session + "_" }

func (s *Server) checkWaitName(name string) error {
	rest, ok := strings.CutPrefix(name, s.WaitPrefix())
	if !ok || !regexp.MustCompile(`^[a-z0-9_]+$`).MatchString(rest) || len(name) > 63 {
		return fmt.Errorf("name %q is not %s and some of a-z, 0-9 and _, 63 at most", name, s.WaitPrefix())
	}
	if strings.HasSuffix(rest, suffixClosed) || strings.HasSuffix(rest, suffixRestart) {
		return fmt.Errorf("name %q ends in a word that is kept for names nobody bears", name)
	}
	return nil
}

// waiting is a change of the wait, on a connection that was made under the lock of the server and ends with the change.
// What is only looked at goes through the pool: a context that ends breaks the connection it was used on.
type waiting struct {
	*Server
	conn *pgx.Conn
	lock *pgx.Conn // holds the lock
}

// changeWait runs a change alone on the server, whichever session or program makes it. The caller has the turn of s.wait. A change
// must not wait for a commit to return: another session may have to change the setting first.
func (s *Server) changeWait(ctx context.Context, change func(waiting) error) error {
	lock, err := s.lockWait(ctx)
	if err != nil {
		return fmt.Errorf("lock synchronous_standby_names: %w", err)
	}
	defer hangUp(lock)
	conn, err := s.connect(ctx, s.database, "wait", map[string]string{"statement_timeout": "0", "lock_timeout": "0"})
	if err != nil {
		return err
	}
	defer hangUp(conn)
	w := waiting{s, conn, lock}
	if err := w.begin(ctx); err != nil {
		return err
	}
	return change(w)
}

// lockWait returns the connection that holds the lock. The server looks after it: a program whose machine is gone must
// not hold it for hours.
func (s *Server) lockWait(ctx context.Context) (*pgx.Conn, error) {
	conn, err := s.connect(ctx, s.database, "lock", map[string]string{
		"statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0",
		"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3",
	})
	if err != nil {
		return nil, err
	}
	for _, statement := range [...]string{noTransactionTimeoutSQL, "BEGIN", lockWaitSQL} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			hangUp(conn)
			return nil, err
		}
	}
	return conn, nil
}

func (w waiting) begin(ctx context.Context) error {
	var source string
	err := w.conn.QueryRow(ctx, "SELECT source FROM pg_settings WHERE name = 'synchronous_standby_names'").Scan(&source)
	if err != nil {
		return fmt.Errorf("read synchronous_standby_names: %w", err)
	}
	if source == "command line" || source == "environment variable" {
		return fmt.Errorf("synchronous_standby_names is set by the server's %s, which overrides ALTER SYSTEM: take it out there", source)
	}
	return w.endStaleProbes(ctx)
}

// WaitMirror makes every commit of the server wait until the walsender of that name has reported it hardened, and
// returns when that is proven: a commit acknowledged from now on is either confirmed by this mirror or lies before end.
// The commit that proves it goes on waiting until the mirror confirms it.
//
// Until the name is in force nobody can confirm, so commits pause for some milliseconds, for longer while an immediate
// checkpoint runs. Walsenders under an older name of this session are ended: they would release commits until they have
// read the new setting.
//
// It returns ErrForeignWalsender when another connection bears the name, ErrNotWaiting when ctx ended while commits still
// returned, and a *WaitListError when the operator's own
// standbys cannot be joined with it. After an error commits may be left waiting; WaitNone releases them.
func (s *Server) WaitMirror(ctx context.Context, name string) (end mirror.LSN, err error) {
	if err := s.checkWaitName(name); err != nil {
		return 0, fmt.Errorf("wait for mirror: %w", err)
	}
	if err := s.wait.take(ctx); err != nil {
		return 0, fmt.Errorf("wait for mirror: %w", err)
	}
	defer s.wait.give()
	err = s.changeWait(ctx, func(w waiting) error {
		list, err := w.persisted(ctx)
		if err != nil {
			return err
		}
		if err := w.refuseDoubles(ctx, list, name); err != nil {
			return err
		}
		if err := w.placeholder(ctx, list); err != nil {
			return err
		}
		if err := w.proveWaiting(ctx); err != nil {
			return err
		}
		if err := w.endWalsenders(ctx, name); err != nil {
			return err
		}
		// The one that was ended may have released the probe before: only a probe that waits now is proof.
		if err := w.proveWaiting(ctx); err != nil {
			return err
		}
		if end, err = w.flushed(ctx); err != nil {
			return err
		}
		return w.put(ctx, list.inForce().with(w.WaitPrefix(), name), true)
	})
	if err != nil {
		return 0, fmt.Errorf("wait for mirror: %w", err)
	}
	return end, nil
}

// WaitBlock makes every commit of the server wait for a name that nobody bears, and returns when that is proven and no
// walsender of this session releases commits under its former name. It outlives a restart of the server. Ending the
// sessions that wait makes their commits visible.
func (s *Server) WaitBlock(ctx context.Context) error {
	if err := s.wait.take(ctx); err != nil {
		return fmt.Errorf("block commits: %w", err)
	}
	defer s.wait.give()
	err := s.changeWait(ctx, func(w waiting) error {
		list, err := w.persisted(ctx)
		if err != nil {
			return err
		}
		if err := w.placeholder(ctx, list); err != nil {
			return err
		}
		return w.proveBlocked(ctx)
	})
	if err != nil {
		return fmt.Errorf("block commits: %w", err)
	}
	return nil
}

func (w waiting) placeholder(ctx context.Context, list waitList) error {
	return w.put(ctx, list.inForce().with(w.WaitPrefix(), w.WaitPrefix()+suffixClosed), true)
}

// proveBlocked returns when a commit waits and no walsender of this session could release it.
func (w waiting) proveBlocked(ctx context.Context) error {
	if err := w.proveWaiting(ctx); err != nil {
		return err
	}
	if err := w.settle(ctx); err != nil {
		return err
	}
	return w.proveWaiting(ctx)
}

// WaitNone lets commits return without this session's mirror, and returns when one has. Names of others stay and are
// waited for.
//
// With persistBlock the file then lists a name that nobody bears, which is not in force until the server restarts: an
// empty setting must not survive the restart of a principal, which would acknowledge alone before it has asked anybody.
// A reload by somebody else puts it in force as well; Waiting shows that, and calling WaitNone again mends it. If the
// server crashes within the milliseconds of this call the file may still be without it.
//
// Another session that begins to wait, or leaves, takes the name out of the file again; Waiting shows that too, and
// calling WaitNone again mends it.
//
// Before the release commits are made to wait for some milliseconds, because only a commit that waited and then returned
// shows that the server has read the file, and that it may be written again. When commits cannot be made to wait within
// five seconds they are released, the file is left without the name, and the error (ErrNotWaiting) says so.
func (s *Server) WaitNone(ctx context.Context, persistBlock bool) error {
	if err := s.wait.take(ctx); err != nil {
		return fmt.Errorf("release commits: %w", err)
	}
	defer s.wait.give()
	name := ""
	if persistBlock {
		name = s.WaitPrefix() + suffixRestart
	}
	if err := s.waitNone(ctx, name); err != nil {
		return fmt.Errorf("release commits: %w", err)
	}
	return nil
}

// waitNone releases commits and then leaves name in the file only, beside those that other sessions have left there so.
func (s *Server) waitNone(ctx context.Context, name string) error {
	var done bool
	var unproven error
	var found waitList
	err := s.changeWait(ctx, func(w waiting) (err error) {
		if found, err = w.persisted(ctx); err != nil {
			return err
		}
		released := found.inForce().with(w.WaitPrefix(), "")
		if done, err = w.isPut(ctx, released, found.with(w.WaitPrefix(), name)); err != nil || done {
			return err
		}
		if err := w.placeholder(ctx, found); err != nil {
			return err
		}
		patience, cancel := context.WithTimeout(ctx, nonePatience)
		defer cancel()
		unproven = w.proveBlocked(patience)
		return w.put(ctx, released, true)
	})
	if err != nil {
		return err
	}
	if err := s.proveReturned(ctx); err != nil {
		return err
	}
	if unproven != nil {
		return fmt.Errorf("released, but not made to wait after a restart: %w", unproven)
	}
	if done || name == "" {
		return nil
	}
	return s.changeWait(ctx, func(w waiting) error {
		list, err := w.persisted(ctx)
		if err != nil {
			return err
		}
		return w.put(ctx, list.withRestarts(found).with(w.WaitPrefix(), name), false)
	})
}

// WaitRemove takes the session's names out of the setting for good, and returns when a commit has returned, or at once
// when there are none: whatever commits wait for then is not ours. A setting that then equals the operator's own line in
// postgresql.conf is reset, so that his later changes count again.
func (s *Server) WaitRemove(ctx context.Context) error {
	if err := s.wait.take(ctx); err != nil {
		return fmt.Errorf("stop waiting for a mirror: %w", err)
	}
	defer s.wait.give()
	var none bool
	err := s.changeWait(ctx, func(w waiting) error {
		value, operator, err := w.files(ctx)
		if err != nil {
			return err
		}
		shown, err := w.shown(ctx)
		if err != nil {
			return err
		}
		if none = !w.hasOurs(value) && !w.hasOurs(shown); none {
			return nil
		}
		list, err := parseWaitList(value)
		if err != nil && w.hasOurs(value) {
			return err
		}
		if err != nil { // somebody has changed the file and not reloaded it
			return w.reload(ctx)
		}
		rest := list.inForce().with(w.WaitPrefix(), "")
		// A line that cannot be joined is not what is in force, so it is not what goes on.
		if theirs, err := parseWaitList(operator); err == nil && theirs.String() == rest.String() {
			return w.run(ctx, "ALTER SYSTEM RESET synchronous_standby_names", true)
		}
		return w.put(ctx, rest, true)
	})
	if err == nil && !none {
		err = s.proveReturned(ctx)
	}
	if err != nil {
		return fmt.Errorf("stop waiting for a mirror: %w", err)
	}
	return nil
}

// hasOurs is true of every value with one of this session's names in it, however it is composed.
func (s *Server) hasOurs(value string) bool {
	return strings.Contains(strings.ToLower(value), s.WaitPrefix())
}

// errBrokenFiles is wrapped by what is returned where the server's files have an error for which it takes over nothing of
// them: what it would read in them is not known then, and what is written there does not come into force.
var errBrokenFiles = errors.New("the server takes over no settings, nor would it start again")

// files reads the setting from the server's files: as it counts, and as the operator's own files have it. What is in
// force may lag behind, and may leave out a name for the next restart.
func (w waiting) files(ctx context.Context) (value, operator string, err error) {
	var wrong string
	err = w.conn.QueryRow(ctx, `
		WITH f AS MATERIALIZED (SELECT * FROM pg_file_settings),
		own AS (SELECT * FROM f WHERE lower(name) = 'synchronous_standby_names' ORDER BY seqno DESC)
		SELECT coalesce((SELECT setting FROM own LIMIT 1), ''),
			coalesce((SELECT setting FROM own WHERE sourcefile NOT LIKE '%postgresql.auto.conf' LIMIT 1), ''),
			coalesce((SELECT format('%s, line %s: %s', sourcefile, sourceline, concat_ws(' ', error, name)) FROM f WHERE error IS NOT NULL
				AND NOT EXISTS (SELECT FROM f WHERE applied) ORDER BY seqno LIMIT 1), '')`).Scan(&value, &operator, &wrong)
	if err != nil {
		return "", "", fmt.Errorf("read the server's files: %w", err)
	}
	if wrong != "" {
		return "", "", fmt.Errorf("%w: %s: correct that", errBrokenFiles, wrong)
	}
	return value, operator, nil
}

func (w waiting) persisted(ctx context.Context) (waitList, error) {
	value, _, err := w.files(ctx)
	if err != nil {
		return waitList{}, err
	}
	return parseWaitList(value)
}

// isPut tells whether the file has one list and the server runs with the other.
func (w waiting) isPut(ctx context.Context, inForce, persisted waitList) (bool, error) {
	value, _, err := w.files(ctx)
	if err != nil {
		return false, err
	}
	shown, err := w.shown(ctx)
	return value == persisted.String() && shown == inForce.String(), err
}

// shown is what the server runs with: the connection is younger than the lock, and the server process that all others
// come from had this value.
func (w waiting) shown(ctx context.Context) (value string, err error) {
	if err := w.conn.QueryRow(ctx, "SHOW synchronous_standby_names").Scan(&value); err != nil {
		return "", fmt.Errorf("read synchronous_standby_names: %w", err)
	}
	return value, nil
}

func (w waiting) put(ctx context.Context, list waitList, reload bool) error {
	return w.run(ctx, "ALTER SYSTEM SET synchronous_standby_names TO "+quoteLiteral(list.String()), reload)
}

func (w waiting) run(ctx context.Context, alter string, reload bool) error {
	if err := w.lock.Ping(ctx); err != nil {
		return fmt.Errorf("write synchronous_standby_names: the lock on it was lost: %w", err)
	}
	crashpoint.Hit(crashpoint.WaitUnwritten)
	if _, err := w.conn.Exec(ctx, alter, pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("write synchronous_standby_names: %w", err)
	}
	if !reload {
		return nil
	}
	crashpoint.Hit(crashpoint.WaitWritten)
	return w.reload(ctx)
}

func (w waiting) reload(ctx context.Context) error {
	if _, err := w.conn.Exec(ctx, "SELECT pg_reload_conf()"); err != nil {
		return fmt.Errorf("reload the server's settings: %w", err)
	}
	crashpoint.Hit(crashpoint.WaitReloaded)
	return nil
}

func (w waiting) flushed(ctx context.Context) (lsn mirror.LSN, err error) {
	if err := w.pool.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text").Scan(lsnColumn{&lsn}); err != nil {
		return 0, fmt.Errorf("read end of log: %w", err)
	}
	return lsn, nil
}
