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

// database is one model database: its log, who waits for whom, and who may write. It stays as it is when the program
// beside it dies.
type database struct {
	log      [maxLog]entry
	length   uint8
	wait     mirror.Wait
	seq      uint8 // the role sequence whose mirror is waited for
	reign    uint8 // the role sequence in which it last became the principal's
	hardened uint8 // entries that the mirror of seq has reported
	open     bool
}

// entries is the log as a slice.
func (d *database) entries() []entry { return d.log[:d.length] }

func (d *database) has(id uint8) bool {
	return slices.ContainsFunc(d.entries(), func(e entry) bool { return e.id == id })
}

func (d *database) add(e entry) bool {
	if d.length == maxLog {
		return false
	}
	d.log[d.length] = e
	d.length++
	return true
}

// world is three servers, two databases and everything that was ever sent and may still arrive. Servers and packets are
// numbers given by the explorer's tables, so that a world is small.
type world struct {
	node     [4]uint32 // by mirror.Server; the first is unused
	db       [3]database
	packets  []uint16 // sorted
	nextID   uint8
	acked    uint8            // bit per write
	reigns   [8]mirror.Server // who served in which role sequence
	restarts uint8
	forces   uint8
}

// clone returns a copy that can be changed.
func (w *world) clone() world {
	c := *w
	c.packets = slices.Clone(w.packets)
	return c
}

// put adds a packet to those that may arrive at any time, and again.
func (w *world) put(id uint16) {
	if i, found := slices.BinarySearch(w.packets, id); !found {
		w.packets = slices.Insert(w.packets, i, id)
	}
}

// appendTo writes the world as bytes: the key under which it has been seen.
func (w *world) appendTo(b []byte) []byte {
	for _, n := range w.node[1:] {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	for i := 1; i <= 2; i++ {
		d := &w.db[i]
		flags := byte(d.wait)
		if d.open {
			flags |= 0x80
		}
		b = append(b, flags, d.seq, d.reign, d.hardened, d.length)
		for _, e := range d.entries() {
			b = append(b, e.seq, byte(e.src), e.id)
		}
	}
	b = append(b, w.nextID, w.acked, w.restarts, w.forces)
	for _, r := range w.reigns {
		b = append(b, byte(r))
	}
	for _, p := range w.packets {
		b = binary.LittleEndian.AppendUint16(b, p)
	}
	return b
}

// readWorld is the inverse of appendTo.
func readWorld(b []byte) world {
	var w world
	for i := 1; i <= 3; i++ {
		w.node[i] = binary.LittleEndian.Uint32(b)
		b = b[4:]
	}
	for i := 1; i <= 2; i++ {
		d := &w.db[i]
		d.wait, d.open = mirror.Wait(b[0]&0x7f), b[0]&0x80 != 0
		d.seq, d.reign, d.hardened, d.length = b[1], b[2], b[3], b[4]
		b = b[5:]
		for k := range d.entries() {
			d.log[k] = entry{b[0], mirror.Server(b[1]), b[2]}
			b = b[3:]
		}
	}
	w.nextID, w.acked, w.restarts, w.forces = b[0], b[1], b[2], b[3]
	b = b[4:]
	for i := range w.reigns {
		w.reigns[i] = mirror.Server(b[i])
	}
	b = b[len(w.reigns):]
	for ; len(b) > 0; b = b[2:] {
		w.packets = append(w.packets, binary.LittleEndian.Uint16(b))
	}
	return w
}

// describe writes what matters of a database for a trace.
func (d *database) describe() string {
	s := "["
	for i, e := range d.entries() {
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
