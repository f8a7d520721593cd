package pglog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/f19126b3/dbmirror/mirror"
)

// open connects and makes sure that the server can continue at start. The connection is then ready for
// START_REPLICATION and owned by the caller.
func (s *Stream) open(ctx context.Context, start mirror.Position) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Silence)
	defer cancel()
	conn, err := pgconn.ConnectConfig(ctx, s.connect)
	if err != nil {
		return nil, connectError(ctx, err)
	}
	if err := s.check(ctx, conn, start); err != nil {
		conn.Close(ctx)
		return nil, err
	}
	return hijack(ctx, conn)
}

// connConfig sets what core's own subscriber sets, so that values come as text that every server reads back the same,
// and what a receiver under a waiting commit needs: open transactions are streamed early, and our own statements never
// wait for ourselves.
func (c StreamConfig) connConfig() (*pgconn.Config, error) {
	base, err := parseDSN(c.DSN)
	if err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	config := &base.Config
	for name, value := range map[string]string{
		"replication":                 "database",
		"application_name":            c.ApplicationName,
		"logical_decoding_work_mem":   "4MB",
		"synchronous_commit":          "local",
		"wal_sender_timeout":          strconv.FormatInt(c.Silence.Milliseconds(), 10),
		"datestyle":                   "ISO",
		"intervalstyle":               "postgres",
		"extra_float_digits":          "3",
		"bytea_output":                "hex",
		"client_encoding":             "UTF8",
		"standard_conforming_strings": "on",
		// Names are written whole, for redo has nothing else in its search path; amounts of money as in C, for the two
		// databases need not agree on a locale.
		"search_path": "pg_catalog",
		"lc_monetary": "C",
	} {
		config.RuntimeParams[name] = value
	}
	if c.Dial != nil {
		config.DialFunc = c.Dial
	}
	return config, nil
}

// connectError keeps what the server or the network said and leaves out where and as whom we connected.
func connectError(ctx context.Context, err error) error {
	var server *pgconn.PgError
	var network *net.OpError
	switch {
	case errors.As(err, &server):
		return fmt.Errorf("connect to the principal: %w", server)
	case ctx.Err() != nil:
		return fmt.Errorf("connect to the principal: %w", ctx.Err())
	case errors.As(err, &network):
		return fmt.Errorf("connect to the principal: %s: %w", network.Op, network.Err)
	}
	return fmt.Errorf("connect to the principal: %w", cause(err))
}

// cause is the innermost error, the last one where several were tried.
func cause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if several, ok := err.(interface{ Unwrap() []error }); ok && len(several.Unwrap()) > 0 {
			inner = several.Unwrap()[len(several.Unwrap())-1]
		}
		if inner == nil {
			return err
		}
		err = inner
	}
}

func hijack(ctx context.Context, conn *pgconn.PgConn) (net.Conn, error) {
	err := conn.SyncConn(ctx)
	if err == nil {
		var hijacked *pgconn.HijackedConn
		if hijacked, err = conn.Hijack(); err == nil {
			if hijacked.Frontend.ReadBufferLen() == 0 {
				return hijacked.Conn, nil
			}
			hijacked.Conn.Close()
			return nil, errors.New("connect to the principal: the server speaks out of turn")
		}
	}
	conn.Close(ctx)
	return nil, fmt.Errorf("connect to the principal: %w", err)
}

// start asks for the log from the end of ours, in the text format of protocol version 2.
func (l *readLoop) start(ctx context.Context) error {
	command := fmt.Sprintf(`START_REPLICATION SLOT "%s" LOGICAL %s (proto_version '2', streaming 'on', messages 'true', publication_names %s)`,
		l.cfg.Slot, l.hardened, quoteLiteral(quoteIdent(l.cfg.Publication)))
	query := binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(4+len(command)+1))
	query = append(append(query, command...), 0)
	deadline := time.Now().Add(l.cfg.Silence)
	if err := errors.Join(l.conn.SetWriteDeadline(deadline), l.conn.SetReadDeadline(deadline)); err != nil {
		return fmt.Errorf("start replication: %w", err)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if _, err := l.conn.Write(query); err != nil {
		return fmt.Errorf("start replication: %w", err)
	}
	for {
		kind, body, ok, err := l.frames.next()
		if err != nil {
			return err
		}
		if ok {
			started, err := l.startAnswer(kind, body)
			if started || err != nil {
				return err
			}
			continue
		}
		if _, err := l.frames.fill(); err != nil {
			return fmt.Errorf("start replication: %w", err)
		}
	}
}

func (l *readLoop) startAnswer(kind byte, body []byte) (started bool, err error) {
	switch kind {
	case 'W':
		return true, nil
	case 'N', 'S':
		return false, nil
	case 'E':
		var response pgproto3.ErrorResponse
		if err := response.Decode(body); err != nil {
			return false, &ProtocolError{What: "an error that cannot be read"}
		}
		return false, startError(l.cfg.Slot, pgconn.ErrorResponseToPgError(&response))
	}
	return false, &ProtocolError{What: fmt.Sprintf("message %q in answer to START_REPLICATION", kind)}
}

// startError reads a refusal of START_REPLICATION. All of this was checked before, but the slot may have changed since.
func startError(slot string, err *pgconn.PgError) error {
	switch err.Code {
	case "55006": // object_in_use
		// The process is the last number of the message, in every language.
		digits := strings.LastIndexAny(err.Message, "0123456789")
		number := err.Message[:digits+1]
		number = number[strings.LastIndexFunc(number, func(c rune) bool { return c < '0' || c > '9' })+1:]
		pid, _ := strconv.Atoi(number) // 0 when there is none
		return &SlotActiveError{Slot: slot, PID: pid}
	case "42704": // undefined_object
		return gap(GapSlotMissing, mendCopy, "%s", err.Message)
	case "55000", "58P01": // object_not_in_prerequisite_state, and log files that are gone
		return gap(GapSlotInvalidated, mendCopy, "%s", err.Message)
	}
	return fmt.Errorf("start replication: %w", err)
}
