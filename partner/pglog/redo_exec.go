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

// redoBatch redoes the transactions that were collected, and those on their way before them, and waits for it.
func (s *redoSession) redoBatch(ctx context.Context) error {
	if err := s.startBatch(ctx); err != nil {
		return err
	}
	return s.land(ctx)
}

// startBatch has the transactions that were collected redone, in one transaction here, while the next are read. It waits
// for those before them.
func (s *redoSession) startBatch(ctx context.Context) error {
	if len(s.batch.txns) == 0 {
		return nil
	}
	if s.pipe.statements > maxStatements {
		if err := s.land(ctx); err != nil {
			return err
		}
		if err := s.boundStatements(ctx); err != nil {
			return err
		}
	}
	queued, err := s.queueBatch(ctx)
	if err != nil && !errors.Is(err, errBehind) {
		return err
	}
	again := s.idle() != nil // what comes before failed, and landing it combines this anew
	if err := s.land(ctx); err != nil {
		return err
	}
	if again {
		if queued, err = s.queueBatch(ctx); err != nil {
			return err
		}
	}
	if !queued {
		return s.batchSingly(ctx)
	}
	s.launch(ctx, s.batch.flush, s.execute)
	return nil
}

// queueBatch queues the batch by its net changes. It returns false, and queues nothing, when that is not possible.
func (s *redoSession) queueBatch(ctx context.Context) (bool, error) {
	b := &s.batch
	from, end := s.redone, b.txns[len(b.txns)-1].end
	if s.flight != nil {
		from = s.flight.txns[len(s.flight.txns)-1].end
	}
	s.pipe.clear()
	b.flush = s.flushNow()
	s.open(from, end, b.flush)
	ok, err := s.queueSets(ctx)
	if ok {
		s.queueDescribed(end.Seq)
	}
	return ok, err
}

// queueSets queues the net changes of what was collected. It returns false, and empties the queue, when that is not
// possible: one by one shows why.
func (s *redoSession) queueSets(ctx context.Context) (bool, error) {
	var ok bool
	var err error
	if !s.batch.oneByOne {
		ok, err = s.queueNet(ctx, &s.batch.net)
	}
	if ok && err == nil {
		return true, nil
	}
	s.pipe.clear()
	if err != nil && (transient(err) || errors.Is(err, errBehind)) {
		return false, err
	}
	return false, nil
}

// batchSingly redoes the batch one by one, without having tried its net changes.
func (s *redoSession) batchSingly(ctx context.Context) error {
	if err := s.startOver(ctx, &s.batch); err != nil {
		return err
	}
	txns := s.batch.txns
	return s.redoSingly(ctx, txns, len(txns))
}

// redoSingly redoes the first of the transactions each by itself, each change a statement of its own. The others wait,
// and keep their log.
func (s *redoSession) redoSingly(ctx context.Context, txns []*openTxn, first int) error {
	for i, txn := range txns[:first] {
		s.batch = redoBatch{txns: txns[i+1:]}
		flush := s.flushNow()
		if err := s.redoOne(ctx, txn, flush); err != nil {
			return err
		}
		s.redo.count(1, uint64(txn.size), uint64(txn.count), 0)
		if err := s.afterCommit(txn, flush); err != nil {
			return err
		}
		s.spool.recycle(txn)
		if err := s.boundStatements(ctx); err != nil {
			return err
		}
	}
	s.batch = redoBatch{}
	return nil
}

// flushNow tells whether the commit that comes is the one to wait for the disk.
func (s *redoSession) flushNow() bool { return time.Since(s.flushedAt) >= flushEvery }

// singlyMends tells whether an error of a set may be one of the set only.
func (s *redoSession) singlyMends(err error) bool {
	return !transient(err) && !errors.Is(err, ErrRedoneElsewhere)
}

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
func (s *redoSession) afterCommit(txn *openTxn, flush bool) error {
	s.redoneTo = s.keepFrom(txn.after)
	s.committed(txn.end)
	if flush {
		return s.flushed()
	}
	return nil
}

// clearBatch begins an empty batch in the memory of the last one.
func (s *redoSession) clearBatch() {
	s.batch = redoBatch{net: netChanges{memory: s.batch.net.reuse()}}
}

// maxStatements bounds the prepared statements on the server, which take memory there.
const maxStatements = 1000

// boundStatements forgets the prepared statements when they are too many. Nothing may be queued.
func (s *redoSession) boundStatements(ctx context.Context) error {
	if s.pipe.statements <= maxStatements {
		return nil
	}
	return s.pipe.deallocate(ctx)
}

// startOver brings the tables back to what they were before the batches, the first of which failed, to be looked up anew:
// that a set failed may come from a change of schema here.
func (s *redoSession) startOver(ctx context.Context, batches ...*redoBatch) error {
	s.pipe.clear()
	for i := len(batches) - 1; i >= 0; i-- {
		if before := batches[i].before; before != nil {
			s.relations = before
		}
		batches[i].before, batches[i].described = nil, nil
	}
	for id, r := range s.relations {
		s.relations[id] = &redoRelation{relation: r.relation, message: r.message}
	}
	return s.pipe.deallocate(ctx)
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
	s.pipe.clear()
	err = s.rollback(ctx, s.elsewhere(err))
	if !s.singlyMends(err) {
		return err
	}
	return redoErrorOf(err, txn.end)
}

// redoLarge redoes one transaction that is too large for memory, piece by piece in one transaction here.
func (s *redoSession) redoLarge(ctx context.Context, txn *openTxn) error {
	s.open(s.redone, txn.end, true)
	s.pipe.command(beginPiece)
	err := s.elsewhere(s.pipe.run(ctx))
	if err == nil {
		crashpoint.Hit(crashpoint.RedoBegun)
		err = s.redoPieces(ctx, txn)
	}
	if err == nil {
		err = s.commit(ctx)
	}
	if err != nil {
		s.abandon()
		return s.poison(ctx, txn, err)
	}
	s.finish(txn)
	s.current = nil
	s.clearBatch()
	if err := s.afterCommit(txn, true); err != nil {
		return err
	}
	return s.boundStatements(ctx)
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
		s.pipe.clear()
		return err
	}
	s.queueDescribed(txn.end.Seq)
	if err := s.commit(ctx); err != nil {
		return err
	}
	s.skipped++
	s.current = nil
	s.clearBatch()
	return s.afterCommit(txn, true)
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
