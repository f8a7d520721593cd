package trio

import (
	"context"
	"fmt"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// Await asks look every 20 ms until it says done or fails, or a process has ended by itself. When
// ctx ends first, the error tells what was there last.
func (t *Trio) Await(ctx context.Context, look func() (done bool, now string, err error)) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		done, now, err := look()
		if done || err != nil {
			return err
		}
		if err := t.Crashed(); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w; now: %s", context.Cause(ctx), now)
		}
	}
}

// AwaitReport waits until a partner reports what is wanted.
func (t *Trio) AwaitReport(ctx context.Context, p mirror.Server, ok func(Report) bool) error {
	return t.Await(ctx, func() (bool, string, error) {
		r, err := t.page[p].Status(ctx)
		if err != nil {
			return false, fmt.Sprintf("%s does not answer: %v", p, err), nil
		}
		return ok(r), fmt.Sprintf("%s is %s", p, r), nil
	})
}

// AwaitSynchronized waits until the principal serves and both show SYNCHRONIZED.
func (t *Trio) AwaitSynchronized(ctx context.Context, principal mirror.Server) error {
	err := t.AwaitReport(ctx, principal, func(r Report) bool {
		return r.Role == mirror.RolePrincipal.String() && r.State == mirror.StateSynchronized.String() && r.Serving && r.Gate == mirror.GateOpen.String()
	})
	if err != nil {
		return err
	}
	return t.AwaitReport(ctx, principal.Other(), func(r Report) bool {
		return r.Role == mirror.RoleMirror.String() && r.State == mirror.StateSynchronized.String() && r.Gate == mirror.GateReadOnly.String()
	})
}
