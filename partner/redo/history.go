package redo

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"fmt"
	"hash"

	"github.com/f19126b3/dbmirror/mirror"
)

// history is what the records up to a place add up to. The writer and the recovery keep one by the same rules.
type history struct {
	end      mirror.Position // last commit or mark, or the base
	chain    [chainSize]byte
	stream   mirror.RoleSeq // role sequence of the attached stream
	attached bool           // a stream is being received
	sum      hash.Hash      // over the chain and the open transaction
	scratch  [21]byte
}

func newHistory(base mirror.Position) *history {
	h := &history{sum: sha256.New()}
	h.restart(base, [chainSize]byte{})
	return h
}

// restart goes to a place between transactions where no stream is attached.
func (h *history) restart(end mirror.Position, chain [chainSize]byte) {
	h.end, h.chain = end, chain
	h.stream, h.attached = end.Seq, false
	h.beginTransaction()
}

func (h *history) beginTransaction() {
	h.sum.Reset()
	h.sum.Write(h.chain[:])
}

// check says whether the record may come next.
func (h *history) check(r Record) error {
	if r.Kind == KindAttach {
		return h.checkAttach(r)
	}
	if r.Kind < KindAttach || r.Kind > KindMark {
		return fmt.Errorf("%v is not a kind of record: %w", r.Kind, ErrOrder)
	}
	if !h.attached {
		return fmt.Errorf("%v at %v without an attach: %w", r.Kind, r.position(), ErrOrder)
	}
	if r.Seq != h.stream {
		return fmt.Errorf("%v at %v in a stream of role sequence %d: %w", r.Kind, r.position(), h.stream, ErrOrder)
	}
	if r.Kind == KindCommit && r.position().Compare(h.end) <= 0 {
		return fmt.Errorf("commit at %v is not after %v: %w", r.position(), h.end, ErrOrder)
	}
	if r.Kind == KindMark && r.position().Compare(h.end) < 0 {
		return fmt.Errorf("mark at %v is before %v: %w", r.position(), h.end, ErrOrder)
	}
	return nil
}

// checkAttach refuses a stream that would leave a hole. A log without a position has nothing to compare with.
func (h *history) checkAttach(r Record) error {
	if h.end == (mirror.Position{}) {
		return nil
	}
	if r.Seq != h.end.Seq {
		return fmt.Errorf("attach at %v to a log of role sequence %d, which needs a rebase or reset first: %w", r.position(), h.end.Seq, ErrOrder)
	}
	if r.LSN > h.end.LSN {
		return fmt.Errorf("attach at %v leaves a hole after %v: %w", r.position(), h.end, ErrOrder)
	}
	return nil
}

// checkRebase says whether the history may go on at base.
func (h *history) checkRebase(base mirror.Position) error {
	if base.Compare(h.end) < 0 {
		return fmt.Errorf("rebase to %v is before %v: %w", base, h.end, ErrOrder)
	}
	return nil
}

// add takes in a record that was checked. After a commit, chain is that commit's.
func (h *history) add(r Record) {
	switch r.Kind {
	case KindAttach:
		h.stream, h.attached = r.Seq, true
		h.beginTransaction()
	case KindData:
		h.hash(r)
	case KindCommit:
		h.hash(r)
		h.sum.Sum(h.chain[:0])
		h.end = r.position()
		h.beginTransaction()
	case KindMark:
		h.end = r.position()
	}
}

// rebase ends the stream; the history goes on at base.
func (h *history) rebase(base mirror.Position) {
	h.restart(base, h.chain)
}

// replay takes in a record read from disk, where a mark out of the stream is a rebase.
func (h *history) replay(r Record) error {
	if r.Kind == KindMark && (!h.attached || r.Seq != h.stream) {
		if err := h.checkRebase(r.position()); err != nil {
			return err
		}
		h.rebase(r.position())
		return nil
	}
	if err := h.check(r); err != nil {
		return err
	}
	h.add(r)
	return nil
}

func (h *history) hash(r Record) {
	h.scratch[0] = byte(r.Kind)
	binary.LittleEndian.PutUint64(h.scratch[1:], uint64(r.Seq))
	binary.LittleEndian.PutUint64(h.scratch[9:], uint64(r.LSN))
	binary.LittleEndian.PutUint32(h.scratch[17:], uint32(len(r.Data)))
	h.sum.Write(h.scratch[:])
	h.sum.Write(r.Data)
}

// appendSum writes the state of the sum over the open transaction, so that a log whose beginning was trimmed in the
// middle of a transaction can still be verified. The format of the state is kept by the standard library over versions.
func (h *history) appendSum(b []byte) ([]byte, error) {
	return h.sum.(encoding.BinaryAppender).AppendBinary(b)
}

func (h *history) setSum(state []byte) error {
	return h.sum.(encoding.BinaryUnmarshaler).UnmarshalBinary(state)
}
