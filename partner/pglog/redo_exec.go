package pglog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
	"github.com/f19126b3/dbmirror/partner/redo"
)

// redoBatch redoes the transactions that were collected, in one transaction here. If that fails for any reason but the
// connection, they are redone one by one, each change a statement of its own in the principal's order: sets can fail
// where the changes in their order do not, and otherwise this is how the one that cannot be redone is found.
func (s *redoSession) redoBatch(ctx context.Context) error {
	b := &s.batch
	if len(b.txns) == 0 {
		return nil
	}
	last := b.txns[len(b.txns)-1]
	flush := s.flushNow()
	if !b.oneByOne {
		err := s.redoSets(ctx, flush)
		if err == nil {
			s.finish(b.txns...)
			return s.afterCommit(ctx, last, flush)
		}
		if !s.singlyMends(err) {
			return err
		}
	}
	if err := s.startOver(ctx); err != nil {
		return err
	}
	txns := b.txns
	s.clearBatch()
	for _, txn := range txns {
		flush := s.flushNow()
		if err := s.redoOne(ctx, txn, flush); err != nil {
			return err
		}
		s.redo.count(1, uint64(txn.size), uint64(txn.count), 0)
		if err := s.afterCommit(ctx, txn, flush); err != nil {
			return err
		}
		s.spool.recycle(txn)
	}
	return nil
}

// flushNow tells whether the commit that comes is the one to wait for the disk.
func (s *redoSession) flushNow() bool { return time.Since(s.flushedAt) >= flushEvery }

// singlyMends tells whether an error of a set may be one of the set only.
func (s *redoSession) singlyMends(err error) bool {
	return !transient(err) && !errors.Is(err, ErrRedoneElsewhere)
}

// redoSets redoes the whole batch by its net changes.
func (s *redoSession) redoSets(ctx context.Context, flush bool) error {
	b := &s.batch
	s.open(s.redone, b.txns[len(b.txns)-1].end, flush)
	ok, err := s.queueNet(ctx, &b.net)
	if err != nil {
		return s.rollback(ctx, err)
	}
	if !ok {
		s.pipe.clear()
		return errValue
	}
	s.queueDescribed(b.txns[len(b.txns)-1].end.Seq)
	return s.commit(ctx)
}

// errValue stands for a value that is not what its column is here. One by one the server itself says so.
var errValue = errors.New("value does not fit its column")

// finish counts the transactions of a batch and takes their memory back.
func (s *redoSession) finish(txns ...*openTxn) {
	var bytes, rows uint64
	for _, txn := range txns {
		bytes += uint64(txn.size)
		rows += uint64(txn.count)
		s.spool.recycle(txn)
	}
	s.redo.count(uint64(len(txns)), bytes, rows, 1)
}

// afterCommit moves on past a transaction that is redone.
func (s *redoSession) afterCommit(ctx context.Context, txn *openTxn, flush bool) error {
	s.clearBatch()
	s.redoneTo = s.keepFrom(txn.after)
	s.committed(txn.end)
	if flush {
		if err := s.flushed(); err != nil {
			return err
		}
	}
	if s.pipe.statements > maxStatements {
		return s.forgetTables(ctx)
	}
	return nil
}

// clearBatch begins an empty batch in the memory of the last one.
func (s *redoSession) clearBatch() {
	s.batch = redoBatch{net: netChanges{slab: s.batch.net.slab[:0], key: s.batch.net.key}}
}

// maxStatements bounds the prepared statements on the server, which take memory there.
const maxStatements = 1000

// startOver brings the tables back to what they were before the batch, to be looked up anew: that a set failed may come
// from a change of schema here.
func (s *redoSession) startOver(ctx context.Context) error {
	if s.batch.before != nil {
		s.relations = s.batch.before
		s.batch.before = nil
	}
	s.batch.described = nil
	return s.forgetTables(ctx)
}

// forgetTables drops what is known of the local tables, and the statements prepared for them.
func (s *redoSession) forgetTables(ctx context.Context) error {
	for id, r := range s.relations {
		s.relations[id] = &redoRelation{relation: r.relation, message: r.message}
	}
	if _, err := s.conn.PgConn().Exec(ctx, "DEALLOCATE ALL").ReadAll(); err != nil {
		return fmt.Errorf("forget prepared statements: %w", s.pipe.lost(err))
	}
	s.pipe.statements = 0
	return nil
}

// queueDescribed keeps the tables that the transactions described, with the position.
func (s *redoSession) queueDescribed(seq mirror.RoleSeq) {
	for _, r := range s.batch.described {
		s.pipe.add(pipeItem{
			sql: keepRelationSQL, want: 1, formats: []int16{0, 0, 0, 1},
			params: [][]byte{[]byte(s.cfg.Session), fmt.Append(nil, uint64(seq)), fmt.Append(nil, r.relation.OID), r.message},
		})
	}
}

// redoOne redoes one transaction, each change a statement of its own.
func (s *redoSession) redoOne(ctx context.Context, txn *openTxn, flush bool) error {
	s.open(s.redone, txn.end, flush)
	err := txn.eachHeld(func(message []byte) error { return s.one(ctx, txn, message) })
	if err == nil {
		s.queueDescribed(txn.end.Seq)
		if err = s.commit(ctx); err == nil {
			return nil
		}
	}
	return s.poison(ctx, txn, err)
}

// singlesAtOnce bounds the statements that go out together one by one.
const singlesAtOnce = 512

// one queues one change as a statement of its own, and sends the queue when it is long.
func (s *redoSession) one(ctx context.Context, txn *openTxn, message []byte) error {
	c, err := s.understand(ctx, txn, message)
	if err != nil {
		return err
	}
	switch {
	case c.row != nil:
		// The queue outlives the decoder's memory.
		own := *c.row
		own.old, own.new = append(Tuple(nil), own.old...), append(Tuple(nil), own.new...)
		if c.row.old == nil {
			own.old = nil
		}
		if err := s.queueOne(ctx, &own); err != nil {
			return &pipeError{pipeItem{change: &own}, err}
		}
	case c.truncate != nil:
		s.queueTruncate(c.truncate)
	}
	if len(s.pipe.items) >= singlesAtOnce || int64(s.pipe.bytes) >= s.cfg.BatchBytes {
		return s.pipe.run(ctx)
	}
	return nil
}

func (s *redoSession) queueTruncate(t *truncation) {
	s.pipe.add(pipeItem{
		sql: truncateAll(t.tables, t.restartIdentity), want: -1,
		change: &rowChange{table: t.tables[0], kind: TypeTruncate},
	})
}

// poison rolls back a transaction that cannot be redone and makes the error that names it.
func (s *redoSession) poison(ctx context.Context, txn *openTxn, err error) error {
	err = s.rollback(ctx, s.elsewhere(err))
	if !s.singlyMends(err) {
		return err
	}
	return redoErrorOf(err, txn.end)
}

// redoLarge redoes one transaction that is too large for memory, piece by piece in one transaction here.
func (s *redoSession) redoLarge(ctx context.Context, txn *openTxn) error {
	s.open(s.redone, txn.end, true)
	err := s.elsewhere(s.pipe.run(ctx))
	if err == nil {
		crashpoint.Hit(crashpoint.RedoBegun)
		err = s.redoPieces(ctx, txn)
	}
	if err == nil {
		err = s.commit(ctx)
	}
	if err != nil {
		return s.poison(ctx, txn, err)
	}
	s.finish(txn)
	s.current = nil
	return s.afterCommit(ctx, txn, true)
}

func (s *redoSession) redoPieces(ctx context.Context, txn *openTxn) error {
	take := func(message []byte) error {
		s.batch.messages = append(s.batch.messages, message)
		s.batch.bytes += int64(len(message))
		if err := s.combine(ctx, txn, message); err != nil {
			return err
		}
		if len(s.batch.messages) >= s.cfg.BatchRows || s.batch.bytes >= s.cfg.BatchBytes {
			return s.redoPiece(ctx, txn)
		}
		return nil
	}
	each := txn.eachHeld
	if txn.spilled {
		each = func(call func([]byte) error) error { return s.eachLogged(ctx, txn, call) }
	}
	if err := each(take); err != nil {
		return err
	}
	return s.redoPiece(ctx, txn)
}

// redoPiece redoes what was collected of a large transaction: by its net changes, or else one by one.
func (s *redoSession) redoPiece(ctx context.Context, txn *openTxn) error {
	b := &s.batch
	if len(b.messages) == 0 {
		return nil
	}
	s.pipe.command("SAVEPOINT dbmirror_piece")
	err := s.pieceSets(ctx)
	if err != nil && !s.singlyMends(err) {
		return err
	}
	if err != nil {
		s.pipe.clear()
		s.pipe.command("ROLLBACK TO SAVEPOINT dbmirror_piece")
		if err := s.pipe.run(ctx); err != nil {
			return err
		}
		if err := s.pieceSingly(ctx, txn); err != nil {
			return err
		}
	}
	s.pipe.command("RELEASE SAVEPOINT dbmirror_piece")
	s.queueDescribed(txn.end.Seq)
	s.clearBatch()
	return crashpoint.After(crashpoint.RedoPiece, s.pipe.run(ctx))
}

// pieceSets runs the savepoint that is queued, and the piece's net changes.
func (s *redoSession) pieceSets(ctx context.Context) error {
	if err := s.pipe.run(ctx); err != nil || s.batch.oneByOne {
		return errors.Join(err, errValue)
	}
	ok, err := s.queueNet(ctx, &s.batch.net)
	if err == nil && !ok {
		err = errValue
	}
	if err != nil {
		return err
	}
	return s.pipe.run(ctx)
}

func (s *redoSession) pieceSingly(ctx context.Context, txn *openTxn) error {
	if err := s.startOver(ctx); err != nil {
		return err
	}
	for _, message := range s.batch.messages {
		if err := s.one(ctx, txn, message); err != nil {
			return err
		}
	}
	return s.pipe.run(ctx)
}

// skipOver leaves out a transaction by command. The tables that it describes are taken in: they are not described again.
func (s *redoSession) skipOver(ctx context.Context, txn *openTxn) error {
	s.pipe.command("BEGIN")
	s.pipe.command("SET LOCAL synchronous_commit = local")
	s.pipe.text(skipProgressSQL, 1, positionText(s.cfg.Session, s.redone, txn.end)...)
	take := func(message []byte) error {
		if message[0] != TypeRelation {
			return nil
		}
		m, err := s.decoder.Decode(message, txn.streamed)
		if err == nil {
			s.describe(m, txn.streamed, message)
		}
		return err
	}
	each := txn.eachHeld
	if txn.spilled {
		each = func(call func([]byte) error) error { return s.eachLogged(ctx, txn, call) }
	}
	if err := each(take); err != nil {
		return s.rollback(ctx, err)
	}
	s.queueDescribed(txn.end.Seq)
	if err := s.commit(ctx); err != nil {
		return err
	}
	s.skipped++
	s.current = nil
	return s.afterCommit(ctx, txn, true)
}

// eachLogged reads a transaction from the log again and calls for each of its messages, whose bytes it copies.
func (s *redoSession) eachLogged(ctx context.Context, txn *openTxn, call func(message []byte) error) error {
	reader := s.queue.NewReader(txn.first)
	defer reader.Close() // it only reads: what Close says changes nothing
	var block []byte
	inside := false
	for {
		record, after, err := reader.Next(ctx)
		if err != nil {
			return &logError{fmt.Errorf("read large transaction again: %w", err)}
		}
		if after >= txn.after {
			return nil
		}
		if record.Kind != redo.KindData {
			continue
		}
		inside = txn.entered(record.Data, inside)
		if !inside || !isChange(record.Data[0]) {
			continue
		}
		if len(block)+len(record.Data) > cap(block) {
			block = make([]byte, 0, max(pieceBlock, len(record.Data)))
		}
		at := len(block)
		block = append(block, record.Data...)
		if err := call(block[at:len(block):len(block)]); err != nil {
			return err
		}
	}
}

// pieceBlock is how much memory a piece takes at a time.
const pieceBlock = 256 << 10

// entered tells whether the messages that follow belong to the transaction.
func (t *openTxn) entered(message []byte, inside bool) bool {
	switch message[0] {
	case TypeBegin:
		return !t.streamed
	case TypeStreamStart:
		return t.streamed && binary.BigEndian.Uint32(message[1:]) == t.xid
	case TypeStreamStop:
		return !t.streamed
	}
	return inside
}

// isChange tells the messages that make up a transaction from those around them.
func isChange(kind byte) bool {
	switch kind {
	case TypeInsert, TypeUpdate, TypeDelete, TypeTruncate, TypeRelation:
		return true
	}
	return false
}
