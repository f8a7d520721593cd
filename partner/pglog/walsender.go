package pglog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/mirror"
)

// Walsender is a connection that reads this server's log under a name of this session.
type Walsender struct {
	PID     int32
	Start   time.Time // with PID, which connection it is
	Name    string
	Slot    string // the slot it reads from, empty for none
	Streams bool   // it sends log, so that its reports count
	Sync    string // how PostgreSQL counts it: async, potential, sync, quorum
	Flushed mirror.LSN
	Replied time.Time // the reader's clock when it sent its last report; zero before the first
}

// Waiting is whom commits wait for, as the server shows it. That a setting is shown proves nothing: the methods that
// change it do.
type Waiting struct {
	InForce   string // synchronous_standby_names as sessions that begin now have it
	Persisted string // as a server that restarts now will have it, empty for one that would not start
	// Name is the session's own name in force, that of a mirror or of nobody, or empty.
	Name string
	// Blocked is true when that is a name which nobody bears: no commit returns.
	Blocked bool
	// Reloaded is true when the name for the next restart has come into force by a reload of somebody else.
	Reloaded bool
	// RestartWaits is true when a restarted server makes commits wait for this session, or would not start at all.
	RestartWaits bool
	Walsenders   []Walsender
	// Foreign counts the walsenders that can release commits in the mirror's place: those of the name in force that read no
	// log kept for this session, all but one of the others, and all but one of those under any other name in force.
	Foreign int
	Waiters int // sessions whose commit waits
}

// Waiting reads whom commits wait for.
func (s *Server) Waiting(ctx context.Context) (Waiting, error) {
	conn, err := s.connect(ctx, s.database, "status", nil) // a new one shows what new sessions have
	if err != nil {
		return Waiting{}, fmt.Errorf("read wait: %w", err)
	}
	defer hangUp(conn)
	var st Waiting
	var end mirror.LSN
	err = conn.QueryRow(ctx, `SELECT current_setting('synchronous_standby_names'), pg_current_wal_flush_lsn()::text,
		(SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep')`).Scan(&st.InForce, lsnColumn{&end}, &st.Waiters)
	if err != nil {
		return Waiting{}, fmt.Errorf("read wait: %w", err)
	}
	w := waiting{Server: s, conn: conn}
	st.Persisted, _, err = w.files(ctx)
	stuck := errors.Is(err, errBrokenFiles)
	if err != nil && !stuck {
		return Waiting{}, fmt.Errorf("read wait: %w", err)
	}
	// One that ends is there for a moment longer than the log it has read, and than the connection that follows it.
	patience := time.Now().Add(settlePatience)
	err = poll(ctx, func() (_ bool, err error) {
		if st.Walsenders, err = w.walsenders(ctx); err != nil {
			return false, err
		}
		st.judge(s.WaitPrefix())
		twins, confirming, err := w.twins(ctx, st.InForce, end)
		st.Foreign += confirming
		return st.Foreign+twins == 0 || time.Now().After(patience), err
	})
	if err != nil {
		return Waiting{}, fmt.Errorf("read wait: %w", err)
	}
	st.RestartWaits = st.RestartWaits || stuck
	return st, nil
}

func (st *Waiting) judge(prefix string) {
	// A composition that cannot be joined has none of our names in it: every one of ours was joined by us.
	inForce, _ := parseWaitList(st.InForce)
	persisted, _ := parseWaitList(st.Persisted)
	st.Name = inForce.own(prefix)
	st.Reloaded = st.Name == prefix+suffixRestart
	st.Blocked = st.Reloaded || st.Name == prefix+suffixClosed
	st.RestartWaits = persisted.own(prefix) != ""
	st.Foreign = foreign(st.Walsenders, st.Name, prefix)
}

// foreign counts the walsenders of a name whose reports do not tell of this session's log, or tell of it beside another.
func foreign(list []Walsender, name, prefix string) (n int) {
	ours := 0
	for _, ws := range list {
		switch {
		case !strings.EqualFold(ws.Name, name):
		case ws.Streams && !strings.HasPrefix(ws.Slot, prefix):
			n++
		default:
			ours++
		}
	}
	return n + max(0, ours-1)
}

// twins counts the walsenders that share a name in force which is not this session's, but for one of each name, and those
// of them that have confirmed log up to end. PostgreSQL counts each of one name, so that a second one can stand in for the
// mirror. One whose connection is lost, but not given up yet, confirms nothing any more.
func (w waiting) twins(ctx context.Context, inForce string, end mirror.LSN) (all, confirming int, err error) {
	list, _ := parseWaitList(inForce) // see judge
	err = w.pool.QueryRow(ctx, `
		SELECT coalesce(sum(n - 1), 0)::int, coalesce(sum(greatest(confirming - 1, 0)), 0)::int FROM (
			SELECT count(*) AS n, count(*) FILTER (WHERE flush_lsn >= $2::text::pg_lsn) AS confirming FROM pg_stat_replication
			WHERE lower(application_name) = ANY ($1) GROUP BY lower(application_name)) x`,
		list.strangers(w.WaitPrefix()), end.String()).Scan(&all, &confirming)
	if err != nil {
		return 0, 0, fmt.Errorf("count walsenders: %w", err)
	}
	return all, confirming, nil
}

// walsenders lists those under a name of this session.
func (w waiting) walsenders(ctx context.Context) ([]Walsender, error) {
	rows, err := w.pool.Query(ctx, `
		SELECT r.pid, r.backend_start, r.application_name, coalesce(s.slot_name::text, ''), r.state <> 'startup', r.sync_state,
			r.flush_lsn::text, r.reply_time
		FROM pg_stat_replication r LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid
		WHERE starts_with(lower(r.application_name), $1) ORDER BY r.backend_start`, w.WaitPrefix())
	if err != nil {
		return nil, fmt.Errorf("list walsenders: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (ws Walsender, err error) {
		var replied *time.Time
		err = row.Scan(&ws.PID, &ws.Start, &ws.Name, &ws.Slot, &ws.Streams, &ws.Sync, lsnColumn{&ws.Flushed}, &replied)
		if replied != nil {
			ws.Replied = *replied
		}
		return ws, err
	})
	if err != nil {
		return nil, fmt.Errorf("list walsenders: %w", err)
	}
	return list, nil
}

// refuseDoubles returns an error when a name that must confirm is borne by more than one walsender: PostgreSQL counts
// each of them, so that two of one name can stand in for the mirror. So can one that bears the mirror's name and reads
// other log.
func (w waiting) refuseDoubles(ctx context.Context, list waitList, name string) error {
	bearers, err := w.walsenders(ctx)
	if err != nil {
		return err
	}
	if n := foreign(bearers, name, w.WaitPrefix()); n > 0 {
		return fmt.Errorf("%w: %d beside the mirror's own bear %s: let each incarnation of the mirror take a new name, and end the others",
			ErrForeignWalsender, n, name)
	}
	var double string
	var count int
	err = w.pool.QueryRow(ctx, `
		SELECT coalesce(min(n), ''), coalesce(max(c), 0) FROM (
			SELECT lower(application_name) AS n, count(*) AS c FROM pg_stat_replication
			WHERE lower(application_name) = ANY ($1) GROUP BY 1 HAVING count(*) > 1 ORDER BY 1 LIMIT 1) d`,
		list.strangers(w.WaitPrefix())).Scan(&double, &count)
	if err != nil {
		return fmt.Errorf("count walsenders: %w", err)
	}
	if count == 0 {
		return nil
	}
	return fmt.Errorf("%d walsenders bear the name %s, which synchronous_standby_names lists: PostgreSQL counts each, and they "+
		"could confirm in the mirror's place: give each standby its own cluster_name or application_name", count, double)
}

// endWalsenders ends those of this session that bear another name than the one given, and returns when they have gone.
// They come back, and then know the setting that is in force.
func (w waiting) endWalsenders(ctx context.Context, except string) error {
	list, err := w.walsenders(ctx)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(ws Walsender) bool { return strings.EqualFold(ws.Name, except) })
	return w.endAll(ctx, list)
}

func (w waiting) endAll(ctx context.Context, list []Walsender) error {
	pids, starts := make([]int32, 0, len(list)), make([]time.Time, 0, len(list))
	for _, ws := range list {
		pids, starts = append(pids, ws.PID), append(starts, ws.Start)
	}
	err := poll(ctx, func() (bool, error) {
		var left int
		err := w.pool.QueryRow(ctx, `
			SELECT count(pg_terminate_backend(a.pid)) FROM unnest($1::int[], $2::timestamptz[]) AS x (pid, start)
			JOIN pg_stat_activity a ON a.pid = x.pid AND a.backend_start = x.start`, pids, starts).Scan(&left)
		return left == 0, err
	})
	if err != nil {
		return fmt.Errorf("end walsenders: %w", err)
	}
	return nil
}

// settle returns when no walsender of this session can release commits under a name it had before the setting changed.
// One that has processed a report beyond the waiting probe without releasing it has read the new setting; that the
// report was processed shows by the next one. Whoever does not show it in time is ended.
func (w waiting) settle(ctx context.Context) error {
	end, err := w.flushed(ctx)
	if err != nil {
		return err
	}
	old, err := w.walsenders(ctx)
	if err != nil {
		return err
	}
	reached := make(map[int32]time.Time, len(old)) // when the report that reached the end was sent
	patience := time.Now().Add(settlePatience)
	err = poll(ctx, func() (bool, error) {
		now, err := w.walsenders(ctx)
		if err != nil {
			return false, err
		}
		old = slices.DeleteFunc(old, func(o Walsender) bool { return settled(o, now, end, reached) })
		if len(old) > 0 && time.Now().After(patience) {
			return true, w.endAll(ctx, old)
		}
		return len(old) == 0, nil
	})
	if err != nil {
		return fmt.Errorf("wait for walsenders to read the setting: %w", err)
	}
	return nil
}

func settled(old Walsender, now []Walsender, end mirror.LSN, reached map[int32]time.Time) bool {
	at := slices.IndexFunc(now, func(ws Walsender) bool { return ws.PID == old.PID && ws.Start.Equal(old.Start) })
	if at < 0 {
		return true // gone
	}
	if now[at].Flushed < end {
		return false
	}
	first, ok := reached[old.PID]
	if !ok {
		reached[old.PID] = now[at].Replied
		return false
	}
	return now[at].Replied.After(first)
}
