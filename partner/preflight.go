package partner

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/pglog"
)

// unreachable says why the local database cannot be reached.
func (p *Partner) unreachable(err error) error {
	principal := p.host.Status().Record.Principal
	if principal == mirror.Nobody && p.cfg.Establish {
		principal = p.cfg.Self
	}
	found := []pglog.Finding{pglog.ConnectFinding(p.side(principal, p.cfg.Self), err)}
	p.data.setFindings(found)
	return fmt.Errorf("connect to the local database: %w", pglog.Refuse(found))
}

// preflight looks at the local server before anything is changed. What stands in the way is one error that names the
// cause and the mend.
func (p *Partner) preflight(ctx context.Context) error {
	cfg := p.preflightConfig()
	var findings []pglog.Finding
	err := p.data.server.Admin(ctx, func(conn *pgx.Conn) (err error) {
		if p.host.Status().Role == mirror.RoleMirror || p.host.Status().Role == mirror.RoleNone && !p.cfg.Establish {
			findings, err = pglog.PreflightMirror(ctx, conn, cfg)
			return err
		}
		findings, err = pglog.PreflightPrincipal(ctx, conn, cfg)
		return err
	})
	if err != nil {
		return fmt.Errorf("preflight: %w", err)
	}
	p.data.setFindings(findings)
	if p.host.Status().Role != mirror.RoleNone {
		return nil // a session that exists goes on with what it has; the findings are shown
	}
	return pglog.Refuse(findings)
}

func (p *Partner) preflightConfig() pglog.PreflightConfig {
	return pglog.PreflightConfig{LogBudget: p.cfg.Limits.LogBudget, SafetyOff: p.cfg.Safety == mirror.SafetyOff}
}

// preflightPair looks at both servers before the principal's database is copied.
func (d *dataPath) preflightPair(ctx context.Context, st mirror.Status) error {
	findings, err := d.examine(ctx, st.Record.Principal, st)
	if err != nil {
		return err
	}
	d.setFindings(findings)
	return pglog.Refuse(findings)
}

// examine looks at both servers and finds what is against a session with that principal. It only reads. A server that
// cannot be reached is a finding.
func (d *dataPath) examine(ctx context.Context, principal mirror.Server, st mirror.Status) ([]pglog.Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	own, err := d.server.Identity(ctx)
	if err != nil {
		return []pglog.Finding{pglog.ConnectFinding(d.p.side(principal, d.p.cfg.Self), err)}, nil
	}
	d.setPlace(placeOf(own))
	d.setReached(place{})
	peer, err := d.peer(ctx)
	var reached pglog.Identity
	if err == nil {
		reached, err = peer.Identity(ctx)
	}
	if err != nil {
		return []pglog.Finding{pglog.ConnectFinding(d.p.side(principal, d.p.cfg.Self.Other()), err)}, nil
	}
	d.setReached(placeOf(reached))
	content, err := d.content(ctx, principal, st)
	if err != nil {
		return nil, err
	}
	from, to := d.server, peer
	if principal != d.p.cfg.Self {
		from, to = to, from
	}
	return d.examineBoth(ctx, from, to, content, st.Role == mirror.RoleNone)
}

// examineTimeout bounds one look at both servers.
const examineTimeout = 20 * time.Second

// content says what the mirror's database may hold. Only the mirror itself knows what it was told.
func (d *dataPath) content(ctx context.Context, principal mirror.Server, st mirror.Status) (pglog.MirrorContent, error) {
	if principal == d.p.cfg.Self {
		return pglog.MirrorReplaced, nil
	}
	replace, err := d.mayReplace(ctx, st)
	if err != nil || replace {
		return pglog.MirrorReplaced, err
	}
	return pglog.MirrorEmpty, nil
}

// examineBoth: before there is a session the mirror is looked at as the principal that it may become, too.
func (d *dataPath) examineBoth(ctx context.Context, from, to *pglog.Server, content pglog.MirrorContent, first bool) (all []pglog.Finding, err error) {
	cfg := d.p.preflightConfig()
	err = from.Admin(ctx, func(principal *pgx.Conn) error {
		return to.Admin(ctx, func(copied *pgx.Conn) error {
			if all, err = pglog.PreflightPrincipal(ctx, principal, cfg); err != nil {
				return err
			}
			if first {
				found, err := pglog.PreflightMirror(ctx, copied, cfg)
				if err != nil {
					return err
				}
				all = append(all, found...)
			}
			if unsupported(all) {
				return nil // it may not even understand the questions
			}
			found, err := pglog.PreflightPair(ctx, principal, copied, content)
			all = append(all, found...)
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("preflight: %w", err)
	}
	return all, nil
}

func unsupported(findings []pglog.Finding) bool {
	return slices.ContainsFunc(findings, func(f pglog.Finding) bool {
		return f.Severity == pglog.Fatal && f.Code == pglog.CodeVersion
	})
}

// side is what a server is called in findings.
func (p *Partner) side(principal, s mirror.Server) string {
	if s == principal {
		return mirror.RolePrincipal.String()
	}
	return mirror.RoleMirror.String()
}

func (d *dataPath) setFindings(findings []pglog.Finding) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.findings = findings
}
