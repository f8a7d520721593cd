package pglog

import (
	"context"
	"errors"

	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
)

// A savepoint always stands behind what is redone of a large transaction, so that whatever fails next can be undone and
// done otherwise.
const (
	beginPiece = "SAVEPOINT dbmirror_piece"
	undoPiece  = "ROLLBACK TO SAVEPOINT dbmirror_piece"
	endPiece   = "RELEASE SAVEPOINT dbmirror_piece"
)

// redoPieces redoes the changes of a large transaction: the server works on one piece while the next is read and
// combined.
func (s *redoSession) redoPieces(ctx context.Context, txn *openTxn) error {
	take := func(message []byte) error {
		err := s.combinePiece(ctx, txn, message)
		if errors.Is(err, errBehind) {
			err = s.landPiece(ctx, txn)
		}
		if err == nil && (len(s.batch.messages) >= s.cfg.BatchRows || s.batch.bytes >= s.cfg.BatchBytes) {
			err = s.startPiece(ctx, txn)
		}
		return err
	}
	each := txn.eachHeld
	if txn.spilled {
		each = func(call func([]byte) error) error { return s.eachLogged(ctx, txn, call) }
	}
	if err := each(take); err != nil {
		return err
	}
	if err := s.startPiece(ctx, txn); err != nil {
		return err
	}
	return s.landPiece(ctx, txn)
}

func (s *redoSession) combinePiece(ctx context.Context, txn *openTxn, message []byte) error {
	s.batch.messages = append(s.batch.messages, message)
	s.batch.bytes += int64(len(message))
	return s.combine(ctx, txn, message)
}

// startPiece has the server redo what was collected, by its net changes or else one by one. It waits for the piece
// before.
func (s *redoSession) startPiece(ctx context.Context, txn *openTxn) error {
	if len(s.batch.messages) == 0 {
		return nil
	}
	queued, err := s.queuePiece(ctx, txn)
	if err != nil && !errors.Is(err, errBehind) {
		return err
	}
	again := s.idle() != nil // what comes before failed, and landing it combines this anew
	if err := s.landPiece(ctx, txn); err != nil {
		return err
	}
	if again {
		if queued, err = s.queuePiece(ctx, txn); err != nil {
			return err
		}
	}
	if !queued {
		piece := s.batch
		s.batch = redoBatch{}
		return s.pieceSingly(ctx, txn, &piece)
	}
	s.launch(ctx, false, func(ctx context.Context, items []pipeItem) error {
		err := s.pipe.send(ctx, items)
		if err == nil {
			err = s.pipe.send(ctx, []pipeItem{{sql: endPiece, want: -1}, {sql: beginPiece, want: -1}})
		}
		return crashpoint.After(crashpoint.RedoPiece, err)
	})
	return nil
}

// queuePiece queues the piece by its net changes. It returns false, and queues nothing, when that is not possible.
func (s *redoSession) queuePiece(ctx context.Context, txn *openTxn) (bool, error) {
	s.pipe.clear()
	ok, err := s.queueSets(ctx)
	if ok {
		s.queueDescribed(txn.end.Seq)
	}
	return ok, err
}

// landPiece waits for the piece that is on its way. If it failed for any reason but the connection, it is redone one by
// one, and what was combined behind it is combined again.
func (s *redoSession) landPiece(ctx context.Context, txn *openTxn) error {
	f := s.landed()
	switch {
	case f == nil || f.err == nil:
		return nil
	case !s.singlyMends(f.err):
		return f.err
	}
	behind := s.batch
	s.batch = redoBatch{}
	if err := s.pieceSingly(ctx, txn, &f.redoBatch, &behind); err != nil {
		return err
	}
	for _, message := range behind.messages {
		if err := s.combinePiece(ctx, txn, message); err != nil {
			return err
		}
	}
	return nil
}

// pieceSingly redoes the first of the pieces one by one. The others were combined behind it.
func (s *redoSession) pieceSingly(ctx context.Context, txn *openTxn, pieces ...*redoBatch) error {
	s.pipe.clear()
	s.pipe.command(undoPiece)
	if err := s.pipe.run(ctx); err != nil {
		return err
	}
	if err := s.startOver(ctx, pieces...); err != nil {
		return err
	}
	for _, message := range pieces[0].messages {
		if err := s.one(ctx, txn, message); err != nil {
			return err
		}
	}
	s.queueDescribed(txn.end.Seq)
	s.batch = redoBatch{}
	s.pipe.command(endPiece)
	s.pipe.command(beginPiece)
	return s.pipe.run(ctx)
}
