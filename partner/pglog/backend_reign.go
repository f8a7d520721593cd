package pglog

import (
	"context"
	"errors"
	"fmt"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// neutral: the log that is kept is the slot, its origin the server.
func (r Reign) neutral() backend.Reign {
	return backend.Reign{Seq: r.Seq, Start: r.Start, Fork: r.Fork, Log: r.Slot, Origin: r.SystemID, OpenedAt: r.OpenedAt}
}

// row is the reign as a server has it.
func (d *database) row(r backend.Reign) Reign {
	return Reign{Session: d.env.Session, Seq: r.Seq, Slot: r.Log, Start: r.Start, SystemID: r.Origin, Fork: r.Fork}
}

func (d *database) Prepare(ctx context.Context) error { return d.server.EnsureSchema(ctx) }

func (d *database) Reign(ctx context.Context, seq mirror.RoleSeq) (backend.Reign, error) {
	r, err := d.server.Reign(ctx, d.env.Session, seq)
	return r.neutral(), err
}

func (d *database) LatestReign(ctx context.Context, before mirror.RoleSeq) (backend.Reign, error) {
	r, err := d.server.LatestReign(ctx, d.env.Session, before)
	return r.neutral(), err
}

func (d *database) WriteReign(ctx context.Context, r backend.Reign) error {
	return d.server.WriteReign(ctx, d.row(r))
}

func (d *database) BeginLog(ctx context.Context, seq mirror.RoleSeq) (backend.Reign, error) {
	id, err := d.server.Identity(ctx)
	if err != nil {
		return backend.Reign{}, err
	}
	slot := fmt.Sprintf("%s%d", d.server.WaitPrefix(), seq)
	if err := d.server.DropSlot(ctx, slot); err != nil {
		return backend.Reign{}, err
	}
	start, err := d.server.CreateSlot(ctx, slot)
	if err != nil {
		return backend.Reign{}, fmt.Errorf("make the mirror's slot: %w", err)
	}
	return backend.Reign{Seq: seq, Start: start, Log: slot, Origin: id.SystemID}, nil
}

func (d *database) Retained(ctx context.Context, r backend.Reign) (int64, error) {
	bytes, err := d.server.Retained(ctx, r.Log)
	if errors.Is(err, ErrNoSlot) {
		err = fmt.Errorf("%w: %w", backend.ErrNoLog, err)
	}
	return bytes, err
}

func (d *database) DropLog(ctx context.Context, r backend.Reign) error {
	return d.server.DropSlot(ctx, r.Log)
}

func (d *database) DropLogs(ctx context.Context) error {
	if err := d.server.DropSessionSlots(ctx); err != nil {
		return fmt.Errorf("drop the slots of a former reign: %w", err)
	}
	return nil
}

// MoveOn moves the sequences on.
func (d *database) MoveOn(ctx context.Context, exact bool) error {
	report, err := d.server.AdvanceSequences(ctx, exact)
	if err != nil {
		return fmt.Errorf("move sequences on: %w", err)
	}
	d.env.Logger.Info("sequences moved on", "count", report.Advanced, "exact", exact, "sample_age", report.Age)
	for _, f := range report.Findings {
		d.env.Logger.Warn("sequence", "schema", f.Schema, "name", f.Name, "finding", f.What)
	}
	return nil
}

// Sample keeps how far the principal's sequences are: the log does not say.
func (d *database) Sample(ctx context.Context) error {
	sample, err := d.peer.sampleSequences(ctx)
	if err != nil {
		return err
	}
	return d.server.StoreSequences(ctx, sample)
}
