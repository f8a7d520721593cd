package pglog

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/f19126b3/dbmirror/mirror"
)

// check refuses to stream when log would be missing. PostgreSQL itself says nothing in most of these cases: it moves a
// start below the slot forward, accepts one beyond its end, and sends on from there.
func (s *Stream) check(ctx context.Context, conn *pgconn.PgConn, start mirror.Position) error {
	id, err := ReadIdentity(ctx, conn)
	if err != nil {
		return err
	}
	s.identity.Store(&id)
	if id.Encoding == noEncoding {
		if _, err := queryOne(ctx, conn, unconvertedSQL); err != nil {
			return fmt.Errorf("set the encoding of the stream: %w", err)
		}
	}
	if err := s.checkIdentity(ctx, conn, id, start.LSN); err != nil {
		return err
	}
	if start.Seq != s.cfg.Seq {
		return gap(GapSequence, "rebase the log to where this role sequence begins, or "+mendCopy,
			"the hardened log ends at %s, the stream is of role sequence %d", start, s.cfg.Seq)
	}
	publication, err := queryOne(ctx, conn, "SELECT 1 FROM pg_publication WHERE pubname = "+quoteLiteral(s.cfg.Publication))
	if err != nil {
		return fmt.Errorf("check publication: %w", err)
	}
	if publication == nil {
		return gap(GapPublication, "create it, then "+mendCopy, "publication %s does not exist in database %s", s.cfg.Publication, id.Database)
	}
	slot, err := readSlot(ctx, conn, s.cfg.Slot)
	if err != nil {
		return err
	}
	return slot.check(s.cfg.Slot, id.Database, start.LSN)
}

func (s *Stream) checkIdentity(ctx context.Context, conn *pgconn.PgConn, id Identity, start mirror.LSN) error {
	const mend = "correct the address, or if this server is meant, " + mendCopy
	switch {
	case s.cfg.SystemID != 0 && id.SystemID != s.cfg.SystemID:
		return gap(GapIdentity, mend, "system identifier is %d, not %d", id.SystemID, s.cfg.SystemID)
	case s.cfg.Database != 0 && id.OID != s.cfg.Database:
		return gap(GapDatabase, mendCopy, "database %s has OID %d, not %d", id.Database, id.OID, s.cfg.Database)
	case id.Timeline < s.cfg.Timeline:
		return gap(GapIdentity, mend, "timeline is %d, before %d: the server is an older copy", id.Timeline, s.cfg.Timeline)
	case s.cfg.Timeline != 0 && id.Timeline > s.cfg.Timeline:
		return s.checkTimeline(ctx, conn, id.Timeline, start)
	}
	return nil
}

// checkTimeline finds where the server left the timeline that the session was made on: what we hold beyond that point
// is not part of its history, even when its log has grown past our end again.
func (s *Stream) checkTimeline(ctx context.Context, conn *pgconn.PgConn, timeline uint32, start mirror.LSN) error {
	row, err := queryOne(ctx, conn, fmt.Sprintf("TIMELINE_HISTORY %d", timeline))
	if err != nil {
		return fmt.Errorf("read history of timeline %d: %w", timeline, err)
	}
	if len(row) != 2 {
		return fmt.Errorf("read history of timeline %d: %d columns, want 2", timeline, len(row))
	}
	left, ok := timelineEnd(row[1], s.cfg.Timeline)
	switch {
	case !ok:
		return gap(GapIdentity, mendCopy, "timeline %d does not descend from %d", timeline, s.cfg.Timeline)
	case start > left:
		return gap(GapIdentity, mendCopy, "the server left timeline %d at %s, the hardened log goes to %s", s.cfg.Timeline, left, start)
	}
	return nil
}

// timelineEnd finds in a history file, which has a line "timeline, position, reason" for each ancestor, where a timeline
// was left.
func timelineEnd(history string, timeline uint32) (mirror.LSN, bool) {
	for line := range strings.Lines(history) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != strconv.FormatUint(uint64(timeline), 10) {
			continue
		}
		left, err := mirror.ParseLSN(fields[1])
		return left, err == nil
	}
	return 0, false
}

// slotState is a replication slot and the end of its server's log.
type slotState struct {
	found            bool
	plugin, database string
	invalid          string     // why it was given up; empty if it was not
	confirmed        mirror.LSN // log before it will never be sent again; 0 while the slot is being made
	flushed          mirror.LSN // end of the server's log on disk
}

// slotQuery goes through JSON for columns that not every version has.
const slotQuery = `SELECT coalesce(plugin, ''), coalesce(database, ''),
  coalesce(to_jsonb(s)->>'invalidation_reason', CASE wal_status WHEN 'lost' THEN 'log lost' END, ''),
  coalesce(confirmed_flush_lsn, '0/0')
FROM pg_replication_slots s WHERE slot_name = `

const flushedQuery = `SELECT CASE WHEN pg_is_in_recovery() THEN '' ELSE pg_current_wal_flush_lsn()::text END`

func readSlot(ctx context.Context, conn *pgconn.PgConn, name string) (slotState, error) {
	row, err := queryOne(ctx, conn, slotQuery+quoteLiteral(name))
	if err != nil {
		return slotState{}, fmt.Errorf("read slot %s: %w", name, err)
	}
	slot := slotState{found: row != nil}
	if slot.found {
		slot.plugin, slot.database, slot.invalid = row[0], row[1], row[2]
		if slot.confirmed, err = mirror.ParseLSN(row[3]); err != nil {
			return slotState{}, fmt.Errorf("read slot %s: %w", name, err)
		}
	}
	// The end of the log is read after the slot, which cannot rightly have gone beyond it.
	row, err = queryOne(ctx, conn, flushedQuery)
	if err != nil {
		return slotState{}, fmt.Errorf("read end of log: %w", err)
	}
	if row[0] == "" {
		return slotState{}, ErrInRecovery
	}
	if slot.flushed, err = mirror.ParseLSN(row[0]); err != nil {
		return slotState{}, fmt.Errorf("read end of log: %w", err)
	}
	return slot, nil
}

// check says whether the slot of this name can continue at start. Whether it is free is told by START_REPLICATION.
func (s slotState) check(name, database string, start mirror.LSN) error {
	switch {
	case start > s.flushed:
		return gap(GapLogAhead, mendCopy, "the hardened log goes to %s, the server's to %s: it was restored or has lost log", start, s.flushed)
	case !s.found:
		return gap(GapSlotMissing, mendCopy, "slot %s does not exist", name)
	case s.plugin != "pgoutput" || s.database != database:
		return gap(GapSlotForeign, "choose another slot name, or drop that slot and "+mendCopy,
			"slot %s is of plugin %q and database %q, not of pgoutput and %q", name, s.plugin, s.database, database)
	case s.invalid != "":
		return gap(GapSlotInvalidated, "drop the slot and "+mendCopy, "slot %s: %s", name, s.invalid)
	case s.confirmed == 0:
		return gap(GapSlotInvalidated, "drop the slot and "+mendCopy, "slot %s was never finished", name)
	case s.confirmed > s.flushed:
		return gap(GapSlotPoisoned, "drop the slot, restart the server, "+mendCopy,
			"slot %s stands at %s, the server's log ends at %s: commits may not wait for the mirror", name, s.confirmed, s.flushed)
	case s.confirmed > start:
		return gap(GapSlotAhead, mendCopy, "slot %s was advanced to %s, the hardened log ends at %s", name, s.confirmed, start)
	}
	return nil
}
