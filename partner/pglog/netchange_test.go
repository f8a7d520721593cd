package pglog

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// dumbTable is the twin that net changes are held against: rows by key, changed one by one.
type dumbTable map[string]Tuple

func (d dumbTable) copy() dumbTable {
	c := make(dumbTable)
	for k, row := range d {
		c[k] = slices.Clone(row)
	}
	return c
}

func (d dumbTable) change(t *rapid.T, c rowChange) {
	switch c.kind {
	case TypeInsert:
		d.insert(t, c.new)
	case TypeDelete:
		d.remove(t, c.old)
	default:
		from := c.old
		if from == nil {
			from = c.new
		}
		row := d.remove(t, from)
		for i, v := range c.new {
			if v.Kind != 'u' {
				row[i] = v
			}
		}
		d.insert(t, row)
	}
}

func (d dumbTable) insert(t *rapid.T, row Tuple) {
	key := string(row[0].Data)
	require.NotContains(t, d, key)
	d[key] = slices.Clone(row)
}

func (d dumbTable) remove(t *rapid.T, row Tuple) Tuple {
	key := string(row[0].Data)
	require.Contains(t, d, key)
	old := d[key]
	delete(d, key)
	return old
}

// play does the net changes in the order in which the statements would run.
func (d dumbTable) play(t *rapid.T, n *netChanges) {
	for _, phase := range n.phases {
		for _, table := range phase.order {
			for _, run := range phase.runs[table] {
				sets := run.sets.sets()
				for _, row := range sets.deletes {
					d.remove(t, row)
				}
				for _, u := range sets.updates {
					for _, row := range u.rows {
						was := d[string(row[0].Data)]
						require.NotNil(t, was)
						for _, c := range u.columns {
							was[c] = row[c]
						}
					}
				}
				for _, row := range sets.inserts {
					d.insert(t, row)
				}
				if run.single != nil {
					d.change(t, *run.single)
				}
			}
		}
		if phase.truncate != nil {
			clear(d)
		}
	}
}

func netTestTable(whole, local bool) *redoTable {
	t := &redoTable{name: "t", columns: make([]redoColumn, 3), written: []int{0, 1, 2}, key: []int{0}, wholeRow: whole}
	if local {
		t.local = []string{"own"}
	}
	return t
}

func textValue(s string) Value { return Value{Kind: 't', Data: []byte(s)} }

// history draws changes that are possible one after the other, and does them to the table.
type history struct {
	t     *rapid.T
	table *redoTable
	rows  dumbTable
	next  int
}

func (h *history) value() Value {
	h.next++
	return textValue("v" + strconv.Itoa(h.next))
}

func (h *history) draw() rowChange {
	keys := slices.Sorted(maps.Keys(h.rows))
	var free []string
	for k := range 6 {
		if _, taken := h.rows[strconv.Itoa(k)]; !taken {
			free = append(free, strconv.Itoa(k))
		}
	}
	kind := rapid.SampledFrom([]string{"insert", "update", "delete", "key", "noted key"}).Draw(h.t, "kind")
	if len(keys) == 0 || kind == "insert" && len(free) > 0 {
		return rowChange{table: h.table, kind: TypeInsert, new: Tuple{textValue(rapid.SampledFrom(free).Draw(h.t, "new")), h.value(), h.value()}}
	}
	key := rapid.SampledFrom(keys).Draw(h.t, "key")
	old := Tuple{textValue(key), {Kind: 'n'}, {Kind: 'n'}}
	if h.table.wholeRow {
		old = slices.Clone(h.rows[key])
	}
	if kind == "delete" {
		return rowChange{table: h.table, kind: TypeDelete, old: old}
	}
	c := rowChange{table: h.table, kind: TypeUpdate, new: Tuple{textValue(key), h.value(), h.value()}}
	if kind == "key" && len(free) > 0 {
		c.new[0] = textValue(rapid.SampledFrom(free).Draw(h.t, "to"))
		c.old = old
	}
	if h.table.wholeRow || kind == "noted key" {
		c.old = old
	}
	for i := 1; i < 3; i++ {
		if rapid.Bool().Draw(h.t, "unchanged") {
			c.new[i] = Value{Kind: 'u'}
		}
	}
	return c
}

// TestNetChangeIsTheHistory checks that the net change of any history comes to the same as the history.
func TestNetChangeIsTheHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := netTestTable(rapid.Bool().Draw(t, "whole"), rapid.Bool().Draw(t, "local"))
		before := make(dumbTable)
		for k := range rapid.IntRange(0, 4).Draw(t, "rows") {
			before[strconv.Itoa(k)] = Tuple{textValue(strconv.Itoa(k)), textValue(fmt.Sprint("a", k)), textValue(fmt.Sprint("b", k))}
		}
		h := &history{t: t, table: table, rows: before.copy()}
		var n netChanges
		for range rapid.IntRange(1, 40).Draw(t, "changes") {
			if rapid.IntRange(0, 30).Draw(t, "truncate") == 0 {
				clear(h.rows)
				n.truncate(truncation{tables: []*redoTable{table}})
				continue
			}
			c := h.draw()
			require.True(t, n.add(c))
			h.rows.change(t, c)
		}
		got := before.copy()
		got.play(t, &n)
		require.Equal(t, h.rows, got)
	})
}

// TestNetChangeRefuses checks that a history that cannot be is not netted away.
func TestNetChangeRefuses(t *testing.T) {
	row := func(key, v string) Tuple { return Tuple{textValue(key), textValue(v), textValue(v)} }
	for _, whole := range []bool{false, true} {
		table := netTestTable(whole, false)
		insert := rowChange{table: table, kind: TypeInsert, new: row("1", "a")}
		update := rowChange{table: table, kind: TypeUpdate, old: row("1", "a"), new: row("1", "b")}
		remove := rowChange{table: table, kind: TypeDelete, old: row("1", "a")}
		for name, changes := range map[string][]rowChange{
			"insert twice":         {insert, insert},
			"insert over update":   {update, insert},
			"update after delete":  {remove, update},
			"delete twice":         {remove, remove},
			"update of what went":  {insert, remove, update},
			"delete of what went":  {insert, remove, remove},
			"delete, insert twice": {remove, insert, insert},
		} {
			var n netChanges
			for i, c := range changes {
				require.Equal(t, i < len(changes)-1, n.add(c), name)
			}
		}
	}
	// Two rows of one key may be there at once where the principal checks the key late: only the whole row tells them apart.
	table := netTestTable(true, false)
	var n netChanges
	require.True(t, n.add(rowChange{table: table, kind: TypeInsert, new: row("1", "new")}))
	require.False(t, n.add(rowChange{table: table, kind: TypeDelete, old: row("1", "old")}))
}

// TestNetChangeCombines checks that what can be one statement is one.
func TestNetChangeCombines(t *testing.T) {
	table := netTestTable(false, false)
	var n netChanges
	for i := range 100 {
		key := strconv.Itoa(i)
		require.True(t, n.add(rowChange{table: table, kind: TypeInsert, new: Tuple{textValue(key), textValue("a"), textValue("b")}}))
		require.True(t, n.add(rowChange{table: table, kind: TypeUpdate, new: Tuple{textValue(key), textValue("c"), {Kind: 'u'}}}))
		require.True(t, n.add(rowChange{table: table, kind: TypeUpdate, old: Tuple{textValue(key), {Kind: 'n'}, {Kind: 'n'}}, new: Tuple{textValue("k" + key), textValue("d"), textValue("e")}}))
	}
	require.Len(t, n.phases, 1)
	require.Len(t, n.phases[0].runs[table], 1)
	sets := n.phases[0].runs[table][0].sets.sets()
	require.Len(t, sets.inserts, 100)
	require.Empty(t, sets.updates)
	require.Empty(t, sets.deletes)
}
