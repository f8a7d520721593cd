package sqlitelog

import (
	"context"
	"fmt"

	"zombiezen.com/go/sqlite"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// What is kept of transactions that are left out by command, for each session: the order, which is empty when it is
// carried out, and how many were. It stays with the database when that becomes a copy of another.
func skipName(session string) string    { return "skip " + session }
func skippedName(session string) string { return "skipped " + session }

// Skip orders that the transaction at which redo has stopped be left out.
func (r *Redo) Skip(ctx context.Context, poison mirror.Position) error {
	err := backend.ErrNotPoison
	if poison != (mirror.Position{}) && poison == r.Progress().Poison {
		err = r.db.own(ctx, func(conn *sqlite.Conn) error {
			redone, err := readProgress(conn, r.session)
			if err == nil && redone.Compare(poison) >= 0 {
				err = backend.ErrNotPoison
			}
			if err != nil {
				return err
			}
			return setMeta(conn, skipName(r.session), textValue(poison.String()))
		})
	}
	if err != nil {
		return fmt.Errorf("skip the transaction at %s: %w", poison, err)
	}
	return nil
}

// orders reads which transaction is to be left out, and how many were.
func (r *Redo) orders(ctx context.Context) (skipped uint64, err error) {
	err = r.db.inspect(ctx, func(conn *sqlite.Conn) error {
		order, err := meta(conn, skipName(r.session))
		if err != nil {
			return err
		}
		count, err := meta(conn, skippedName(r.session))
		r.skip, skipped = string(order.Bytes), uint64(count.Int)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("read what is to be skipped: %w", err)
	}
	return skipped, nil
}

// leaveOut notes, in the transaction that moves the redone position past it, that the order is carried out.
func leaveOut(conn *sqlite.Conn, session string) error {
	count, err := meta(conn, skippedName(session))
	if err == nil {
		err = setMeta(conn, skippedName(session), intValue(count.Int+1))
	}
	if err == nil {
		err = setMeta(conn, skipName(session), textValue(""))
	}
	return err
}
