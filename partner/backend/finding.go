package backend

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/f19126b3/dbmirror/mirror"
)

// Examiner finds what stands in the way of a session, or leaves a gap in its promise. It only reads. Its errors are about
// the examination itself, not about what was found.
type Examiner interface {
	// Examine looks at this database as a principal or mirror to be.
	Examine(ctx context.Context, as mirror.Role) ([]Finding, error)
	// ExaminePair looks at both.
	ExaminePair(ctx context.Context, pair Pair) ([]Finding, error)
}

// Pair says what the two databases are to be to each other.
type Pair struct {
	Principal bool // this one is the principal's, the Peer's is the mirror's; otherwise the other way round
	First     bool // there is no session yet: the mirror is looked at as the principal that it may become, too
	Replace   bool // what the mirror's database holds may go; without it there must be nothing
}

// Severity says what a finding does to a session.
type Severity int

const (
	Info    Severity = iota + 1 // worth knowing, changes no promise
	Warning                     // the session can start; something is not mirrored, or a promise has a gap
	Fatal                       // the session must not start
)

// String names the severity in lower case.
func (s Severity) String() string {
	switch s {
	case Info:
		return "info"
	case Warning:
		return "warning"
	case Fatal:
		return "fatal"
	}
	return fmt.Sprintf("severity %d", int(s))
}

// Code names a kind of finding. Each backend has a closed list: programs may branch on it and alerts may count by it.
type Code string

// CodeConnect is what every backend has: the configuration does not lead to a database that answers.
const CodeConnect Code = "connect"

// Finding is what an examination found.
type Finding struct {
	Severity Severity
	Code     Code
	Server   string // "principal" or "mirror": where it was found, and where SQL is to be run
	Object   string // the table, role, setting or file, quoted as SQL where it is a name; may be empty
	Text     string // the cause, one sentence
	SQL      string // the statement that mends it; empty when no statement does
}

// String writes the finding on one line, the mend last.
func (f Finding) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s: %s", f.Severity, f.Server, f.Code)
	if f.Object != "" {
		fmt.Fprintf(&b, " (%s)", f.Object)
	}
	b.WriteString(": " + f.Text)
	if f.SQL != "" {
		b.WriteString("; mend: " + f.SQL)
	}
	return b.String()
}

// PreflightError is returned by Refuse when a session must not start. Findings holds the fatal findings only, at least
// one.
type PreflightError struct{ Findings []Finding }

func (e *PreflightError) Error() string {
	lines := make([]string, len(e.Findings))
	for i, f := range e.Findings {
		lines[i] = f.String()
	}
	return "preflight: " + strings.Join(lines, "\n")
}

// Reason is mirror.ReasonPreflight.
func (*PreflightError) Reason() mirror.Reason { return mirror.ReasonPreflight }

// Refuse returns nil when no finding is fatal, and otherwise one *PreflightError that names the cause and the mend of
// each that is.
func Refuse(findings []Finding) error {
	fatal := slices.DeleteFunc(slices.Clone(findings), func(f Finding) bool { return f.Severity != Fatal })
	if len(fatal) == 0 {
		return nil
	}
	return &PreflightError{Findings: fatal}
}
