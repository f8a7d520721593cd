package pglog

import (
	"bytes"
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
)

// redoPipe sends many statements in one round trip and checks what each one did.
type redoPipe struct {
	conn       *pgconn.PgConn
	items      []pipeItem
	statements int // prepared on the server
	epoch      int // rises when they are all forgotten
	names      int // given out so far
	bytes      int
	buffer     []byte // holds the values of items
	spare      []byte // for the next buffer
}

// pipeItem is one statement of a pipe.
type pipeItem struct {
	sql     string // empty for a prepared statement
	name    string // of the prepared statement
	params  [][]byte
	formats []int16
	copied  []byte     // rows of a COPY
	want    int64      // rows it must change; -1 if any number will do
	change  *rowChange // what it redoes, where that is one row
}

// pipeError says which statement failed. Every later one had no effect.
type pipeError struct {
	item pipeItem
	err  error
}

func (e *pipeError) Error() string { return e.err.Error() }
func (e *pipeError) Unwrap() error { return e.err }

// countError is returned for a statement that changed another number of rows than the log says.
type countError struct{ want, got int64 }

func (e *countError) Error() string {
	return fmt.Sprintf("%d rows changed instead of %d", e.got, e.want)
}

func (p *redoPipe) add(item pipeItem) {
	for _, v := range item.params {
		p.bytes += len(v)
	}
	p.items = append(p.items, item)
}

// command queues a statement without parameters that may change any number of rows.
func (p *redoPipe) command(sql string) { p.add(pipeItem{sql: sql, want: -1}) }

// text queues a statement whose parameters are text and typed by the statement itself.
func (p *redoPipe) text(sql string, want int64, params ...string) {
	item := pipeItem{sql: sql, want: want, params: make([][]byte, len(params))}
	for i, v := range params {
		item.params[i] = []byte(v)
	}
	p.add(item)
}

// clear empties the queue.
func (p *redoPipe) clear() {
	clear(p.items)
	p.items, p.buffer, p.bytes = p.items[:0], p.buffer[:0], 0
}

// take empties the queue and gives away what was in it, with the memory that it is in.
func (p *redoPipe) take() ([]pipeItem, []byte) {
	items, buffer := p.items, p.buffer
	p.items, p.buffer, p.bytes = nil, p.spare, 0
	p.spare = nil
	return items, buffer
}

// reuse takes back memory that was given away.
func (p *redoPipe) reuse(buffer []byte) { p.spare = buffer[:0] }

// run sends what is queued and empties the queue. It returns a *pipeError for the first statement that failed or did not
// change what it must.
func (p *redoPipe) run(ctx context.Context) error {
	defer p.clear()
	return p.send(ctx, p.items)
}

// send is run for statements that are not in the queue. The queue may be added to meanwhile.
func (p *redoPipe) send(ctx context.Context, items []pipeItem) error {
	for len(items) > 0 {
		n := 0
		for n < len(items) && items[n].copied == nil {
			n++
		}
		if err := p.batch(ctx, items[:n]); err != nil {
			return err
		}
		if n == len(items) {
			return nil
		}
		if err := p.copyIn(ctx, items[n]); err != nil {
			return err
		}
		items = items[n+1:]
	}
	return nil
}

func (p *redoPipe) batch(ctx context.Context, items []pipeItem) error {
	if len(items) == 0 {
		return nil
	}
	var batch pgconn.Batch
	for i := range items {
		if item := &items[i]; item.name != "" {
			batch.ExecPrepared(item.name, item.params, item.formats, nil)
		} else {
			batch.ExecParams(item.sql, item.params, nil, item.formats, nil)
		}
	}
	results := p.conn.ExecBatch(ctx, &batch)
	done := 0
	var failed error
	for results.NextResult() {
		tag, err := results.ResultReader().Close()
		if err != nil {
			break
		}
		if item := &items[done]; failed == nil && item.want >= 0 && tag.RowsAffected() != item.want {
			failed = &pipeError{*item, &countError{item.want, tag.RowsAffected()}}
		}
		done++
	}
	if err := results.Close(); err != nil && failed == nil {
		failed = &pipeError{items[min(done, len(items)-1)], p.lost(err)}
	}
	return failed
}

func (p *redoPipe) copyIn(ctx context.Context, item pipeItem) error {
	tag, err := p.conn.CopyFrom(ctx, bytes.NewReader(item.copied), item.sql)
	if err != nil {
		return &pipeError{item, p.lost(err)}
	}
	if tag.RowsAffected() != item.want {
		return &pipeError{item, &countError{item.want, tag.RowsAffected()}}
	}
	return nil
}

// lost marks the error of a connection that is gone: the driver's own do not always tell.
func (p *redoPipe) lost(err error) error {
	if err != nil && p.conn.IsClosed() {
		return fmt.Errorf("%w: %w", errConnLost, err)
	}
	return err
}

// prepare makes a statement known to the server, at once and not as part of the queue.
func (p *redoPipe) prepare(ctx context.Context, s redoStatement) (string, error) {
	p.names++
	name := "dbmirror_" + strconv.Itoa(p.names)
	if _, err := p.conn.Prepare(ctx, name, s.sql, s.oids); err != nil {
		return "", p.lost(err)
	}
	p.statements++
	return name, nil
}

// deallocate drops the prepared statements. Nothing that names one may be queued.
func (p *redoPipe) deallocate(ctx context.Context) error {
	if _, err := p.conn.Exec(ctx, "DEALLOCATE ALL").ReadAll(); err != nil {
		return fmt.Errorf("forget prepared statements: %w", p.lost(err))
	}
	p.statements = 0
	p.epoch++
	return nil
}

// appendSet queues a statement over arrays: one parameter for each column, taken from the rows. It returns false when a
// value cannot be what the column is.
func (p *redoPipe) appendSet(name string, t *redoTable, columns []int, rows []Tuple) bool {
	item := pipeItem{name: name, want: int64(len(rows)), params: make([][]byte, len(columns)), formats: make([]int16, len(columns))}
	for n, c := range columns {
		at := len(p.buffer)
		var ok bool
		if p.buffer, ok = appendArray(p.buffer, &t.columns[c], rows, c); !ok {
			return false
		}
		item.params[n] = p.buffer[at:len(p.buffer):len(p.buffer)]
		item.formats[n] = t.columns[c].form.format()
	}
	p.add(item)
	return true
}

// appendCopy queues the rows as a COPY.
func (p *redoPipe) appendCopy(t *redoTable, rows []Tuple) {
	at := len(p.buffer)
	for _, row := range rows {
		p.buffer = appendCopyRow(p.buffer, t.written, row)
	}
	p.add(pipeItem{sql: t.copyIn(), copied: p.buffer[at:len(p.buffer):len(p.buffer)], want: int64(len(rows))})
}
