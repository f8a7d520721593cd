package pglog

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
)

// Identity tells one database of one server from every other. SystemID is made when a server is initialized and is kept
// by its physical copies and restored backups; Timeline rises when one of those leaves the history of the others; OID
// changes when a database is dropped and made anew under the same name.
type Identity struct {
	SystemID uint64
	Timeline uint32
	Database string
	OID      uint32
	Version  int // as in server_version_num: 150018 is 15.18

	// What decides how text is stored and ordered.
	Encoding, Collate, Ctype string
}

const identityQuery = `SELECT (pg_control_system()).system_identifier,
  CASE WHEN pg_is_in_recovery() THEN (pg_control_checkpoint()).timeline_id
       ELSE ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::bigint END,
  datname, oid, current_setting('server_version_num'), pg_encoding_to_char(encoding), datcollate, datctype
FROM pg_database WHERE datname = current_database()`

// ReadIdentity asks a server who it is, over an ordinary connection or one with replication=database, which must be
// idle. It needs no right beyond connecting.
func ReadIdentity(ctx context.Context, conn *pgconn.PgConn) (Identity, error) {
	row, err := queryOne(ctx, conn, identityQuery)
	if err != nil {
		return Identity{}, fmt.Errorf("read identity: %w", err)
	}
	if len(row) != 8 {
		return Identity{}, fmt.Errorf("read identity: %d columns, want 8", len(row))
	}
	// The server writes the system identifier as a signed number.
	system, err1 := strconv.ParseInt(row[0], 10, 64)
	timeline, err2 := strconv.ParseUint(row[1], 10, 32)
	oid, err3 := strconv.ParseUint(row[3], 10, 32)
	version, err4 := strconv.Atoi(row[4])
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return Identity{}, fmt.Errorf("read identity: %w", err)
	}
	return Identity{
		SystemID: uint64(system), Timeline: uint32(timeline), Database: row[2], OID: uint32(oid),
		Version: version, Encoding: row[5], Collate: row[6], Ctype: row[7],
	}, nil
}

// noEncoding is the encoding of a database that holds any bytes as text. Where text is moved they pass as they are: the
// server refuses to send them as UTF8, which the text of all others is converted to and back without loss.
const noEncoding = "SQL_ASCII"

// unconvertedSQL does nothing in other databases.
const unconvertedSQL = `SELECT set_config('client_encoding', 'SQL_ASCII', false) WHERE current_setting('server_encoding') = 'SQL_ASCII'`

// queryOne runs one query by the simple protocol, the only one that replication connections speak, and returns its only
// row: nil when there is none, an empty string for NULL.
func queryOne(ctx context.Context, conn *pgconn.PgConn, query string) ([]string, error) {
	results, err := conn.Exec(ctx, query).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(results) != 1 || len(results[0].Rows) > 1 {
		return nil, errors.New("more than one row")
	}
	if len(results[0].Rows) == 0 {
		return nil, nil
	}
	row := make([]string, len(results[0].Rows[0]))
	for i, value := range results[0].Rows[0] {
		row[i] = string(value)
	}
	return row, nil
}
