package partner

import (
	"context"
	"fmt"
	"time"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// unreachable says why the local database cannot be reached.
func (p *Partner) unreachable(err error) error {
	principal := p.host.Status().Record.Principal
	if principal == mirror.Nobody && p.cfg.Establish {
		principal = p.cfg.Self
	}
	found := p.unreached(principal, p.cfg.Self, err)
	p.data.setFindings(found)
	return fmt.Errorf("connect to the local database: %w", backend.Refuse(found))
}

// unreached is the finding that a server does not answer.
func (p *Partner) unreached(principal, s mirror.Server, err error) []backend.Finding {
	return []backend.Finding{p.cfg.Backend.Unreachable(p.side(principal, s), err)}
}

// preflight looks at the local server before anything is changed. What stands in the way is one error that names the
// cause and the mend.
func (p *Partner) preflight(ctx context.Context) error {
	as := mirror.RolePrincipal
	if st := p.host.Status(); st.Role == mirror.RoleMirror || st.Role == mirror.RoleNone && !p.cfg.Establish {
		as = mirror.RoleMirror
	}
	findings, err := p.data.database.Examine(ctx, as)
	if err != nil {
		return fmt.Errorf("preflight: %w", err)
	}
	p.data.setFindings(findings)
	if p.host.Status().Role != mirror.RoleNone {
		return nil // a session that exists goes on with what it has; the findings are shown
	}
	return backend.Refuse(findings)
}

// preflightPair looks at both servers before the principal's database is copied.
func (d *dataPath) preflightPair(ctx context.Context, st mirror.Status) error {
	findings, err := d.examine(ctx, st.Record.Principal, st)
	if err != nil {
		return err
	}
	d.setFindings(findings)
	return backend.Refuse(findings)
}

// examine looks at both servers and finds what is against a session with that principal. It only reads. A server that
// cannot be reached is a finding.
func (d *dataPath) examine(ctx context.Context, principal mirror.Server, st mirror.Status) ([]backend.Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	own, err := d.database.Identity(ctx)
	if err != nil {
		return d.p.unreached(principal, d.p.cfg.Self, err), nil
	}
	d.setPlace(own)
	d.setReached(backend.Identity{})
	reached, err := d.database.Peer().Identity(ctx)
	if err != nil {
		return d.p.unreached(principal, d.p.cfg.Self.Other(), err), nil
	}
	d.setReached(reached)
	replace, err := d.replaced(ctx, principal, st)
	if err != nil {
		return nil, err
	}
	found, err := d.database.ExaminePair(ctx, backend.Pair{
		Principal: principal == d.p.cfg.Self, First: st.Role == mirror.RoleNone, Replace: replace,
	})
	if err != nil {
		return nil, fmt.Errorf("preflight: %w", err)
	}
	return found, nil
}

// examineTimeout bounds one look at both servers.
const examineTimeout = 20 * time.Second

// replaced says whether what the mirror's database holds may go. Only the mirror itself knows what it was told.
func (d *dataPath) replaced(ctx context.Context, principal mirror.Server, st mirror.Status) (bool, error) {
	if principal == d.p.cfg.Self {
		return true, nil
	}
	return d.mayReplace(ctx, st)
}

// side is what a server is called in findings.
func (p *Partner) side(principal, s mirror.Server) string {
	if s == principal {
		return mirror.RolePrincipal.String()
	}
	return mirror.RoleMirror.String()
}

func (d *dataPath) setFindings(findings []backend.Finding) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.findings = findings
}
