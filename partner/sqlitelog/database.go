package sqlitelog

import (
	"context"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// Backend is the database as a partner uses it. The program goes on using the DB.
func (db *DB) Backend() backend.Backend { return asBackend{db} }

type asBackend struct{ db *DB }

// Open begins a session on the database, which is open already.
func (b asBackend) Open(_ context.Context, env backend.Env) (backend.Database, error) {
	if err := b.db.faulty(); err != nil {
		return nil, err
	}
	b.db.told(env.Principal)
	return &database{DB: b.db, env: env}, nil
}

// Unreachable explains why a database does not answer.
func (b asBackend) Unreachable(server string, err error) backend.Finding {
	return backend.Finding{Severity: backend.Fatal, Code: backend.CodeConnect, Server: server, Object: b.db.cfg.Path,
		Text: err.Error()}
}

// Settings names what leads to the databases.
func (asBackend) Settings() (here, there string) { return "Path", "the other partner's Path" }

// database is one session on a DB.
type database struct {
	*DB
	env backend.Env
}

// Close leaves the DB as it is: the program goes on using it, as far as the gate allows.
func (d *database) Close() { d.told(nil) }

// Ping tells how the database is.
func (d *database) Ping(ctx context.Context) (backend.Health, error) {
	if err := d.DB.Ping(ctx); err != nil {
		return backend.Health{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return backend.Health{Started: d.opened, End: d.mu.end}, nil
}

// Identity tells which database it is.
func (d *database) Identity(context.Context) (backend.Identity, error) {
	return identityOf(d.ID(), d.cfg.Path), d.faulty()
}

func identityOf(id uint64, path string) backend.Identity {
	return backend.Identity{ID: fmt.Sprintf("%016x", id), Name: fmt.Sprintf("database %s with identity %016x", filepath.Base(path), id)}
}

// Gate reads where the gate is.
func (d *database) Gate(context.Context) (mirror.Gate, error) { return d.DB.Gate(), d.faulty() }

// Waiting reads whom commits wait for.
func (d *database) Waiting(context.Context) (backend.Waiting, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.mu.commits
	w := backend.Waiting{Name: c.name, RestartWaits: c.afterwards != waitNobody, InForce: c.name}
	if c.waits && c.name == "" {
		w.Name, w.InForce, w.Blocked = "nobody", "nobody", true
	}
	return w, nil
}

// Heartbeat commits a transaction without changes, and waits as a client's waits.
func (d *database) Heartbeat(ctx context.Context, name string) (backend.Beat, error) {
	began := time.Now()
	end, err := d.mark(ctx, nil)
	if err == nil {
		err = d.settled(ctx, end)
	}
	if err != nil {
		return backend.Beat{}, fmt.Errorf("heartbeat: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.mu.commits
	return backend.Beat{Took: time.Since(began), Unwaited: !c.waits || c.name != name || c.hardened < end}, nil
}

// mark commits a transaction without changes of clients, and what note writes with it.
func (d *database) mark(ctx context.Context, note func(conn *sqlite.Conn, end mirror.LSN) error) (end mirror.LSN, err error) {
	w, err := d.take(ctx)
	if err != nil {
		return 0, err
	}
	defer d.give()
	var trimmed mirror.LSN
	err = d.ownTurn(w, func(conn *sqlite.Conn) (err error) {
		if end, trimmed, err = d.appendLog(conn, newTransaction(now()).body); err != nil || note == nil {
			return err
		}
		return note(conn, end)
	})
	if err != nil {
		return 0, err
	}
	d.advanced(end, trimmed)
	return end, nil
}

// WriteBarrier commits a barrier.
func (d *database) WriteBarrier(ctx context.Context) (backend.Barrier, error) {
	end, err := d.mark(ctx, func(conn *sqlite.Conn, end mirror.LSN) error {
		return setMeta(conn, "barrier", intValue(int64(end)))
	})
	if err != nil {
		return backend.Barrier{}, fmt.Errorf("write a barrier: %w", err)
	}
	return backend.Barrier{At: end, End: end}, nil
}

// LatestBarrier is the latest in this database.
func (d *database) LatestBarrier(ctx context.Context) (at mirror.LSN, err error) {
	err = d.inspect(ctx, func(conn *sqlite.Conn) error {
		v, err := meta(conn, "barrier")
		at = mirror.LSN(v.Int)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("read the latest barrier: %w", err)
	}
	return at, nil
}

// Prepare has nothing to make: Open did.
func (d *database) Prepare(context.Context) error { return d.faulty() }

const selectReign = "SELECT role_seq, log, start, origin, fork_seq, fork_lsn, opened_at FROM main.dbmirror_reign WHERE session = ? AND "

// Reign reads the beginning of a role sequence.
func (d *database) Reign(ctx context.Context, seq mirror.RoleSeq) (backend.Reign, error) {
	return d.readReign(ctx, seq, selectReign+"role_seq = ?")
}

// LatestReign is the newest below a role sequence.
func (d *database) LatestReign(ctx context.Context, before mirror.RoleSeq) (backend.Reign, error) {
	return d.readReign(ctx, before, selectReign+"role_seq < ? ORDER BY role_seq DESC LIMIT 1")
}

func (d *database) readReign(ctx context.Context, seq mirror.RoleSeq, sql string) (r backend.Reign, err error) {
	found := false
	err = d.inspect(ctx, func(conn *sqlite.Conn) error {
		return query(conn, sql, func(stmt *sqlite.Stmt) error {
			found = true
			r = backend.Reign{
				Seq: mirror.RoleSeq(stmt.ColumnInt64(0)), Log: stmt.ColumnText(1), Start: mirror.LSN(stmt.ColumnInt64(2)),
				Origin:   uint64(stmt.ColumnInt64(3)),
				Fork:     mirror.Position{Seq: mirror.RoleSeq(stmt.ColumnInt64(4)), LSN: mirror.LSN(stmt.ColumnInt64(5))},
				OpenedAt: time.UnixMicro(stmt.ColumnInt64(6)),
			}
			return nil
		}, textValue(d.env.Session), intValue(int64(min(seq, math.MaxInt64))))
	})
	if err == nil && !found {
		err = backend.ErrNoReign
	}
	if err != nil {
		return backend.Reign{}, fmt.Errorf("read reign %d: %w", seq, err)
	}
	return r, nil
}

// WriteReign records the beginning of a role sequence.
func (d *database) WriteReign(ctx context.Context, r backend.Reign) error {
	if r.Seq == 0 || r.Seq > math.MaxInt64 || r.Fork.Seq > math.MaxInt64 {
		return fmt.Errorf("write reign: role sequence %d or fork %s is out of range", r.Seq, r.Fork)
	}
	crashpoint.Hit(crashpoint.ReignUnwritten)
	err := d.own(ctx, func(conn *sqlite.Conn) error { return writeReign(conn, d.env.Session, r) })
	if err != nil {
		return fmt.Errorf("write reign %d: %w", r.Seq, err)
	}
	crashpoint.Hit(crashpoint.ReignWritten)
	return nil
}

func writeReign(conn *sqlite.Conn, session string, r backend.Reign) error {
	return run(conn, `INSERT OR REPLACE INTO main.dbmirror_reign (session, role_seq, log, start, origin, fork_seq, fork_lsn, opened_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`, textValue(session), intValue(int64(r.Seq)), textValue(r.Log), intValue(int64(r.Start)),
		intValue(int64(r.Origin)), intValue(int64(r.Fork.Seq)), intValue(int64(r.Fork.LSN)), intValue(now().UnixMicro()))
}

func (d *database) logName(seq mirror.RoleSeq) string {
	return fmt.Sprintf("%s_%d", d.env.Short(), seq)
}

// BeginLog begins to keep log for the mirror of a role sequence.
func (d *database) BeginLog(ctx context.Context, seq mirror.RoleSeq) (backend.Reign, error) {
	r := backend.Reign{Seq: seq, Log: d.logName(seq), Origin: d.ID()}
	crashpoint.Hit(crashpoint.SlotUnmade)
	var err error
	if r.Start, err = d.createSlot(ctx, d.env.Session, r.Log); err != nil {
		return backend.Reign{}, err
	}
	crashpoint.Hit(crashpoint.SlotMade)
	return r, nil
}

// Retained is how much log is kept for the mirror.
func (d *database) Retained(_ context.Context, r backend.Reign) (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.mu.slots[r.Log]
	if s == nil {
		return 0, backend.ErrNoLog
	}
	return int64(d.mu.end - max(min(s.confirmed, d.mu.end), d.mu.trimmed)), nil
}

// DropLog gives up the log kept under a reign.
func (d *database) DropLog(ctx context.Context, r backend.Reign) error {
	return d.dropSlots(ctx, func(name string, _ *slot) bool { return name == r.Log })
}

// DropLogs gives up all of this session's.
func (d *database) DropLogs(ctx context.Context) error {
	return d.dropSlots(ctx, func(_ string, s *slot) bool { return s.session == d.env.Session })
}

// MoveOn has nothing to do: what AUTOINCREMENT counts on from is in the log.
func (d *database) MoveOn(context.Context, bool) error { return nil }

// Keeps says whether this database has all of its own log up to fork.
func (d *database) Keeps(_ context.Context, own backend.Reign, fork mirror.LSN) (bool, error) {
	return d.ID() == own.Origin && d.End() >= fork, d.faulty()
}

// SaveTail writes what was committed here after the fork.
func (d *database) SaveTail(ctx context.Context, _ backend.Reign, fork mirror.LSN, w io.Writer) (backend.TailSummary, error) {
	return d.Tail(ctx, fork, w)
}

// Undo takes it back.
func (d *database) Undo(ctx context.Context, _ backend.Reign, fork mirror.LSN) error {
	return d.DB.Undo(ctx, fork)
}

// NewRedo prepares redo.
func (d *database) NewRedo() (backend.Redo, error) { return newRedo(d.DB, d.env.Session), nil }

// Progress reads the redone position.
func (d *database) Progress(ctx context.Context) (mirror.Position, error) {
	return d.progress(ctx, d.env.Session)
}

// SetProgress sets it.
func (d *database) SetProgress(ctx context.Context, at mirror.Position) error {
	if err := d.own(ctx, func(conn *sqlite.Conn) error { return setProgress(conn, d.env.Session, at) }); err != nil {
		return fmt.Errorf("set redone position: %w", err)
	}
	return nil
}
