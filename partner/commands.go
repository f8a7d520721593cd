package partner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
)

// Failover exchanges the roles without loss. Either partner may be asked. Clients are ended on the principal, and serve
// again on the other partner when it has redone everything.
func (p *Partner) Failover(ctx context.Context) error {
	return p.command(ctx, mirror.Command{Kind: mirror.CommandFailover})
}

// Suspend stops shipping; the principal goes on alone, exposed. Either partner may be asked.
func (p *Partner) Suspend(ctx context.Context) error {
	return p.command(ctx, mirror.Command{Kind: mirror.CommandSuspend, Reason: mirror.ReasonCommand})
}

// Resume ends a suspension, whatever its reason; what caused it must have been mended. Either partner may be asked.
func (p *Partner) Resume(ctx context.Context) error {
	return p.command(ctx, mirror.Command{Kind: mirror.CommandResume})
}

// SetSafety changes the safety level. The principal must be asked.
func (p *Partner) SetSafety(ctx context.Context, s mirror.Safety) error {
	return p.command(ctx, mirror.Command{Kind: mirror.CommandSetSafety, Safety: s})
}

// SetWitness makes the witness that answers at Config.Witness part of the session, in the place of the former one if
// there is one; with set=false it removes the witness. The principal must be asked.
func (p *Partner) SetWitness(ctx context.Context, set bool) error {
	c := mirror.Command{Kind: mirror.CommandSetWitness}
	if set {
		st := p.host.Status()
		// One whose removal was broken off by the end of this program is neither set nor new.
		c.Incarnation = cmp.Or(st.Peers[mirror.Witness].Newcomer, st.Record.Members[mirror.Witness], st.Record.OldWitness)
		if c.Incarnation == 0 {
			return &mirror.RefusedError{Command: c.Kind, Reason: mirror.ReasonNoWitness,
				Mend: "start the witness at the address in Config.Witness first"}
		}
	}
	return p.command(ctx, c)
}

// Admit takes in a mirror that lost its state, in the place of what it was. The principal must be asked.
func (p *Partner) Admit(ctx context.Context) error {
	other := p.cfg.Self.Other()
	return p.command(ctx, mirror.Command{Kind: mirror.CommandAdmit, Incarnation: p.host.Status().Peers[other].Newcomer})
}

// Serve lets a principal without a witness serve after a restart although its partner does not answer. Service may have
// been forced on the partner meanwhile: the operator vouches that it was not.
func (p *Partner) Serve(ctx context.Context) error {
	return p.command(ctx, mirror.Command{Kind: mirror.CommandServe})
}

// ForcePlan is what forced service would rest on and might cost.
type ForcePlan struct {
	Token    string // pass it to ForceService to accept the loss
	Hardened mirror.Position
	// LossBytes is how much of the principal's log, as last heard, is not hardened here: the known part of what would be
	// lost. What the principal did after it was last heard cannot be known.
	LossBytes uint64
	// Follows: what is hardened here continues the principal's log. Where it does not, everything that the principal has
	// done since it became principal would be lost; how much that is nobody can say here, and LossBytes is zero.
	Follows bool
	InSync  bool // the record says that no acknowledged commit is missing here
}

// PlanForce says what forced service would rest on. It changes nothing.
func (p *Partner) PlanForce() ForcePlan {
	st := p.host.Status()
	plan := ForcePlan{Token: p.token(st), Hardened: st.Hardened, Follows: st.Aligned, InSync: st.Record.InSync}
	if plan.Follows && st.EndOfLog > st.Hardened.LSN {
		plan.LossBytes = uint64(st.EndOfLog - st.Hardened.LSN)
	}
	return plan
}

func (p *Partner) token(st mirror.Status) string {
	return fmt.Sprintf("%s-%s", p.short(), st.Record.Version())
}

// ForceService makes this mirror serve although the principal is lost and log may be missing. token is that of a
// ForcePlan made of the present record: a record that has changed meanwhile makes it void.
func (p *Partner) ForceService(ctx context.Context, token string) error {
	st := p.host.Status()
	if token != p.token(st) {
		refused := &mirror.RefusedError{Command: mirror.CommandForceService, Reason: mirror.ReasonStale,
			Mend: "the token is not of the present record; look at the plan again"}
		p.journal.note(line{Kind: mirror.EntryRefused.String(), Role: st.Role.String(), RoleSeq: uint64(st.Record.Seq), Peer: p.cfg.Self.String(),
			Reason: refused.Reason.String(), Record: st.Record.Version().String(), Note: refused.Error()})
		return refused
	}
	return p.command(ctx, mirror.Command{Kind: mirror.CommandForceService, Expect: st.Record.Version()})
}

// Reseed makes this mirror's database anew from the principal's. It is the mend for a gap, a damaged log and a
// divergence; the session must not be suspended, or be resumed afterwards.
func (p *Partner) Reseed(ctx context.Context) error {
	if p.host.Status().Role != mirror.RoleMirror {
		return errors.New("reseed refused: this partner is not the mirror; ask the mirror")
	}
	return p.host.Ask(ctx, mirror.Event{Kind: mirror.EventSeeding})
}

// Skip leaves out the transaction at which redo has stopped, Status.Redo.Poison, for good: the mend for a redo error where
// nothing else is, other than Reseed. The order is on the database's disk when it returns nil, and is carried out when redo
// goes on: after Resume. What was left out is in the journal, and in Status.Redo.Skipped: the databases are not equal from
// then on. The partner whose redo has stopped must be asked. For any other position it returns backend.ErrNotPoison.
func (p *Partner) Skip(ctx context.Context, poison mirror.Position) error {
	if err := p.data.follow.skip(ctx, poison); err != nil {
		return fmt.Errorf("skip refused: %w", err)
	}
	st := p.host.Status()
	p.journal.note(line{Kind: "skip", Role: st.Role.String(), RoleSeq: uint64(st.Record.Seq), Reason: mirror.ReasonRedoError.String(),
		Record: st.Record.Version().String(), LSN: poison.String(), Note: "the transaction is left out by command: the databases are not equal from here on"})
	p.cfg.Logger.Warn("a transaction is left out by command", "position", poison)
	return nil
}

func (p *Partner) command(ctx context.Context, c mirror.Command) error {
	return p.host.Ask(ctx, mirror.Event{Kind: mirror.EventCommanded, Command: c})
}

// establish asks until the session exists. Both others must have been started.
func (p *Partner) establish(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		st := p.host.Status()
		if st.Role != mirror.RoleNone || st.Removed {
			p.data.trouble(tryEstablish, nil)
			return
		}
		c := mirror.Command{Kind: mirror.CommandEstablish, Safety: p.cfg.Safety, Incarnation: st.Peers[mirror.Witness].Newcomer}
		err := p.mayEstablish()
		switch {
		case err != nil:
		case p.cfg.Witness != "" && c.Incarnation == 0:
			err = errors.New("the witness has not been heard: start it, or leave Config.Witness empty for a session without one")
		default:
			err = p.command(ctx, c)
		}
		p.data.trouble(tryEstablish, err)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
