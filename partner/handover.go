package partner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/mirror/host/crashpoint"
)

// A principal that has handed over may be elected again before it follows the new one: the record says that it has every
// acknowledged commit. That holds as long as its database is the one that it had then. A server that was put back to an
// older state, or whose disk lost what it had, does not say so by itself, nor does its end of log, which moves on. But the
// barrier is the last commit of a principal that hands over: a database that lacks it lacks commits.

// handoverFile is its name in Config.Dir.
const handoverFile = "handover.json"

// barrier is what the database must have for as long as this partner may be elected for what it had as
// principal. It is kept beside the state, because the database cannot tell what it has lost.
type barrier struct {
	Seq mirror.RoleSeq `json:"role_seq"`
	At  mirror.LSN     `json:"barrier,string"`
}

// errPutBack is wrapped by errors about a database that lacks what it had when it was handed over.
var errPutBack = errors.New("the database was put back to an older state")

// errUnsure is wrapped by errors about a database that does not say whether it was.
var errUnsure = errors.New("find out whether the database was put back to an older state")

// keepHandover puts it on disk, whole or not at all, before anybody hears of the barrier.
func (p *Partner) keepHandover(h barrier) error {
	path := filepath.Join(p.cfg.Dir, handoverFile)
	b, err := json.Marshal(h)
	if err == nil {
		err = writeSynced(path+".new", append(b, '\n'))
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err == nil {
		err = syncDir(p.cfg.Dir)
	}
	if err != nil {
		return fmt.Errorf("keep where the database was handed over: %w; make room in Dir and let this user write there", err)
	}
	crashpoint.Hit(crashpoint.BarrierKept)
	return nil
}

// readHandover is zero where nothing was handed over since this database last followed another, or served.
func (p *Partner) readHandover() (h barrier, err error) {
	path := filepath.Join(p.cfg.Dir, handoverFile)
	raw, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return h, nil
	case err == nil:
		err = json.Unmarshal(raw, &h)
	}
	if err != nil {
		err = fmt.Errorf("read where the database was handed over: %w; remove %s if the database was not put back to an older state", err, path)
	}
	return h, err
}

// forgetHandover: the database is the copy of another one now, or a newer reign has begun in it.
func (p *Partner) forgetHandover() error {
	if err := os.Remove(filepath.Join(p.cfg.Dir, handoverFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget where the database was handed over: %w", err)
	}
	return nil
}

// holds returns an error that wraps errPutBack if the database lacks the barrier, or errUnsure if it does not say.
func (d *dataPath) holds(ctx context.Context, h barrier) error {
	found, err := d.database.LatestBarrier(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errUnsure, err)
	case found < h.At:
		return fmt.Errorf("%w: handed over in role sequence %d was one with the barrier %s, here the latest is %s",
			errPutBack, h.Seq, h.At, found)
	}
	return nil
}

// checkHandover makes sure, at the start and after each start of the server, before the session hears that the database
// answers, that it has what this partner may be elected for. A candidacy is given up. Whoever is elected already counts as
// one whose database is down, and closes it.
func (d *dataPath) checkHandover(ctx context.Context) error {
	h, err := d.p.readHandover()
	st, hard := d.p.host.Status(), d.p.host.Hard()
	candidate := st.Role == mirror.RoleMirror && !hard.Dirty && hard.Aligned == h.Seq
	elected := st.Role == mirror.RolePrincipal && st.Record.Fork.Seq >= h.Seq
	if err != nil || h.Seq == 0 || !candidate && !elected {
		return err
	}
	err = d.holds(ctx, h)
	switch {
	case !errors.Is(err, errPutBack):
		return err
	case elected:
		err = fmt.Errorf("become principal: %w: stop this partner and force service on the other one, or give this server back what it had", err)
		d.report(mirror.Event{Kind: mirror.EventDatabaseDown})
		if !d.have.putBack {
			d.have.putBack = true
			d.p.lost(err.Error(), mirror.RolePrincipal, st.Record.Seq)
		}
		return errors.Join(err, d.fence(ctx))
	case !d.p.host.Tell(mirror.Event{Kind: mirror.EventLogLost}):
		return err // told at the next look
	}
	d.p.lost(err.Error()+": the principal's database will be copied anew", mirror.RoleMirror, st.Record.Seq)
	return nil
}

// drained makes a barrier, keeps it, and returns the end of log then.
func (d *dataPath) drained(ctx context.Context, seq mirror.RoleSeq) (mirror.LSN, error) {
	// A commit of our own is the barrier: the mirror's report passes it when everything before it is hardened.
	crashpoint.Hit(crashpoint.BarrierUnwritten)
	made, err := d.database.WriteBarrier(ctx)
	if err != nil {
		return 0, err
	}
	crashpoint.Hit(crashpoint.BarrierWritten)
	return made.End, d.p.keepHandover(barrier{seq, made.At})
}
