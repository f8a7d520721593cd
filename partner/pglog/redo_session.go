package pglog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// redoSession redoes from one connection until it is lost.
type redoSession struct {
	redo    *Redo
	cfg     RedoConfig
	queue   Queue
	conn    *pgx.Conn
	pipe    *redoPipe
	spool   *spool
	decoder Decoder
	row     rowChange
	// relations are as of the redone position, which is that of the row in the database plus the batch.
	relations map[uint32]*redoRelation
	seq       mirror.RoleSeq // whose principal described them
	batch     redoBatch
	flight    *redoFlight // the batch before it, which the server is redoing
	spare     netMemory   // for the next batch

	redone  mirror.Position // as the row has it
	marked  mirror.Position // known to hold no transaction up to here
	skip    mirror.Position // the transaction to leave out, if any
	skipped uint64

	readTo     redo.Offset // after the last record that was read
	redoneTo   redo.Offset // all before it is redone
	current    *openTxn    // committed, neither redone nor in the batch
	batchedAt  time.Time   // when the last batch was committed
	unflushed  bool        // committed and not known to be on disk
	flushedAt  time.Time
	flushedEnd mirror.Position
}

// redoSettings make the redo connection read text as the stream wrote it, fire no triggers, and never be held up by
// limits meant for clients. Commits do not wait for the disk: what a crash takes is redone from the log.
func redoSettings(session string) map[string]string {
	return map[string]string{
		"application_name":                    namePrefix + "redo " + session,
		"session_replication_role":            "replica",
		"synchronous_commit":                  "off",
		"search_path":                         "pg_catalog, pg_temp",
		"client_encoding":                     "UTF8",
		"datestyle":                           "ISO",
		"intervalstyle":                       "postgres",
		"extra_float_digits":                  "3",
		"bytea_output":                        "hex",
		"array_nulls":                         "on",
		"xmloption":                           "content",
		"lc_monetary":                         "C",
		"standard_conforming_strings":         "on",
		"default_transaction_isolation":       "read committed",
		"default_transaction_read_only":       "off",
		"default_transaction_deferrable":      "off",
		"statement_timeout":                   "0",
		"lock_timeout":                        "0",
		"idle_in_transaction_session_timeout": "0",
		"idle_session_timeout":                "0",
		"row_security":                        "off",
		// A set finds its rows by the key's index, one after the other, whatever the statistics say: a plan made while the
		// table was small must not read it whole when it is large.
		"plan_cache_mode":  "force_generic_plan",
		"enable_seqscan":   "off",
		"enable_hashjoin":  "off",
		"enable_mergejoin": "off",
		"jit":              "off",
	}
}

// openSession connects and reads where redo stands. Reading locks the row for a moment, so that what a lost connection
// may still be committing is waited for.
func (r *Redo) openSession(ctx context.Context, queue Queue) (*redoSession, error) {
	cfg, err := parseDSN(r.cfg.DSN)
	if err != nil {
		return nil, err
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeDescribeExec
	delete(cfg.RuntimeParams, "replication")
	for name, value := range redoSettings(r.cfg.Session) {
		cfg.RuntimeParams[name] = value
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect for redo: %w", err)
	}
	s := &redoSession{
		redo: r, cfg: r.cfg, queue: queue, conn: conn, pipe: &redoPipe{conn: conn.PgConn()},
		spool: newSpool(r.cfg.SpoolBytes), relations: make(map[uint32]*redoRelation),
	}
	if err := s.begin(ctx); err != nil {
		err = s.pipe.lost(err)
		hangUp(conn)
		return nil, fmt.Errorf("begin redo: %w", err)
	}
	return s, nil
}

func (s *redoSession) begin(ctx context.Context) error {
	if _, err := s.conn.Exec(ctx, noTransactionTimeoutSQL); err != nil {
		return err
	}
	if _, err := s.conn.Exec(ctx, unconvertedSQL); err != nil {
		return err
	}
	if err := s.endPredecessor(ctx); err != nil {
		return err
	}
	if err := EnsureProgress(ctx, s.conn); err != nil {
		return err
	}
	var seq, skipSeq, skipped int64
	err := s.conn.QueryRow(ctx, lockProgressSQL, s.cfg.Session).
		Scan(&seq, lsnColumn{&s.redone.LSN}, &skipSeq, lsnColumn{&s.skip.LSN}, &skipped)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrNoProgress
	}
	if err != nil {
		return err
	}
	s.redone.Seq, s.skip.Seq, s.skipped = mirror.RoleSeq(seq), mirror.RoleSeq(skipSeq), uint64(skipped)
	s.seq = s.redone.Seq
	if err := s.checkReach(); err != nil {
		return err
	}
	if err := s.readRelations(ctx); err != nil {
		return err
	}
	// What an earlier connection committed may not be on disk yet.
	s.unflushed = true
	return nil
}

// checkReach refuses a log that no longer goes back to where the database is. Log is given back only when its redo is on
// disk here, so the database was put back since to an older state; to go on would leave a hole that nobody sees.
func (s *redoSession) checkReach() error {
	first, err := s.queue.First()
	if err != nil {
		return &logError{fmt.Errorf("read where the log begins: %w", err)}
	}
	if s.redone.Compare(first) < 0 {
		return gap(GapTrimmed, mendCopy, "the log goes back to %s, the database ends at %s: it was restored, or is another one", first, s.redone)
	}
	return nil
}

// noTransactionTimeoutSQL is for servers that know this limit, from version 17 on.
const noTransactionTimeoutSQL = `SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'transaction_timeout'`

// endPredecessor ends what the server may still have of the connection that was lost before this one. While it waits for
// a lock it does not notice that nobody is there any more, and it holds the row of the position.
func (s *redoSession) endPredecessor(ctx context.Context) error {
	if s.redo.backend == 0 {
		return nil
	}
	_, err := s.conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE pid = $1 AND application_name = $2 AND usename = current_user`,
		int32(s.redo.backend), namePrefix+"redo "+s.cfg.Session)
	return err
}

func (s *redoSession) readRelations(ctx context.Context) error {
	rows, err := s.conn.Query(ctx, relationsSQL, s.cfg.Session, int64(s.redone.Seq))
	if err != nil {
		return err
	}
	messages, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		return err
	}
	for _, message := range messages {
		m, err := s.decoder.Decode(message, false)
		if err != nil {
			return fmt.Errorf("read kept table description: %w", err)
		}
		s.relations[m.RelationID] = &redoRelation{relation: m.Relation, message: message}
	}
	return nil
}

// run redoes until the context ends or something fails.
func (s *redoSession) run(ctx context.Context) error {
	reader := s.queue.NewReader(0)
	defer reader.Close() // it only reads: what Close says changes nothing
	defer s.abandon()
	for {
		if !reader.Ready() {
			if err := s.land(ctx); err != nil {
				return err
			}
		}
		if !reader.Ready() && !(s.gather(ctx) && reader.Ready()) {
			if err := s.settle(ctx); err != nil {
				return err
			}
		}
		record, after, err := s.next(ctx, reader)
		if err != nil {
			return err
		}
		if after == 0 {
			continue // woken without a record
		}
		if err := s.take(ctx, record, after); err != nil {
			return err
		}
	}
}

// next waits for a record, but no longer than there is something to flush or somebody asks for it. The offset is zero
// when there was none.
func (s *redoSession) next(ctx context.Context, reader *redo.Reader) (redo.Record, redo.Offset, error) {
	if reader.Ready() {
		record, after, err := reader.Next(ctx)
		if err != nil {
			err = &logError{fmt.Errorf("read log: %w", err)}
		}
		return record, after, err
	}
	wait, wake := context.WithCancel(ctx)
	defer wake()
	if due, ok := s.flushDue(); ok {
		var cancel context.CancelFunc
		wait, cancel = context.WithDeadline(wait, due)
		defer cancel()
	}
	wanted := s.redo.sleep(wake, s.flushedEnd)
	defer s.redo.awake()
	if wanted && (s.unflushed || s.position() != s.flushedEnd) {
		return redo.Record{}, 0, s.flush(ctx)
	}
	record, after, err := reader.Next(wait)
	switch {
	case err == nil:
		return record, after, nil
	case wait.Err() != nil && ctx.Err() == nil:
		return redo.Record{}, 0, nil
	}
	return redo.Record{}, 0, &logError{fmt.Errorf("read log: %w", err)}
}

// gatherFor is the least time from one small batch to the next. Redo shares processors and disk with what commits wait
// for: one transaction here for each of the principal's would slow them all. More than 30 ms gains little.
const gatherFor = 30 * time.Millisecond

// gather lets more join what is pending, and tells whether it waited. Whoever waits for redo is not kept waiting.
func (s *redoSession) gather(ctx context.Context) bool {
	left := gatherFor - time.Since(s.batchedAt)
	if len(s.batch.txns) == 0 || left <= 0 {
		return false
	}
	wait, wake := context.WithTimeout(ctx, left)
	defer wake()
	if wanted := s.redo.sleep(wake, s.flushedEnd); !wanted {
		<-wait.Done()
	}
	s.redo.awake()
	return true
}

// settle commits what is pending, when nothing more is there to join it, flushes if that is due, and gives back log.
func (s *redoSession) settle(ctx context.Context) error {
	if err := s.redoBatch(ctx); err != nil {
		return err
	}
	switch due, ok := s.flushDue(); {
	case !ok:
		return s.giveBack()
	case !time.Now().Before(due):
		return s.flush(ctx)
	}
	return nil
}

// giveBack trims when there is nothing to flush. Beginnings of transactions whose stream broke off would fill the log
// otherwise: nothing is appended to a full one, and so nothing would ever be committed here that trims it.
func (s *redoSession) giveBack() error {
	s.redoneTo = s.keepFrom(s.readTo)
	if err := s.queue.Trim(s.redoneTo); err != nil {
		return &logError{fmt.Errorf("trim log that came to nothing: %w", err)}
	}
	return nil
}

// take adds a record and redoes when enough is together.
func (s *redoSession) take(ctx context.Context, record redo.Record, after redo.Offset) error {
	at := s.readTo
	s.readTo = after
	position := mirror.Position{Seq: record.Seq, LSN: record.LSN}
	if record.Seq > s.seq {
		if err := s.changeRole(ctx, record.Seq); err != nil {
			return err
		}
	}
	txn, err := s.spool.take(record, at, after)
	if err != nil {
		return &logError{err}
	}
	if record.Kind == redo.KindMark && position.Compare(s.marked) > 0 {
		s.marked = position
	}
	if txn == nil {
		if s.flight == nil && len(s.batch.txns) == 0 {
			s.redoneTo = s.keepFrom(after)
		}
		return nil
	}
	if txn.end.Compare(s.redone) <= 0 {
		s.spool.recycle(txn)
		return nil
	}
	if txn.partial {
		return gap(GapTrimmed, mendCopy, "the log has the end of the transaction at %s and not its beginning, the database ends at %s", txn.end, s.redone)
	}
	s.current = txn
	err = s.add(ctx, txn)
	s.current = nil
	return err
}

// keepFrom is the offset from which the log is still needed, when everything committed before after is redone.
func (s *redoSession) keepFrom(after redo.Offset) redo.Offset {
	if s.current != nil {
		after = min(after, s.current.first)
	}
	for _, txn := range s.batch.txns {
		after = min(after, txn.first)
	}
	return s.spool.oldest(after)
}

// changeRole forgets what the principal before had described: its numbers of tables mean nothing at another server.
func (s *redoSession) changeRole(ctx context.Context, seq mirror.RoleSeq) error {
	if err := s.redoBatch(ctx); err != nil {
		return err
	}
	clear(s.relations)
	s.seq = seq
	return nil
}

// position is how far everything is redone: the row's, or the mark after it.
func (s *redoSession) position() mirror.Position {
	if s.flight == nil && len(s.batch.txns) == 0 && s.marked.Compare(s.redone) > 0 {
		return s.marked
	}
	return s.redone
}

// add takes in a committed transaction: into the batch, or on its own if it is large.
func (s *redoSession) add(ctx context.Context, txn *openTxn) error {
	large := txn.spilled || txn.size > s.cfg.BatchBytes || txn.count > s.cfg.BatchRows
	if skip := txn.end == s.skip; large || skip {
		if err := s.redoBatch(ctx); err != nil {
			return err
		}
		if skip {
			return s.skipOver(ctx, txn)
		}
		return s.redoLarge(ctx, txn)
	}
	b := &s.batch
	b.txns = append(b.txns, txn)
	s.current = nil
	err := s.combineTxn(ctx, txn)
	if errors.Is(err, errBehind) {
		err = s.land(ctx) // and combines this one again
	}
	if err != nil {
		return err
	}
	if len(b.txns) >= s.cfg.BatchTransactions || b.net.rows >= s.cfg.BatchRows || b.bytes >= s.cfg.BatchBytes {
		return s.startBatch(ctx)
	}
	return nil
}

const (
	// flushEvery bounds what a crash of the server makes redo do again, and how long redone log is kept.
	flushEvery = time.Second
	// markEvery is how often the position is kept on disk when it moves without any transaction.
	markEvery = 10 * time.Second
)

// flushDue tells when the next flush is due, if there is anything to flush.
func (s *redoSession) flushDue() (time.Time, bool) {
	if s.unflushed {
		return s.flushedAt.Add(flushEvery), true
	}
	if s.position().Compare(s.flushedEnd) > 0 {
		return s.flushedAt.Add(markEvery), true
	}
	return time.Time{}, false
}

// flush puts on disk what was committed, and the position, with one commit that waits for the disk.
func (s *redoSession) flush(ctx context.Context) error {
	to := s.position()
	s.open(s.redone, to, true)
	if err := s.commit(ctx); err != nil {
		return err
	}
	s.committed(to)
	return s.flushed()
}

// committed notes a commit of the position.
func (s *redoSession) committed(to mirror.Position) {
	s.redone, s.unflushed, s.batchedAt = to, true, time.Now()
	s.redo.publish(s.progress())
}

// flushed notes that everything committed is on disk, and gives back the log.
func (s *redoSession) flushed() error {
	s.unflushed, s.flushedAt, s.flushedEnd = false, time.Now(), s.redone
	s.redo.publish(s.progress())
	crashpoint.Hit(crashpoint.RedoFlushed)
	if err := s.queue.Trim(s.redoneTo); err != nil {
		return &logError{fmt.Errorf("trim redone log: %w", err)}
	}
	crashpoint.Hit(crashpoint.RedoTrimmed)
	return nil
}

func (s *redoSession) progress() Progress {
	p := s.redo.Progress()
	p.Redone, p.Flushed, p.Skipped, p.Trouble = s.position(), s.flushedEnd, s.skipped, nil
	return p
}

// open queues the beginning of a transaction that takes the position along.
func (s *redoSession) open(from, to mirror.Position, flush bool) {
	crashpoint.Hit(crashpoint.RedoUnbegun)
	s.pipe.command("BEGIN")
	s.pipe.command("SET CONSTRAINTS ALL DEFERRED")
	if flush {
		s.pipe.command("SET LOCAL synchronous_commit = local")
	}
	s.pipe.text(moveProgressSQL, 1, positionText(s.cfg.Session, from, to)...)
	if to.Seq != from.Seq {
		s.pipe.text(forgetRelationsSQL, -1, s.cfg.Session, fmt.Sprint(uint64(to.Seq)))
	}
}

// commit sends what is queued, and the commit once all of it did what it must.
func (s *redoSession) commit(ctx context.Context) error {
	defer s.pipe.clear()
	return s.execute(ctx, s.pipe.items)
}

// execute runs the statements of a transaction, and its commit once all of them did what they must. It uses nothing but
// the connection.
func (s *redoSession) execute(ctx context.Context, items []pipeItem) error {
	err := s.pipe.send(ctx, items)
	if err == nil {
		crashpoint.Hit(crashpoint.RedoRows)
		err = crashpoint.After(crashpoint.RedoCommitted, s.pipe.send(ctx, []pipeItem{{sql: "COMMIT", want: -1}}))
	}
	if err != nil {
		return s.rollback(ctx, s.elsewhere(err))
	}
	return nil
}

// elsewhere tells a position that somebody else moved from other failures.
func (s *redoSession) elsewhere(err error) error {
	var pipe *pipeError
	var count *countError
	if errors.As(err, &pipe) && errors.As(err, &count) && (pipe.item.sql == moveProgressSQL || pipe.item.sql == skipProgressSQL) {
		return ErrRedoneElsewhere
	}
	return err
}

// rollback ends a failed transaction and gives back why it failed, or why it could not be ended.
func (s *redoSession) rollback(ctx context.Context, why error) error {
	if s.conn.IsClosed() || s.conn.PgConn().TxStatus() == 'I' {
		return why
	}
	if _, err := s.conn.PgConn().Exec(ctx, "ROLLBACK").ReadAll(); err != nil {
		return fmt.Errorf("roll back: %w", s.pipe.lost(err))
	}
	return why
}
