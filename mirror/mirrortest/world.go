package mirrortest

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/f19126b3/dbmirror/mirror"
)

// maxLog bounds the entries of a model log: more than the writes of any space, so that a doubled entry has room to show.
const maxLog = 6

// entry is one commit of a model log: who wrote it, in which role sequence, and which write it was.
type entry struct {
	seq uint8
	src mirror.Server
	id  uint8
}

// log is what a database holds, in the order of commit.
type log struct {
	entries [maxLog]entry
	length  uint8
}

func (l *log) all() []entry { return l.entries[:l.length] }

func (l *log) add(e entry) {
	if l.length < maxLog {
		l.entries[l.length] = e
		l.length++
	}
}

// holds is the set of writes in the log, a bit each.
func (l *log) holds() uint8 {
	var set uint8
	for _, e := range l.all() {
		set |= 1 << e.id
	}
	return set
}

// database is one model database: its log, who waits for whom, and who may write. It stays as it is when the program
// beside it dies.
type database struct {
	log
	wait     mirror.Wait
	seq      uint8 // the role sequence whose mirror is waited for
	reign    uint8 // the role sequence in which it last became the principal's
	hardened uint8 // entries that the mirror of seq has reported
	open     bool
}

// slot is the place of a server in a world. There is one for each server, and one for the witness that is to replace the
// first.
type slot uint8

const (
	slotA slot = iota + 1
	slotB
	slotWitness
	slotNewWitness
	numSlots
)

// server is who stands there: to the partners, both witnesses are the witness, told apart by incarnation.
func (s slot) server() mirror.Server { return mirror.Server(min(s, slotWitness)) }

func (s slot) String() string {
	if s == slotNewWitness {
		return "the new witness"
	}
	return s.server().String()
}

// world is the servers with their databases, and everything that was ever sent and may still arrive. Sites and packets
// are numbers given by the explorer's tables, so that a world is small.
type world struct {
	site     [numSlots]uint32 // 0: nobody stands there
	packets  []uint16         // sorted
	nextID   uint8
	acked    uint8 // bit per write
	restarts uint8 // that may still happen
	forces   uint8 // likewise
	ticked   uint8 // bit per slot: whose clock has ticked in this round of ticks; leases only
	reigns   reigns
	// The fingerprint: sites and packets are sets, so theirs is the exclusive or of their members' and is kept up to date
	// with each change.
	sites, mail uint64
}

// reigns holds who was confirmed as principal of which role sequence, two bits each: nobody, A, B, or both.
type reigns uint16

func (r reigns) of(seq int) uint16 { return uint16(r) >> (2 * seq) & 3 }

func (r *reigns) add(seq int, s slot) { *r |= reigns(s) << (2 * seq) }

// maxSeq is the highest role sequence that reigns can note.
const maxSeq = 7

// newest is the highest role sequence that anybody was confirmed in.
func (r reigns) newest() int {
	for seq := maxSeq; seq > 0; seq-- {
		if r.of(seq) != 0 {
			return seq
		}
	}
	return 0
}

// copyFrom makes w a copy of o that can be changed, in w's own memory.
func (w *world) copyFrom(o *world) {
	packets := append(w.packets[:0], o.packets...)
	*w = *o
	w.packets = packets
}

func packetPrint(id uint16) uint64 { return mix(uint64(id) | 1<<40) }

func sitePrint(number uint32) uint64 { return mix(uint64(number) | 1<<41) }

// put adds a packet to those that may arrive at any time, and again.
func (w *world) put(id uint16) {
	if i, found := slices.BinarySearch(w.packets, id); !found {
		w.packets = slices.Insert(w.packets, i, id)
		w.mail ^= packetPrint(id)
	}
}

// lose drops everything that is in flight.
func (w *world) lose() { w.packets, w.mail = w.packets[:0], 0 }

// place puts a site where another one was.
func (w *world) place(s slot, number uint32) {
	if old := w.site[s]; old != 0 {
		w.sites ^= sitePrint(old)
	}
	w.site[s] = number
	w.sites ^= sitePrint(number)
}

// print is the fingerprint under which the world has been seen.
func (w *world) print() uint64 {
	rest := uint64(w.reigns) | uint64(w.acked)<<16 | uint64(w.nextID)<<24 | uint64(w.restarts)<<32 | uint64(w.forces)<<40 | uint64(w.ticked)<<48
	return w.sites ^ w.mail ^ mix(mix(rest))
}

// maxKey bounds the bytes of a world: a block of a queue always has room for it.
const maxKey = 4*int(numSlots) + 16 + 2*512

// appendTo writes the world as bytes.
func (w *world) appendTo(b []byte) []byte {
	if len(w.packets) > 512 {
		panic("more messages in flight than this harness holds") // the space is too large for it
	}
	for _, n := range w.site[1:] {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	b = append(b, w.nextID, w.acked, w.restarts, w.forces, w.ticked)
	b = binary.LittleEndian.AppendUint16(b, uint16(w.reigns))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(w.packets)))
	for _, p := range w.packets {
		b = binary.LittleEndian.AppendUint16(b, p)
	}
	return b
}

// readFrom is the inverse of appendTo; it returns how many bytes it took.
func (w *world) readFrom(b []byte) int {
	whole := len(b)
	w.sites, w.mail, w.packets = 0, 0, w.packets[:0]
	for i := range w.site[1:] {
		w.site[i+1] = binary.LittleEndian.Uint32(b[4*i:])
		if w.site[i+1] != 0 {
			w.sites ^= sitePrint(w.site[i+1])
		}
	}
	b = b[4*(numSlots-1):]
	w.nextID, w.acked, w.restarts, w.forces, w.ticked = b[0], b[1], b[2], b[3], b[4]
	w.reigns = reigns(binary.LittleEndian.Uint16(b[5:]))
	n := int(binary.LittleEndian.Uint16(b[7:]))
	b = b[9:]
	for i := range n {
		id := binary.LittleEndian.Uint16(b[2*i:])
		w.packets = append(w.packets, id)
		w.mail ^= packetPrint(id)
	}
	return whole - len(b) + 2*n
}

// describe writes what matters of a database for a trace.
func (d *database) describe() string {
	s := "["
	for i, e := range d.all() {
		if i > 0 {
			s += " "
		}
		s += fmt.Sprintf("w%d@%d", e.id, e.seq)
	}
	s += "]"
	if d.open {
		s += " open"
	}
	return s + fmt.Sprintf(" waits-for=%s", d.wait)
}
