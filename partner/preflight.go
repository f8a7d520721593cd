package partner

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/pglog"
)

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
func (d *dataPath) preflightPair(ctx context.Context, replace bool) error {
	principal, err := d.peer(ctx)
	if err != nil {
		return err
	}
	content := pglog.MirrorEmpty
	if replace {
		content = pglog.MirrorReplaced
	}
	var findings []pglog.Finding
	err = principal.Admin(ctx, func(theirs *pgx.Conn) error {
		return d.server.Admin(ctx, func(ours *pgx.Conn) (err error) {
			at, err := pglog.PreflightPrincipal(ctx, theirs, d.p.preflightConfig())
			if err != nil {
				return err
			}
			findings, err = pglog.PreflightPair(ctx, theirs, ours, content)
			findings = append(findings, at...)
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("preflight: %w", err)
	}
	d.setFindings(findings)
	return pglog.Refuse(findings)
}

func (d *dataPath) setFindings(findings []pglog.Finding) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.findings = findings
}
