package pglog

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
)

// ErrNoSlot is returned when a slot that is asked about does not exist.
var ErrNoSlot = errors.New("no such replication slot")

// slotPatience bounds how long a slot may wait for the transactions that were open when its making began.
const slotPatience = 30 * time.Second

// SlotBlockedError is returned when a slot could not be made in time because a transaction that has written is still
// open, in whatever database of the server. The half-made slot is gone.
type SlotBlockedError struct {
	Slot     string
	Blockers []SlotBlocker
}

// SlotBlocker is a transaction that a slot waits for.
type SlotBlocker struct {
	PID         int32 // of the session; 0 for a prepared transaction
	Database    string
	User        string
	Application string
	Prepared    string        // the name of the prepared transaction, or empty
	Age         time.Duration // of the transaction
}

func (b SlotBlocker) String() string {
	if b.PID == 0 {
		return fmt.Sprintf("prepared transaction %q in database %s, %s old: COMMIT PREPARED or ROLLBACK PREPARED it",
			b.Prepared, b.Database, b.Age.Round(time.Second))
	}
	return fmt.Sprintf("process %d (%s of %s in database %s), transaction %s old: let it finish or end it", b.PID, b.Application,
		b.User, b.Database, b.Age.Round(time.Second))
}

func (e *SlotBlockedError) Error() string {
	who := make([]string, len(e.Blockers))
	for i, b := range e.Blockers {
		who[i] = b.String()
	}
	return fmt.Sprintf("make slot %s: it waits for open transactions: %s", e.Slot, strings.Join(who, "; "))
}

func checkSlotName(name string) error {
	if !regexp.MustCompile(`^[a-z0-9_]{1,63}$`).MatchString(name) {
		return fmt.Errorf("slot name %q is not 1 to 63 of a-z, 0-9 and _", name)
	}
	return nil
}

// CreateSlot makes a logical slot of the mirrored database for pgoutput, after the schema and the publication, and returns
// where it starts: every commit that ends beyond is delivered. It waits for transactions that have written and are open
// anywhere on the server, for 30 seconds at most; then it returns a *SlotBlockedError. While it waits SlotBlockers names
// them.
func (s *Server) CreateSlot(ctx context.Context, name string) (start mirror.LSN, err error) {
	if err := checkSlotName(name); err != nil {
		return 0, fmt.Errorf("make slot: %w", err)
	}
	if err := s.endProbe(ctx); err != nil {
		return 0, fmt.Errorf("make slot %s: %w", name, err)
	}
	conn, err := s.connectForLong(ctx, "slot", nil)
	if err != nil {
		return 0, fmt.Errorf("make slot %s: %w", name, err)
	}
	defer hangUp(conn)
	crashpoint.Hit(crashpoint.SlotUnmade)
	err = s.watchSlot(ctx, name, conn.PgConn(), func(ctx context.Context) error {
		return conn.QueryRow(ctx, "SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'pgoutput')", name).
			Scan(lsnColumn{&start})
	})
	if err != nil {
		return 0, err
	}
	crashpoint.Hit(crashpoint.SlotMade)
	return start, nil
}

// SlotSnapshot is a slot that was just made, with the database as it was where the slot starts. The snapshot can be
// imported (SET TRANSACTION SNAPSHOT) until Close; the slot stays.
type SlotSnapshot struct {
	Slot  string
	Start mirror.LSN
	Name  string // of the snapshot
	conn  *pgconn.PgConn
}

// CreateSlotWithSnapshot does what CreateSlot does and holds the connection on which the slot's snapshot is exported.
func (s *Server) CreateSlotWithSnapshot(ctx context.Context, name string) (*SlotSnapshot, error) {
	if err := checkSlotName(name); err != nil {
		return nil, fmt.Errorf("make slot: %w", err)
	}
	if err := s.endProbe(ctx); err != nil {
		return nil, fmt.Errorf("make slot %s: %w", name, err)
	}
	cfg := s.connConfig(s.database, "slot", map[string]string{"replication": "database", "statement_timeout": "0",
		"lock_timeout": "0", "idle_in_transaction_session_timeout": "0"})
	conn, err := pgconn.ConnectConfig(ctx, &cfg.Config)
	if err != nil {
		return nil, fmt.Errorf("make slot %s: connect: %w", name, err)
	}
	snap := &SlotSnapshot{Slot: name, conn: conn}
	err = s.watchSlot(ctx, name, conn, func(ctx context.Context) error {
		if _, err := conn.Exec(ctx, noTransactionTimeoutSQL).ReadAll(); err != nil { // it is in a transaction until Close
			return err
		}
		results, err := conn.Exec(ctx, "CREATE_REPLICATION_SLOT "+name+" LOGICAL pgoutput EXPORT_SNAPSHOT").ReadAll()
		if err != nil {
			return err
		}
		if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < 3 {
			return errors.New("the server's answer is not one row with slot, position and snapshot")
		}
		row := results[0].Rows[0]
		snap.Name = string(row[2])
		snap.Start, err = mirror.ParseLSN(string(row[1]))
		return err
	})
	if err != nil {
		return nil, errors.Join(err, snap.Close())
	}
	return snap, nil
}

// Close ends the connection and with it the snapshot.
func (s *SlotSnapshot) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := s.conn.Close(ctx); err != nil {
		return fmt.Errorf("close snapshot of slot %s: %w", s.Slot, err)
	}
	return nil
}

// codeLimitExceeded is how a server says that no slot is free.
const codeLimitExceeded = "53400"

// watchSlot runs create, which blocks in the server. When ctx or the patience ends first it finds out who is in the way,
// cancels, and drops what was half made.
func (s *Server) watchSlot(ctx context.Context, name string, conn *pgconn.PgConn, create func(context.Context) error) error {
	if err := s.EnsureSchema(ctx); err != nil { // a slot cannot decode log that is older than the publication
		return fmt.Errorf("make slot %s: %w", name, err)
	}
	if _, err := s.Slot(ctx, name); !errors.Is(err, ErrNoSlot) {
		if err == nil {
			err = errors.New("it exists already: drop it first")
		}
		return fmt.Errorf("make slot %s: %w", name, err)
	}
	watch, cancel := context.WithTimeout(ctx, slotPatience)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- create(context.WithoutCancel(ctx)) }()
	select {
	case err := <-done:
		if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == codeLimitExceeded {
			err = fmt.Errorf("%w: drop one that nobody needs, which helps at once, or raise max_replication_slots and restart the server", err)
		}
		if err != nil {
			return fmt.Errorf("make slot %s: %w", name, err)
		}
		return nil
	case <-watch.Done():
	}
	after, cancelAfter := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancelAfter()
	blockers, err := s.blockersOf(after, conn.PID())
	if _, cancelErr := s.pool.Exec(after, "SELECT pg_cancel_backend($1)", int32(conn.PID())); cancelErr != nil {
		_ = conn.Conn().Close() // the server is out of reach: end the read that create is in
	}
	var created error
	select {
	case created = <-done:
	case <-after.Done():
		_ = conn.Conn().Close() // its process does not take the cancel; it finds out when it goes on
		created = <-done
	}
	err = errors.Join(err, s.DropSlot(after, name))
	if created == nil || len(blockers) == 0 {
		return errors.Join(fmt.Errorf("make slot %s: %w", name, context.Cause(watch)), created, err)
	}
	return errors.Join(&SlotBlockedError{Slot: name, Blockers: blockers}, err)
}

// SlotBlockers names the transactions that a slot which is being made waits for now; none when it does not wait.
func (s *Server) SlotBlockers(ctx context.Context, name string) ([]SlotBlocker, error) {
	st, err := s.Slot(ctx, name)
	if err != nil {
		return nil, err
	}
	return s.blockersOf(ctx, uint32(st.ActivePID))
}

func (s *Server) blockersOf(ctx context.Context, pid uint32) ([]SlotBlocker, error) {
	// A prepared transaction blocks as process 0. Those that are prepared now are named: any of them may be the one.
	rows, err := s.pool.Query(ctx, `
		WITH blocking AS (SELECT DISTINCT unnest(pg_blocking_pids($1)) AS pid)
		SELECT b.pid, coalesce(a.datname::text, ''), coalesce(a.usename::text, ''), coalesce(a.application_name, ''), '',
			coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::float8
		FROM blocking b LEFT JOIN pg_stat_activity a ON a.pid = b.pid WHERE b.pid <> 0
		UNION ALL
		SELECT 0, p.database::text, p.owner::text, '', p.gid, extract(epoch FROM clock_timestamp() - p.prepared)::float8
		FROM pg_prepared_xacts p WHERE EXISTS (SELECT FROM blocking WHERE pid = 0)`, int32(pid))
	if err != nil {
		return nil, fmt.Errorf("find what blocks: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (b SlotBlocker, err error) {
		var seconds float64
		err = row.Scan(&b.PID, &b.Database, &b.User, &b.Application, &b.Prepared, &seconds)
		b.Age = time.Duration(seconds * float64(time.Second))
		return b, err
	})
	if err != nil {
		return nil, fmt.Errorf("find what blocks: %w", err)
	}
	return list, nil
}

// SlotState is a slot as the server shows it.
type SlotState struct {
	Name      string
	Database  string // empty for a physical slot
	ActivePID int32  // the process that reads from it, 0 for none
	// Confirmed is what the reader has confirmed; it may step back to its last saved value when the server restarts.
	Confirmed mirror.LSN
	Restart   mirror.LSN // the oldest log the slot holds back, zero when that is gone
	Retained  int64      // bytes of log it holds back
	WALStatus string     // reserved, extended, unreserved, lost
	SafeWAL   int64      // bytes that can be written before the slot may be lost; -1 when that is not limited
	// Invalid is why the slot is of no use any more, where the server tells (17 and later).
	Invalid string
}

// Slot reads the state of a slot. It returns ErrNoSlot when there is none of that name.
func (s *Server) Slot(ctx context.Context, name string) (SlotState, error) {
	st := SlotState{Name: name}
	err := s.pool.QueryRow(ctx, `
		SELECT coalesce(database::text, ''), coalesce(active_pid, 0), confirmed_flush_lsn::text, restart_lsn::text,
			coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint, coalesce(wal_status, ''),
			coalesce(safe_wal_size, -1), coalesce(to_jsonb(s) ->> 'invalidation_reason', '')
		FROM pg_replication_slots s WHERE slot_name = $1`, name).
		Scan(&st.Database, &st.ActivePID, lsnColumn{&st.Confirmed}, lsnColumn{&st.Restart}, &st.Retained, &st.WALStatus,
			&st.SafeWAL, &st.Invalid)
	if errors.Is(err, pgx.ErrNoRows) {
		return SlotState{}, fmt.Errorf("read slot %s: %w", name, ErrNoSlot)
	}
	if err != nil {
		return SlotState{}, fmt.Errorf("read slot %s: %w", name, err)
	}
	return st, nil
}

// FreeSlot ends whoever reads from the slot, such as a walsender whose network has gone, and returns when nobody does.
// A missing slot is free.
func (s *Server) FreeSlot(ctx context.Context, name string) error {
	err := poll(ctx, func() (bool, error) {
		var readers int
		err := s.pool.QueryRow(ctx, `
			SELECT count(pg_terminate_backend(active_pid)) FROM pg_replication_slots
			WHERE slot_name = $1 AND active_pid IS NOT NULL`, name).Scan(&readers)
		return readers == 0, err
	})
	if err != nil {
		return fmt.Errorf("free slot %s: %w", name, err)
	}
	return nil
}

const (
	codeUndefinedObject = "42704"
	codeObjectInUse     = "55006"
)

// DropSlot ends whoever reads from the slot and drops it. A missing slot is as good as dropped.
func (s *Server) DropSlot(ctx context.Context, name string) error {
	if err := checkSlotName(name); err != nil {
		return fmt.Errorf("drop slot: %w", err)
	}
	err := poll(ctx, func() (bool, error) {
		if err := s.FreeSlot(ctx, name); err != nil {
			return false, err
		}
		crashpoint.Hit(crashpoint.SlotKept)
		_, err := s.pool.Exec(ctx, "SELECT pg_drop_replication_slot($1)", name)
		err = crashpoint.After(crashpoint.SlotDropped, err)
		refused, ok := errors.AsType[*pgconn.PgError](err)
		switch {
		case err == nil, ok && refused.Code == codeUndefinedObject:
			return true, nil
		case ok && refused.Code == codeObjectInUse:
			return false, nil // its reader was faster in coming back
		}
		return false, err
	})
	if err != nil {
		return fmt.Errorf("drop slot %s: %w", name, err)
	}
	return nil
}
