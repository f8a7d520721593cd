package pglog

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/f19126b3/dbmirror/mirror"
)

// redoBatch is what goes into one transaction here: whole transactions of the principal, or a piece of a large one.
type redoBatch struct {
	txns     []*openTxn
	messages [][]byte // of a piece; those of whole transactions stay with them
	net      netChanges
	bytes    int64
	flush    bool // its commit waits for the disk
	// oneByOne is set when the changes cannot be combined; their order then tells what is wrong.
	oneByOne bool
	// before are the relations as they were before the batch, if it changed any.
	before map[uint32]*redoRelation
	// described are the relations that the batch brought, to be kept with the position.
	described []*redoRelation
}

// redoRelation is a relation of the stream and, once a row of it was met, the table for it here.
type redoRelation struct {
	relation Relation
	message  []byte // as it came, without the transaction of a stream
	table    *redoTable
}

// ownSchema holds what the library keeps in a database. It belongs to that database: its rows are not redone.
const ownSchema = "dbmirror"

// streamChange is one message of a transaction, understood. Exactly one of its fields is set; none for what redo leaves
// out.
type streamChange struct {
	row      *rowChange
	truncate *truncation
	relation *redoRelation
}

// understand decodes a message and finds its table. The tuples are the decoder's: valid until the next call.
func (s *redoSession) understand(ctx context.Context, t *openTxn, message []byte) (streamChange, error) {
	m, err := s.decoder.Decode(message, t.streamed)
	if err != nil {
		return streamChange{}, err
	}
	if m.Type == TypeRelation {
		return s.describe(m, t.streamed, message), nil
	}
	if _, undone := t.aborted[m.Xid]; undone && t.streamed {
		return streamChange{}, nil
	}
	if m.Type == TypeTruncate {
		return s.truncation(ctx, m)
	}
	table, err := s.table(ctx, m.RelationID)
	if err != nil || table == nil {
		return streamChange{}, err
	}
	s.row = rowChange{table: table, kind: m.Type, old: m.Old, new: m.New}
	if m.OldKind == 0 {
		s.row.old = nil
	}
	if m.Type == TypeDelete {
		s.row.new = nil
	}
	if err := s.row.check(); err != nil {
		return streamChange{}, &RedoError{Relation: table.name, Action: actionName(m.Type), Err: err}
	}
	return streamChange{row: &s.row}, nil
}

// check refuses a change that does not fit its relation, or that names no row.
func (c *rowChange) check() error {
	for _, row := range [...]Tuple{c.old, c.new} {
		if row != nil && len(row) != len(c.table.columns) {
			return fmt.Errorf("%d values for %d columns: the log does not fit the table it describes", len(row), len(c.table.columns))
		}
		for i := range row {
			if row[i].Kind == 'b' {
				return errors.New("binary values: the stream must be asked for text")
			}
		}
	}
	if c.kind == TypeInsert {
		return nil
	}
	if len(c.table.finder()) == 0 && len(c.table.columns) > 0 || c.table.wholeRow && c.old == nil {
		return errNoFinder
	}
	return nil
}

// describe takes in a relation. One that is as it was changes nothing.
func (s *redoSession) describe(m Msg, streamed bool, message []byte) streamChange {
	if streamed {
		message = append([]byte{TypeRelation}, message[5:]...)
	}
	if known := s.relations[m.RelationID]; known != nil && string(known.message) == string(message) {
		return streamChange{}
	}
	r := &redoRelation{relation: m.Relation, message: slices.Clone(message)}
	if s.batch.before == nil {
		s.batch.before = maps.Clone(s.relations)
	}
	s.relations[m.RelationID] = r
	s.batch.described = append(s.batch.described, r)
	return streamChange{relation: r}
}

// table gives the local table of a relation, or nil if its rows are left out.
func (s *redoSession) table(ctx context.Context, id uint32) (*redoTable, error) {
	r := s.relations[id]
	if r == nil {
		return nil, &RedoError{Action: "look up table", Err: fmt.Errorf(
			"the log has no description of table %d: its beginning is missing, resynchronize the mirror", id)}
	}
	if r.relation.Namespace == ownSchema {
		return nil, nil
	}
	if r.table != nil {
		return r.table, nil
	}
	if err := s.idle(); err != nil {
		return nil, err
	}
	t, err := lookUpTable(ctx, s.conn, &r.relation)
	if err != nil {
		return nil, s.pipe.lost(err)
	}
	r.table = t
	return t, nil
}

func (s *redoSession) truncation(ctx context.Context, m Msg) (streamChange, error) {
	t := &truncation{restartIdentity: m.TruncateOptions&TruncateRestartIdentity != 0}
	for _, id := range m.TruncateRelations {
		table, err := s.table(ctx, id)
		if err != nil {
			return streamChange{}, err
		}
		if table != nil {
			t.tables = append(t.tables, table)
		}
	}
	if t.tables == nil {
		return streamChange{}, nil
	}
	return streamChange{truncate: t}, nil
}

// combine adds one message to the batch's net changes. When that is not possible for any reason but the connection, it
// leaves the batch to be redone one by one, where the reason shows at its place.
func (s *redoSession) combine(ctx context.Context, t *openTxn, message []byte) error {
	if s.batch.oneByOne {
		return nil
	}
	c, err := s.understand(ctx, t, message)
	switch {
	case err != nil && (transient(err) || errors.Is(err, errBehind)):
		return err
	case err != nil:
		s.batch.oneByOne = true
	case c.row != nil:
		s.batch.oneByOne = !s.batch.net.add(*c.row)
	case c.truncate != nil:
		s.batch.net.truncate(*c.truncate)
	case c.relation != nil:
		s.batch.net.barrier()
	}
	return nil
}

// combineTxn adds a transaction to the batch's net changes.
func (s *redoSession) combineTxn(ctx context.Context, txn *openTxn) error {
	s.batch.bytes += txn.size
	return txn.eachHeld(func(message []byte) error { return s.combine(ctx, txn, message) })
}

// queueNet puts the net changes into the pipe. It returns false when a value does not fit its column.
func (s *redoSession) queueNet(ctx context.Context, n *netChanges) (bool, error) {
	for _, phase := range n.phases {
		for _, table := range phase.order {
			for _, run := range phase.runs[table] {
				if ok, err := s.queueRun(ctx, run); !ok || err != nil {
					return ok, err
				}
			}
		}
		if t := phase.truncate; t != nil {
			s.pipe.command(truncateAll(t.tables, t.restartIdentity))
		}
	}
	return true, nil
}

// netSets are the rows of a net table by what is to be done with them.
type netSets struct {
	deletes, inserts []Tuple
	updates          []updateSet
}

// updateSet are rows in which the same columns change.
type updateSet struct {
	mask    string
	columns []int
	rows    []Tuple
}

// queueRun queues deletes before updates before inserts: so that a unique value that moves from one row to another is
// free, most of the time, before it is taken.
func (s *redoSession) queueRun(ctx context.Context, run *netRun) (bool, error) {
	t := run.sets.table
	sets := run.sets.sets()
	sets.order(t)
	if len(sets.deletes) > 0 {
		if ok, err := s.queueSet(ctx, t, "delete", t.deleteSet, t.key, sets.deletes); !ok || err != nil {
			return ok, err
		}
	}
	for _, u := range sets.updates {
		statement := func() redoStatement { return t.updateSet(u.columns) }
		params := append(slices.Clone(t.key), u.columns...)
		if ok, err := s.queueSet(ctx, t, "update"+u.mask, statement, params, u.rows); !ok || err != nil {
			return ok, err
		}
	}
	if ok, err := s.queueInserts(ctx, t, sets.inserts); !ok || err != nil {
		return ok, err
	}
	if run.single != nil {
		return true, s.queueOne(ctx, run.single)
	}
	return true, nil
}

// copyRows is the number of inserted rows from which COPY is faster than an array for each column, although it takes a
// round trip of its own.
const copyRows = 256

func (s *redoSession) queueInserts(ctx context.Context, t *redoTable, rows []Tuple) (bool, error) {
	switch {
	case len(rows) == 0:
		return true, nil
	case len(rows) >= copyRows:
		s.pipe.appendCopy(t, rows)
		return true, nil
	}
	return s.queueSet(ctx, t, "insert", t.insertSet, t.written, rows)
}

func (s *redoSession) queueSet(ctx context.Context, t *redoTable, name string, statement func() redoStatement, columns []int, rows []Tuple) (bool, error) {
	prepared, err := s.prepared(ctx, t, name, statement)
	if err != nil {
		return false, err
	}
	return s.pipe.appendSet(prepared, t, columns, rows), nil
}

// prepared gives the name of a statement of the table, which is made the first time.
func (s *redoSession) prepared(ctx context.Context, t *redoTable, name string, statement func() redoStatement) (string, error) {
	if t.preparedIn != s.pipe.epoch {
		t.prepared, t.preparedIn = nil, s.pipe.epoch
	}
	if have, ok := t.prepared[name]; ok {
		return have, nil
	}
	if err := s.idle(); err != nil {
		return "", err
	}
	made, err := s.pipe.prepare(ctx, statement())
	if err != nil {
		return "", err
	}
	if t.prepared == nil {
		t.prepared = make(map[string]string)
	}
	t.prepared[name] = made
	return made, nil
}

// sets sorts the rows by what is to be done with them.
func (n *netTable) sets() netSets {
	var sets netSets
	var mask []byte
	for i := range n.rows {
		r := &n.rows[i]
		if r.state == netDeleted || r.state == netReplaced {
			sets.deletes = append(sets.deletes, r.row)
		}
		if r.state == netInserted || r.state == netReplaced {
			sets.inserts = append(sets.inserts, r.row)
		}
		if r.state == netUpdated {
			mask = n.table.maskOf(mask[:0], r.row)
			sets.addUpdate(n.table, mask, r.row)
		}
	}
	return sets
}

// order puts updates and deletes in the order of the keys, as the table's index and most likely its rows lie: what is near
// in the table is changed together. Where one row can be in the way of another, they keep the order of the log.
func (s *netSets) order(t *redoTable) {
	if !t.anyOrder {
		return
	}
	slices.SortFunc(s.deletes, t.compareKeys)
	for i := range s.updates {
		slices.SortFunc(s.updates[i].rows, t.compareKeys)
	}
}

// compareKeys orders rows by key: numbers from zero up by value, anything else in some order that is always the same.
func (t *redoTable) compareKeys(a, b Tuple) int {
	for _, k := range t.key {
		x, y := a[k].Data, b[k].Data
		if order := cmp.Or(len(x)-len(y), bytes.Compare(x, y)); order != 0 {
			return order
		}
	}
	return 0
}

// addUpdate puts a row to those with the same mask. There are few masks: one, unless values are out of line.
func (s *netSets) addUpdate(t *redoTable, mask []byte, row Tuple) {
	for i := range s.updates {
		if s.updates[i].mask == string(mask) {
			s.updates[i].rows = append(s.updates[i].rows, row)
			return
		}
	}
	s.updates = append(s.updates, updateSet{mask: string(mask), columns: t.changing(row), rows: []Tuple{row}})
}

// maskOf has a bit for each column that the row does not send.
func (t *redoTable) maskOf(mask []byte, row Tuple) []byte {
	for i := range row {
		if i%8 == 0 {
			mask = append(mask, 0)
		}
		if row[i].Kind == 'u' {
			mask[i/8] |= 1 << (i % 8)
		}
	}
	return mask
}

// changing gives the columns that an update of the row by its key sets: those it sends, without the key.
func (t *redoTable) changing(row Tuple) []int {
	var columns []int
	for _, c := range t.written {
		if row[c].Kind != 'u' && !slices.Contains(t.key, c) {
			columns = append(columns, c)
		}
	}
	return columns
}

// queueOne queues one row change as a statement of its own.
func (s *redoSession) queueOne(ctx context.Context, c *rowChange) error {
	t := c.table
	var name string
	var statement func() redoStatement
	item := pipeItem{want: 1, change: c}
	switch c.kind {
	case TypeInsert:
		name, statement = "insert one", t.insertOne
		item.params = textParams(nil, c.new, t.written)
	case TypeDelete:
		name, statement = "delete one", t.deleteOne
		item.params = textParams(nil, c.old, t.finder())
	default:
		set := t.sent(c)
		name, statement = "update one"+string(t.bitsOf(set)), func() redoStatement { return t.updateOne(set) }
		old := c.old
		if old == nil {
			old = c.new
		}
		item.params = textParams(textParams(nil, c.new, set), old, t.finder())
	}
	var err error
	if item.name, err = s.prepared(ctx, t, name, statement); err != nil {
		return err
	}
	s.pipe.add(item)
	return nil
}

// sent gives the columns that an update of one row sets: all that the stream sent, the key too, but for those that an
// UPDATE may not set where they are known to keep their value.
func (t *redoTable) sent(c *rowChange) []int {
	var columns []int
	for _, i := range t.written {
		if c.new[i].Kind != 'u' && !(t.columns[i].always && c.keeps(i)) {
			columns = append(columns, i)
		}
	}
	return columns
}

// keeps tells whether a column of an updated row is known to have the value that it had.
func (c *rowChange) keeps(i int) bool {
	if c.old == nil {
		return slices.Contains(c.table.finder(), i)
	}
	return (c.table.wholeRow || slices.Contains(c.table.finder(), i)) && sameValue(c.old[i], c.new[i])
}

// bitsOf has a bit for each of the columns.
func (t *redoTable) bitsOf(columns []int) []byte {
	bits := make([]byte, (len(t.columns)+7)/8)
	for _, c := range columns {
		bits[c/8] |= 1 << (c % 8)
	}
	return bits
}

// textParams appends values as parameters in text form, which the types' own input functions read.
func textParams(params [][]byte, row Tuple, columns []int) [][]byte {
	for _, c := range columns {
		value := row[c].Data
		if row[c].Kind == 'n' {
			value = nil
		} else if value == nil {
			value = []byte{}
		}
		params = append(params, value)
	}
	return params
}

// positionText gives the parameters of a move of the redone position.
func positionText(session string, from, to mirror.Position) []string {
	return []string{session, fmt.Sprint(uint64(from.Seq)), from.LSN.String(), fmt.Sprint(uint64(to.Seq)), to.LSN.String()}
}
