package pglog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
)

// copyTables copies the rows of all tables with Workers pairs of connections. The first error ends the others.
func (b *baseline) copyTables(ctx context.Context) error {
	parts := planParts(b.tables, b.cfg.SplitBytes)
	b.result.Tables = len(b.tables)
	return b.work(ctx, len(parts), func(ctx context.Context, next <-chan int) error {
		source, err := b.openSource(ctx)
		if err != nil {
			return err
		}
		defer hangUp(source)
		target, err := b.openTarget(ctx)
		if err != nil {
			return err
		}
		defer hangUp(target)
		for i := range next {
			if err := b.copyOne(ctx, source, target, parts[i], len(parts)); err != nil {
				return fmt.Errorf("copy table %s: %w", parts[i].table.name, err)
			}
		}
		return nil
	})
}

// work runs body in up to Workers goroutines, which share the numbers from 0 to count-1 between them, and returns when
// all have ended. The first error ends the context of the others and is the one returned.
func (b *baseline) work(ctx context.Context, count int, body func(ctx context.Context, next <-chan int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int, count)
	for i := range count {
		next <- i
	}
	close(next)
	var workers sync.WaitGroup
	for range min(b.cfg.Workers, count) {
		workers.Go(func() {
			if err := body(ctx, next); err != nil {
				cancel(err)
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}

// copyOne copies one part. The lock that the baseline's own connection holds keeps the table as it is; if somebody
// already waits for a stronger one, waiting behind him would never end, hence NOWAIT.
func (b *baseline) copyOne(ctx context.Context, source, target *pgx.Conn, part copyPart, partsTotal int) error {
	if _, err := source.Exec(ctx, "LOCK TABLE ONLY "+part.table.name+" IN ACCESS SHARE MODE NOWAIT"); err != nil {
		return fmt.Errorf("somebody waits for an exclusive lock; end that statement and start again: %w", err)
	}
	if part.table.ofExtension && part.first == 0 {
		if _, err := target.Exec(ctx, "DELETE FROM ONLY "+part.table.name); err != nil {
			return fmt.Errorf("clear what the extension brought: %w", err)
		}
	}
	rows, bytes, err := pipeCopy(ctx, source, target, part)
	if err != nil {
		return err
	}
	crashpoint.Hit(crashpoint.TableCopied)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.partsDone++
	b.result.Rows += rows
	b.result.Bytes += bytes
	b.cfg.Progress(BaselineProgress{Table: part.table.name, Rows: rows, Bytes: bytes, Parts: b.mu.partsDone, PartsTotal: partsTotal})
	return nil
}

// pipeCopy runs both halves of a copy at once, and returns when both have ended.
func pipeCopy(ctx context.Context, source, target *pgx.Conn, part copyPart) (rows, bytes int64, err error) {
	pipe := newCopyPipe(ctx)
	var sent int64
	var sourceErr error
	var reader sync.WaitGroup
	reader.Go(func() {
		tag, err := source.PgConn().CopyTo(ctx, pipe, part.source())
		sent, sourceErr = tag.RowsAffected(), err
		pipe.finish(err)
	})
	tag, targetErr := target.PgConn().CopyFrom(ctx, pipe, part.target())
	pipe.abandon()
	reader.Wait()
	switch {
	case sourceErr != nil && !errors.Is(sourceErr, errCopyAbandoned):
		return 0, 0, fmt.Errorf("read: %w", sourceErr)
	case targetErr != nil:
		return 0, 0, fmt.Errorf("write: %w", targetErr)
	case sent != tag.RowsAffected():
		return 0, 0, fmt.Errorf("the principal sent %d rows and the mirror took %d", sent, tag.RowsAffected())
	}
	return sent, pipe.bytes, nil
}

const (
	copyChunkBytes = 256 << 10
	copyChunks     = 4 // on the way, so that neither half waits for the other's every step
)

// errCopySource ends the target's half after the source's half has failed.
var errCopySource = errors.New("the source of the copy failed")

// errCopyAbandoned ends the source's half after the target's half has ended.
var errCopyAbandoned = errors.New("the target of the copy has ended")

// copyPipe carries a COPY stream from one goroutine to another in chunks. The source writes one row at a time; handing
// over each alone would cost a switch of goroutines per row.
type copyPipe struct {
	ctx    context.Context
	chunks chan []byte
	spare  chan []byte
	gone   chan struct{} // closed when nobody reads any more
	failed chan struct{} // closed when the source has failed

	filling []byte // of the writer
	bytes   int64
	reading []byte // of the reader
	current []byte
}

func newCopyPipe(ctx context.Context) *copyPipe {
	return &copyPipe{ctx: ctx, chunks: make(chan []byte, copyChunks), spare: make(chan []byte, copyChunks+2),
		gone: make(chan struct{}), failed: make(chan struct{})}
}

// Write implements io.Writer.
func (p *copyPipe) Write(data []byte) (int, error) {
	if len(p.filling)+len(data) > copyChunkBytes && len(p.filling) > 0 {
		if err := p.flush(); err != nil {
			return 0, err
		}
	}
	p.filling = append(p.filling, data...)
	p.bytes += int64(len(data))
	return len(data), nil
}

func (p *copyPipe) flush() error {
	select {
	case p.chunks <- p.filling:
	case <-p.gone:
		return errCopyAbandoned
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
	select {
	case p.filling = <-p.spare:
	default:
		p.filling = make([]byte, 0, copyChunkBytes)
	}
	return nil
}

// finish is the writer's last call: the stream is whole, or has failed.
func (p *copyPipe) finish(err error) {
	if err == nil && len(p.filling) > 0 {
		err = p.flush()
	}
	if err != nil {
		close(p.failed)
	}
	close(p.chunks)
}

// abandon is the reader's last call.
func (p *copyPipe) abandon() { close(p.gone) }

// Read implements io.Reader.
func (p *copyPipe) Read(into []byte) (int, error) {
	if len(p.reading) == 0 {
		chunk, more := <-p.chunks
		if !more {
			select {
			case <-p.failed:
				return 0, errCopySource
			default:
				return 0, io.EOF
			}
		}
		p.recycle()
		p.current, p.reading = chunk, chunk
	}
	n := copy(into, p.reading)
	p.reading = p.reading[n:]
	return n, nil
}

func (p *copyPipe) recycle() {
	if p.current == nil || cap(p.current) > 2*copyChunkBytes {
		return
	}
	select {
	case p.spare <- p.current[:0]:
	default:
	}
}
