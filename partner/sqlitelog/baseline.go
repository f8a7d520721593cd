package sqlitelog

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net"
	"os"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// A copy is the pages of the principal's database as one read transaction sees them, the log with them, so that it is
// known exactly where in the log it stands. Clients go on meanwhile.

// copyChunk is how many bytes of pages are sent at once.
const copyChunk = 128 << 10

// serveCopy begins to keep log for the mirror and sends the database as it is then.
func (d *database) serveCopy(ctx context.Context, conn net.Conn, q request) error {
	r, err := d.copyReign(ctx, q)
	if err != nil {
		return d.refuse(conn, err)
	}
	return d.attached(func(rd *reader) error {
		_, err := rd.run(ctx, func(c *sqlite.Conn) error {
			return rd.guard.own(func() error { return d.sendCopy(ctx, conn, c, r) })
		})
		return err
	})
}

// copyReign makes the log of the reign begin before the copy.
func (d *database) copyReign(ctx context.Context, q request) (backend.Reign, error) {
	r, err := d.Reign(ctx, q.Seq)
	if err != nil {
		return r, err
	}
	if q.Origin != d.ID() || q.Log != r.Log {
		return r, &GapError{"the mirror asks for a copy of another database's reign", mirror.ReasonIdentity}
	}
	if r.Start, err = d.createSlot(ctx, d.env.Session, r.Log); err != nil {
		return r, err
	}
	return r, d.WriteReign(ctx, r)
}

func (d *database) sendCopy(ctx context.Context, conn net.Conn, c *sqlite.Conn, r backend.Reign) error {
	end, _, err := readLogBounds(c)
	if err != nil {
		return err
	}
	size, err := sizeOf(c)
	if err != nil {
		return err
	}
	tables, err := countTables(c)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(deadlined{conn}, copyChunk)
	head, err := appendJSON(nil, frameAnswer, answer{ID: d.ID(), At: end, Bytes: size, Tables: tables,
		Reign: &reignJSON{r.Seq, r.Start, r.Fork, r.Log, r.Origin, r.OpenedAt}})
	if err != nil {
		return err
	}
	if _, err := out.Write(head); err != nil {
		return err
	}
	sum := sha256.New()
	var frame []byte
	err = query(c, "SELECT data FROM sqlite_dbpage('main') ORDER BY pgno", func(stmt *sqlite.Stmt) error {
		page := columnBytes(stmt, 0)
		sum.Write(page)
		frame = appendFrame(frame[:0], framePages, page)
		if _, err := out.Write(frame); err != nil {
			return err
		}
		return ctx.Err()
	})
	if err != nil {
		return fmt.Errorf("send the database: %w", err)
	}
	if _, err := out.Write(appendFrame(nil, frameWhole, sum.Sum(nil))); err != nil {
		return err
	}
	return out.Flush()
}

// deadlined gives each write to a connection the time that a silent other side is waited for.
type deadlined struct{ net.Conn }

func (d deadlined) Write(b []byte) (int, error) {
	if err := d.SetDeadline(time.Now().Add(copySilence)); err != nil {
		return 0, err
	}
	return d.Conn.Write(b)
}

// copySilence is how long a copy goes on without hearing from the other side.
const copySilence = 30 * time.Second

// Incomplete is never so: a copy takes the database's place when it is whole.
func (d *database) Incomplete(context.Context) (bool, error) { return false, d.faulty() }

// Seed makes this database a copy of the principal's. What is here stays until the copy is whole and on disk.
func (d *database) Seed(ctx context.Context, from backend.Reign, replace bool) (s backend.Seeded, err error) {
	began := time.Now()
	if !replace {
		ours, err := d.content(ctx)
		if err == nil {
			err = backend.Refuse(ours.replaced())
		}
		if err != nil {
			return s, err
		}
	}
	temporary := d.cfg.Path + "-copying"
	// What one that was killed has left is no part of this one: SQLite would take its write-ahead log for that of the copy.
	if err := removeCopy(temporary); err != nil {
		return s, &FileError{d.cfg.Path, "what an earlier copy has left cannot be removed", "let this user write its directory", err}
	}
	defer func() {
		if gone := removeCopy(temporary); err == nil {
			err = gone
		}
	}()
	crashpoint.Hit(crashpoint.SnapshotUnmade)
	head, err := d.receiveCopy(ctx, from, temporary)
	if err != nil {
		return s, fmt.Errorf("receive the principal's database: %w", err)
	}
	crashpoint.Hit(crashpoint.SnapshotMade)
	if err := d.adopt(ctx, temporary); err != nil {
		return s, fmt.Errorf("prepare the copy: %w", err)
	}
	crashpoint.Hit(crashpoint.CopyMarked)
	if err := d.replaceBy(ctx, temporary); err != nil {
		return s, fmt.Errorf("put the copy in place: %w", err)
	}
	crashpoint.Hit(crashpoint.CopyFinished)
	return backend.Seeded{Start: head.At, Tables: int(head.Tables), Bytes: head.Bytes, Duration: time.Since(began)}, nil
}

// removeCopy removes a copy that is not whole, and what SQLite keeps beside it.
func removeCopy(path string) error {
	for _, beside := range []string{"", "-wal", "-shm", "-journal"} {
		if err := os.Remove(path + beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// receiveCopy writes what the principal sends to a file, and puts it on disk.
func (d *database) receiveCopy(ctx context.Context, from backend.Reign, path string) (head answer, err error) {
	p := &peer{d}
	conn, in, err := p.connect(ctx, request{Ask: "copy", Seq: from.Seq, Log: from.Log, Origin: from.Origin})
	if err != nil {
		return head, err
	}
	defer conn.Close() // nothing was sent that could be lost
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := conn.SetDeadline(time.Now().Add(copySilence)); err != nil {
		return head, err
	}
	if err := in.json(frameAnswer, &head); err != nil {
		return head, err
	}
	if err := head.err(); err != nil {
		return head, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return head, &FileError{d.cfg.Path, "its copy cannot be written", "let this user write its directory", err}
	}
	if err = d.receivePages(conn, in, f, head.Bytes); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return head, err
}

func (d *database) receivePages(conn net.Conn, in *frames, f io.Writer, size int64) error {
	sum, got := sha256.New(), int64(0)
	for {
		if err := conn.SetDeadline(time.Now().Add(copySilence)); err != nil {
			return err
		}
		kind, payload, err := in.next()
		switch {
		case err != nil:
			return err
		case kind == frameWhole:
			return wholeCopy(sum, payload, got, size)
		case kind != framePages || got+int64(len(payload)) > size:
			return fmt.Errorf("%w: kind %q after %d of %d bytes", errFrame, kind, got, size)
		}
		got += int64(len(payload))
		sum.Write(payload)
		if _, err := f.Write(payload); err != nil {
			return &FileError{d.cfg.Path, "its copy cannot be written", "make room on its disk", err}
		}
	}
}

func wholeCopy(sum hash.Hash, want []byte, got, size int64) error {
	if got != size || string(sum.Sum(nil)) != string(want) {
		return fmt.Errorf("%w: the copy is not what was sent, %d of %d bytes", errFrame, got, size)
	}
	return nil
}

// adopt gives the copy what is this database's own, checks it whole, and puts it on disk as one file.
func (d *database) adopt(ctx context.Context, path string) error {
	var own ownRows
	if err := d.inspect(ctx, own.read); err != nil {
		return err
	}
	cfg := d.cfg
	cfg.Path = path
	w, err := openWriter(cfg, true)
	if err != nil {
		return fileError(path, err)
	}
	err = w.transact(captureRedo, func() error {
		if err := own.write(w.conn); err != nil {
			return err
		}
		return checkFile(w.conn)
	})
	if err == nil {
		w.conn.SetInterrupt(nil)
		// Not even the file of a write-ahead log may be left when it is renamed.
		w.capture.state = captureOwn
		err = w.guard.own(func() error { return runOnce(w.conn, "PRAGMA journal_mode = DELETE") })
	}
	if err = errors.Join(err, w.close()); err != nil {
		return fileError(path, err)
	}
	return syncFile(path)
}

// checkFile reads the whole database and makes sure that it is sound.
func checkFile(conn *sqlite.Conn) error {
	found := ""
	err := query(conn, "PRAGMA integrity_check(1)", func(stmt *sqlite.Stmt) error {
		found = stmt.ColumnText(0)
		return nil
	})
	if err == nil && found != "ok" {
		err = fmt.Errorf("the copy is damaged: %s", found)
	}
	return err
}

// ownRows are those of a database's tables of this package that stay with it when it becomes a copy of another.
type ownRows struct {
	meta, reigns [][]Value
	end          mirror.LSN
}

func (o *ownRows) read(conn *sqlite.Conn) (err error) {
	if o.meta, err = allRows(conn, "SELECT * FROM main.dbmirror_meta"); err != nil {
		return err
	}
	if o.reigns, err = allRows(conn, "SELECT * FROM main.dbmirror_reign"); err != nil {
		return err
	}
	o.end, _, err = readLogBounds(conn)
	return err
}

func allRows(conn *sqlite.Conn, sql string) (all [][]Value, err error) {
	err = query(conn, sql, func(stmt *sqlite.Stmt) error {
		row := make([]Value, stmt.ColumnCount())
		for i := range row {
			row[i] = columnValue(stmt, i)
		}
		all = append(all, row)
		return nil
	})
	return all, err
}

func (o *ownRows) write(conn *sqlite.Conn) error {
	for _, table := range [...]string{"meta", "log", "slot", "reign", "progress"} {
		if err := run(conn, "DELETE FROM main.dbmirror_"+table); err != nil {
			return err
		}
	}
	for _, row := range o.meta {
		if err := run(conn, "INSERT INTO main.dbmirror_meta VALUES (?, ?)", row...); err != nil {
			return err
		}
	}
	for _, row := range o.reigns {
		if err := run(conn, "INSERT INTO main.dbmirror_reign VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row...); err != nil {
			return err
		}
	}
	return run(conn, "INSERT INTO main.dbmirror_log (lsn, last, data) VALUES (?, 1, x'')", intValue(int64(o.end)))
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// replaceBy puts a file in the place of the database, which is closed for the time.
func (d *database) replaceBy(ctx context.Context, path string) error {
	if _, err := d.take(ctx); err != nil {
		return err
	}
	defer d.give()
	d.files.Lock()
	defer d.files.Unlock()
	if err := d.closeConnections(ctx); err != nil {
		return err
	}
	err := os.Rename(path, copyPath(d.cfg.Path))
	if err == nil {
		err = syncDir(d.cfg.Path)
	}
	crashpoint.Hit(crashpoint.CopyCleared)
	if err == nil {
		err = finishReplacing(d.cfg.Path)
	}
	// Whatever happened, a whole database is there, the former one or the copy.
	if started := fileError(d.cfg.Path, d.start()); started != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.mu.fault = started
		err = errors.Join(err, started)
	}
	return err
}
