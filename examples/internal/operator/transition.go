package operator

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/f19126b3/dbmirror/mirror"
)

// Transitions is a log that writes one line for each change of state or role: time, session, role, state or role
// sequence, and reason. It passes everything on to next.
func Transitions(w io.Writer, next slog.Handler) slog.Handler { return transitions{next, w, "-"} }

type transitions struct {
	slog.Handler
	w       io.Writer
	session string
}

// WithAttrs takes note of the session that a host logs for.
func (t transitions) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		if a.Key == "session" {
			t.session = a.Value.String()
		}
	}
	t.Handler = t.Handler.WithAttrs(attrs)
	return t
}

func (t transitions) WithGroup(name string) slog.Handler {
	t.Handler = t.Handler.WithGroup(name)
	return t
}

// Enabled lets changes through even where next would not hear them.
func (t transitions) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo
}

func (t transitions) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == mirror.EntryState.String() || r.Message == mirror.EntryRole.String() {
		if err := t.write(r); err != nil {
			return err
		}
	}
	if !t.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return t.Handler.Handle(ctx, r)
}

func (t transitions) write(r slog.Record) error {
	field := map[string]any{}
	r.Attrs(func(a slog.Attr) bool {
		field[a.Key] = a.Value.Any()
		return true
	})
	what := fmt.Sprintf("in role sequence %v", field["role_seq"])
	if r.Message == mirror.EntryState.String() {
		what = fmt.Sprint(field["to"])
	}
	_, err := fmt.Fprintf(t.w, "%s %s %v %s (%v)\n", r.Time.UTC().Format("2006-01-02T15:04:05.000Z"), t.session, field["role"], what, field["reason"])
	return err
}
