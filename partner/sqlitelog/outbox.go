package sqlitelog

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"zombiezen.com/go/sqlite"

	"github.com/f19126b3/dbmirror/mirror"
)

const (
	// partBytes is the most that one row of the log holds.
	partBytes = 256 << 10
	// partOverhead is counted for each row beside its data, so that every transaction has a length.
	partOverhead = 32
	// trimStep is how much must have become free before it is deleted, and how much is deleted at once.
	trimStep, trimMost = 256 << 10, 8 << 20
)

// part is a row of the log.
type part struct {
	end  mirror.LSN
	last bool // it ends its transaction
	data []byte
}

// slot keeps log for a mirror.
type slot struct {
	session   string
	confirmed mirror.LSN // the mirror has hardened everything up to there
	dead      bool       // nothing is read through it any more
}

// split cuts a transaction into the rows that follow an end of log.
func split(body []byte, after mirror.LSN) (parts []part) {
	for {
		n := min(len(body), partBytes)
		after += mirror.LSN(n + partOverhead)
		parts = append(parts, part{end: after, last: n == len(body), data: body[:n]})
		if body = body[n:]; len(body) == 0 {
			return parts
		}
	}
}

// appendLog writes a transaction into the log, or only its end where nobody will read it, and deletes what nobody needs
// any more. It returns what the bounds of the log are then, if the transaction commits.
func (db *DB) appendLog(conn *sqlite.Conn, body []byte) (end, trimmed mirror.LSN, err error) {
	db.mu.Lock()
	end, trimmed = db.mu.end, db.mu.trimmed
	keep, kept := db.neededLocked()
	db.mu.Unlock()
	parts := split(body, end)
	end = parts[len(parts)-1].end
	if !kept {
		parts, keep = []part{{end: end, last: true}}, end
	}
	for _, p := range parts {
		last := int64(0)
		if p.last {
			last = 1
		}
		err := run(conn, "INSERT INTO main.dbmirror_log (lsn, last, data) VALUES (?, ?, ?)", intValue(int64(p.end)), intValue(last), blobValue(p.data))
		if err != nil {
			return 0, 0, err
		}
	}
	if kept && keep < trimmed+trimStep {
		return end, trimmed, nil
	}
	if kept {
		keep = min(keep, trimmed+trimMost)
	}
	trimmed, err = trimLog(conn, keep, end)
	return end, trimmed, err
}

// trimLog deletes what ends at or before a position, except the row that says where the log ends.
func trimLog(conn *sqlite.Conn, keep, end mirror.LSN) (trimmed mirror.LSN, err error) {
	// The row at keep stays: it says up to where the log is gone. It may be within a transaction, one that is larger than
	// what is deleted at once, for nobody reads from before the end of one that is confirmed.
	err = run(conn, "DELETE FROM main.dbmirror_log WHERE lsn < (SELECT lsn FROM main.dbmirror_log WHERE lsn <= ? ORDER BY lsn DESC LIMIT 1)", intValue(int64(min(keep, end))))
	if err != nil {
		return 0, fmt.Errorf("trim the log: %w", err)
	}
	_, trimmed, err = readLogBounds(conn)
	return trimmed, err
}

// neededLocked is from where on the log is needed, and whether it is needed at all.
func (db *DB) neededLocked() (from mirror.LSN, kept bool) {
	for _, s := range db.mu.slots {
		if !kept || s.confirmed < from {
			from, kept = s.confirmed, true
		}
	}
	return from, kept
}

func readSlots(conn *sqlite.Conn) (map[string]*slot, error) {
	slots := map[string]*slot{}
	err := query(conn, "SELECT name, session, confirmed FROM main.dbmirror_slot", func(stmt *sqlite.Stmt) error {
		slots[stmt.ColumnText(0)] = &slot{session: stmt.ColumnText(1), confirmed: mirror.LSN(stmt.ColumnInt64(2))}
		return nil
	})
	return slots, err
}

// createSlot begins to keep log, from the end of the log on, which it returns.
func (db *DB) createSlot(ctx context.Context, session, name string) (mirror.LSN, error) {
	w, err := db.take(ctx)
	if err != nil {
		return 0, err
	}
	defer db.give()
	start := db.End() // nobody can commit meanwhile
	err = db.ownTurn(w, func(conn *sqlite.Conn) error {
		return run(conn, `INSERT INTO main.dbmirror_slot (name, session, confirmed) VALUES (?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET session = excluded.session, confirmed = excluded.confirmed`,
			textValue(name), textValue(session), intValue(int64(start)))
	})
	if err != nil {
		return 0, fmt.Errorf("keep log for the mirror: %w", err)
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	if former := db.mu.slots[name]; former != nil {
		former.dead = true
	}
	db.mu.slots[name] = &slot{session: session, confirmed: start}
	db.wakeLocked()
	return start, nil
}

// dropSlots gives up the log that is kept under names that fit.
func (db *DB) dropSlots(ctx context.Context, fits func(name string, s *slot) bool) error {
	w, err := db.take(ctx)
	if err != nil {
		return err
	}
	defer db.give()
	db.mu.Lock()
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(db.mu.slots)), func(n string) bool { return !fits(n, db.mu.slots[n]) })
	db.mu.Unlock()
	if len(names) == 0 {
		return nil
	}
	err = db.ownTurn(w, func(conn *sqlite.Conn) error {
		for _, name := range names {
			if err := run(conn, "DELETE FROM main.dbmirror_slot WHERE name = ?", textValue(name)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("give up the log kept under %s: %w", strings.Join(names, ", "), err)
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	for _, name := range names {
		db.mu.slots[name].dead = true
		delete(db.mu.slots, name)
	}
	db.wakeLocked()
	return nil
}

// readParts reads the log that follows a position, at most about most bytes of it.
func readParts(conn *sqlite.Conn, after mirror.LSN, most int) (parts []part, err error) {
	read := 0
	stmt, err := conn.Prepare("SELECT lsn, last, data FROM main.dbmirror_log WHERE lsn > ? ORDER BY lsn")
	if err != nil {
		return nil, err
	}
	defer finish(stmt)
	stmt.BindInt64(1, int64(after))
	for read < most {
		more, err := stmt.Step()
		if err != nil || !more {
			return parts, err
		}
		p := part{end: mirror.LSN(stmt.ColumnInt64(0)), last: stmt.ColumnBool(1), data: columnBytes(stmt, 2)}
		parts = append(parts, p)
		read += len(p.data) + partOverhead
	}
	return parts, nil
}
