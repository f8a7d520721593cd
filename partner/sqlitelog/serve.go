package sqlitelog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

const (
	// keepaliveEvery is how often the principal says where its log ends when there is nothing else.
	keepaliveEvery = 250 * time.Millisecond
	// askLimit is how long a question and its answer may take.
	askLimit = 3 * time.Second
	// leastSilence and mostSilence bound what a mirror may ask for.
	leastSilence, mostSilence = time.Second, 10 * time.Minute
	// sendBytes is how much log is read at once to be sent.
	sendBytes = 1 << 20
)

// reignJSON is a backend.Reign on its way.
type reignJSON struct {
	Seq      mirror.RoleSeq  `json:"seq"`
	Start    mirror.LSN      `json:"start"`
	Fork     mirror.Position `json:"fork"`
	Log      string          `json:"log"`
	Origin   uint64          `json:"origin"`
	OpenedAt time.Time       `json:"opened_at"`
}

// Accept serves one connection of the other partner: a question, the log, or a copy of the database. It returns when the
// connection or ctx ends.
func (d *database) Accept(ctx context.Context, conn net.Conn) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // its error would be that of a connection that has broken already
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(askLimit)); err != nil {
		return err
	}
	in := newFrames(conn)
	var q request
	if err := in.json(frameRequest, &q); err != nil {
		return fmt.Errorf("read what the other partner asks for: %w", err)
	}
	if q.Version != protocol || q.Session != d.env.Session {
		return d.refuse(conn, fmt.Errorf("asked in version %d for session %s, this is version %d and session %s: both partners need the same", q.Version, q.Session, protocol, d.env.Session))
	}
	switch q.Ask {
	case "log":
		return d.serveLog(ctx, conn, in, q)
	case "copy":
		return d.serveCopy(ctx, conn, q)
	}
	a, err := d.answer(ctx, q)
	if err != nil {
		return d.refuse(conn, err)
	}
	return send(conn, frameAnswer, a)
}

// refuse tells the other partner why it gets nothing.
func (d *database) refuse(conn net.Conn, why error) error {
	a := answer{Error: why.Error(), Reason: uint8(backend.ReasonOf(why)), NoReign: errors.Is(why, backend.ErrNoReign)}
	return errors.Join(why, send(conn, frameAnswer, a))
}

func send(conn net.Conn, kind byte, v any) error {
	b, err := appendJSON(nil, kind, v)
	if err != nil {
		return err
	}
	_, err = conn.Write(b)
	return err
}

func (d *database) answer(ctx context.Context, q request) (a answer, err error) {
	a.ID, a.Path = d.ID(), d.cfg.Path
	switch q.Ask {
	case "identity":
	case "gate":
		a.Gate = uint8(d.DB.Gate())
	case "content":
		a, err = d.content(ctx)
	case "reign":
		var r backend.Reign
		r, err = d.Reign(ctx, q.Seq)
		a.Reign = &reignJSON{r.Seq, r.Start, r.Fork, r.Log, r.Origin, r.OpenedAt}
	default:
		err = fmt.Errorf("asked for %.40q: both partners need the same version", q.Ask)
	}
	return a, err
}

// slotFor finds what keeps the log that a mirror asks for, and refuses what would leave a gap.
func (d *database) slotFor(q request) (*slot, error) {
	if q.Origin != d.ID() {
		return nil, &GapError{fmt.Sprintf("the mirror follows the log of database %016x, this is %016x", q.Origin, d.ID()), mirror.ReasonIdentity}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.mu.slots[q.Log]
	switch {
	case s == nil || s.session != d.env.Session:
		return nil, gap("no log is kept for the mirror under %.80q", q.Log)
	case q.After < d.mu.trimmed:
		return nil, gap("the mirror's hardened log ends at %s, the log kept for it begins at %s", q.After, d.mu.trimmed)
	case q.After > d.mu.end:
		return nil, gap("the mirror's hardened log ends at %s, the principal's log at %s: this database was put back to an older state", q.After, d.mu.end)
	}
	return s, nil
}

// serveLog sends the log from where the mirror's hardened log ends, and takes its reports.
func (d *database) serveLog(ctx context.Context, conn net.Conn, in *frames, q request) error {
	s, err := d.slotFor(q)
	if err != nil {
		return d.refuse(conn, err)
	}
	silence := min(max(time.Duration(q.Silence)*time.Millisecond, leastSilence), mostSilence)
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out := &logSender{d: d, conn: conn, slot: s, silence: silence}
	out.sent.Store(uint64(q.After))
	d.confirmed(q.Name, s, q.After)
	done := make(chan struct{})
	go func() {
		defer close(done)
		cancel(out.reports(in, q.Name))
	}()
	err = out.run(ctx, q.After)
	_ = conn.Close() // ends the reader of reports
	<-done
	return err
}

// attached opens a connection to read the log with, for as long as f runs.
func (db *DB) attached(f func(*reader) error) (err error) {
	db.files.RLock()
	defer db.files.RUnlock()
	r, err := openReader(db.cfg)
	if err != nil {
		return fileError(db.cfg.Path, err)
	}
	defer func() { err = errors.Join(err, r.close()) }()
	return f(r)
}

// readLog reads what follows a position, as one state of the database has it.
func (r *reader) readLog(ctx context.Context, after mirror.LSN) (parts []part, err error) {
	_, err = r.run(ctx, func(conn *sqlite.Conn) error {
		return r.guard.own(func() (err error) {
			parts, err = readParts(conn, after, sendBytes)
			return err
		})
	})
	return parts, err
}
