package pglog

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/f19126b3/dbmirror/mirror"
	"github.com/f19126b3/dbmirror/partner/backend"
)

// The findings are those of all backends.
type (
	Finding  = backend.Finding
	Severity = backend.Severity
	Code     = backend.Code
)

// The severities of all backends.
const (
	Info    = backend.Info
	Warning = backend.Warning
	Fatal   = backend.Fatal
)

func (d *database) preflightConfig() PreflightConfig {
	return PreflightConfig{LogBudget: d.env.LogBudget, SafetyOff: d.env.SafetyOff}
}

func (d *database) Examine(ctx context.Context, as mirror.Role) (findings []backend.Finding, err error) {
	look := PreflightPrincipal
	if as == mirror.RoleMirror {
		look = PreflightMirror
	}
	err = d.server.Admin(ctx, func(conn *pgx.Conn) error {
		findings, err = look(ctx, conn, d.preflightConfig())
		return err
	})
	return findings, err
}

func (d *database) ExaminePair(ctx context.Context, pair backend.Pair) (all []backend.Finding, err error) {
	other, err := d.peer.connect(ctx)
	if err != nil {
		return nil, err
	}
	from, to := other, d.server
	if pair.Principal {
		from, to = to, from
	}
	err = from.Admin(ctx, func(principal *pgx.Conn) error {
		return to.Admin(ctx, func(copied *pgx.Conn) error {
			all, err = examinePair(ctx, principal, copied, pair, d.preflightConfig())
			return err
		})
	})
	return all, err
}

// examinePair: before there is a session the mirror is looked at as the principal that it may become, too.
func examinePair(ctx context.Context, principal, copied *pgx.Conn, pair backend.Pair, cfg PreflightConfig) ([]Finding, error) {
	all, err := PreflightPrincipal(ctx, principal, cfg)
	if err != nil {
		return nil, err
	}
	if pair.First {
		found, err := PreflightMirror(ctx, copied, cfg)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	if unsupported(all) {
		return all, nil // it may not even understand the questions
	}
	content := MirrorEmpty
	if pair.Replace {
		content = MirrorReplaced
	}
	found, err := PreflightPair(ctx, principal, copied, content)
	return append(all, found...), err
}

func unsupported(findings []Finding) bool {
	return slices.ContainsFunc(findings, func(f Finding) bool { return f.Severity == Fatal && f.Code == CodeVersion })
}
