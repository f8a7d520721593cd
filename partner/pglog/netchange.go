package pglog

import (
	"bytes"
	"encoding/binary"
)

// netState is what the changes of one key come to, as seen from the table before them.
type netState uint8

const (
	// netGone: inserted and deleted again. Nothing remains to do, and the key is known to be free.
	netGone     netState = iota
	netInserted          // a row that was not there
	netUpdated           // the row that was there, with new values
	netDeleted           // the row that was there goes
	netReplaced          // the row that was there goes and another of the same key comes
)

// netRow is the net change of one row. row holds the values of the stream's columns: of an inserted or replaced row all
// of them; of an updated one 'u' where the column keeps its value; of a deleted one only the key.
type netRow struct {
	state netState
	row   Tuple
}

// netTable collects the net changes of one table between two barriers. Rows keep the order in which their keys first
// appeared, so that the same log gives the same statements.
type netTable struct {
	table *redoTable
	rows  []netRow
	byKey map[string]int
}

// maxSetRow is the longest row, in bytes, that may be part of a set: longer ones go alone, since the arrays of a set
// must stay far below PostgreSQL's limit of 1 GiB for a value.
const maxSetRow = 64 << 20

// netRun is a stretch of changes of one table: first sets, then one change that cannot be part of a set, if any.
type netRun struct {
	sets   netTable
	single *rowChange
}

// rowChange is one row change of the stream. Its tuples stay valid until the batch is done.
type rowChange struct {
	table    *redoTable
	kind     byte // TypeInsert, TypeUpdate or TypeDelete
	old, new Tuple
}

// netPhase is what lies between two barriers over all tables. Tables do not depend on each other inside it: foreign keys
// are not checked while redo writes.
type netPhase struct {
	order    []*redoTable
	runs     map[*redoTable][]*netRun
	truncate *truncation // ends the phase; nil otherwise
}

// truncation is one TRUNCATE statement.
type truncation struct {
	tables          []*redoTable
	restartIdentity bool
}

// netChanges combines the changes of many transactions into as few and as large statements as give the same end.
type netChanges struct {
	phases []*netPhase
	rows   int // changes taken in
	memory netMemory
	key    []byte
}

// netMemory is where the tuples of net changes are kept. It serves again for the next ones.
type netMemory struct {
	slabs [][]Value // the last one in use is at used-1
	used  int
}

// slabValues is how many values a slab holds at least.
const slabValues = 8192

// take gives room for n values.
func (m *netMemory) take(n int) Tuple {
	if m.used == 0 || len(m.slabs[m.used-1])+n > cap(m.slabs[m.used-1]) {
		if m.used < len(m.slabs) && cap(m.slabs[m.used]) < n {
			m.slabs = m.slabs[:m.used]
		}
		if m.used == len(m.slabs) {
			m.slabs = append(m.slabs, make([]Value, 0, max(slabValues, n)))
		}
		m.used++
	}
	slab := &m.slabs[m.used-1]
	at := len(*slab)
	*slab = (*slab)[:at+n]
	return (*slab)[at : at+n : at+n]
}

// slabsKept bounds the memory that is kept for reuse.
const slabsKept = 64

// reuse gives back the memory of net changes that nobody needs any more.
func (n *netChanges) reuse() netMemory {
	m := n.memory
	for i := range m.slabs[:m.used] {
		clear(m.slabs[i]) // what the values point to is free
		m.slabs[i] = m.slabs[i][:0]
	}
	m.slabs, m.used = m.slabs[:min(len(m.slabs), slabsKept)], 0
	n.memory = netMemory{}
	return m
}

// phase gives the phase that takes the next change.
func (n *netChanges) phase() *netPhase {
	if len(n.phases) == 0 || n.phases[len(n.phases)-1].truncate != nil {
		n.phases = append(n.phases, &netPhase{runs: make(map[*redoTable][]*netRun)})
	}
	return n.phases[len(n.phases)-1]
}

// truncate ends the phase: what came before and what comes after must not be mixed.
func (n *netChanges) truncate(t truncation) {
	n.rows++
	n.phase().truncate = &t
}

// barrier ends the phase without a statement.
func (n *netChanges) barrier() {
	if len(n.phases) > 0 {
		n.phases = append(n.phases, &netPhase{runs: make(map[*redoTable][]*netRun)})
	}
}

// run gives the stretch of a table that takes the next change.
func (p *netPhase) run(t *redoTable) *netRun {
	runs := p.runs[t]
	if runs == nil {
		p.order = append(p.order, t)
	}
	if len(runs) == 0 || runs[len(runs)-1].single != nil {
		runs = append(runs, &netRun{sets: netTable{table: t}})
		p.runs[t] = runs
	}
	return runs[len(runs)-1]
}

// add takes in one row change. It returns false when the changes contradict each other, as with an insert of a row that
// is there: then only their order one by one can tell what is wrong.
func (n *netChanges) add(c rowChange) bool {
	n.rows++
	run := n.phase().run(c.table)
	if !combinable(c) {
		n.single(run, c)
		return true
	}
	switch c.kind {
	case TypeInsert:
		return n.insert(&run.sets, c.new)
	case TypeDelete:
		return n.delete(&run.sets, c)
	default:
		return n.update(run, c)
	}
}

// combinable tells whether a change may be part of a set.
func combinable(c rowChange) bool {
	if len(c.table.written) == 0 || c.kind != TypeInsert && c.table.key == nil {
		return false
	}
	length := 0
	for i := range c.new {
		length += len(c.new[i].Data)
	}
	return length <= maxSetRow
}

func (n *netChanges) single(run *netRun, c rowChange) {
	c.old, c.new = n.keep(c.old), n.keep(c.new)
	run.single = &c
}

func (n *netChanges) insert(t *netTable, row Tuple) bool {
	if t.table.key == nil {
		t.rows = append(t.rows, netRow{netInserted, n.keep(row)})
		return true
	}
	r, known := n.find(t, row)
	if !known {
		*r = netRow{netInserted, n.keep(row)}
		return true
	}
	switch r.state {
	case netGone:
		r.state = netInserted
	case netDeleted:
		r.state = netReplaced
	default:
		return false
	}
	r.row = n.keep(row)
	return true
}

func (n *netChanges) delete(t *netTable, c rowChange) bool {
	r, known := n.find(t, c.old)
	if !known {
		*r = netRow{netDeleted, n.keep(c.old)}
		return true
	}
	switch r.state {
	case netInserted:
		if c.table.wholeRow && !sameRow(r.row, c.old) {
			return false
		}
		r.state = netGone
	case netUpdated, netReplaced:
		r.state = netDeleted
	default:
		return false
	}
	return true
}

func (n *netChanges) update(run *netRun, c rowChange) bool {
	row := n.keep(c.new)
	fillUnchanged(&c, row)
	if c.old != nil && !sameKey(c.table, c.old, row) {
		return n.changeKey(run, c, row)
	}
	r, known := n.find(&run.sets, row)
	if !known {
		*r = netRow{netUpdated, row}
		return true
	}
	if r.state == netGone || r.state == netDeleted {
		return false
	}
	for i := range row {
		if row[i].Kind != 'u' {
			r.row[i] = row[i]
		}
	}
	return true
}

// changeKey redoes an update of a key as a delete and an insert, where the new row is known whole and nothing else in
// the table's row would be lost by it.
func (n *netChanges) changeKey(run *netRun, c rowChange, row Tuple) bool {
	if len(c.table.local) > 0 || hasUnchanged(row) {
		n.single(run, c)
		return true
	}
	return n.delete(&run.sets, c) && n.insert(&run.sets, row)
}

// find gives the net change of the row's key, and whether there was one.
func (n *netChanges) find(t *netTable, row Tuple) (r *netRow, known bool) {
	n.key = n.key[:0]
	for _, c := range t.table.key {
		n.key = binary.AppendUvarint(n.key, uint64(len(row[c].Data)))
		n.key = append(n.key, row[c].Data...)
	}
	if at, ok := t.byKey[string(n.key)]; ok {
		return &t.rows[at], true
	}
	if t.byKey == nil {
		t.byKey = make(map[string]int)
	}
	t.byKey[string(n.key)] = len(t.rows)
	t.rows = append(t.rows, netRow{})
	return &t.rows[len(t.rows)-1], false
}

// keep copies a tuple out of the decoder's memory. The values go on aliasing the log's bytes.
func (n *netChanges) keep(row Tuple) Tuple {
	if row == nil {
		return nil
	}
	kept := n.memory.take(len(row))
	copy(kept, row)
	return kept
}

// fillUnchanged takes the values that the stream did not send again from the old row, as far as that has them.
func fillUnchanged(c *rowChange, row Tuple) {
	if c.old == nil {
		return
	}
	if c.table.wholeRow {
		for i := range row {
			if row[i].Kind == 'u' {
				row[i] = c.old[i]
			}
		}
		return
	}
	for _, k := range c.table.key {
		if row[k].Kind == 'u' {
			row[k] = c.old[k]
		}
	}
}

func hasUnchanged(row Tuple) bool {
	for i := range row {
		if row[i].Kind == 'u' {
			return true
		}
	}
	return false
}

func sameKey(t *redoTable, a, b Tuple) bool {
	for _, k := range t.key {
		if !sameValue(a[k], b[k]) {
			return false
		}
	}
	return true
}

func sameRow(a, b Tuple) bool {
	for i := range a {
		if !sameValue(a[i], b[i]) {
			return false
		}
	}
	return true
}

func sameValue(a, b Value) bool { return a.Kind == b.Kind && bytes.Equal(a.Data, b.Data) }
