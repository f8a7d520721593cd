package partner

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/f19126b3/dbmirror/mirror"
)

// attach begins to read a server's log as a role, under a name, and returns where the log ends.
func (p *pair) attach(ctx context.Context, s mirror.Server, user, name string) (*pgconn.PgConn, pglogrepl.LSN, error) {
	conn, err := pgconn.Connect(ctx, p.pg[s].DSN("app")+"&user="+user+"&replication=true&application_name="+name)
	if err != nil {
		return nil, 0, err
	}
	system, err := pglogrepl.IdentifySystem(ctx, conn)
	if err == nil {
		_, err = conn.Exec(ctx, "CREATE_REPLICATION_SLOT stranger TEMPORARY PHYSICAL").ReadAll()
	}
	if err == nil {
		err = pglogrepl.StartReplication(ctx, conn, "stranger", system.XLogPos, pglogrepl.StartReplicationOptions{Mode: pglogrepl.PhysicalReplication})
	}
	if err != nil {
		conn.Close(ctx)
	}
	return conn, system.XLogPos, err
}

// believed reports a position until the server has taken it for the mirror's, or has it and takes another's.
func (p *pair) believed(ctx context.Context, conn *pgx.Conn, stranger *pgconn.PgConn, position pglogrepl.LSN) error {
	for sync := false; ; p.pause(5 * time.Millisecond) {
		err := pglogrepl.SendStandbyStatusUpdate(ctx, stranger, pglogrepl.StandbyStatusUpdate{WALWritePosition: position})
		if err != nil || sync { // one report has come after it was seen to count
			return err
		}
		var heard bool
		err = conn.QueryRow(ctx, `SELECT coalesce(flush_lsn = $2::text::pg_lsn, false) AND state = 'streaming', sync_state = 'sync'
			FROM pg_stat_replication WHERE pid = $1`, int32(stranger.PID()), position.String()).Scan(&heard, &sync)
		if err == nil && heard && !sync {
			err = errors.New("the server believes another walsender")
		}
		if err != nil {
			return err
		}
	}
}

// pause waits for a while.
func (p *pair) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	<-t.C
}
