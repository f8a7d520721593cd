package mirror

import (
	"encoding/binary"
	"fmt"
)

// The bytes of what servers send and store. Every field has its place and its width, so that equal values have equal
// bytes, and one walk over the fields serves both directions.

// codecVersion is the first byte of everything encoded here. Another layout gets another number.
const codecVersion = 1

// The second byte: what follows.
const (
	codecMessage   = 'M'
	codecHardState = 'H'
)

// DecodeError is returned for bytes that this program did not write, or that were damaged since. Bytes of another
// version were written by another release: run the same one on all servers of a session.
type DecodeError struct {
	What  string // "message" or "hard state"
	Field string // where reading stopped
	Cause string
}

// Error names what was read, where it went wrong, and why.
func (e *DecodeError) Error() string {
	return fmt.Sprintf("decode %s: %s %s", e.What, e.Field, e.Cause)
}

// Append appends the message's bytes to dst, less than 200 of them.
func (m Message) Append(dst []byte) []byte {
	w := walker{buf: append(dst, codecVersion, codecMessage), writing: true}
	w.message(&m)
	return w.buf
}

// DecodeMessage reads what Message.Append wrote, and nothing else: every error is a *DecodeError. It keeps no reference
// to b.
func DecodeMessage(b []byte) (Message, error) {
	var m Message
	w := walker{buf: b}
	w.header("message", codecMessage)
	w.message(&m)
	if err := w.end("message"); err != nil {
		return Message{}, err
	}
	return m, nil
}

// Append appends the hard state's bytes to dst, less than 200 of them: no sector of a disk is smaller.
func (h HardState) Append(dst []byte) []byte {
	w := walker{buf: append(dst, codecVersion, codecHardState), writing: true}
	w.hardState(&h)
	return w.buf
}

// DecodeHardState reads what HardState.Append wrote, and nothing else: every error is a *DecodeError. It keeps no
// reference to b.
func DecodeHardState(b []byte) (HardState, error) {
	var h HardState
	w := walker{buf: b}
	w.header("hard state", codecHardState)
	w.hardState(&h)
	if err := w.end("hard state"); err != nil {
		return HardState{}, err
	}
	return h, nil
}

func (w *walker) message(m *Message) {
	bounded(w, &m.Kind, MessagePing, numMessageKinds-1, "kind")
	bounded(w, &m.From, PartnerA, Witness, "sender")
	bounded(w, &m.To, PartnerA, Witness, "receiver")
	number(w, &m.Incarnation, "incarnation")
	number(w, &m.Promised, "promised role sequence")
	w.record(&m.Record)
	number(w, &m.Seq, "role sequence")
	number(w, &m.LSN, "LSN")
	number(w, &m.End, "end of log")
	number(w, &m.Redone, "redone LSN")
	bounded(w, &m.How, ElectionNone, ElectionAgain, "election")
	bounded(w, &m.Reason, ReasonNone, numReasons-1, "reason")
	w.tick(&m.Nonce)
	w.servers(&m.Sees)
	w.flag(&m.Ready, "ready")
	w.command(&m.Command)
}

func (w *walker) command(c *Command) {
	bounded(w, &c.Kind, 0, numCommandKinds-1, "command")
	bounded(w, &c.Safety, 0, SafetyOff, "safety of the command")
	number(w, &c.Incarnation, "incarnation of the command")
	number(w, &c.Expect.Seq, "expected role sequence")
	number(w, &c.Expect.Change, "expected change")
	bounded(w, &c.Reason, ReasonNone, numReasons-1, "reason of the command")
}

func (w *walker) record(r *Record) {
	number(w, &r.Seq, "role sequence of the record")
	number(w, &r.Change, "change of the record")
	bounded(w, &r.Principal, Nobody, PartnerB, "principal")
	w.flag(&r.InSync, "in_sync")
	bounded(w, &r.Safety, 0, SafetyOff, "safety")
	number(w, &r.SafetySeq, "safety sequence")
	w.flag(&r.Suspended, "suspended")
	number(w, &r.SuspendedSeq, "suspended sequence")
	bounded(w, &r.Why, ReasonNone, numReasons-1, "reason of suspension")
	w.flag(&r.Forced, "forced")
	number(w, &r.Fork.Seq, "role sequence of the fork")
	number(w, &r.Fork.LSN, "LSN of the fork")
	for i := range r.Members {
		number(w, &r.Members[i], "member")
	}
	number(w, &r.OldWitness, "old witness")
	// One that contradicts itself would break an invariant of whoever believed it, and so end his session.
	if why := r.contradiction(); why != "" && !w.writing {
		w.fail("record", "%s", why)
	}
}

func (w *walker) hardState(h *HardState) {
	bounded(w, &h.Self, PartnerA, Witness, "server")
	number(w, &h.Incarnation, "incarnation")
	number(w, &h.Promised, "promised role sequence")
	w.record(&h.Record)
	number(w, &h.Aligned, "aligned role sequence")
	w.flag(&h.Dirty, "dirty")
	w.flag(&h.Removed, "removed")
}

// walker goes over the fields in their order. Writing, it appends them to buf; reading, it takes them off buf and stops
// at the first that can not be right.
type walker struct {
	buf     []byte
	writing bool
	bad     DecodeError // Cause is empty while all is well
}

func (w *walker) fail(field, format string, args ...any) {
	if w.bad.Cause == "" {
		w.bad.Field, w.bad.Cause = field, fmt.Sprintf(format, args...)
		w.buf = nil
	}
}

// take returns the next n bytes, or nil when there are not so many.
func (w *walker) take(n int, field string) []byte {
	if len(w.buf) < n {
		w.fail(field, "is cut off: %d bytes are left of %d", len(w.buf), n)
		return nil
	}
	b := w.buf[:n]
	w.buf = w.buf[n:]
	return b
}

func (w *walker) header(what string, kind byte) {
	w.bad.What = what
	b := w.take(2, "header")
	switch {
	case b == nil:
	case b[0] != codecVersion:
		w.fail("version", "is %d, this program reads %d: run the same release on all servers", b[0], codecVersion)
	case b[1] != kind:
		w.fail("header", "says %q, not %q: these are not the bytes of a %s", b[1], kind, what)
	}
}

func (w *walker) end(what string) error {
	if len(w.buf) > 0 {
		w.fail("end", "is followed by %d more bytes", len(w.buf))
	}
	if w.bad.Cause == "" {
		return nil
	}
	return &DecodeError{what, w.bad.Field, w.bad.Cause}
}

func (w *walker) tick(v *Tick) {
	if w.writing {
		w.buf = binary.BigEndian.AppendUint32(w.buf, uint32(*v))
	} else if b := w.take(4, "nonce"); b != nil {
		*v = Tick(binary.BigEndian.Uint32(b))
	}
}

func (w *walker) servers(v *uint8) {
	const all = 1<<PartnerA | 1<<PartnerB | 1<<Witness
	bounded(w, v, 0, all, "servers seen")
	if !w.writing && *v&^all != 0 {
		w.fail("servers seen", "names nobody: %b", *v)
	}
}

func (w *walker) flag(v *bool, field string) {
	var b uint8
	if *v {
		b = 1
	}
	bounded(w, &b, 0, 1, field)
	if !w.writing {
		*v = b == 1
	}
}

func number[T ~uint64](w *walker, v *T, field string) {
	if w.writing {
		w.buf = binary.BigEndian.AppendUint64(w.buf, uint64(*v))
	} else if b := w.take(8, field); b != nil {
		*v = T(binary.BigEndian.Uint64(b))
	}
}

// bounded is a byte that means something only from low to high.
func bounded[T ~uint8](w *walker, v *T, low, high T, field string) {
	if w.writing {
		w.buf = append(w.buf, uint8(*v))
		return
	}
	b := w.take(1, field)
	if b == nil {
		return
	}
	if T(b[0]) < low || T(b[0]) > high {
		w.fail(field, "is %d, not from %d to %d", b[0], uint8(low), uint8(high))
		return
	}
	*v = T(b[0])
}
